"""Which layers a model loses most by in 8 bits, and how much of its work each of them is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from onnx import ModelProto

from calibration.court import Breach, Harm
from calibration.prepare import constants, layers, out_axis, with_shapes
from edge_fr.embed import Embeddings
from edge_fr.errors import ModelError


def shares(model: ModelProto, input_shape: Collection[int]) -> dict[str, float]:
    """Each layer's part (0..1) of the prepared model's multiply-adds for an input of that shape."""
    (picture,) = (value.name for value in model.graph.input)
    shapes = with_shapes(model, {picture: input_shape})
    known = constants(model)
    work: dict[str, int] = {}
    for node in layers(model):
        result = shapes.get(node.output[0], ())
        if 0 in (result or (0,)):
            raise ModelError(f"the shape of {node.output[0]!r} cannot be told, nor the work of {node.name}")
        weights = known[node.input[1]]
        # One output takes a multiply-add for each weight that belongs to its channel.
        work[node.name] = int(np.prod(result)) * (weights.size // weights.shape[out_axis(node)])
    total = sum(work.values())
    return {name: count / total for name, count in work.items()}


def rank(
    candidates: Collection[str],
    breach: Breach,
    before: Embeddings,
    answer: Callable[[Collection[str]], Embeddings],
) -> list[Harm]:
    """The layers in descending order of the error of `breach` that goes when each of them alone is kept in
    floating point.

    `before` is what the original answers on a few faces of the stratum; `answer` what the INT8 model does
    with the given layers in floating point beside those that are there already.
    """
    of, error = _error(breach)
    start = error(before, answer(()))
    found = [Harm(layer, breach.stratum, of, start - error(before, answer((layer,)))) for layer in candidates]
    return sorted(found, key=lambda harm: -harm.recovered)


def _error(breach: Breach) -> tuple[str, Callable[[Embeddings, Embeddings], float]]:
    """What to rank by, and its name: on a few faces a percentile or a rank correlation says little, the
    mean change behind it does."""
    by: Mapping[str, tuple[str, Callable[[Embeddings, Embeddings], float]]] = {
        "ri_spearman": ("mean change of ri", _ri),
        "mask_auc_drop": ("mean change of mask_prob", _mask),
    }
    return by.get(breach.name, ("1 - mean cosine", _cosine))


def _cosine(before: Embeddings, after: Embeddings) -> float:
    return 1 - float((before.vectors.astype(np.float64) * after.vectors).sum(axis=1).mean())


def _ri(before: Embeddings, after: Embeddings) -> float:
    assert before.ri is not None
    assert after.ri is not None
    return float(np.abs(before.ri.astype(np.float64) - after.ri).mean())


def _mask(before: Embeddings, after: Embeddings) -> float:
    assert before.mask_prob is not None
    assert after.mask_prob is not None
    return float(np.abs(before.mask_prob.astype(np.float64) - after.mask_prob).mean())
