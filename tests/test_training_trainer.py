"""The trainer on a handful of drawn pictures and a base with random weights: what must hold for any run."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from pydantic import ValidationError

from edge_fr.errors import InputError, ModelError
from export.__main__ import main
from export.networks.backbone import SFACE_BLOCKS, load_sface
from export.networks.recognizer import Parts
from export.training import trainer
from export.training.config import Config, read_config
from export.training.data import Faces, Source
from export.training.degradations import Recipe
from export.training.learner import Lesson, lesson
from export.training.start import load_trained
from export.training.trainer import rate, train


def random_base(path: Path) -> Path:
    """A file with the names and shapes of SFace's weights, drawn at random."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}

    def batchnorm(name: str, channels: int) -> None:
        for part, low, high in (("gamma", 0.8, 1.2), ("beta", -0.1, 0.1), ("moving_mean", -0.1, 0.1)):
            found[f"{name}_{part}"] = rng.uniform(low, high, channels)
        found[f"{name}_moving_var"] = rng.uniform(0.8, 1.2, channels)

    def layer(name: str, shape: tuple[int, ...]) -> None:
        found[f"{name}_conv2d_weight"] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        batchnorm(f"{name}_batchnorm", shape[0])
        found[f"{name}_relu_gamma"] = rng.uniform(0.1, 0.4, (shape[0], 1, 1))

    layer("conv_1", (32, 3, 3, 3))
    for number, (inputs, outputs, _) in enumerate(SFACE_BLOCKS, start=2):
        layer(f"conv_{number}_dw", (inputs, 1, 3, 3))
        layer(f"conv_{number}", (outputs, inputs, 1, 1))
    batchnorm("bn1", 1024)
    found["pre_fc1_weight"] = rng.normal(0, 50176**-0.5, (128, 50176))
    found["pre_fc1_bias"] = rng.normal(0, 0.1, 128)
    batchnorm("fc1", 128)
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in found.items()]
    onnx.save(helper.make_model(helper.make_graph([], "base", [], [], tensors)), path)
    return path


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two dozen drawn people of four pictures each, and a base."""
    folder = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(1)
    for person in range(24):
        (folder / "people" / f"p{person}").mkdir(parents=True)
        face = cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (112, 112))
        for picture in range(4):
            noisy = np.clip(face + rng.normal(0, 12, face.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / "people" / f"p{person}" / f"{picture}.png"), noisy)
    random_base(folder / "base.onnx")
    return folder


def config(folder: Path, *, steps: int = 4, **changed: object) -> Config:
    return Config.model_validate(
        {
            "name": "small",
            "base": str(folder / "base.onnx"),
            "sources": [Source(name="people", path="people", identities="folder")],
            "steps": steps,
            "batch": 6,
            "squeezed": 8,
            "checkpoint_every": 2,
            "recipe": Recipe(hopeless=0.3),
            "diversion_from": 0.5,
            "bf16": False,  # slow on many CPUs; one test has it
            "parts": Parts(perceptibility=True, local=True, fusion=True),
            **changed,
        }
    )


def test_a_run_interrupted_and_resumed_ends_with_the_very_weights_of_one_that_was_not(
    workplace: Path,
) -> None:
    """On one thread: what several threads add up may differ in the last bit from run to run."""
    made = config(workplace, threads=1)
    whole = train(made, data=workplace, out=workplace / "whole", cache=workplace)
    train(made, data=workplace, out=workplace / "parts", cache=workplace, stop_at=2)
    assert not (workplace / "parts" / "recognizer.pt").exists()
    resumed = train(made, data=workplace, out=workplace / "parts", cache=workplace)
    expected, found = (torch.load(p)["state"] for p in (whole, resumed))
    assert expected.keys() == found.keys()
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert different == []


def test_a_run_leaves_weights_that_load_and_a_judgement_of_every_condition(workplace: Path) -> None:
    out = workplace / "judged"
    path = train(config(workplace, steps=1, bf16=True), data=workplace, out=out, cache=workplace)
    recognizer, gate, _ = load_trained(path)
    crops = torch.rand(2, 3, 112, 112) * 255
    with torch.inference_mode():
        found, ri = recognizer(crops), gate(crops)
    assert found.embedding.shape == (2, 128)
    # Unit length in single precision.
    torch.testing.assert_close(found.embedding.norm(dim=1), torch.ones(2), rtol=0, atol=1e-5)
    assert found.ri.shape == found.mask_prob.shape == ri.shape == (2, 1)
    judged = json.loads((out / "judged.jsonl").read_text())
    assert judged["step"] == 1
    assert {"clean", "px8", "mask+px24"} <= judged.keys()
    assert 0.0 <= judged["px8"]["tar_at_far_1e-2"] <= 1.0


def test_the_log_has_a_row_every_ten_steps_with_every_loss(workplace: Path) -> None:
    out = workplace / "logged"
    train(config(workplace, steps=10, batch=2), data=workplace, out=out, cache=workplace)
    rows = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["10"]
    missing = [name for name, value in rows[0].items() if value == ""]
    assert missing == []


def test_training_changes_what_learns_and_leaves_the_frozen_blocks(workplace: Path) -> None:
    recognizer, _, _ = load_trained(
        train(config(workplace, steps=2), data=workplace, out=workplace / "frozen", cache=workplace)
    )
    base, _ = load_sface(workplace / "base.onnx")
    state, before = recognizer.body.state_dict(), base.state_dict()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert not any(name.startswith(("stem", "to_f3.0.")) for name in changed)
    assert {"to_f3.1.0.conv.weight", "to_f4.1.1.conv.weight"} <= changed
    assert not any(name.endswith("act.weight") for name in changed)


def test_a_body_that_is_frozen_up_to_f3_learns_behind_it(workplace: Path) -> None:
    made = config(workplace, steps=2, frozen_blocks=11)
    recognizer, _, _ = load_trained(train(made, data=workplace, out=workplace / "late", cache=workplace))
    base, _ = load_sface(workplace / "base.onnx")
    state, before = recognizer.body.state_dict(), base.state_dict()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert {name.split(".")[0] for name in changed} == {"to_f4"}


def test_a_run_that_begins_with_another_trains_that_first_and_starts_with_the_parts_that_both_have(
    workplace: Path,
) -> None:
    cache = workplace / "begun"
    first = config(workplace, name="first", steps=1)
    bare = Parts(mask_attention=False)
    row = config(workplace, steps=0, parts=bare, begin=(first,))
    found, gate, _ = load_trained(train(row, data=workplace, out=workplace / "row", cache=cache))
    made, its_gate, _ = load_trained(cache / "runs" / "first" / "recognizer.pt")
    taken, whole = found.state_dict(), made.state_dict()
    assert found.mhms is None
    assert [name for name in taken if not torch.equal(taken[name], whole[name])] == []
    assert torch.equal(gate.out.weight, its_gate.out.weight)


def test_a_run_that_begins_with_several_starts_with_the_mean_of_their_weights(workplace: Path) -> None:
    cache = workplace / "several"
    parts = Parts(projection=True)
    runs = tuple(config(workplace, name=f"seed-{s}", seed=s, steps=1, parts=parts) for s in (1, 2, 3))
    made = config(workplace, steps=0, parts=parts, begin=runs)
    mean, gate, _ = load_trained(train(made, data=workplace, out=workplace / "mean", cache=cache))
    of_each = [load_trained(cache / "runs" / run.name / "recognizer.pt") for run in runs]
    weights = [recognizer.state_dict()["body.to_f4.1.1.conv.weight"] for recognizer, _, _ in of_each]
    assert not torch.equal(weights[0], weights[1])
    torch.testing.assert_close(mean.state_dict()["body.to_f4.1.1.conv.weight"], sum(weights) / 3)
    torch.testing.assert_close(gate.out.weight, sum(gate.out.weight for _, gate, _ in of_each) / 3)
    assert mean.projection is not None
    assert float(mean.projection.centre.norm()) == pytest.approx(1, abs=1e-6)


def test_runs_of_different_shapes_have_no_mean(workplace: Path) -> None:
    whole = config(workplace, name="whole", steps=0)
    bare = config(workplace, name="bare", steps=0, parts=Parts(mask_attention=False))
    made = config(workplace, steps=0, begin=(whole, bare))
    with pytest.raises(InputError, match=r"bare.* has other parts than .*whole"):
        train(made, data=workplace, out=workplace / "none", cache=workplace / "shapes")


def test_adapters_are_begun_from_a_run_without_and_learn_alone(workplace: Path) -> None:
    cache = workplace / "adapted"
    first = config(workplace, name="first", steps=1, parts=Parts())
    both = {
        "parts": Parts(adapters=True),
        "begin": (first,),
        "squeezed": 10,
        "frozen_blocks": 13,
        "tail_lr": 0.0,
    }

    def adapted(steps: int, stop_at: int | None = None) -> Path:
        made = config(workplace, steps=steps, router_views=128, **both)
        out = workplace / f"adapted-{steps}"
        return train(made, data=workplace, out=out, cache=cache, stop_at=stop_at)

    adapted(2, stop_at=1)  # and then resumed
    runs = [adapted(0), adapted(2)]
    before, after = (load_trained(run)[0].state_dict() for run in runs)
    changed = {".".join(name.split(".")[:2]) for name in before if not torch.equal(before[name], after[name])}
    assert "body.adapters" in changed
    assert {name for name in changed if name.startswith(("body.", "tail."))} == {"body.adapters"}
    made = load_trained(cache / "runs" / "first" / "recognizer.pt")[0].state_dict()
    base = load_sface(workplace / "base.onnx")[0].state_dict()
    for name in ("to_f3.4.1.conv.weight", "to_f4.1.1.conv.bias"):
        torch.testing.assert_close(before[f"body.{name}"], (made[f"body.{name}"] + base[name]) / 2)


def test_a_run_goes_on_from_adapters_with_a_projection_that_is_taken_of_the_teacher_too(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = workplace / "projected"
    shared = {"squeezed": 10, "frozen_blocks": 13, "tail_lr": 0.0, "threads": 1}
    first = config(workplace, name="first", steps=0, parts=Parts(), squeezed=10)
    second = config(
        workplace,
        name="second",
        steps=0,
        router_views=128,
        begin=(first,),
        parts=Parts(adapters=True),
        **shared,
    )
    made = config(workplace, steps=2, begin=(second,), parts=Parts(adapters=True, projection=True), **shared)
    teachers = []

    def spy(faces: Faces, teacher: NDArray[np.float32], device: str) -> Lesson:
        teachers.append(torch.from_numpy(teacher))
        return lesson(faces, teacher, device)

    monkeypatch.setattr(trainer, "lesson", spy)
    out = workplace / "with-projection"
    train(made, data=workplace, out=out, cache=cache, stop_at=1)
    recognizer, _, _ = load_trained(train(made, data=workplace, out=out, cache=cache))
    assert recognizer.projection is not None
    centre = recognizer.projection.centre
    assert float(centre.norm()) == pytest.approx(1, abs=1e-5)
    for teacher in teachers[-2:]:  # of the run as begun, and as resumed
        assert float((teacher @ centre.T).abs().max()) < 1e-5
        torch.testing.assert_close(teacher.norm(dim=1), torch.ones(len(teacher)))
    with torch.inference_mode():
        embedding = recognizer.find(torch.rand(3, 3, 112, 112) * 255).embedding
    assert float((embedding @ centre.T).abs().max()) < 1e-5
    begun = load_trained(cache / "runs" / "second" / "recognizer.pt")[0].state_dict()
    taken = recognizer.state_dict()
    same = {name for name in begun if torch.equal(begun[name], taken[name])}
    assert {name for name in begun if name.startswith(("body.to_", "body.router", "tail"))} <= same


def test_the_last_fit_changes_the_index_and_the_gate_and_nothing_else(workplace: Path) -> None:
    states = []
    for name, views in (("unfitted", 0), ("fitted", 256)):
        made = config(workplace, steps=1, threads=1, index_views=views)
        path = train(made, data=workplace, out=workplace / name, cache=workplace)
        states.append(torch.load(path)["state"])
    before, after = states
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.rpartition(".")[0] for name in changed if not name.startswith("gate.")} == {
        "recognizer.index.hidden",
        "recognizer.index.out",
    }
    assert "gate.out.weight" in changed


def test_a_run_on_faces_without_names_ends_with_weights_and_without_a_judgement(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = workplace / "nameless"
    made = config(workplace, steps=1, sources=[Source(name="people", path="people")])
    assert train(made, data=workplace, out=out, cache=workplace).is_file()
    assert not (out / "judged.jsonl").exists()
    assert "not judged" in capsys.readouterr().out


def test_too_few_people_for_the_index_are_told_before_anything_is_trained(workplace: Path) -> None:
    out = workplace / "nobody"
    made = config(workplace, index_views=256, sources=[Source(name="people", path="people")])
    with pytest.raises(InputError, match="0 people with names, fitting the index needs 2"):
        train(made, data=workplace, out=out, cache=workplace)
    assert not (out / "log.csv").exists()
    with pytest.raises(InputError, match=r"\d+ views of people with several pictures, .* needs 128"):
        train(config(workplace, index_views=100), data=workplace, out=workplace / "few", cache=workplace)


def test_a_run_that_was_stopped_names_no_weights(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_FR_CACHE", str(tmp_path / "cache"))
    written = tmp_path / "small.yaml"
    written.write_text(yaml.safe_dump(config(workplace).model_dump(mode="json")))
    command = ["train", "--config", str(written), "--data", str(workplace), "--out", str(tmp_path / "run")]
    assert main([*command, "--stop-at", "1"]) == 0
    assert f"{tmp_path / 'run'}: stopped" in capsys.readouterr().out
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run" / "recognizer.pt")


@pytest.mark.parametrize(
    ("parts", "reason"),
    [({"adapters": True}, "need a run to begin with"), ({"fusion": True}, r"set parts\.local")],
)
def test_parts_without_what_they_need_are_refused(
    workplace: Path, parts: dict[str, bool], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        config(workplace, parts=parts)


def test_a_finished_run_is_left_as_it_is(workplace: Path) -> None:
    out = workplace / "finished"
    path = train(config(workplace, steps=1), data=workplace, out=out, cache=workplace)
    before = path.stat().st_mtime_ns, (out / "judged.jsonl").read_text()
    assert train(config(workplace, steps=1), data=workplace, out=out, cache=workplace) == path
    assert (path.stat().st_mtime_ns, (out / "judged.jsonl").read_text()) == before


def test_a_folder_that_holds_another_run_is_refused(workplace: Path) -> None:
    out = workplace / "other"
    train(config(workplace), data=workplace, out=out, cache=workplace, stop_at=1)
    with pytest.raises(InputError, match="holds a run of another config"):
        train(config(workplace, seed=7), data=workplace, out=out, cache=workplace)


def test_parts_that_are_left_out_are_neither_trained_nor_kept(workplace: Path) -> None:
    bare = Parts(mask_attention=False)
    made = config(workplace, steps=1, parts=bare)
    recognizer, _, _ = load_trained(train(made, data=workplace, out=workplace / "bare", cache=workplace))
    kept = {name.split(".")[0] for name in recognizer.state_dict()}
    assert kept == {"body", "tail", "index"}


def test_a_base_that_is_not_sface_is_refused_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    onnx.save(helper.make_model(helper.make_graph([], "other", [], [])), tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"no weight named .*`edge-fr models pull sface`"):
        load_sface(tmp_path / "other.onnx")


def test_the_rate_rises_to_one_and_falls_to_a_hundredth() -> None:
    rates = [rate(step, 100, 0.1) for step in range(100)]
    assert rates[9] == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] == pytest.approx(0.01, abs=1e-3)  # the cosine's last step is not its end


def test_a_misspelt_key_of_a_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: x\nsteps: 1\nsources: []\nbody_rl: 1\n")
    with pytest.raises(InputError, match="body_rl"):
        read_config(tmp_path / "c.yaml")


def test_a_config_that_extends_another_changes_only_what_it_states(tmp_path: Path) -> None:
    (tmp_path / "whole.yaml").write_text(
        "name: whole\nsteps: 9\nbatch: 5\nsources: [{name: a, path: a}]\nparts: {local: true, fusion: true}"
    )
    (tmp_path / "row.yaml").write_text("extends: whole.yaml\nname: row\nparts: {fusion: false}\n")
    found = read_config(tmp_path / "row.yaml")
    assert (found.name, found.steps, found.batch) == ("row", 9, 5)
    assert found.parts == Parts(local=True)


def test_the_run_that_another_begins_with_is_read_from_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("name: first\nsteps: 9\nsources: [{name: a, path: a}]\n")
    (tmp_path / "second.yaml").write_text("extends: first.yaml\nname: second\nbegin: first.yaml\n")
    (tmp_path / "third.yaml").write_text("extends: first.yaml\nbegin: [first.yaml, second.yaml]\n")
    (begin,) = read_config(tmp_path / "second.yaml").begin
    assert (begin.name, begin.steps) == ("first", 9)
    assert [run.name for run in read_config(tmp_path / "third.yaml").begin] == ["first", "second"]


@pytest.mark.parametrize("begin", ["5", "[5]", "null"])
def test_a_beginning_that_is_no_file_is_named(tmp_path: Path, begin: str) -> None:
    (tmp_path / "odd.yaml").write_text(f"name: odd\nsteps: 9\nsources: []\nbegin: {begin}\n")
    with pytest.raises(InputError, match=r"odd\.yaml: (.|\n)*begin"):
        read_config(tmp_path / "odd.yaml")


def test_a_config_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config at .*missing\.yaml"):
        read_config(tmp_path / "missing.yaml")


def test_the_configs_that_ship_can_be_read() -> None:
    shipped = sorted((Path(__file__).parent.parent / "export" / "configs").glob("*.yaml"))
    assert [read_config(path).name for path in shipped] == [path.stem for path in shipped]
