"""What the figures say, in sentences for the person on the ladder: pure functions, stated rules.

Every sentence carries the figure it rests on. What there is too little data for is said to be so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_fr.audit.distance import CLASSES, LEAST_LOOKS, Lens, half_size
from edge_fr.audit.figures import EYES_M, LIGHT, Figures

LEAST_PEOPLE = 10  # fewer, and one of them is more than a tenth of a share
_OFTEN = 0.15  # of the looks that were large enough: from there on a change is worth the ladder
_LATE_S = 2.0  # by then `edge-fr run` has answered
_LEAST_TURNED = 3  # frames whose faces are recognizable after a turn
_FEW_LOST = 0.1  # of the people: what is left for chance


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence, what it rests on, and whether it is good news, asks for a change, or is unsure."""

    text: str
    basis: str
    kind: Literal["good", "plain", "act", "unsure"] = "plain"


def limits(figures: Figures, lens: Lens | None = None) -> list[Statement]:
    """What the camera can and cannot do; nothing where nobody was seen."""
    if figures.looks == 0:
        return []
    return [*_people(figures), *_half(figures, lens), *_density(figures, lens)]


def changes(figures: Figures) -> list[Statement]:
    """What to change at the camera, most pressing first; one sentence that all is well if nothing is."""
    if figures.looks == 0:
        return [_upright(figures) or _nobody(figures)]
    rules = (
        *(
            _upright,
            _nearer,
            _earlier,
            _brighter,
            _darker,
            _sharper,
            _coarse,
            _lower,
            _towards,
            _inside,
            _doubtful,
        ),
        *(_steady, _lagging),
    )
    found = [statement for rule in rules if (statement := rule(figures)) is not None]
    if found:
        return found
    if figures.people < LEAST_PEOPLE or figures.looks < LEAST_LOOKS:
        seen = f"{_count(figures.people, 'person', 'people')}, {_count(figures.looks, 'look', 'looks')}"
        return [
            Statement("Nothing to change was found, but little was seen: let it run longer.", seen, "unsure")
        ]
    return [
        Statement("Nothing to change was found.", f"{figures.people} people, {figures.looks} looks", "good")
    ]


# --- what it can do ---


def _people(figures: Figures) -> list[Statement]:
    if figures.people == 0:
        return []
    share = figures.recognizable / figures.people
    text = f"{figures.recognizable} of {_count(figures.people, 'person', 'people')} became recognizable"
    if figures.recognizable:
        wait_s = figures.wait_s.quantile(0.5)
        text += f", half of them within {wait_s:.1f} s of the first look" if wait_s >= 0.1 else ""
    basis = f"{share:.0%} of the people; the others were never good enough for the quality gate"
    if figures.people < LEAST_PEOPLE:
        basis = f"only {_count(figures.people, 'person', 'people')}: too few for a share to rely on"
        return [Statement(text + ".", basis, "unsure")]
    return [Statement(text + ".", basis, "good" if share >= 1 - _FEW_LOST else "plain")]


def _half(figures: Figures, lens: Lens | None) -> list[Statement]:
    half = half_size(figures)
    if half.found == "unknown":
        text = "How large a face must be for this camera cannot be said yet: let it run longer."
        few = f"{half.looks_below} looks below and {half.looks_above} above"
        return [Statement(text, f"{few}; {LEAST_LOOKS} of each are needed", "unsure")]
    looks = half.looks_below + half.looks_above
    basis = f"{looks} looks at faces that were not turned away or cut off, of {_tracks(figures)}"
    if half.found == "below":
        text = f"At every size seen, from {half.px:.0f} px between the eyes, most looks were recognizable."
        return [Statement(text, basis, "good")]
    if half.found == "above":
        text = f"At no size seen, up to {half.px:.0f} px between the eyes, were most looks recognizable."
        return [Statement(text, basis)]
    per_m = half.px / EYES_M
    text = (
        f"Below {half.px:.0f} px between the eyes fewer than half of the looks were recognizable: "
        f"faces need {per_m:.0f} px per metre"
    )
    text += f", and have them up to {lens.distance_m(per_m):.1f} m away." if lens else "."
    return [
        Statement(text, f"{half.looks_below} looks below, {half.looks_above} above, of {_tracks(figures)}")
    ]


