"""What a training begins with: the base, or what earlier runs made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edge_fr.errors import InputError
from edge_fr.models import resolve
from export.networks.adapters import DetailRouter
from export.networks.backbone import MobileNetV1, load_sface
from export.networks.gate import Gate
from export.networks.recognizer import Recognizer
from export.networks.tail import FactorisedTail, fit
from export.training.blend import blend
from export.training.config import Config
from export.training.data import Faces
from export.training.judge import degraded, embedder, embeddings
from export.training.lanes import Lanes
from export.training.learner import Learner
from export.training.masks import MaskRenderer
from export.training.router_fit import fit_router
from export.training.teacher import to_tensor

# Faces that are still recognised now and then. The centre of hopeless ones lies elsewhere (cosine 0.8): to
# take that away gains a quarter as much at 12 and 16 pixels, and loses at 8 (held-out people).
POOR_PX = 8


def start(config: Config, faces: Faces, masks: MaskRenderer, earlier: list[Path]) -> Learner:
    """The networks before training: the base's body, and a tail fitted to the base's in closed form; or, of
    the finished runs at `earlier`, the gate and every part that both have. A body with new adapters begins
    between the two: see blend.py.
    """
    torch.manual_seed(config.seed)
    body, linear = load_sface(resolve(config.base), adapters=config.parts.adapters)
    recognizer = Recognizer(body, config.parts, squeezed=config.squeezed)
    learner = Learner(recognizer)
    if earlier:
        _take_over(learner, linear, config, faces, masks, earlier)
    else:
        fit_tail(recognizer, linear, config, faces)
    projection = recognizer.projection
    if projection is not None and not projection.centre.any():
        projection.centre.copy_(poor_centre(recognizer, config, faces, masks))
    return learner


def _take_over(
    learner: Learner,
    linear: nn.Linear,
    config: Config,
    faces: Faces,
    masks: MaskRenderer,
    earlier: list[Path],
) -> None:
    """Gives the new networks what the runs at `earlier` have, and new adapters their beginning."""
    recognizer = learner.recognizer
    finished, gate, before = load_mean(earlier)
    new_adapters = config.parts.adapters and not before.parts.adapters
    made, own = finished.state_dict(), recognizer.state_dict()
    blended = ("body.", "tail.") if new_adapters else ()
    taken = {name: value for name, value in made.items() if name in own and not name.startswith(blended)}
    recognizer.load_state_dict({**own, **taken})
    learner.gate.load_state_dict(gate.state_dict())
    if new_adapters:
        body = cast(MobileNetV1, recognizer.body)
        fit_router(cast(DetailRouter, body.router), faces, config, masks)
        features = _clean_features(body, config, faces)
        begun = FactorisedTail(body.f4_channels, before.squeezed)
        fit(begun, linear, features)
        fit(recognizer.tail, linear, features)
        rows = _training_rows(faces, 256, [config.seed, 2])
        small = [degraded(faces.crops[r], f"px{8 + i % 13}", masks, int(r)) for i, r in enumerate(rows)]
        blend(recognizer, begun, finished, config.keep, to_tensor(np.stack(small)))


def poor_centre(recognizer: Recognizer, config: Config, faces: Faces, masks: MaskRenderer) -> Tensor:
    """The mean direction (1 x D) of 1,000 training faces at POOR_PX pixels."""
    recognizer.eval()
    rows = _training_rows(faces, 1000, [config.seed, 3])
    found = embeddings(embedder(recognizer), faces, rows, masks, f"px{POOR_PX}")
    return functional.normalize(torch.from_numpy(found).mean(0, keepdim=True))


def fit_tail(recognizer: Recognizer, linear: nn.Linear, config: Config, faces: Faces) -> None:
    """Fits the tail to the base's, and the feature that stands for hidden places, on 8,000 clean faces."""
    features = _clean_features(recognizer.body, config, faces)
    fit(recognizer.tail, linear, features)
    if recognizer.visible is not None:
        means = torch.stack([batch.mean(0) for batch in features])
        recognizer.visible.mean.data = means.mean(0)[None]


def _clean_features(body: nn.Module, config: Config, faces: Faces) -> _Batches:
    """F4 of 8,000 clean faces, in batches."""
    body.eval().to(config.device)
    rows = _training_rows(faces, 8000, config.seed)
    features = []
    lanes = Lanes(body, config.threads if config.device == "cpu" else 1, bf16=config.bf16)
    with torch.no_grad():
        for first in range(0, len(rows), 64):
            crops = to_tensor(faces.crops[np.sort(rows[first : first + 64])]).to(config.device)
            features.append(lanes.forward(crops)[1].half().cpu())
    body.cpu()
    return _Batches(features)


def _training_rows(faces: Faces, count: int, seed: int | list[int]) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(np.flatnonzero(~faces.tune))[:count]


class _Batches:
    """Feature batches as float, as often as they are asked for."""

    def __init__(self, batches: list[Tensor]) -> None:
        self._batches = batches

    def __iter__(self) -> Any:
        return (b.float() for b in self._batches)


def blank(config: Config, *, visibility: bool = False) -> Recognizer:
    """A recognizer of the config's shape, whose weights are to be loaded."""
    return Recognizer(
        MobileNetV1(adapters=config.parts.adapters),
        config.parts,
        squeezed=config.squeezed,
        visibility=visibility,
    )


def load_mean(paths: list[Path]) -> tuple[Recognizer, Gate, Config]:
    """Recognizer and gate with the mean of the weights of finished runs of one shape, in eval mode.

    Runs that differ in what they drew end up beside each other, and their mean does better than each: "Model
    soups" (arXiv 2203.05482), the uniform one.
    """
    recognizer, gate, config = load_trained(paths[0])
    others = [load_trained(path) for path in paths[1:]]
    for path, (_, _, other) in zip(paths[1:], others, strict=True):
        if (other.parts, other.squeezed) != (config.parts, config.squeezed):
            raise InputError(f"{path} has other parts than {paths[0]}; a mean needs runs of one shape")
    _to_mean(recognizer, [other for other, _, _ in others])
    _to_mean(gate, [other for _, other, _ in others])
    if recognizer.projection is not None:
        centre = recognizer.projection.centre
        centre.copy_(functional.normalize(centre))
    return recognizer, gate, config


@torch.no_grad()
def _to_mean(network: nn.Module, others: list[nn.Module]) -> None:
    """Moves the weights of `network` to the mean of its own and those of the others."""
    states = [other.state_dict() for other in others]
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.stack([value, *(state[name] for state in states)]).mean(0))


def load_trained(path: Path, *, visibility: bool = False) -> tuple[Recognizer, Gate, Config]:
    """The averaged recognizer and gate of a finished run, in eval mode."""
    if not path.is_file():
        raise InputError(f"no finished run at {path}; `python -m export train` writes one at its end")
    saved = torch.load(path, map_location="cpu")
    config = Config.model_validate_json(saved["config"])
    learner = Learner(blank(config, visibility=visibility))
    learner.load_state_dict(saved["state"])
    learner.eval()
    return learner.recognizer, learner.gate, config
