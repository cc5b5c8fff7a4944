"""The evaluation as a whole: what is compared with what, what the report says, what the command does."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from drawn_people import (
    CELLS,
    bin_content,
    detector_of,
    ijb_folder,
    lfw_folder,
    recognizer,
    scface_folder,
    tinyface_folder,
    write,
)
from fakes import FakeEngine, Feeds, card, spec
from matplotlib.axes import Axes
from numpy.typing import NDArray
from onnx import helper
from onnx_files import save, tensor

from calibration.__main__ import main
from calibration.cards import change_card
from calibration.conditions import captured, degrade
from calibration.datasets import open_dataset
from calibration.datasets.dataset import Dataset, PairList
from calibration.discard import SHARES, reliability
from calibration.evaluate import Recognition, embeddings_needed, evaluate
from calibration.metrics import Pairs, Ranked, verification
from calibration.plots import draw, pictures
from calibration.quality_scores import quality_scores
from calibration.report import headlines, lines, to_json
from edge_fr.cards import read_card
from edge_fr.embed import Embedder
from edge_fr.engine import open_engine
from edge_fr.errors import InputError
from edge_fr.image import TEMPLATE


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(f"lfw:{lfw_folder(tmp_path_factory.mktemp('lfw'))}")


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same people in 100 genuine and 100 impostor pairs, so that there is a TAR at a FAR of 1e-2."""
    return open_dataset(f"lfw:{lfw_folder(tmp_path_factory.mktemp('larger'), folds=10, half=10)}")


def test_the_condition_falls_on_the_second_picture_of_a_pair_only(lfw: Dataset) -> None:
    embedder = recognizer()
    (found,) = evaluate(lfw, [embedder], ["clean", "px8"], draws=2)
    assert lfw.pairs is not None
    for condition in ("clean", "px8"):
        scores = [
            embedder.embed(np.stack([lfw.read(i), degrade(lfw.read(j), condition, lfw.names[j])])).vectors
            for i, j in zip(lfw.pairs.first, lfw.pairs.second, strict=True)
        ]
        pairs = found.conditions[condition].pairs
        assert pairs is not None
        # float32 sums in batches of other sizes
        assert pairs.scores == pytest.approx([first @ second for first, second in scores], abs=1e-5)
        assert found.conditions[condition].figures["auc"].value == verification(pairs, draws=1)["auc"].value


def test_identification_degrades_the_probes_and_leaves_the_gallery(lfw: Dataset) -> None:
    embedder = recognizer()
    (found,) = evaluate(lfw, [embedder], ["mask"], draws=2)
    searches = found.conditions["mask"].searches["all"]
    lookup = lfw.lookup
    assert lookup is not None
    assert lfw.people is not None
    probe = int(lookup.probes["all"][0])
    (own,) = [i for i in lookup.gallery if lfw.people[i] == lfw.people[probe]]
    masked = degrade(lfw.read(probe), "mask", lfw.names[probe])
    first, second = embedder.embed(np.stack([lfw.read(own), masked])).vectors
    assert searches.own[0] == pytest.approx(first @ second, abs=1e-5)  # as above
    assert len(searches.strangers) == 2


def test_masks_and_sizes_make_recognition_worse_and_the_better_recognizer_wins(lfw: Dataset) -> None:
    conditions = ["clean", "mask", "px4", "px2", "mask+px4"]
    good, poor = evaluate(lfw, [recognizer(), recognizer(noise=400)], conditions, draws=50)

    def genuine(condition: str) -> float:
        pairs = good.conditions[condition].pairs
        assert pairs is not None
        return float(pairs.scores[pairs.same].mean())

    assert genuine("clean") > genuine("mask") > genuine("mask+px4")
    assert genuine("clean") > genuine("px4") > genuine("px2")
    assert genuine("px4") > genuine("mask+px4")

    def auc(recognition: Recognition, condition: str) -> float:
        return recognition.conditions[condition].figures["auc"].value

    assert auc(good, "clean") == 1
    assert auc(good, "px2") < 1
    assert auc(poor, "clean") < 1
    difference = poor.conditions["clean"].figures["auc"] - good.conditions["clean"].figures["auc"]
    assert difference.interval[1] < 0


