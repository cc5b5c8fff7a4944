"""Low-rank corrections for faces with little detail: absent where there is enough, and begun as told."""

import copy
import math

import pytest
import torch
from torch import nn

from export.networks.adapters import Adapter, DetailRouter, detail_loss, little_detail
from export.networks.backbone import MobileNetV1
from export.networks.recognizer import Parts, Recognizer
from export.training.blend import blend


def crops(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 255


def always(body: nn.Module, logit: float) -> None:
    """Lets the router answer the same for every crop."""
    router = body.router
    assert isinstance(router, DetailRouter)
    nn.init.zeros_(router.out.weight)
    nn.init.constant_(router.out.bias, logit)


def drawn(*, adapters: bool) -> MobileNetV1:
    torch.manual_seed(0)
    body = MobileNetV1(adapters=adapters).eval()
    for adapter in body.adapters:
        nn.init.normal_(adapter.up.weight, std=0.02)
    return body


def bare(body: MobileNetV1) -> MobileNetV1:
    """The same body without its adapters."""
    same = MobileNetV1().eval()
    same.load_state_dict({n: v for n, v in body.state_dict().items() if n in same.state_dict()})
    return same


@torch.inference_mode()
def test_a_body_whose_router_finds_enough_detail_answers_as_one_without_adapters() -> None:
    body = drawn(adapters=True)
    always(body, -200.0)  # the sigmoid of it is zero in single precision
    for found, expected in zip(body(crops()), bare(body)(crops()), strict=True):
        assert torch.equal(found, expected)
    always(body, 200.0)
    assert not torch.allclose(body(crops())[0], bare(body)(crops())[0])


@torch.inference_mode()
def test_new_adapters_change_nothing_whatever_the_router_finds() -> None:
    body = MobileNetV1(adapters=True).eval()
    for found, expected in zip(body(crops()), bare(body)(crops()), strict=True):
        assert torch.equal(found, expected)


@torch.inference_mode()
def test_an_adapter_works_in_proportion_to_the_share_of_each_crop() -> None:
    adapter = Adapter(6, 5, 2)
    nn.init.normal_(adapter.up.weight)
    x = torch.randn(3, 6, 4, 4)
    shares = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None]
    full = adapter(x, torch.ones(3, 1, 1, 1))
    torch.testing.assert_close(adapter(x, shares), shares * full)


def test_the_share_is_one_for_12_px_and_less_and_nothing_from_32_on() -> None:
    found = little_detail(torch.tensor([6.0, 12.0, 16.0, 24.0, 32.0, 112.0]))
    assert found[[0, 1]].tolist() == [1.0, 1.0]
    assert found[[4, 5]].tolist() == [0.0, 0.0]
    assert 1 > found[2] > found[3] > 0


def test_the_detail_loss_asks_only_where_the_side_is_known() -> None:
    logit = torch.tensor([0.0, 3.0])[:, None, None, None].requires_grad_()
    loss = detail_loss(logit, torch.tensor([12.0, math.nan]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert logit.grad is not None
    assert logit.grad.flatten().tolist() == [-0.5, 0.0]
    assert detail_loss(logit, torch.full((2,), math.nan)).item() == 0.0


def test_a_frozen_body_with_adapters_gives_gradients_to_them_alone() -> None:
    body = drawn(adapters=True).train()
    body.freeze(13)
    body(crops(1))[1].sum().backward()
    learning = {name.split(".")[0] for name, p in body.named_parameters() if p.grad is not None}
    assert learning == {"adapters"}


def recognizers(squeezed: int = 8) -> tuple[Recognizer, Recognizer, Recognizer]:
    """A base with adapters, and without them a trained one and what that began with."""
    torch.manual_seed(1)
    parts = Parts(mask_attention=False)
    new = Recognizer(
        MobileNetV1(adapters=True), parts.model_copy(update={"adapters": True}), squeezed=squeezed
    )
    begun = Recognizer(bare(new.body), parts, squeezed=8)  # type: ignore[arg-type]
    if squeezed == 8:
        begun.tail.load_state_dict(new.tail.state_dict())
    trained = copy.deepcopy(begun)
    with torch.no_grad():
        for block in [*trained.body.to_f3, *trained.body.to_f4][1:]:
            convolution = block[1].conv
            outputs, inputs = convolution.weight.shape[:2]
            change = torch.randn(outputs, 4) @ torch.randn(4, inputs) * (0.1 / (4 * inputs) ** 0.5)
            convolution.weight += change[:, :, None, None]  # of rank 4, which every adapter can hold
        for parameter in trained.tail.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return new.eval(), begun.eval(), trained.eval()


@pytest.mark.parametrize("keep", [0.0, 0.4])
@torch.no_grad()
def test_adapters_begin_with_the_part_of_a_small_change_that_the_body_does_not_take(keep: float) -> None:
    new, begun, trained = recognizers()
    blend(new, begun.tail, trained, keep, crops(4))
    always(new.body, 200.0)
    # What rank the change has the adapters have, so nothing is lost but rounding in thirteen layers.
    for found, expected in zip(new.body(crops()), trained.body(crops()), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    always(new.body, -200.0)
    expected = begun.body.to_f3[3][1].conv.weight.lerp(trained.body.to_f3[3][1].conv.weight, keep)
    assert torch.equal(new.body.to_f3[3][1].conv.weight, expected)


@torch.no_grad()
def test_the_tail_takes_its_share_of_the_change_whatever_the_signs_of_the_channels() -> None:
    new, begun, trained = recognizers()
    flipped = torch.tensor([1.0, -1, -1, 1, 1, -1, 1, 1])
    by_channel = flipped.repeat_interleave(49)
    trained.tail.squeeze.weight *= flipped[:, None, None, None]
    trained.tail.project.weight *= by_channel  # the same function of F4
    new.tail.squeeze.weight *= -1
    new.tail.project.weight *= -1
    blend(new, begun.tail, trained, 1.0, crops(4))
    f4 = torch.rand(3, 1024, 7, 7)
    torch.testing.assert_close(new.tail(f4), trained.tail(f4), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_channels_that_only_the_new_tail_has_stay_as_they_were() -> None:
    new, begun, trained = recognizers(squeezed=12)
    new.tail.squeeze.weight[-8:] = begun.tail.squeeze.weight
    before = copy.deepcopy(new.tail)
    blend(new, begun.tail, trained, 0.5, crops(4))
    assert torch.equal(new.tail.squeeze.weight[:4], before.squeeze.weight[:4])
    assert torch.equal(new.tail.project.weight[:, : 4 * 49], before.project.weight[:, : 4 * 49])
    assert not torch.equal(new.tail.squeeze.weight[4:], before.squeeze.weight[4:])
