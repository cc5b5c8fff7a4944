"""The court: which layers it returns to floating point, what it says, and what it writes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import drawn_people
import numpy as np
import pytest
from fakes import card
from numpy.typing import NDArray
from onnx import NodeProto, helper
from onnx_files import save, tensor

from calibration.__main__ import main
from calibration.candidates import Candidates, check_pairs
from calibration.convert import load, ready_for_int8, smaller_card
from calibration.court import BOUNDS, Breach, Cost, Finding, Harm, Kept, better, search
from calibration.datasets import open_dataset
from calibration.drift import Drift, drift
from calibration.harm import rank, shares
from calibration.quantize import Target
from calibration.strata import FACES, in_every_stratum, stratify
from edge_fr.cards import read_card
from edge_fr.embed import Embeddings
from edge_fr.engine import open_engine
from edge_fr.errors import CardError, InputError

GOOD = Drift(100, 0.999, 0.99, 0.999, 0.001, 0.01)
# How many times the other channels one channel is. In 8 bits of one scale the others are left with
BLURRED = 100.0  # a step or two,
GONE = 3000.0  # or with nothing: every embedding is zero.


# The search, with costs that a table gives.


def cost(strata: Mapping[str, Drift], mask_auc_drop: float | None = 0.0, size: int = 100) -> Cost:
    return Cost(strata, mask_auc_drop, size, original_ms=10.0, ms=4.0)


def hold(
    harmful: Mapping[str, float],
    work: Mapping[str, float],
    *,
    order: Collection[str] | None = None,
    tar_drops: Callable[[Kept], Mapping[str, float]] = lambda kept: {},
) -> Finding:
    """A court on a model in which each harmful layer costs its part of the mean cosine of one stratum."""

    def measure(kept: Kept) -> Cost:
        lost = sum(loss for layer, loss in harmful.items() if layer not in kept)
        return cost({"clean": GOOD, "masked": replace(GOOD, mean_cosine=1 - lost)}, size=100 + len(kept))

    def ranked(kept: Kept, breach: Breach) -> list[Harm]:
        names = order or sorted(work, key=lambda layer: -harmful.get(layer, 0))
        return [Harm(name, breach.stratum, "it", harmful.get(name, 0)) for name in names]

    return search(work, measure=measure, rank=ranked, tar_drops=tar_drops)


def test_a_model_within_bounds_keeps_every_layer_in_8_bits() -> None:
    found = hold({"a": 0.005}, {"a": 0.4, "b": 0.6})
    assert (found.verdict, found.chosen.kept, len(found.trials)) == ("passed", (), 1)
    assert found.reason == "with every layer in 8 bits every stratum is within bounds"


def test_the_most_harmful_layers_are_kept_until_all_strata_pass() -> None:
    found = hold({"a": 0.02, "c": 0.05, "b": 0.001}, {"a": 0.1, "b": 0.5, "c": 0.1, "d": 0.2})
    assert found.verdict == "passed"
    assert found.chosen.kept == ("c", "a")
    assert found.chosen.float_share == pytest.approx(0.1 + 0.1 + 0.1)  # what is no layer's is in float anyway
    assert [trial.kept for trial in found.trials[:3]] == [(), ("c",), ("c", "a")]


def test_a_layer_that_was_kept_in_vain_goes_back_to_8_bits() -> None:
    found = hold({"c": 0.05}, {"a": 0.1, "b": 0.5, "c": 0.1}, order=["a", "c", "b"])
    assert [trial.kept for trial in found.trials] == [(), ("a",), ("a", "c"), ("c",)]
    assert found.chosen.kept == ("c",)


def test_a_court_refuses_when_the_budget_is_spent_and_says_what_fails() -> None:
    found = hold({"a": 0.02, "b": 0.3}, {"a": 0.1, "b": 0.6, "c": 0.3})
    assert found.verdict == "refused"
    assert "the budget is spent: 40% of the multiply-adds are in floating point" in found.reason
    assert "any layer more would pass 50%" in found.reason
    assert "mean_cosine of masked is 0.7000, allowed at least 0.99" in found.reason
    assert found.chosen.kept == ("a",)  # the least bad: c did not make it better


@pytest.mark.parametrize(
    ("figures", "complaint"),
    [
        (cost({"dark": replace(GOOD, p1_cosine=0.95)}), "p1_cosine of dark is 0.9500, allowed at least 0.96"),
        (cost({"dark": replace(GOOD, ri_spearman=0.9)}), "ri_spearman of dark is 0.9000, allowed at least"),
        (cost({"dark": GOOD}, 0.006), "mask_auc_drop of masked is 0.0060, allowed at most 0.005"),
    ],
)
def test_each_figure_has_a_bound_of_its_own(figures: Cost, complaint: str) -> None:
    found = search({"a": 1.0}, measure=lambda kept: figures, rank=lambda kept, breach: [])
    assert found.verdict == "refused"
    assert complaint in found.reason


def test_figures_at_their_bounds_pass_and_figures_that_a_model_has_not_are_not_asked_for() -> None:
    edge = Drift(9, BOUNDS.mean_cosine, BOUNDS.p1_cosine, BOUNDS.ri_spearman, 0.5, 0.5)
    found = search(
        {"a": 1.0},
        measure=lambda kept: cost({"dark": edge, "clean": replace(edge, ri_spearman=None)}, None),
        rank=lambda kept, breach: [],
    )
    assert found.verdict == "passed"


def test_labelled_faces_are_asked_once_the_strata_pass_and_can_refuse() -> None:
    asked: list[Kept] = []

    def drops(kept: Kept) -> dict[str, float]:
        asked.append(kept)
        return {"px16": 0.004 if "b" not in kept else 0.003}

    found = hold({"a": 0.02, "b": 0.001}, {"a": 0.1, "b": 0.1, "c": 0.8}, tar_drops=drops)
    assert asked == [("a",), ("a", "b")]  # b alone does not pass the strata
    assert found.chosen.kept == ("a", "b")
    assert found.chosen.tar_drops == {"px16": 0.003}
    assert "the labelled faces are within bounds" in found.reason
    refused = hold({}, {"a": 0.9}, tar_drops=lambda kept: {"px16": 0.01})
    assert refused.verdict == "refused"
    assert "tar_drop of px16 is 0.0100, allowed at most 0.003" in refused.reason


def test_the_pareto_front_leaves_out_what_is_larger_and_no_better() -> None:
    found = hold({"c": 0.05}, {"a": 0.1, "b": 0.5, "c": 0.1}, order=["a", "c", "b"])
    assert [trial.kept for trial in better(found.trials)] == [(), ("c",)]  # all of the others keep a


def test_a_court_without_a_layer_is_an_error() -> None:
    with pytest.raises(InputError, match="no layer that could compute in 8 bits"):
        search({}, measure=lambda kept: cost({}), rank=lambda kept, breach: [])


def test_layers_are_ranked_by_the_error_behind_the_figure_that_fails() -> None:
    before = Embeddings(np.float32([[1, 0], [0, 1]]), np.float32([0.1, 0.9]), None, np.ones(2, np.float32))

    def answer(kept: Collection[str]) -> Embeddings:
        ri = [0.1, 0.9] if "index" in kept else [0.2, 0.7]
        vectors = [[1, 0], [0, 1]] if "body" in kept else [[1, 0], [0.6, 0.8]]
        return Embeddings(np.float32(vectors), np.float32(ri), None, np.ones(2, np.float32))

    by_ri = rank(["body", "index"], Breach("clean", "ri_spearman", 0.5, 0.98), before, answer)
    assert [harm.layer for harm in by_ri] == ["index", "body"]
    assert by_ri[0].recovered == pytest.approx(0.15, abs=1e-6)  # the mean of .1 and .2
    assert by_ri[1].recovered == 0
    by_cosine = rank(["index", "body"], Breach("clean", "p1_cosine", 0.5, 0.96), before, answer)
    assert [harm.layer for harm in by_cosine] == ["body", "index"]
    assert by_cosine[0].recovered == pytest.approx(0.1, abs=1e-6)


def test_a_recognizability_that_lost_its_order_has_no_rank_correlation() -> None:
    vectors, ones = np.tile(np.float32([1, 0]), (3, 1)), np.ones(3, np.float32)
    before = Embeddings(vectors, np.float32([0.1, 0.5, 0.9]), None, ones)
    assert drift(before, Embeddings(vectors, np.float32([0.5] * 3), None, ones)).ri_spearman == 0


# The whole command, on networks that are made to break.


def recognizer(
    path: Path, *, outliers: Mapping[str, float] | None = None, kernel: int = 1, heads: bool = False
) -> Path:
    """Stem, three layers and a linear one. Each of `first`, `second` and `third` that is in `outliers` reads
    a tensor in which one channel is so many times the others; its weights make up for it."""
    rng = np.random.default_rng(1)
    stored: dict[str, NDArray[np.generic]] = {
        "stem.w": rng.normal(0, 0.05, (8, 3, 8, 8)).astype(np.float32),
        "stem.b": np.zeros(8, np.float32),
        "fc.w": rng.normal(0, 0.05, (16, 8 * 14 * 14)).astype(np.float32),
        "fc.b": np.zeros(16, np.float32),
    }
    nodes: list[NodeProto] = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Conv", ["centred", "stem.w", "stem.b"], ["stem"], name="stem", strides=[8, 8]),
    ]
    stored["mean"] = np.float32(127.5)
    source = "stem"
    for name in ("first", "second", "third"):
        factor = np.ones((1, 8, 1, 1), np.float32)
        factor[0, 0] = (outliers or {}).get(name, 1)
        weights = rng.normal(0, (8 * kernel**2) ** -0.5, (8, 8, kernel, kernel))
        stored[f"{name}.w"] = (weights / factor).astype(np.float32)
        stored[f"{name}.b"] = np.zeros(8, np.float32)
        stored[f"{name}.factor"] = factor
        nodes += [
            # Between a product and a layer no channels can be equalised away.
            helper.make_node("Mul", [source, f"{name}.factor"], [f"{name}.in"]),
            helper.make_node(
                "Conv",
                [f"{name}.in", f"{name}.w", f"{name}.b"],
                [f"{name}.out"],
                name=name,
                pads=[kernel // 2] * 4,
            ),
        ]
        source = f"{name}.out"
    nodes += [
        helper.make_node("Flatten", [source], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc.w", "fc.b"], ["embedding"], name="fc", transB=1),
    ]
    outputs = [tensor("embedding", "batch", 16)]
    if heads:
        nodes.append(helper.make_node("ReduceMean", [source], ["pooled"], axes=[2, 3], keepdims=0))
        for name in ("ri", "mask_prob"):
            stored[f"{name}.w"] = rng.normal(0, 0.1, (1, 8)).astype(np.float32)
            nodes += [
                helper.make_node("Gemm", ["pooled", f"{name}.w"], [f"{name}.y"], name=name, transB=1),
                helper.make_node("Sigmoid", [f"{name}.y"], [name]),
            ]
            outputs.append(tensor(name, "batch", 1))
    return save(
        path,
        nodes,
        [tensor("x", "batch", 3, 112, 112)],
        outputs,
        constants=stored,
        card=card(name="face", embedding_size=16),
    )


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    for i in range(48):
        drawn_people.write(folder / f"{i:02d}.png", f"person {i}", 1)
    return folder


def court(model: Path, crops: Path, out: Path, *more: str, target: Target = "cpu") -> int:
    return main(
        ["court", str(model), "--faces", str(crops), "--aligned", "--target", target, "-o", str(out), *more]
    )


def report_of(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(out.with_name(f"{out.stem}.court.json").read_bytes())
    return found


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
@pytest.mark.parametrize(
    "fragile", [{"second": BLURRED}, {"first": BLURRED, "third": BLURRED / 2}, {"first": GONE, "third": GONE}]
)
def test_a_fragile_model_gets_exactly_its_fragile_layers_back_and_passes(
    fragile: dict[str, float], target: Target, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = recognizer(tmp_path / "face.onnx", outliers=fragile)
    out = tmp_path / "face.int8.onnx"
    assert court(model, crops, out, target=target) == 0
    said = capsys.readouterr()
    assert f"judging on 12 others in {len(FACES)} strata" in said.err
    assert "warning: judged on 12 faces" in said.err
    report = report_of(out)
    trials = report["trials"]
    assert isinstance(trials, list)
    assert set(trials[report["chosen"]]["kept"]) == set(fragile)  # type: ignore[call-overload]
    assert trials[0]["worst"]["mean_cosine"] < 0.9  # it is fragile
    if GONE not in fragile.values():  # where one layer's return alone recovers nothing, the order is chance
        assert len(trials) == 1 + len(fragile) + (len(fragile) > 1)  # no layer was kept in vain
    assert said.out.splitlines()[-1].startswith("passed: with ")
    made = read_card(out)
    assert (made.verdict, made.name, made.precision) == ("passed", f"face-int8-{target}", "int8")
    assert made.weights_digest == read_card(model).weights_digest
    open_engine(out)  # without a word about proof


def test_a_hopeless_model_is_written_with_its_refusal(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Large kernels: the three layers are nearly all of the work.
    model = recognizer(
        tmp_path / "face.onnx", outliers=dict.fromkeys(("first", "second", "third"), GONE), kernel=11
    )
    out = tmp_path / "face.int8.onnx"
    assert court(model, crops, out, "--report", str(tmp_path / "report")) == 0
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"refused: .* the budget is spent: \d+% .* at best .*_cosine of \w+ is ", verdict)
    assert read_card(out).verdict == "refused"
    with pytest.raises(CardError, match="was refused when it was compared"):
        open_engine(out)
    assert (tmp_path / "report" / "face.int8.court.html").is_file()


def test_other_figures_are_measured_of_an_unproven_model_only_when_told(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = drawn_people.lfw_folder(tmp_path / "lfw")
    model, out = recognizer(tmp_path / "face.onnx"), tmp_path / "face.int8.onnx"
    options = ["--faces", str(crops), "--aligned", "--precision", "int8", "--target", "cpu", "-o", str(out)]
    assert main(["quantize", str(model), *options]) == 0
    evaluate = ["evaluate", str(out), "--dataset", f"lfw:{labelled}", "--conditions", "clean", "--draws", "2"]
    assert main(evaluate) == 1
    assert "has not been compared with its original" in capsys.readouterr().err
    assert main([*evaluate, "--unproven"]) == 0
    assert "face-int8-cpu int8 on LFW" in capsys.readouterr().out


@pytest.fixture(scope="module")
def passed(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("passed")
    model = recognizer(folder / "face.onnx", outliers={"second": BLURRED})
    assert court(model, crops, folder / "face.int8.onnx") == 0
    return folder / "face.int8.onnx"


def test_the_card_carries_the_digest_of_the_report(passed: Path) -> None:
    content = passed.with_name("face.int8.court.json").read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert read_card(passed).report_digest == digest
    assert digest in passed.with_name("face.int8.court.html").read_text()
    report = report_of(passed)
    assert report["calibrated_on"]["digest"] == read_card(passed).calibration_digest  # type: ignore[index]


def leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value]


def test_the_page_holds_every_figure_and_needs_nothing_from_elsewhere(passed: Path) -> None:
    page = passed.with_name("face.int8.court.html").read_text()
    bare, plots = re.subn(r"src='data:image/png;base64,[A-Za-z0-9+/=]+'", "", page)
    assert plots == 3
    assert not re.search(r"//|src|href|<script|<link|@import|url\(|<iframe", bare)
    cells = {text for cell in re.findall(r"<td>(.*?)</td>", page) for text in (cell, *cell.split("; "))}
    figures = [leaf for leaf in leaves(report_of(passed)["trials"]) if isinstance(leaf, (int, float))]
    figures += [leaf for leaf in leaves(report_of(passed)["harms"]) if isinstance(leaf, (int, float))]
    assert len(figures) > 50
    assert [figure for figure in figures if str(figure) not in cells] == []
    numbers = [leaf for leaf in leaves(report_of(passed)) if type(leaf) in (int, float)]
    assert [number for number in numbers if str(number) not in page] == []


def test_labelled_faces_are_measured_under_each_condition(crops: Path, tmp_path: Path) -> None:
    labelled = drawn_people.lfw_folder(tmp_path / "lfw", folds=10, half=10)
    model = recognizer(tmp_path / "face.onnx", outliers={"second": BLURRED})
    out = tmp_path / "face.int8.onnx"
    assert court(model, crops, out, "--dataset", f"lfw:{labelled}", "--conditions", "clean,px16") == 0
    report = report_of(out)
    trials = report["trials"]
    assert isinstance(trials, list)
    assert report["labelled_faces"] == "LFW"
    assert set(trials[report["chosen"]]["tar_drops"]) == {"clean", "px16"}  # type: ignore[call-overload]
    assert trials[0]["tar_drops"] == {}  # its strata failed


def test_labelled_faces_that_are_not_aligned_are_found_by_the_detector(
    crops: Path, tmp_path: Path, pulled: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pulled("yunet")
    for person in range(10):
        for number in range(5):
            drawn_people.write(tmp_path / f"people/{person}/{number}.png", f"{person}", number, side=150)
    model, out = recognizer(tmp_path / "face.onnx"), tmp_path / "face.int8.onnx"
    options = ("--dataset", f"people:{tmp_path}/people")
    assert court(model, crops, out, *options) == 1
    assert "0.png is 150x150, expected an aligned 112x112 crop; name a detector" in capsys.readouterr().err
    assert court(model, crops, out, *options, "--detector", "yunet") == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "no face found in 50 pictures of people, which were taken whole"  # none is a face


def test_labelled_faces_that_give_no_tar_are_refused_before_the_work(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = drawn_people.lfw_folder(tmp_path / "lfw", folds=11, half=9)
    enough = drawn_people.lfw_folder(tmp_path / "more", folds=10, half=10)
    for person, count in (("A", 15), ("B", 5)):  # 115 pairs of one person
        for number in range(count):
            drawn_people.write(tmp_path / f"two/{person}/{number}.png", person, number)
    unpaired = drawn_people.tinyface_folder(tmp_path / "tiny")
    model, out = recognizer(tmp_path / "face.onnx"), tmp_path / "face.int8.onnx"
    for dataset, complaint in (
        (f"lfw:{few}", "LFW has 99 pairs of two people, expected at least 100: with fewer there is no TAR"),
        (f"people:{tmp_path}/two", "two has 75 pairs of two people, expected at least 100"),
        (f"tinyface:{unpaired}", "TinyFace has no pairs of faces, from which a TAR could be told"),
    ):
        assert court(model, crops, out, "--dataset", dataset) == 1
        said = capsys.readouterr().err
        assert complaint in said
        assert "calibrating" not in said
        assert not out.exists()
        original, own = load(model)
        judged = in_every_stratum([drawn_people.crop("somebody", 1)], FACES)
        with pytest.raises(InputError, match=complaint):
            Candidates(
                model, original, {}, own, judged, tmp_path, target="cpu", dataset=open_dataset(dataset)
            )
    check_pairs(open_dataset(f"lfw:{enough}"))  # 100 pairs of two people


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--conditions", "clean"), "--conditions are those of a --dataset"),
        (("--report", __file__), "no report can be written into"),
        (("--dataset", "lfw:nowhere"), "there is no folder nowhere"),
        (("--count", "1"), "1 faces, expected some to calibrate on"),
        (("--count", "8"), "6 pictures leave"),
    ],
)
def test_a_court_that_cannot_be_held_says_why(
    more: tuple[str, ...], complaint: str, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = recognizer(tmp_path / "face.onnx"), tmp_path / "face.int8.onnx"
    assert court(model, crops, out, *more) == 1
    assert complaint in capsys.readouterr().err
    assert not out.exists()


def test_a_damaged_model_and_one_that_is_no_recognizer_are_refused(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = recognizer(tmp_path / "face.onnx"), tmp_path / "face.int8.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:20] + b"\xff" * 40 + whole[60:])  # inside the graph: the card behind it is whole
    assert court(model, crops, out) == 1
    assert "is damaged or not an ONNX file" in capsys.readouterr().err
    detector = save(
        tmp_path / "detector.onnx",
        [helper.make_node("Relu", ["x"], ["y"])],
        [tensor("x", "batch", 3, 32, 32)],
        [tensor("y", "batch", 3, 32, 32)],
        card=card(name="detector", task="detect", head="yunet", embedding_size=None),
    )
    assert court(detector, crops, out) == 1
    refusal = capsys.readouterr().err
    assert "is a model for 'detect', expected one for 'embed'" in refusal
    assert "`python -m calibration quantize` writes the file without one" in refusal
    assert not out.exists()


def test_recognizability_and_masks_are_measured_where_the_model_has_them(tmp_path: Path) -> None:
    path = recognizer(tmp_path / "face.onnx", outliers={"second": BLURRED}, heads=True)
    model, own = load(path)
    pictures = [drawn_people.crop(f"person {i}", 1) for i in range(40)]
    calibrated, judged = stratify(pictures[:30], FACES), in_every_stratum(pictures[30:], FACES)
    level, ranges = ready_for_int8(model, own, calibrated)
    new = smaller_card(own, calibrated, precision="int8", target="tensorrt")
    candidates = Candidates(path, level, ranges, new, judged, tmp_path, target="tensorrt")
    work = candidates.shares()
    assert set(work) == {"stem", "first", "second", "third", "fc"}  # not the heads, see kept_by_rule
    rough, same = candidates.measure(()), candidates.measure(tuple(work))
    assert (rough.ms, rough.speedup) == (None, None)  # not for this machine
    assert same.mask_auc_drop == 0
    for stratum in FACES:
        # nothing is left in 8 bits; equalising only changed the order of float32 roundings
        assert same.strata[stratum].mean_cosine == pytest.approx(1, abs=1e-5)
        assert same.strata[stratum].ri_spearman == pytest.approx(1, abs=0.02)
    assert rough.mask_auc_drop is not None
    assert rough.mask_auc_drop != 0
    assert rough.strata["clean"].ri_spearman is not None
    assert rough.strata["clean"].ri_spearman < 0.995  # some of ten faces have changed places


def test_shares_are_the_parts_of_the_multiply_adds(tmp_path: Path) -> None:
    model, _ = load(recognizer(tmp_path / "face.onnx"))
    found = shares(model, (1, 3, 112, 112))
    cells = 14 * 14
    layer, stem, linear = 8 * 8 * cells, 8 * 3 * 64 * cells, 16 * 8 * cells
    total = stem + 3 * layer + linear
    assert found == pytest.approx({
        "stem": stem / total,
        **dict.fromkeys(("first", "second", "third"), layer / total),
        "fc": linear / total,
    })  # fmt: skip