def test_one_recognizer_gets_the_same_figures_alone_and_in_company(lfw: Dataset) -> None:
    (alone,) = evaluate(lfw, [recognizer(ri=True)], ["px8"], draws=5)
    _, second = evaluate(lfw, [recognizer("base", noise=50), recognizer(ri=True)], ["clean", "px8"], draws=5)
    figures = alone.conditions["px8"].figures
    for name, figure in second.conditions["px8"].figures.items():
        assert figure.value == figures[name].value
        assert np.array_equal(figure.draws, figures[name].draws)


def test_progress_adds_up_to_the_embeddings_announced(lfw: Dataset) -> None:
    told: list[int] = []
    conditions = ["clean", "as is", "px16", "mask", "px16"]
    evaluate(lfw, [recognizer(), recognizer()], conditions, draws=1, advance=told.append)
    assert sum(told) == 2 * embeddings_needed(lfw, conditions)
    assert sum(told) < 2 * 3 * len(lfw.names)  # what is only enrolled is not degraded


def test_an_unknown_condition_is_refused_before_anything_is_embedded(lfw: Dataset) -> None:
    told: list[int] = []
    with pytest.raises(InputError, match="unknown condition 'fog'"):
        evaluate(lfw, [recognizer()], ["clean", "px8+fog"], advance=told.append)
    with pytest.raises(InputError, match="draws is 0, expected at least 1"):
        evaluate(lfw, [recognizer()], ["clean"], draws=0, advance=told.append)
    assert told == []


# Error versus discard


def test_the_quality_of_a_pair_is_the_lower_of_its_two_pictures(lfw: Dataset) -> None:
    embedder = recognizer(noise=60, ri=True)
    (found,) = evaluate(lfw, [embedder], ["px4", "clean"], draws=2)
    assert lfw.pairs is not None
    genuine = np.flatnonzero(lfw.pairs.same)
    quality, failed = [], []
    highest = []
    for measured in found.conditions.values():
        assert measured.pairs is not None
        highest.append(measured.pairs.scores[~lfw.pairs.same].max())
    assert highest[1] > highest[0]  # so that it matters that both conditions set the threshold
    threshold = highest[1]  # of 24 impostor pairs none may pass at a rate of 1 %
    for condition in ("px4", "clean"):
        pairs = found.conditions[condition].pairs
        assert pairs is not None
        for i in genuine:
            first = lfw.read(lfw.pairs.first[i])
            j = lfw.pairs.second[i]
            both = embedder.embed(np.stack([first, degrade(lfw.read(j), condition, lfw.names[j])]))
            assert both.ri is not None
            quality.append(both.ri.min())
            failed.append(pairs.scores[i] <= threshold)
    order = np.argsort(quality)
    kept = np.array(failed)[order]
    curve = found.discards["ri"]
    assert 0 < kept.mean() < 1
    for share in (0.0, 0.1, 0.25, 0.3, 0.5):  # the 24 pairs are discarded one by one
        assert curve.rate_at(share) == pytest.approx(kept[int(share * len(kept)) :].mean())


def test_every_quality_score_has_its_curve_and_none_beats_the_oracle(lfw: Dataset) -> None:
    embedders = [recognizer("base", noise=20), recognizer(noise=20, ri=True)]
    without, with_ri = evaluate(lfw, embedders, ["clean", "px2", "px4"], draws=20)
    assert set(without.discards) == {"embedding_norm", "face_size", "quality_gate", "oracle"}
    others = {"embedding_norm", "base_norm", "face_size", "quality_gate"}
    assert set(with_ri.discards) == {"ri", *others, "oracle"}
    assert without.ri_area_ratios == {}
    assert set(with_ri.ri_area_ratios) == others
    for name, discard in with_ri.discards.items():
        assert discard.rates[0] > 0
        assert discard.area.value >= with_ri.discards["oracle"].area.value, name
    ratio = with_ri.ri_area_ratios["face_size"].value
    ri, size = with_ri.discards["ri"].area.value, with_ri.discards["face_size"].area.value
    assert ratio == pytest.approx(ri / size)
    # two thirds of the pairs are tiny, and the size says which
    assert with_ri.discards["face_size"].area.value < with_ri.discards["face_size"].rates[0]


