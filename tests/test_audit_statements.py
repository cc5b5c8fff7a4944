"""What an audit says of figures: each rule fires on its own figure, and says what it rests on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from edge_fr.audit.distance import LEAST_LOOKS, Lens, half_size
from edge_fr.audit.figures import EYES_M, Figures
from edge_fr.audit.statements import changes, limits
from edge_fr.audit.tables import distances, key_figures
from edge_fr.errors import InputError


def facing(figures: Figures, eyes_px: float, looks: int, accepted: int) -> None:
    """So many looks at people who face the camera."""
    figures.looks += looks
    figures.large += looks
    figures.accepted += accepted
    figures.facing_eyes_px.add([eyes_px] * looks)
    figures.facing_accepted_px.add([eyes_px] * accepted)
    figures.px_per_m.add([eyes_px / EYES_M] * looks)
    figures.measured["brightness"].add([120.0] * looks)


def good(people: int = 20) -> Figures:
    """A camera with nothing to change: everybody is 40 px between the eyes, and recognizable at once."""
    figures = Figures(frames=500, frame_size=(1080, 1920), seconds=50.0, followed=500, delivered=500)
    facing(figures, 40, looks=400, accepted=390)
    figures.people = figures.recognizable = people
    figures.wait_s.add([0.0] * people)
    figures.in_view_s.add([4.0] * people)
    return figures


def refused(component: str, share: float = 0.3) -> Figures:
    figures = good()
    figures.large_refused[component] = round(share * figures.large)
    return figures


def blurred(moving: int, still: int) -> Figures:
    """So many of 100 looks each."""
    figures = refused("sharpness")
    figures.moving.update({True: 100, False: 100})
    figures.moving_blurred.update({True: moving, False: still})
    return figures


def too_far() -> Figures:
    """Half of the looks need 20 px; five of twenty people had at most 10."""
    figures = good()
    facing(figures, 10, looks=100, accepted=0)
    facing(figures, 15, looks=100, accepted=10)
    figures.recognizable = 15
    figures.lost.update({"recognizability": 5})
    figures.lost_px.add([10.0] * 5)
    return figures


def late() -> Figures:
    figures = good()
    facing(figures, 10, looks=100, accepted=0)
    figures.wait_s.add([6.0] * 30)
    return figures


def coarse(count: int = 100) -> Figures:
    figures = good()
    facing(figures, 40, looks=count, accepted=0)
    figures.facing_coarse_px.add([40] * count)
    return figures


def dark() -> Figures:
    figures = good()
    figures.measured["brightness"].add([20.0] * 2 * figures.looks)
    return figures


def offline() -> Figures:
    figures = good()
    figures.live, figures.outages, figures.outage_reason = True, 3, "no frame within 10 s"
    return figures


def behind() -> Figures:
    figures = good()
    figures.live, figures.late = True, 100
    return figures


def slow() -> Figures:
    figures = good()
    figures.live, figures.followed, figures.delivered = True, 100, 1250
    return figures


def doubtful() -> Figures:
    figures = good()
    figures.people = 25
    figures.lost.update({"detection_confidence": 5})
    figures.lost_px.add([40.0] * 5)
    return figures


@pytest.mark.parametrize(
    ("figures", "text", "basis"),
    [
        (too_far, "zoom in 2.", "5 of 20 people never had the"),
        (late, "recognizable late", "half of them only after"),
        (dark, "too dark: more light", "67% of the faces are darker than 48 of 255"),
        (lambda: refused("under_exposure"), "too dark: more light", "30% of the 400 looks"),
        (lambda: refused("dynamic_range"), "too dark: more light", "refused for dynamic range"),
        (lambda: refused("over_exposure"), "burnt out: less exposure", "refused for over exposure"),
        (lambda: refused("sharpness"), "focus, then a shorter exposure", "too few looks to tell"),
        (lambda: blurred(60, 10), "a shorter exposure, with more light", "move across the picture 60%"),
        (lambda: blurred(40, 35), "soft even when nobody moves", "of the others 35%"),
        (lambda: refused("head_pose_pitch"), "nearer to eye height", "refused for head pose pitch"),
        (lambda: refused("head_pose_yaw"), "where they walk towards it", "refused for head pose yaw"),
        (lambda: refused("crop_of_the_face_image"), "cut off at the edge", "30% of the 400 looks"),
        (coarse, "a higher bitrate", "20% of the 500 looks"),
        (doubtful, "a region in the site's file", "5 of 25 people"),
        (offline, "went offline", "3 times; at last: no frame within 10 s"),
        (behind, "come too late", "100 of 600 were too old"),
        (slow, "too slow for this camera", "2.0 of 25.0 frames a second"),
    ],
)
def test_each_rule_fires_alone_and_says_its_figure(
    figures: Callable[[], Figures], text: str, basis: str
) -> None:
    (statement,) = changes(figures())
    assert text in statement.text
    assert basis in statement.basis


@pytest.mark.parametrize(
    "figures",
    [
        good,
        lambda: refused("sharpness", 0.1),
        lambda: refused("head_pose_yaw", 0.14),
        lambda: coarse(50),
    ],
)
def test_what_is_seldom_asks_for_no_change(figures: Callable[[], Figures]) -> None:
    (statement,) = changes(figures())
    assert (statement.text, statement.kind) == ("Nothing to change was found.", "good")


def test_the_zoom_asked_for_brings_the_lost_to_the_size_that_was_measured() -> None:
    figures = too_far()
    half = half_size(figures)
    (statement,) = changes(figures)
    factor = float(statement.text.split("zoom in ")[1].split()[0])
    assert factor == pytest.approx(half.px / 10, abs=0.1)  # told to a tenth, from bins of a tenth


def test_too_little_is_called_too_little() -> None:
    few = Figures(frames=30)
    facing(few, 40, looks=LEAST_LOOKS - 1, accepted=20)
    few.people = few.recognizable = 2
    few.wait_s.add([0.5, 0.5])
    (change,) = changes(few)
    assert (change.kind, "let it run longer" in change.text) == ("unsure", True)
    people, half = limits(few)
    assert (people.kind, half.kind) == ("unsure", "unsure")
    assert "only 2 people: too few" in people.basis
    assert "cannot be said yet" in half.text


def test_nobody_seen_is_no_praise() -> None:
    (statement,) = changes(Figures(frames=100))
    assert "No face was found" in statement.text
    assert limits(Figures(frames=100)) == []
    (flashes,) = changes(Figures(frames=100, unfollowed=7))
    assert (flashes.kind, flashes.basis) == ("act", "7 looks, none in a track")


def logistic(middle_px: float) -> Figures:
    """Looks from 4 to 60 px that are recognizable with a chance that rises through one half at a size."""
    rng = np.random.default_rng(1)
    eyes = np.exp(rng.uniform(np.log(4), np.log(60), 4000))
    accepted = rng.random(4000) < 1 / (1 + (middle_px / eyes) ** 4)
    figures = Figures(looks=4000)
    figures.facing_eyes_px.add(eyes)
    figures.facing_accepted_px.add(eyes[accepted])
    return figures


@pytest.mark.parametrize("middle_px", [8.0, 13.0, 24.0, 40.0])
def test_the_half_size_is_found_where_it_is(middle_px: float) -> None:
    half = half_size(logistic(middle_px))
    assert half.found == "here"
    # a bin is a tenth, and a chance of 0.5 is one of 0.45 to 0.55 in the bins beside it
    assert half.px == pytest.approx(middle_px, rel=0.15)
    assert half.looks_below + half.looks_above == 4000


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        ([(10, 29, 0)], "unknown"),
        ([(10, 30, 0)], "above"),
        ([(10, 30, 15)], "below"),
        ([(10, 30, 0), (30, 29, 29)], "unknown"),
        ([(10, 30, 0), (30, 30, 30)], "here"),
        ([(10, 30, 30), (30, 90, 0)], "above"),  # what falls with the size is taken together
    ],
)
def test_the_half_size_needs_looks_on_both_sides(looks: list[tuple[float, int, int]], found: str) -> None:
    figures = Figures()
    for eyes_px, count, accepted in looks:
        facing(figures, eyes_px, count, accepted)
    assert half_size(figures).found == found


def test_metres_follow_from_the_field_of_view() -> None:
    lens = Lens.of(90, 2000)  # a picture of 2000 px is 2 m wide at 1 m
    assert lens.distance_m(250) == pytest.approx(4)
    rows = distances(logistic(13.0), lens)
    assert rows[0][-1] == "up to"
    assert next(row for row in rows if row[0].startswith("identify"))[1:] == [
        "250",
        "15.8",
        "no looks",
        "4.0 m",
    ]
    measured = next(row for row in rows if "measured here" in row[0])
    assert float(measured[2]) == pytest.approx(half_size(logistic(13.0)).px, abs=0.05)
    assert len(distances(Figures(), None)[0]) == 4
    with pytest.raises(InputError, match="field of view is 180 degrees"):
        Lens.of(180, 1920)


def test_the_distance_sentence_says_up_to_where() -> None:
    figures = logistic(13.0)
    figures.people = 12
    text = limits(figures, Lens.of(90, 2000))[1].text
    px = half_size(figures).px
    assert f"Below {px:.0f} px between the eyes fewer than half" in text
    assert f"up to {1000 * EYES_M / px:.1f} m away" in text
    assert "m away" not in limits(figures)[1].text


def test_the_table_tells_what_there_is_and_leaves_out_what_was_not_measured() -> None:
    rows = dict(key_figures(good(), "file"))
    assert rows["frames a second"] == "10.0 from the source, 10.0 looked at"
    assert "from capture to event" not in rows
    live = offline()
    live.latency_ms.add([100.0] * 50 + [400.0] * 50)
    rows = dict(key_figures(live, "sender"))
    assert rows["times offline"] == "3, at last: no frame within 10 s"
    assert rows["from capture to event"].endswith("capture by the camera's clock")
    assert not any("nan" in value for value in rows.values())
    assert math.isnan(Figures().wait_s.quantile(0.5))


@pytest.mark.parametrize(
    ("turn", "how"), [(90, "lie on their side"), (180, "stand on their heads"), (270, "lie")]
)
def test_faces_that_lie_on_their_side_ask_for_a_turn_of_the_picture(turn: int, how: str) -> None:
    figures = good()
    figures.turns.update({0: 100, turn: 300})
    first = changes(figures)[0]
    assert first.kind == "act"
    assert first.text.startswith(f"Faces {how}")
    assert f"`rotate: {turn}` (--rotate {turn})" in first.text
    assert first.basis.startswith("in 300 of 400 frames")
    for few in ({0: 300, turn: 299}, {turn: 2}):
        figures.turns.clear()
        figures.turns.update(few)
        assert "rotate" not in changes(figures)[0].text
