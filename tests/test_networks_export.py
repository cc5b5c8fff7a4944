"""What leaves for the runtime: plain operators, torch's own answers, and a card."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edge_fr.cards import read_card
from edge_fr.engine import ModelCard, open_engine
from edge_fr.errors import InputError, ModelError
from export.__main__ import main
from export.networks.backbone import MobileFaceNet, MobileNetV1
from export.networks.gate import Gate
from export.networks.recognizer import Parts, Recognizer
from export.to_onnx import TOLERANCE, export, write

# Operators of graphs that compute their own shapes or choose what to run: engines fail on them or fall back.
FORBIDDEN = {"Shape", "Gather", "Expand", "If", "Loop", "TopK", "ArgMax", "Where", "Resize", "Cast", "Einsum"}

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


@pytest.mark.parametrize("body", [MobileNetV1, MobileFaceNet], ids=lambda b: b.__name__)
def test_the_exported_recognizer_uses_plain_operators_only_and_answers_what_torch_answers(
    tmp_path: Path, body: type[nn.Module]
) -> None:
    torch.manual_seed(0)
    recognizer = stirred(Recognizer(body(), Parts(), visibility=True))
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


@pytest.mark.parametrize(("network", "reason"), [(Fickle(), "torch differ by"), (Choosy(), "operators TopK")])
def test_a_file_that_cannot_be_trusted_is_refused_and_not_left_behind(
    tmp_path: Path, network: nn.Module, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        export(network, ["ri"], tmp_path / "gate.onnx", card("gate"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_finished_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"no finished run at .*recognizer\.pt"):
        write(tmp_path, tmp_path / "out")
    assert main(["onnx", "--run", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "no finished run" in capsys.readouterr().err
