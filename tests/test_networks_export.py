"""What leaves for the runtime: plain operators, torch's own answers, and a card."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import drawn_weights
import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

from edge_fr.cards import read_card
from edge_fr.engine import ModelCard, open_engine
from edge_fr.errors import InputError, ModelError, ModelNotFoundError
from edge_fr.models import resolve
from export.__main__ import main
from export.networks.backbone import MobileNetV1
from export.networks.gate import Gate
from export.networks.mobilefacenet import MobileFaceNet
from export.networks.published import LAYOUTS
from export.networks.recognizer import Parts, Recognizer
from export.to_onnx import Origin, export, simplified, write_published, write_run
from export.training.config import Config
from export.training.data import Source
from export.training.learner import Learner
from export.verify import BOUNDS

# Operators of graphs that compute their own shapes or choose what to run: engines fail on them or fall back.
FORBIDDEN = {"Shape", "Gather", "Expand", "If", "Loop", "TopK", "ArgMax", "Where", "Resize", "Cast", "Einsum"}
TOLERANCE = BOUNDS["onnxruntime", "fp32"].share
ASKED_FOR = ["--name", "mine", "--licence", "ours", "--training-data", "our own"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's exporter raises its own


def card(task: str) -> ModelCard:
    return ModelCard(
        name="drawn",
        task=task,  # type: ignore[arg-type]
        colour="RGB",
        input_range=(0.0, 255.0),
        weights_digest="",
        licence="none",
        training_data="none",
        embedding_size=128 if task == "embed" else None,
        guards="sha256:face" if task == "gate" else None,
    )


def stirred(network: nn.Module) -> nn.Module:
    """The network with every blend, slope and bias away from its start, so that each part counts."""
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@pytest.mark.parametrize(
    "body",
    [MobileNetV1, partial(MobileNetV1, adapters=True), MobileFaceNet],
    ids=["MobileNetV1", "with adapters", "MobileFaceNet"],
)
def test_the_exported_recognizer_uses_plain_operators_only_and_answers_what_torch_answers(
    tmp_path: Path, body: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    recognizer = stirred(
        Recognizer(body(), Parts(perceptibility=True, local=True, fusion=True), visibility=True)
    )
    names = ["embedding", "ri", "mask_prob", "visibility"]
    path = export(recognizer, names, tmp_path / "recognizer.onnx", card("embed"))
    assert {node.op_type for node in onnx.load(path).graph.node} & FORBIDDEN == set()
    engine = open_engine(path)
    for count in (1, 5):
        crops = np.random.default_rng(count).uniform(0, 255, (count, 3, 112, 112)).astype(np.float32)
        with torch.inference_mode():
            expected = recognizer(torch.from_numpy(crops))
        found = engine.infer({"crops": crops})
        for name, wanted in zip(names, expected, strict=True):
            assert found[name].shape[0] == count, name
            # All outputs lie within 1 of zero: single precision in another order of summation.
            np.testing.assert_allclose(found[name], wanted.numpy(), rtol=0, atol=1e-5, err_msg=name)


def test_the_exported_gate_uses_plain_operators_only_and_answers_what_torch_answers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    gate = Gate().eval()
    path = export(gate, ["ri"], tmp_path / "gate.onnx", card("gate"))
    assert {node.op_type for node in onnx.load(path).graph.node} & FORBIDDEN == set()
    crops = np.random.default_rng(0).uniform(0, 255, (4, 3, 112, 112)).astype(np.float32)
    with torch.inference_mode():
        expected = gate(torch.from_numpy(crops)).numpy()
    np.testing.assert_allclose(open_engine(path).infer({"crops": crops})["ri"], expected, rtol=0, atol=1e-5)


def test_the_card_travels_inside_with_the_digest_of_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    gate = Gate().eval()
    found = read_card(export(gate, ["ri"], tmp_path / "gate.onnx", card("gate")))
    assert found.name == "drawn"
    assert found.weights_digest.startswith("sha256:")
    gate.out.bias.data += 1
    assert (
        read_card(export(gate, ["ri"], tmp_path / "other.onnx", card("gate"))).weights_digest
        != found.weights_digest
    )


class Fickle(nn.Module):
    """Answers differently each time it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, crops: Tensor) -> Tensor:
        self.calls += 1
        return crops.mean((1, 2, 3)) * 0 + 10 * TOLERANCE * self.calls


class Choosy(nn.Module):
    """Uses an operator that picks entries by their values."""

    def forward(self, crops: Tensor) -> Tensor:
        return torch.topk(crops.mean((2, 3)), 2).values


