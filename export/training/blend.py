"""A recognizer with adapters begins between two that have none: the base, and what training made of it.

Body and tail go `keep` of the way from one to the other, as "Robust fine-tuning of zero-shot models"
(arXiv 2109.01903) interpolates weights, and the adapters begin with as much of the rest of the body as they
can hold. So good faces see a network that training has not led far, and poor ones nearly all that it learned.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from export.networks.adapters import Adapter
from export.networks.backbone import MobileNetV1
from export.networks.recognizer import Recognizer
from export.networks.tail import FactorisedTail


@torch.no_grad()
def blend(new: Recognizer, begun: FactorisedTail, trained: Recognizer, keep: float, crops: Tensor) -> None:
    """Moves body and tail of `new`, which are the base's, `keep` (0..1) of the way to those of `trained`.

    `begun` is the tail that `trained` began with; that of `new` may keep more channels. Then fits the
    adapters, for which `crops` N x 3 x 112 x 112 are faces of the kind that they are for.
    """
    body, other = cast(MobileNetV1, new.body), cast(MobileNetV1, trained.body)
    moments = _moments(other, crops)
    after = other.state_dict()
    body.load_state_dict(
        {n: v.lerp(after[n], keep) if n in after else v for n, v in body.state_dict().items()}
    )
    for adapter, own, full, moment in zip(
        body.adapters, _pointwise(body), _pointwise(other), moments, strict=True
    ):
        _fit(cast(Adapter, adapter), full - own, moment)
    _move_tail(new.tail, begun, trained.tail, keep)


def _move_tail(new: FactorisedTail, begun: FactorisedTail, trained: FactorisedTail, keep: float) -> None:
    """Adds `keep` of what training changed to the channels that `new` has in common with the other two.

    Those are its last, the channels being in rising order of what they carry. A channel's sign is free, and
    may have come out otherwise where `begun` was fitted again.
    """
    kept = begun.squeeze.out_channels
    sign = torch.sign((begun.squeeze.weight * new.squeeze.weight[-kept:]).sum((1, 2, 3)))
    drift = torch.sign((trained.squeeze.weight * begun.squeeze.weight).sum((1, 2, 3)))
    squeeze = trained.squeeze.weight * drift[:, None, None, None] - begun.squeeze.weight
    new.squeeze.weight[-kept:] += keep * squeeze * sign[:, None, None, None]
    by_channel = drift.repeat_interleave(49), sign.repeat_interleave(49)
    project = trained.project.weight * by_channel[0] - begun.project.weight
    new.project.weight[:, -kept * 49 :] += keep * project * by_channel[1]
    new.project.bias.add_(keep * (trained.project.bias - begun.project.bias))


def _pointwise(body: MobileNetV1) -> list[Tensor]:
    """Weights and biases of the convolutions that have, or could have, adapters: each O x I + 1."""
    convolutions = [cast(nn.Conv2d, block[1].conv) for block in [*body.to_f3, *body.to_f4][1:]]
    return [torch.cat([c.weight.flatten(1), cast(Tensor, c.bias)[:, None]], 1) for c in convolutions]


def _moments(body: MobileNetV1, crops: Tensor) -> list[Tensor]:
    """Of each such convolution the second moment of what goes in, and of a one beside it: I + 1 x I + 1."""
    found: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
        rows = inputs[0].permute(0, 2, 3, 1).flatten(0, 2)  # N*H*W x I
        rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
        found.append(rows.T @ rows / len(rows))

    blocks = [*body.to_f3, *body.to_f4][1:]
    hooks = [block[1].conv.register_forward_pre_hook(note) for block in blocks]
    body(crops)
    for hook in hooks:
        hook.remove()
    return found


def _fit(adapter: Adapter, change: Tensor, moment: Tensor) -> None:
    """The best approximation of that rank to `change` (O x I + 1), as seen in what it does to its inputs."""
    rank = adapter.up.in_channels
    spread = change.double() @ moment.double() @ change.double().T
    basis = torch.linalg.eigh(spread)[1][:, -rank:].float()  # O x rank
    down = basis.T @ change  # rank x I + 1
    scale = down.norm(dim=1).sqrt().clamp_min(1e-6)  # both factors alike, as one learning rate is for both
    adapter.up.weight.copy_((basis * scale)[:, :, None, None])
    adapter.down.weight.copy_((down[:, :-1] / scale[:, None])[:, :, None, None])
    cast(Tensor, adapter.down.bias).copy_(down[:, -1] / scale)
