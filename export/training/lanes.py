"""The body's forward and backward pass in several threads, each with its share of the batch.

On a CPU one thread per share beats many threads per operator: they meet once a step, not after each of a
hundred operators, which is half the time where other work wants the same cores.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch
from torch import Tensor, nn

Features = tuple[Tensor, Tensor]  # F3, F4 in full precision, leaves of the heads' graph


class Lanes:
    """`forward` gives the features, whose gradients the heads' backward pass fills; then `backward`."""

    def __init__(self, body: nn.Module, lanes: int, *, bf16: bool) -> None:
        self._body, self._count, self._bf16 = body, lanes, bf16
        self._pool = ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(1,))
        meet = Barrier(lanes)  # so that every thread is there, and has set itself to one, before we go on
        list(self._pool.map(lambda _: meet.wait(), range(lanes)))
        torch.set_num_threads(lanes)  # the heads' operators use all
        self._outputs: list[Features] = []
        self._leaves: Features | None = None

    def _run(self, crops: Tensor) -> Features:
        with torch.autocast(crops.device.type, torch.bfloat16, enabled=self._bf16):
            f3, f4 = self._body(crops)
        return f3, f4

    def forward(self, crops: Tensor) -> Features:
        """Crops N x 3 x 112 x 112 -> F3 and F4 of the whole batch."""
        self._outputs = list(self._pool.map(self._run, crops.chunk(self._count)))
        f3, f4 = (torch.cat([o[i].detach().float() for o in self._outputs]).requires_grad_() for i in (0, 1))
        self._leaves = f3, f4
        return f3, f4

    def backward(self) -> None:
        """Takes the gradients that the features have by now on into the body's weights.

        Two shares add to the same gradient in either order, which gives the same sum to the bit.
        """
        assert self._leaves is not None
        shares = [
            (i, leaf.grad.chunk(self._count))
            for i, leaf in enumerate(self._leaves)
            if leaf.grad is not None
            and self._outputs[0][i].requires_grad  # not where the body is frozen up to it
        ]

        def run(lane: int) -> None:
            outputs = [self._outputs[lane][i] for i, _ in shares]
            gradients = [share[lane].to(out.dtype) for (_, share), out in zip(shares, outputs, strict=True)]
            torch.autograd.backward(outputs, gradients)

        list(self._pool.map(run, range(len(self._outputs))))
        self._outputs, self._leaves = [], None