def test_the_share_matched_is_told_by_tenths_of_the_quality() -> None:
    scores = np.array([0.1, 0.6, 0.7, 0.2, 0.9, 0.9])
    quality = np.array([0.0, 0.05, 0.1, 0.19, 0.95, 1.0])
    assert reliability(scores, quality, 0.6) == [(0.0, 0.1, 2, 0.5), (0.1, 0.2, 2, 0.5), (0.9, 1.0, 2, 1.0)]


def test_what_an_ri_promises_needs_a_card_that_says_the_threshold(lfw: Dataset) -> None:
    # so low that both genuine and impostor pairs lie on either side of it
    embedders = [recognizer(noise=20, ri=True), recognizer(noise=20, ri=True, threshold=0.1)]
    silent, promising = evaluate(lfw, embedders, ["clean", "px2"], draws=1)
    assert silent.reliability == []
    assert not any("ri_reliability" in key for key in to_json(lfw, [silent]) if key != "ri_reliability_fmr")
    assert "one false match" not in "\n".join(lines(lfw, [silent]))
    pairs = [m.pairs for m in promising.conditions.values() if m.pairs is not None]
    genuine = np.concatenate([p.scores[p.same] for p in pairs])
    assert sum(row.pairs for row in promising.reliability) == len(genuine)
    matched = sum(row.pairs * row.matched for row in promising.reliability)
    assert 0 < matched < len(genuine)
    assert matched == pytest.approx((genuine >= 0.1).sum())
    report = to_json(lfw, [promising])
    assert [row["pairs"] for row in report["ri_reliability"]] == [row.pairs for row in promising.reliability]
    impostors = np.concatenate([p.scores[~p.same] for p in pairs])
    assert 0 < (impostors >= 0.1).mean() < 1
    assert report["ri_reliability_found_fmr"] == round((impostors >= 0.1).mean(), 6)
    text = list(lines(lfw, [promising]))
    told = [line for line in text if "reach the card's score for one false match in 10,000" in line]
    assert len(told) == len(report["ri_reliability"])
    rate = f"{(impostors >= 0.1).mean():.6f}"
    assert text[text.index(told[-1]) + 1].endswith(f"{rate} of {len(impostors)} reach it")