@pytest.mark.parametrize(
    ("network", "reason"), [(Fickle(), "answers otherwise|torch differ by"), (Choosy(), "operators TopK")]
)
def test_a_file_that_cannot_be_trusted_is_refused_and_not_left_behind(
    tmp_path: Path, network: nn.Module, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        export(network, ["ri"], tmp_path / "gate.onnx", card("gate"))
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_the_simplifier_changed_is_refused_with_what_it_said() -> None:
    def simplify(model: ModelProto, **_: object) -> tuple[ModelProto, bool]:
        print("Tensor embedding changes after optimization.")
        return model, False

    with pytest.raises(ModelError, match=r"mine: .* \(Tensor embedding changes after optimization\.\)"):
        simplified(ModelProto(), Gate().eval(), "mine", simplify)


def test_the_simplifier_is_told_to_compare_its_graph_on_crops(tmp_path: Path) -> None:
    asked = {}

    def simplify(model: ModelProto, **options: object) -> tuple[ModelProto, bool]:
        asked.update(options)
        return model, True

    simplified(ModelProto(), Gate().eval(), "mine", simplify)
    assert asked["check_n"] == 1
    crops = asked["input_data"]["crops"]  # type: ignore[index]
    assert crops.shape == (2, 3, 112, 112)
    assert crops.max() > 200  # pixels, not the simplifier's own 0..1


@pytest.mark.parametrize(
    ("name", "weights", "size"),
    [
        ("iresnet18", lambda: drawn_weights.iresnet(18, 16), 16),
        ("adaface-ir18", lambda: drawn_weights.adaface(18, 24), 24),
        ("mobilefacenet", lambda: drawn_weights.mobilefacenet(2, 32), 32),
        ("mobilefacenet-foamliu", lambda: drawn_weights.foamliu(40), 40),
    ],
    ids=["iresnet18", "adaface-ir18", "mobilefacenet", "mobilefacenet-foamliu"],
)
def test_a_user_s_weights_become_a_file_with_plain_operators_and_a_batch_that_alone_varies(
    tmp_path: Path, name: str, weights: Callable[[], dict[str, Tensor]], size: int
) -> None:
    origin = Origin("mine", "ours", "our own")
    path = write_published(name, LAYOUTS[name], weights(), tmp_path / "face.onnx", origin)
    graph = onnx.load(path).graph
    assert {node.op_type for node in graph.node} & {*FORBIDDEN, "Identity", "Reshape", "Dropout"} == set()
    dims = [
        [d.dim_param or d.dim_value for d in t.type.tensor_type.shape.dim]
        for t in (*graph.input, *graph.output)
    ]
    assert dims == [["batch", 3, 112, 112], ["batch", size]]
    card = read_card(path)
    assert (card.name, card.licence, card.training_data) == ("mine", "ours", "our own")
    assert (card.colour, card.input_range, card.embedding_size) == ("RGB", (0.0, 255.0), size)
    assert LAYOUTS[name].pixels() in card.notes
    assert [entry.key for entry in onnx.load(path).metadata_props] == ["edge_fr.card"]
    embedding = open_engine(path).infer({"crops": np.full((3, 3, 112, 112), 99, np.float32)})["embedding"]
    assert embedding.shape == (3, size)


def test_the_command_asks_for_name_licence_and_training_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["onnx", "mobilefacenet", "--weights", "face.pt", "-o", str(tmp_path / "face.onnx")]
    with pytest.raises(SystemExit):
        main(command)
    assert "required: --name, --licence, --training-data" in capsys.readouterr().err
    assert main([*command, *ASKED_FOR]) == 1
    assert "error: no weights at face.pt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["recognizer", "-o", "face.onnx", "--mean", "1", "2", "3"], "has its pixels' mean and order in it"),
        (["iresnet18", "-o", "face.onnx", "--visibility"], "only recognizer has a map of the visible face"),
        (["iresnet18", "-o", "face.onnx", "--std", "1", "0", "1"], "expected three numbers above 0"),
        (["iresnet18", "-o", "face"], "expected a name that ends with .onnx"),
    ],
)
def test_options_that_do_not_go_together_are_told(
    more: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["onnx", *more, "--weights", "face.pt", *ASKED_FOR]) == 1
    assert reason in capsys.readouterr().err


def test_a_run_that_is_not_finished_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"no weights at .*recognizer\.pt, expected .* the folder of a run"):
        write_run(tmp_path, tmp_path / "face.onnx", Origin("mine", "ours", "our own"))
    command = ["onnx", "recognizer", "--weights", str(tmp_path), "-o", str(tmp_path / "face.onnx")]
    assert main([*command, *ASKED_FOR]) == 1
    assert "no weights at" in capsys.readouterr().err


def test_a_finished_run_becomes_a_recognizer_and_its_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        resolve("sface")
    except ModelNotFoundError as error:
        pytest.skip(str(error))
    parts = Parts(mask_attention=False, perceptibility=True)
    config = Config(
        name="small", sources=[Source(name="people", path="people")], steps=1, squeezed=8, parts=parts
    )
    learner = Learner(Recognizer(MobileNetV1(), parts, squeezed=8))
    saved = {"config": config.model_dump_json(), "state": learner.state_dict(), "step": 1}
    torch.save(saved, tmp_path / "recognizer.pt")
    face, gate = tmp_path / "out" / "face.onnx", tmp_path / "out" / "face-gate.onnx"
    command = ["onnx", "recognizer", "--weights", str(tmp_path), "-o", str(face), *ASKED_FOR]
    assert main([*command, "--known-failures", "small faces"]) == 0
    assert capsys.readouterr().out.split() == [str(face), str(gate)]
    found, guard = read_card(face), read_card(gate)
    assert found.known_failures == "small faces"
    assert (found.name, guard.name, guard.guards) == ("mine", "mine-gate", found.weights_digest)
    assert (guard.task, guard.training_data, guard.licence) == ("gate", "our own", "ours")
    assert [spec.name for spec in open_engine(face).outputs] == ["embedding", "ri"]
    for file in (face, gate):
        assert main(["verify", str(file), "--against", str(tmp_path)]) == 0
    assert "ri" in capsys.readouterr().out
