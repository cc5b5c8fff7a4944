"""The last fit of the index: whom it asks, and that head and gate learn what is there to be learned."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from edge_fr.errors import InputError
from export.networks.gate import Gate
from export.networks.recognizability import RecognizabilityHead
from export.training.config import Config
from export.training.data import Faces
from export.training.findings import spearman
from export.training.index_fit import (
    LEAST,
    LEAST_HELD_OUT,
    Views,
    calibrate,
    chances,
    fit_gate,
    fit_head,
    stranger_cosines,
)
from export.training.masks import MaskRenderer

X, Y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def asked(v: list[torch.Tensor], drawn: Views, teacher: list[torch.Tensor], label: list[int]) -> torch.Tensor:
    return chances(torch.stack(v), drawn, torch.stack(teacher), torch.tensor(label), 0.5)


def views(row: list[int], hopeless: list[bool] | None = None) -> Views:
    crops = np.zeros((len(row), 112, 112, 3), np.uint8)
    unknown = np.full(len(row), np.nan, np.float32)
    return Views(crops, np.array(hopeless or [False] * len(row)), unknown, np.array(row))


def test_the_share_is_of_the_persons_other_pictures_and_never_of_the_picture_itself() -> None:
    # Picture 0 is like itself and like picture 1, and unlike picture 2, all of one person.
    share = asked([X, Y], views([0, 0]), [X, X, Y, X], [7, 7, 7, 8])
    assert share.tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    alone = asked([X], views([0]), [X, Y], [7, 7])
    assert alone.tolist() == pytest.approx([0], abs=1e-4)


def test_who_has_no_other_picture_is_unknown_and_hopeless_views_match_nobody() -> None:
    drawn = views([2, 0, 0, 3], [False, True, False, False])
    share = asked([X, X, X, X], drawn, [X, X, X, X], [7, 7, 8, -1])
    assert torch.isnan(share).tolist() == [True, False, False, True]
    assert share[1:3].tolist() == pytest.approx([0, 1], abs=1e-4)


class Told:
    """A recognizer that reads an embedding off the crop's grey level."""

    def __init__(self, v: torch.Tensor) -> None:
        self._v = v

    def find(self, crops: torch.Tensor, *, bf16: bool) -> SimpleNamespace:
        return SimpleNamespace(embedding=self._v[crops[:, 0, 0, 0].long()])


def test_strangers_are_compared_by_one_picture_each_and_the_unnamed_not_at_all() -> None:
    v = functional.normalize(torch.randn(201, 8, generator=torch.Generator().manual_seed(0)))
    number = np.arange(201).repeat(2)
    who = np.where(number < 200, number, -1)
    crops = np.broadcast_to(number.astype(np.uint8)[:, None, None, None], (402, 112, 112, 3))
    faces = Faces(crops, np.zeros(402, np.int64), who, np.zeros(402, bool), "drawn")
    config = Config(name="drawn", sources=[], steps=0, bf16=False)
    learned, promised = stranger_cosines(Told(v), faces, config, MaskRenderer(None))  # type: ignore[arg-type]
    pairs = (v[:200] @ v[:200].T)[torch.triu_indices(200, 200, 1).unbind()].numpy()  # 19,900
    assert int((pairs >= learned).sum()) == pytest.approx(19.9, abs=1)
    assert int((pairs >= promised).sum()) == pytest.approx(1.99, abs=1)
    alone = Faces(crops, faces.source, np.where(who == 0, 0, -1), faces.tune, "drawn")
    with pytest.raises(InputError, match="1 people with names"):
        stranger_cosines(Told(v), alone, config, MaskRenderer(None))  # type: ignore[arg-type]


def test_the_head_learns_the_shares_from_inputs_of_any_scale_and_passes_over_the_unknown() -> None:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(7000, 8 + 16 + 1, generator=rng)
    # The direction and the sum hold it, on scales a thousand apart, with an offset.
    inputs[:, 3], inputs[:, -1] = 0.01 * inputs[:, 3], 40 + 10 * inputs[:, -1]
    truth = 100 * inputs[:, 3] + 0.1 * (inputs[:, -1] - 40)
    share = torch.sigmoid(2 * truth)
    share[1::3] = torch.nan
    head = RecognizabilityHead(16, size=8).eval()
    fit_head(head, inputs[:6000], share[:6000], seed=0)
    with torch.no_grad():
        found = head.from_inputs(inputs[6000:])[:, 0]
    assert spearman(found.numpy(), truth[6000:].numpy()) > 0.95
    assert float(torch.sigmoid(found).mean()) == pytest.approx(
        float(torch.sigmoid(2 * truth[6000:]).mean()), abs=0.03
    )


def test_calibration_keeps_the_order_and_promises_what_is_kept() -> None:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(5000, 25, generator=rng)
    head = RecognizabilityHead(16, size=8).eval()
    with torch.no_grad():
        before = head.from_inputs(inputs)[:, 0]
    share = torch.sigmoid(3 * before - 1)
    share[::2] = torch.nan
    calibrate(head, inputs, share)
    with torch.no_grad():
        after = head.from_inputs(inputs)[:, 0]
    torch.testing.assert_close(after, 3 * before - 1, rtol=1e-3, atol=1e-3)


def test_too_few_people_with_several_pictures_are_an_error_that_counts_them() -> None:
    share = torch.full((LEAST + 50,), torch.nan)
    share[: LEAST - 1] = 0.5
    with pytest.raises(InputError, match=f"{LEAST - 1} views of people with several pictures"):
        fit_head(RecognizabilityHead(16, size=8), torch.randn(len(share), 25), share, seed=0)
    share[LEAST_HELD_OUT - 1 :] = torch.nan
    with pytest.raises(InputError, match=f"{LEAST_HELD_OUT - 1} held-out views of people with several"):
        calibrate(RecognizabilityHead(16, size=8), torch.randn(len(share), 25), share)


def test_the_gate_learns_the_index_from_the_pictures_alone() -> None:
    rng = np.random.default_rng(0)
    # Sharp pictures are recognizable, smooth ones are not.
    fine = rng.integers(0, 256, (768, 112, 112, 3), dtype=np.uint8)
    coarse = np.repeat(np.repeat(fine[:, ::28, ::28], 28, axis=1), 28, axis=2)
    sharp = rng.random(768) < 0.5
    drawn = Views(
        np.where(sharp[:, None, None, None], fine, coarse),
        ~sharp,
        np.full(768, np.nan, np.float32),
        np.arange(768),
    )
    logit = torch.from_numpy(np.where(sharp, 2.0, -2.0).astype(np.float32))[:, None]
    gate = Gate().eval()
    fit_gate(gate, drawn, logit, seed=0)
    assert not gate.training
    crops = torch.from_numpy(drawn.crops[:64].transpose(0, 3, 1, 2).astype(np.float32))
    with torch.inference_mode():
        found = gate(crops)[:, 0].numpy()
    assert found[sharp[:64]].min() > found[~sharp[:64]].max()