def _density(figures: Figures, lens: Lens | None) -> list[Statement]:
    seen = figures.px_per_m
    if seen.total < LEAST_LOOKS:
        return []
    low, middle, high = (seen.quantile(share) for share in (0.1, 0.5, 0.9))
    reached = [name for name, least in CLASSES if middle >= least]
    what = f"enough to {reached[-1]}" if reached else "too little even to detect"
    text = f"Where faces were found the picture has {low:.0f} to {high:.0f} px per metre; the middle one, "
    text += f"{middle:.0f}, is {what} by EN 62676-4."
    if lens:
        text += f" The faces were {lens.distance_m(high):.1f} to {lens.distance_m(low):.1f} m away."
    basis = f"{seen.total} looks without the tenth at each end; {1e3 * EYES_M:.0f} mm between the eyes"
    return [Statement(text, basis)]


# --- what to change ---


def _nobody(figures: Figures) -> Statement:
    if figures.unfollowed:
        text = "Faces flashed up but none could be followed: too few frames a second, or patterns like faces."
        return Statement(text, f"{figures.unfollowed} looks, none in a track", "act")
    text = "No face was found. Did anybody pass? From behind, in the dark, or under 12 px wide none is found."
    return Statement(text, f"{figures.frames} frames", "unsure")


def _upright(figures: Figures) -> Statement | None:
    """The camera hangs on its side: most faces lie so."""
    turn, count = max(((t, n) for t, n in figures.turns.items() if t), key=lambda x: x[1], default=(0, 0))
    if count < _LEAST_TURNED or count <= figures.turns.total() / 2:
        return None
    lie = "stand on their heads" if turn == 180 else "lie on their side"
    text = f"Faces {lie}: turn the camera, or its pictures with `rotate: {turn}` (--rotate {turn})."
    basis = (
        f"in {count} of {figures.turns.total()} frames that were tried in all turns they are recognizable so"
    )
    return Statement(text, basis, "act")


def _nearer(figures: Figures) -> Statement | None:
    """Too small: a tenth of the people never became recognizable, nor came as near as it takes."""
    need, measured = _need_px(figures)
    small = figures.lost_px.total - figures.lost_px.total_from(need)
    if small == 0 or small <= _FEW_LOST * figures.people:
        return None
    reached = figures.lost_px.quantile(0.5 * small / figures.lost_px.total)
    text = f"Faces are too small: zoom in {need / reached:.1f} times, or bring the camera as much closer."
    whose = "it takes here" if measured else "EN 62676-4 asks for to identify"
    basis = (
        f"{small} of {_count(figures.people, 'person', 'people')} never had the {need:.0f} px between the "
        f"eyes that {whose}; half of those had at most {reached:.0f} px"
    )
    return Statement(text, basis, "act")


def _earlier(figures: Figures) -> Statement | None:
    """Large enough only in the end."""
    wait_s, half = figures.wait_s.quantile(0.5), half_size(figures)
    if half.found != "here" or not wait_s > _LATE_S:
        return None
    text = "People are recognizable late, only when near: twice the zoom doubles the distance."
    basis = f"half of them only after {wait_s:.1f} s; it takes {half.px:.0f} px between the eyes"
    return Statement(text, basis, "act")


def _doubtful(figures: Figures) -> Statement | None:
    """What the detector itself is not sure of."""
    lost = figures.lost["detection_confidence"]
    if lost == 0 or lost <= _FEW_LOST * figures.people:
        return None
    text = (
        "Some of what was taken for faces is hidden or no face at all: see the examples. What hangs on a "
        "wall is left out with a region in the site's file."
    )
    return Statement(text, f"{lost} of {_count(figures.people, 'person', 'people')}", "plain")


def _brighter(figures: Figures) -> Statement | None:
    dark = 1 - figures.measured["brightness"].share_from(48.0)
    refused = _often(figures, *LIGHT)
    if refused is None and not (figures.looks >= LEAST_LOOKS and dark > 0.5):
        return None
    text = (
        "Faces are too dark: more light on the faces, or a wider aperture; a longer exposure blurs who walks."
    )
    return Statement(text, refused or f"{dark:.0%} of the faces are darker than 48 of 255 grey levels", "act")


def _darker(figures: Figures) -> Statement | None:
    refused = _often(figures, "over_exposure")
    if refused is None:
        return None
    text = "Faces are burnt out: less exposure, or turn on the camera's exposure for faces (WDR, backlight)."
    return Statement(text, refused, "act")