def test_an_embedding_that_leaves_with_unit_length_says_nothing_by_its_norm(lfw: Dataset) -> None:
    drawn = recognizer(noise=20, ri=True)

    def unit(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        crops = np.asarray(feeds["x"].transpose(0, 2, 3, 1)[..., ::-1].round(), np.uint8)
        found = drawn.embed(crops)
        assert found.ri is not None
        return {"embedding": found.vectors, "ri": found.ri}

    size = drawn.card.embedding_size
    engine = FakeEngine(unit, drawn.card, outputs=(spec("embedding", None, size), spec("ri", None)))
    base, alone = evaluate(lfw, [drawn, Embedder(engine)], ["px2", "px4"], draws=2)
    assert "embedding_norm" in base.discards
    assert "embedding_norm" not in alone.discards
    assert alone.discards["base_norm"].rates.tolist() == base.discards["embedding_norm"].rates.tolist()
    _, after_unit = evaluate(lfw, [Embedder(engine), drawn], ["px2", "px4"], draws=2)
    assert "base_norm" not in after_unit.discards


def test_a_smaller_face_has_less_quality() -> None:
    photo = np.ascontiguousarray(skimage.data.astronaut()[20:240, 110:330, ::-1])
    crop = np.asarray(cv2.resize(photo, (112, 112), interpolation=cv2.INTER_AREA), np.uint8)
    scores = [quality_scores(captured(crop, c, "a"), None) for c in ("clean", "px24", "px8")]
    assert [row["face_size"] for row in scores] == pytest.approx([78, 78 * 24 / 112, 78 * 8 / 112])
    gate = [row["quality_gate"] for row in scores]
    assert gate[0] > gate[1] > gate[2] > 0
    assert "detector_score" not in scores[0]


def test_the_detector_s_score_counts_only_for_the_face_itself() -> None:
    picture = np.zeros((150, 150, 3), np.uint8)
    here = TEMPLATE * np.float32(150 / 112)
    assert quality_scores(picture, detector_of(here))["detector_score"] == pytest.approx(0.9)
    assert quality_scores(picture, detector_of(here + 90))["detector_score"] == 0
    assert quality_scores(picture, detector_of(None))["detector_score"] == 0


# The other forms


def test_a_bin_file_gives_verification_without_identification(tmp_path: Path) -> None:
    path = tmp_path / "calfw.bin"
    path.write_bytes(pickle.dumps(bin_content()))
    dataset = open_dataset(f"bin:{path}")
    (found,) = evaluate(dataset, [recognizer()], ["clean", "mask"], draws=10)
    report = to_json(dataset, [found])
    assert report["conditions"]["clean"]["auc"]["value"] == 1
    assert "identification" not in report["conditions"]["mask"]
    assert report["dataset"]["pairs"] == 4
    assert report["intervals"] == {"draws": 10, "drawn": "pairs"}


def test_tinyface_and_scface_give_ranks_by_group_and_no_pairs(tmp_path: Path) -> None:
    dataset = open_dataset(f"tinyface:{tinyface_folder(tmp_path / 'tiny')}")
    report = to_json(dataset, evaluate(dataset, [recognizer()], dataset.conditions))
    found = report["conditions"]["as is"]
    all_found = {"value": 1, "interval": [1, 1]}
    ranks = dict.fromkeys(("rank1", "rank5", "rank20"), all_found)
    assert found == {"identification": {"all": {"probes": 3, **ranks}}}
    assert report["intervals"] == {"draws": 400, "drawn": "identities"}
    assert report["dataset"]["gallery"] == 8
    assert report["edc"] == {}
    dataset = open_dataset(f"scface:{scface_folder(tmp_path / 'sc')}")
    report = to_json(dataset, evaluate(dataset, [recognizer()], dataset.conditions))
    groups = report["conditions"]["as is"]["identification"]
    assert list(groups) == ["distance 1", "distance 2", "distance 3"]
    assert groups["distance 2"]["probes"] == 10


def test_survface_reports_misses_at_the_rates_of_its_paper(tmp_path: Path) -> None:
    base = tmp_path / "Face_Identification_Test_Set"
    for person in ("1", "2"):
        write(base / "gallery" / f"{person}_cam1_1.jpg", person, 1)
        write(base / "mated_probe" / f"{person}_cam2_1.jpg", person, 2)
        for number in (1, 2):
            write(base / "unmated_probe" / f"{person}{number}_cam1_1.jpg", f"stranger {person}", number)
    dataset = open_dataset(f"survface:{tmp_path}")
    report = to_json(dataset, evaluate(dataset, [recognizer()], dataset.conditions))
    found = report["conditions"]["as is"]["identification"]["all"]
    # four strangers cannot tell a rate of 20 % from none
    assert [name for name in found if "fpir" in name] == ["fnir_at_fpir_3e-1_within_rank20"]
    assert found["fnir_at_fpir_3e-1_within_rank20"] == {"value": 0, "interval": [0, 0]}
    assert report["dataset"]["strangers"] == 4


def test_a_template_is_the_sum_over_media_of_their_mean_raw_embedding(tmp_path: Path) -> None:
    dataset = open_dataset(f"ijb:{ijb_folder(tmp_path)}")
    embedder = recognizer()
    (found,) = evaluate(dataset, [embedder], dataset.conditions, draws=5)
    rows = embedder.embed(np.stack([dataset.read(i) for i in range(7)]))
    raw = rows.vectors * rows.norms[:, None] * np.arange(0.90, 0.97, 0.01)[:, None]
    fused = [raw[0], raw[1] + raw[2], raw[3], (raw[4] + raw[5]) / 2 + raw[6]]
    units = [vector / np.linalg.norm(vector) for vector in fused]
    pairs = found.conditions["as is"].pairs
    assert pairs is not None
    expected = [units[i] @ units[j] for i, j in ((0, 1), (2, 3), (0, 2), (1, 3))]
    assert pairs.scores == pytest.approx(expected, abs=1e-5)  # float32
    assert set(found.conditions["as is"].figures) == {"auc"}  # two impostor pairs, and no folds
    assert found.discards == {}


def test_a_degraded_template_set_degrades_the_second_templates(tmp_path: Path) -> None:
    dataset = open_dataset(f"ijb:{ijb_folder(tmp_path)}")
    (found,) = evaluate(dataset, [recognizer()], ["clean", "px4"], draws=2)
    clean, poor = (found.conditions[c].pairs for c in ("clean", "px4"))
    assert clean is not None
    assert poor is not None
    assert embeddings_needed(dataset, ["px4"]) == 7 + 6  # the first template is never the second of a pair
    assert (np.abs(clean.scores - poor.scores) > 1e-3).all()


# The report


def test_the_report_names_model_and_data_and_gives_every_figure_its_interval(larger: Dataset) -> None:
    recognitions = evaluate(larger, [recognizer(ri=True)], ["clean", "mask+px24"], draws=20)
    report = json.loads(json.dumps(to_json(larger, recognitions)))
    assert report["model"] == {"name": "drawn", "weights_digest": "sha256:drawn", "precision": "fp32"}
    assert report["dataset"]["digest"] == larger.digest
    assert report["intervals"] == {"draws": 20, "drawn": "identities"}
    assert list(report["conditions"]) == ["clean", "mask+px24"]
    for condition in report["conditions"].values():
        searched = condition.pop("identification")["all"]
        assert (condition.pop("genuine_pairs"), condition.pop("impostor_pairs")) == (100, 100)
        assert searched.pop("probes") == 30
        assert set(condition) == {"accuracy", "auc", "tar_at_far_1e-2"}
        assert set(searched) == {"rank1", "rank5"}
        for figure in (*condition.values(), *searched.values()):
            low, high = figure["interval"]
            assert 0 <= low <= high <= 1
            assert 0 <= figure["value"] <= 1
    for row in report["edc"].values():
        assert set(row) >= {"area", "fnmr_at_0", "fnmr_at_0.1", "fnmr_at_0.5"}
    assert "ri_area_over_this" in report["edc"]["embedding_norm"]
    assert report["others"] == []
    assert report["detector"] is None
    detector = detector_of(None).card
    assert to_json(larger, recognitions, detector)["detector"]["name"] == detector.name


def test_too_few_impostor_pairs_for_a_far_are_told_instead_of_a_tar(lfw: Dataset) -> None:
    pairs = lfw.pairs
    assert pairs is not None
    assert pairs.folds is not None
    fewer = PairList(pairs.first[:-2], pairs.second[:-2], pairs.same[:-2], pairs.folds[:-2])
    lfw = replace(lfw, pairs=fewer)
    recognitions = evaluate(lfw, [recognizer("base"), recognizer("ours")], ["clean"], draws=2)
    report = to_json(lfw, recognitions)
    assert report["conditions"]["clean"]["genuine_pairs"] == 12
    assert report["conditions"]["clean"]["impostor_pairs"] == 10
    assert "tar_at_far_1e-2" not in report["conditions"]["clean"]
    assert set(report["others"][0]["difference"]["clean"]) == {"auc", "accuracy"}
    told = [line for line in lines(lfw, recognitions) if line.startswith("  clean")]
    assert len(told) == 2
    for line in told:
        assert "10 impostor pairs are too few for a FAR of 1e-2" in line
        assert "change" not in line
    assert list(headlines("LFW", recognitions[1])) == ["LFW/clean/auc"]


def test_how_large_a_face_is_after_px_is_told_once(lfw: Dataset) -> None:
    embedders = [recognizer("base"), recognizer("ours")]
    text = list(lines(lfw, evaluate(lfw, embedders, ["px8", "px4"], draws=2)))
    # a box of 78 px and eyes 35.2 px apart in a crop of 112 px
    size = "pxN: the aligned crop is N px wide, the face in it 0.70 N, its eyes 0.31 N apart"
    assert [line for line in text if line.startswith("pxN")] == [size]
    assert "pxN" not in "\n".join(lines(lfw, evaluate(lfw, [recognizer()], ["mask"], draws=2)))


def test_further_recognizers_are_reported_with_their_difference_from_the_first(larger: Dataset) -> None:
    recognitions = evaluate(larger, [recognizer("base", noise=400), recognizer("ours")], ["clean"], draws=50)
    report = to_json(larger, recognitions)
    assert report["model"]["name"] == "base"
    (other,) = report["others"]
    assert other["model"]["name"] == "ours"
    difference = other["difference"]["clean"]["auc"]
    expected = other["conditions"]["clean"]["auc"]["value"] - report["conditions"]["clean"]["auc"]["value"]
    assert difference["value"] == pytest.approx(expected, abs=2e-5)  # five digits each
    assert 0 < difference["interval"][0] < difference["interval"][1]
    text = "\n".join(lines(larger, recognitions))
    assert re.search(r"ours fp32 on LFW\n  clean .* change \+0\.\d+ \[", text)


def test_a_recognizer_of_the_same_weights_is_reported_with_how_far_its_answers_moved(lfw: Dataset) -> None:
    embedders = [
        recognizer("ours", ri=True),
        recognizer("smaller", noise=20, ri=True, weights="ours"),
        recognizer("another", noise=20, ri=True),
    ]
    found = evaluate(lfw, embedders, ["clean", "px4"], draws=2)
    smaller, another = to_json(lfw, found)["others"]
    assert lfw.pairs is not None
    assert lfw.lookup is not None
    probes = [lfw.pairs.second, lfw.lookup.probes["all"], lfw.lookup.strangers]
    shown = {"clean": np.arange(len(lfw.names)), "px4": np.unique(np.concatenate(probes))}
    for condition, numbers in shown.items():
        crops = np.stack([degrade(lfw.read(i), condition, lfw.names[i]) for i in numbers])
        one, other = (embedder.embed(crops) for embedder in embedders[:2])
        assert smaller["drift"][condition]["faces"] == len(numbers)
        cosine = (one.vectors * other.vectors).sum(axis=1).mean()
        assert smaller["drift"][condition]["mean_cosine"] == pytest.approx(cosine, abs=1e-6)  # float32
        assert smaller["drift"][condition]["ri_spearman"] == pytest.approx(1)  # its noise is not in the ri
    assert another["drift"] == {}
    text = "\n".join(lines(lfw, found))
    assert re.search(r"smaller fp32 on LFW\n  clean .* mean cosine 0\.\d{4}  ri rank 1\.0000", text)
    assert text.count("mean cosine") == 2


def curves(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """What a panel shows: x and y of each line."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_each_panel_shows_the_figures_of_every_recognizer_and_condition(lfw: Dataset) -> None:
    embedders = [recognizer("base", noise=40), recognizer(ri=True)]
    recognitions = evaluate(lfw, embedders, ["clean", "px2"], draws=2)
    drawn = pictures(lfw, recognitions)
    assert list(drawn) == ["roc.png", "identification.png", "discard.png"]
    measured = [m for recognition in recognitions for m in recognition.conditions.values()]
    searches = [m.searches["all"] for m in measured]
    ranks = list(range(1, 21))
    roc, closed_set, open_set = (*drawn["roc.png"].axes, *drawn["identification.png"].axes)
    rocs = [Ranked(m.pairs).accepted(np.ones(24)).roc() for m in measured if m.pairs is not None]
    assert curves(roc) == [(far.tolist(), tar.tolist()) for far, tar in rocs]
    assert curves(closed_set) == [(ranks, [found.rank_rate(rank) for rank in ranks]) for found in searches]
    fnirs = [[found.fnir_at_fpir(0.5), found.fnir_at_fpir(1)] for found in searches]  # of two strangers
    assert curves(open_set) == [([0.5, 1], fnir) for fnir in fnirs]
    for axes in (roc, closed_set, open_set):
        looks = [(line.get_color(), line.get_linestyle()) for line in axes.lines]
        assert len(set(looks)) == 4
        assert [colour for colour, _ in looks[:2]] == [colour for colour, _ in looks[2:]]  # by condition
    for axes, recognition in zip(drawn["discard.png"].axes, recognitions, strict=True):
        labels = [str(line.get_label()).replace("failures first", "oracle") for line in axes.lines]
        shown = dict(zip(labels, curves(axes), strict=True))
        rates = {name.replace("_", " "): found.rates.tolist() for name, found in recognition.discards.items()}
        assert shown == {name: (SHARES.tolist(), rate) for name, rate in rates.items()}


def test_the_curves_are_drawn_where_there_is_something_to_draw(lfw: Dataset, tmp_path: Path) -> None:
    recognitions = evaluate(lfw, [recognizer(ri=True)], ["clean"], draws=2)
    written = draw(lfw, recognitions, tmp_path / "new" / "plots")
    assert [path.name for path in written] == ["roc.png", "identification.png", "discard.png"]
    for path in written:
        assert min(cv2.imread(str(path)).shape[:2]) > 400
    # with a single impostor pair the axis of the rates still has two ends
    lfw_folder(tmp_path / "few", people=3, folds=1, half=1)
    few = open_dataset(f"lfw:{tmp_path}/few")
    drawn = pictures(few, evaluate(few, [recognizer()], ["clean"], draws=2))
    assert len(drawn) == 3
    assert drawn["roc.png"].axes[0].get_xlim() == (0.5, 1)
    tiny = open_dataset(f"tinyface:{tinyface_folder(tmp_path)}")
    written = draw(tiny, evaluate(tiny, [recognizer()], tiny.conditions), tmp_path / "tiny")
    assert [path.name for path in written] == ["identification.png"]


# The command


def onnx_recognizer(path: Path, name: str) -> Path:
    """The mean of each cell and colour, as an ONNX file."""
    side = 112 // CELLS
    pool = helper.make_node("AveragePool", ["x"], ["cells"], kernel_shape=[side, side], strides=[side, side])
    size = 3 * CELLS * CELLS
    middle = helper.make_node("Sub", ["flat", "half"], ["embedding"])
    return save(
        path,
        [pool, helper.make_node("Flatten", ["cells"], ["flat"]), middle],
        [tensor("x", "batch", 3, 112, 112)],
        [tensor("embedding", "batch", size)],
        constants={"half": np.array(127.5, np.float32)},
        card=replace(card(), name=name, embedding_size=size),
    )


def test_the_command_writes_figures_and_curves_and_prints_no_bar_into_pipes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lfw_folder(tmp_path, folds=10, half=10)
    models = [str(onnx_recognizer(tmp_path / f"{name}.onnx", name)) for name in ("one", "two")]
    options = ["--conditions", "clean,px4", "--draws", "5", "--json", str(tmp_path / "out.json")]
    code = main(
        ["evaluate", *models, "--dataset", f"lfw:{tmp_path}", *options, "--plots", str(tmp_path / "plots")]
    )
    assert code == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("one fp32 on LFW\n  clean       tar_at_far_1e-2 1.0000")
    assert printed.err.splitlines() == [
        f"wrote {tmp_path}/plots/{name}.png" for name in ("roc", "identification", "discard")
    ]
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["conditions"]["clean"]["auc"]["value"] == 1
    assert report["others"][0]["difference"]["px4"]["auc"] == {"value": 0, "interval": [0, 0]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "lfw:/absent"], "there is no folder /absent"),
        (["--dataset", "lfw:{0}", "--conditions", "px16,rain"], "unknown condition 'rain'"),
        (["--dataset", "lfw:{0}", "--json", "/absent/out.json"], "there is no folder /absent"),
        (["--dataset", "lfw:{0}", "--json", "{0}"], "is a folder, expected a file to write"),
        (["--dataset", "lfw:{0}", "--plots", "{0}/pairs.txt"], "pairs.txt is a file, expected a folder"),
        (["--dataset", "lfw:{0}", "--draws", "0"], "draws is 0, expected at least 1"),
        (["sface", "--dataset", "lfw:{0}", "--record", "LFW"], "sface is a named model: copy it"),
        (["recognizer", "--dataset", "lfw:{0}", "--record", "LFW"], "recognizer is a named model: copy it"),
        (["--dataset", "lfw:{0}", "--detector", "{0}/one.onnx"], "expected one for 'detect'"),
    ],
)
def test_the_command_ends_with_one_line_that_says_what_was_wrong(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lfw_folder(tmp_path)
    model = onnx_recognizer(tmp_path / "one.onnx", "one")
    assert main(["evaluate", str(model), *[option.format(tmp_path) for option in options]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("calibration: ")
    assert message in line


def test_the_last_model_s_figures_go_into_its_card_beside_those_of_other_data(tmp_path: Path) -> None:
    lfw_folder(tmp_path, folds=10, half=10)
    models = [onnx_recognizer(tmp_path / f"{name}.onnx", name) for name in ("one", "two")]
    change_card(models[1], results={"IJB-C/clean/auc": 0.5})
    weights = read_card(models[1]).weights_digest
    command = ["evaluate", *map(str, models), "--dataset", f"lfw:{tmp_path}", "--conditions", "clean,px4"]
    assert main([*command, "--draws", "2", "--record", "LFW"]) == 0
    assert read_card(models[0]).results == {}
    results = read_card(models[1]).results
    assert set(results) == {"IJB-C/clean/auc"} | {
        f"LFW/{condition}/{name}" for condition in ("clean", "px4") for name in ("auc", "tar_at_far_1e-2")
    }
    assert results["LFW/clean/auc"] == 1
    assert read_card(models[1]).weights_digest == weights
    assert open_engine(models[1]).card.results == results


def test_figures_of_data_without_pairs_are_refused_for_the_card_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tinyface_folder(tmp_path)
    model = onnx_recognizer(tmp_path / "one.onnx", "one")
    before = model.read_bytes()
    assert main(["evaluate", str(model), "--dataset", f"tinyface:{tmp_path}", "--record", "TinyFace"]) == 1
    said = capsys.readouterr()
    assert said.out == ""  # no figures: nothing was embedded
    assert "--record TinyFace: TinyFace has no pairs, whose TAR and AUC a card takes" in said.err
    assert model.read_bytes() == before


def test_scores_that_are_all_alike_are_figures_and_no_crash(tmp_path: Path) -> None:
    pairs = Pairs(np.zeros(6), np.arange(6) < 3, None, np.arange(6) % 2)
    figures = verification(pairs, fars=(5e-1,), draws=10)
    assert figures["auc"].value == 0.5
    assert figures["tar_at_far_5e-1"].value == 0
