"""An audit of the rendered clip, whose truth is known: two people who walk up from 15 m to 1.4 m."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from edge_fr.audit.distance import Lens, half_size
from edge_fr.audit.figures import EYES_M
from edge_fr.audit.gathering import Gathering
from edge_fr.audit.pictures import Pictures
from edge_fr.audit.statements import changes, limits
from edge_fr.audit.tallies import COLUMNS, ROWS
from edge_fr.audit_command import judge_everyone
from edge_fr.errors import ModelNotFoundError
from edge_fr.networks import open_networks
from edge_fr.pipeline import Step, assemble, open_people
from edge_fr.quality import QualityPolicy
from edge_fr.runner import run
from edge_fr.stream import open_source
from edge_fr.structures import Frame
from samples.standoff_clip import FOCAL_PX, FPS, WIDTH, Truth, render
from samples.standoff_people import COLLINS, FACE_WIDTH_M, HOPPER

POLICY = QualityPolicy.without_index()  # of the clip's faces it refuses more for their size
LENS = Lens.of(2 * math.degrees(math.atan(WIDTH / 2 / FOCAL_PX)), WIDTH)


@dataclass(frozen=True)
class Look:
    """A look that the pipeline had, and the truth of the face it was at."""

    truth: Truth
    eyes_px: float  # of somebody with 63 mm between the eyes
    accepted: bool


@dataclass(frozen=True)
class Audited:
    gathering: Gathering
    looks: list[Look]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    path = tmp_path_factory.mktemp("audit") / "standoff.mp4"
    rows = render(path)
    try:
        networks = open_networks()
    except ModelNotFoundError as error:
        pytest.skip(str(error))
    gathering = Gathering(pictures=Pictures())
    looks: list[Look] = []

    def observe(frame: Frame, step: Step) -> None:
        gathering.observe(frame, step)
        for face in step.faces:
            x, y = (face.box[:2] + face.box[2:]) / 2
            truth = min(
                rows[2 * frame.index : 2 * frame.index + 2],
                key=lambda row: abs((row.box[0] + row.box[2]) / 2 - x),
            )
            assert truth.box[0] <= x <= truth.box[2]
            assert truth.box[1] <= y <= truth.box[3]
            looks.append(Look(truth, truth.width_px * EYES_M / FACE_WIDTH_M, not face.refusals))

    people = open_people(None, networks.embedder.card)
    stages = judge_everyone(networks)
    with (
        open_source(path) as source,
        assemble(networks, people, quality=POLICY, stages=stages, keeps_gallery=True) as pipeline,
    ):
        run(source, pipeline, sinks=[gathering], on_step=observe)
    gathering.finish()
    return Audited(gathering, looks)


def test_looks_people_and_frames_are_those_of_the_clip(clip: Audited) -> None:
    figures = clip.gathering.figures
    assert (figures.frames, figures.frame_size) == (125, (720, 1280))
    assert figures.looks == len(clip.looks)
    assert figures.accepted == sum(look.accepted for look in clip.looks)
    assert (figures.people, figures.recognizable, sum(figures.lost.values())) == (2, 2, 0)
    assert figures.fps == pytest.approx(FPS, rel=0.01)  # the container rounds a frame's time
    assert figures.source_fps == figures.fps


def test_it_takes_as_long_to_be_recognizable_as_it_really_took(clip: Audited) -> None:
    waits = []
    for walker in (COLLINS, HOPPER):
        frames = [look.truth.frame for look in clip.looks if look.truth.person == walker.name]
        good = [look.truth.frame for look in clip.looks if look.truth.person == walker.name and look.accepted]
        waits.append((good[0] - frames[0]) / FPS)
    told = clip.gathering.figures.wait_s
    assert told.total == 2
    for wait, share in zip(sorted(waits), (0.25, 0.75), strict=True):
        assert told.quantile(share) == pytest.approx(wait, rel=0.11)  # a bin is a tenth


def test_the_size_and_the_metres_said_are_those_that_part_the_looks_best(clip: Audited) -> None:
    clear = [look for look in clip.looks if not look.truth.blurred]  # those were refused at any size
    metres = np.array([FACE_WIDTH_M * FOCAL_PX / look.truth.width_px for look in clear])
    accepted = np.array([look.accepted for look in clear])
    candidates = np.geomspace(1.4, 15, 300)
    wrong = np.array([int((accepted != (metres <= far)).sum()) for far in candidates])
    # The two differ in how far away they are recognizable; between these it hardly matters where to part.
    best = candidates[wrong <= wrong.min() + 0.01 * len(clear)]
    figures = clip.gathering.figures
    sentence = next(s.text for s in limits(figures, LENS) if s.text.startswith("Below"))
    told_m = float(sentence.split("up to ")[1].split(" m away")[0])
    # A bin is a tenth, and these two have up to a tenth more than 63 mm between the eyes.
    assert 0.8 * best.min() <= told_m <= 1.2 * best.max()
    assert told_m == pytest.approx(LENS.distance_m(half_size(figures).px / EYES_M), abs=0.06)


def test_the_map_shows_each_look_where_it_was_and_how_large(clip: Audited) -> None:
    figures = clip.gathering.figures
    assert int(figures.maps["eyes_px"].counts.sum()) == len(clip.looks)
    cells: dict[tuple[int, int], list[Look]] = {}
    for look in clip.looks:
        x, y = (look.truth.box[0] + look.truth.box[2]) / 2, (look.truth.box[1] + look.truth.box[3]) / 2
        cells.setdefault((int(y / 720 * ROWS), int(x / 1280 * COLUMNS)), []).append(look)
    seen = {(int(row), int(column)) for row, column in np.argwhere(figures.maps["eyes_px"].counts)}
    for row, column in seen:  # a box's middle is not the truth's to the pixel, so a look may fall beside
        near = [cells.get((row + i, column + j), []) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        around = [look.eyes_px for looks in near for look in looks]
        assert around, (row, column)
        mean = figures.maps["eyes_px"].means[row, column]
        assert 0.8 * min(around) <= mean <= 1.2 * max(around)
    shares = figures.accepted_map
    far = [look for look in clip.looks if look.eyes_px < 8]
    near_cells = {cell for cell, looks in cells.items() if all(look.eyes_px > 25 for look in looks)}
    assert len(far) > 30
    assert np.nanmean([shares.means[cell] for cell in near_cells]) > 0.9


def test_recognizability_is_told_of_the_refused_too(clip: Audited) -> None:
    figures = clip.gathering.figures
    assert figures.measured["ri"].total == figures.looks
    assert figures.refused["inter_eye_distance"] > 30


def test_the_advice_is_to_zoom_because_both_were_recognizable_only_near(clip: Audited) -> None:
    (statement,) = changes(clip.gathering.figures)
    assert "recognizable late" in statement.text


def test_pictures_are_few_and_of_the_right_size(clip: Audited) -> None:
    pictures = clip.gathering.pictures
    assert pictures is not None
    assert len(pictures.best) == 2
    assert pictures.best[0].quality >= pictures.best[1].quality
    assert set(pictures.refused) == set(clip.gathering.figures.refused)
    assert all(len(sample.kept) <= 4 for sample in pictures.refused.values())
    small = pictures.refused["inter_eye_distance"].kept[0]
    assert small.eyes_px < 8
    assert small.reason.startswith("inter eye distance")
    assert pictures.backdrop is not None