def _sharper(figures: Figures) -> Statement | None:
    """Blurred: of those who move, it is the exposure; of those who do not, the focus or the encoder."""
    refused = _often(figures, "sharpness")
    if refused is None:
        return None
    moving, still = (
        figures.moving_blurred[state] / figures.moving[state]
        if figures.moving[state] >= LEAST_LOOKS
        else None
        for state in (True, False)
    )
    if moving is None or still is None:
        text = "Faces are blurred: check the focus, then a shorter exposure, then a higher bitrate."
        return Statement(text, f"{refused}; too few looks to tell movement from focus", "act")
    basis = f"{refused}; of faces that move across the picture {moving:.0%}, of the others {still:.0%}"
    if moving > 2 * still:
        return Statement("Faces are blurred by movement: a shorter exposure, with more light.", basis, "act")
    text = "Faces are soft even when nobody moves: check the focus and the lens, then a higher bitrate."
    return Statement(text, basis, "act")


def _lower(figures: Figures) -> Statement | None:
    refused = _often(figures, "head_pose_pitch")
    text = "Faces are seen from above or below: mount the camera nearer to eye height, or farther off."
    return None if refused is None else Statement(text, refused, "act")


def _towards(figures: Figures) -> Statement | None:
    refused = _often(figures, "head_pose_yaw")
    text = "People look past the camera: put it where they walk towards it, or where they have to look."
    return None if refused is None else Statement(text, refused, "act")


def _inside(figures: Figures) -> Statement | None:
    refused = _often(figures, "crop_of_the_face_image")
    text = "Faces are cut off at the edge of the picture: turn the camera towards them."
    return None if refused is None else Statement(text, refused, "act")


def _coarse(figures: Figures) -> Statement | None:
    """Much larger than it takes, and yet nothing to recognize: covered, or smeared by the encoder."""
    least = 1.5 * _need_px(figures)[0]
    large = figures.facing_eyes_px.total_from(least)
    coarse = figures.facing_coarse_px.total_from(least)
    if large < LEAST_LOOKS or coarse < _OFTEN * large:
        return None
    text = (
        "Faces that are large enough still have too little in them: see the examples. If they are blocky or "
        "smeared: a higher bitrate, less noise reduction. If they are covered, nothing at the camera helps."
    )
    basis = f"{coarse / large:.0%} of the {large} looks with {least:.0f} px between the eyes or more"
    return Statement(text, basis, "act")


def _steady(figures: Figures) -> Statement | None:
    if figures.outages == 0:
        return None
    text = "The camera went offline: check its power and network."
    return Statement(
        text, f"{_count(figures.outages, 'time', 'times')}; at last: {figures.outage_reason}", "act"
    )


def _lagging(figures: Figures) -> Statement | None:
    """Frames that this machine could not take, or that came late."""
    if not figures.live:
        return None
    if figures.frames and figures.late > 0.05 * (figures.frames + figures.late):
        text = "Frames come too late: shorten the camera's own buffer, or use a wired network."
        return Statement(text, f"{figures.late} of {figures.frames + figures.late} were too old", "act")
    if 0 < figures.fps < 5 and figures.source_fps > 2 * figures.fps:
        text = "This machine is too slow for this camera: a smaller picture, or a faster machine."
        return Statement(
            text, f"{figures.fps:.1f} of {figures.source_fps:.1f} frames a second were looked at", "act"
        )
    return None


def _often(figures: Figures, *components: str) -> str | None:
    """What a rule rests on if one of the components stands against many large enough looks, else None."""
    if figures.large < LEAST_LOOKS:
        return None
    worst = max(components, key=lambda name: figures.large_refused[name])
    share = figures.large_refused[worst] / figures.large
    if share < _OFTEN:
        return None
    return f"{share:.0%} of the {figures.large} looks that were large enough were refused for {spoken(worst)}"


def _need_px(figures: Figures) -> tuple[float, bool]:
    """The pixels between the eyes that half of the looks need, and whether that was measured here."""
    half = half_size(figures)
    return (half.px, True) if half.found == "here" else (dict(CLASSES)["identify"] * EYES_M, False)


def spoken(component: str) -> str:
    """A component's name as it is read."""
    return component.replace("_", " ")


def _tracks(figures: Figures) -> str:
    few = (
        f", fewer than {LEAST_PEOPLE}: let it run longer to rely on it"
        if figures.people < LEAST_PEOPLE
        else ""
    )
    return _count(figures.people, "person", "people") + few


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
