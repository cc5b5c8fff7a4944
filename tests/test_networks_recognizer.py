import pytest
import torch
from torch import Tensor, nn

from export.networks.backbone import MobileNetV1
from export.networks.gate import Gate
from export.networks.lgaf import length
from export.networks.recognizer import Parts, Recognizer
from export.networks.tail import FactorisedTail, fit

ALL = Parts(perceptibility=True, local=True, fusion=True)


class TinyBody(nn.Module):
    """A body of the right shapes that costs nothing."""

    f3_channels = 8
    f4_channels = 16

    def __init__(self) -> None:
        super().__init__()
        self.to_f3 = nn.Conv2d(3, 8, 8, 8)
        self.to_f4 = nn.Conv2d(8, 16, 2, 2)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        f3 = torch.relu(self.to_f3((crops - 127.5) * 0.0078125))
        return f3, torch.relu(self.to_f4(f3))


def test_new_attentions_leave_the_features_as_they_were() -> None:
    torch.manual_seed(0)
    recognizer = Recognizer(TinyBody(), Parts(perceptibility=True)).eval()
    crops = torch.rand(3, 3, 112, 112) * 255
    with torch.inference_mode():
        found = recognizer.find(crops)
        plain = recognizer.tail(recognizer.body(crops)[1])
    torch.testing.assert_close(found.f_global, plain, rtol=0, atol=0)
    torch.testing.assert_close(found.embedding, plain / length(plain), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("parts", "absent"),
    [
        (ALL, set()),
        (ALL.model_copy(update={"mask_attention": False}), {"foci", "visible"}),
        (ALL.model_copy(update={"perceptibility": False}), {"perceptibility"}),
        (ALL.model_copy(update={"fusion": False}), {"lgf"}),
        (ALL.model_copy(update={"local": False, "fusion": False}), {"mhms", "lgf"}),
        (ALL.model_copy(update={"projection": True}), set()),
        (Parts(), {"perceptibility", "mhms", "lgf"}),
    ],
)
def test_each_part_can_be_left_out(parts: Parts, absent: set[str]) -> None:
    recognizer = Recognizer(TinyBody(), parts).eval()
    there = {name for name, module in recognizer.named_children() if module is not None}
    assert {"body", "tail", "index", "foci", "visible", "perceptibility", "mhms", "lgf"} - there == absent
    with torch.inference_mode():
        found = recognizer(torch.rand(2, 3, 112, 112) * 255)
    # Unit length in single precision.
    torch.testing.assert_close(found.embedding.norm(dim=1), torch.ones(2), rtol=0, atol=1e-5)
    assert ((found.ri > 0) & (found.ri < 1)).all()
    assert (found.mask_prob is None) == ("foci" in absent)
    named = {name for name, value in found._asdict().items() if value is not None}
    assert set(recognizer.outputs()) == named


def multiply_adds(network: nn.Module) -> int:
    """Multiply-adds of all convolutions and linear maps for one crop."""
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        each = weight[0].numel() if isinstance(module, nn.Conv2d) else weight.shape[1]
        total += output.numel() * each

    hooks = [
        m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    with torch.inference_mode():
        network.eval()(torch.rand(1, 3, 112, 112) * 255)
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize(
    ("parts", "squeezed"),
    [(ALL, 128), (Parts(adapters=True, projection=True), 184)],
    ids=["every part of the papers", "as shipped"],
)
def test_the_recognizer_and_the_gate_keep_their_budgets(parts: Parts, squeezed: int) -> None:
    sface = multiply_adds(MobileNetV1()) + 50176 * 128  # and its fully connected tail
    recognizer = Recognizer(MobileNetV1(adapters=parts.adapters), parts, squeezed=squeezed)
    gate = Gate()
    ours = multiply_adds(recognizer)
    assert ours <= 1.1 * sface
    assert multiply_adds(gate) <= 0.05 * ours
    shipped = [v.numel() for name, v in recognizer.state_dict().items() if "auxiliary" not in name]
    assert 4 * sum(shipped) <= 20e6
    assert 4 * sum(v.numel() for v in gate.state_dict().values()) <= 1.5e6


def test_a_fitted_tail_agrees_with_a_matrix_that_has_its_form() -> None:
    torch.manual_seed(0)
    true = FactorisedTail(24, 4, 10)
    whole = nn.Linear(24 * 49, 10)
    squeeze = true.squeeze.weight[:, :, 0, 0]  # k x C
    project = true.project.weight.reshape(10, 4, 49)
    whole.weight.data = torch.einsum("kc,dkp->dcp", squeeze, project).reshape(10, 24 * 49).detach()
    whole.bias.data = true.project.bias.detach().clone()
    batches = [torch.randn(20, 24, 7, 7) for _ in range(5)]
    fitted = FactorisedTail(24, 4, 10)
    fit(fitted, whole, batches)
    unseen = torch.randn(8, 24, 7, 7)
    with torch.inference_mode():
        # The form fits exactly, so the ridge draws towards the solution itself: only rounding is left.
        torch.testing.assert_close(fitted(unseen), whole(unseen.flatten(1)), rtol=0, atol=1e-3)


def test_a_fitted_tail_is_nearer_to_the_matrix_than_the_factors_alone_make_it() -> None:
    torch.manual_seed(0)
    whole = nn.Linear(16 * 49, 6)
    mixing = torch.randn(5, 16 * 49)  # real features fill a few directions only

    def draw(count: int) -> Tensor:
        return (torch.randn(count, 5) @ mixing).reshape(count, 16, 7, 7)

    batches, unseen = [draw(50) for _ in range(4)], draw(50)
    errors = []
    for ridge in (1e6, 1e-3):  # the first leaves the factors as they are
        tail = FactorisedTail(16, 3, 6)
        fit(tail, whole, batches, ridge=ridge)
        with torch.inference_mode():
            errors.append(float(((tail(unseen) - whole(unseen.flatten(1))) ** 2).mean()))
    assert errors[1] < 0.1 * errors[0]
