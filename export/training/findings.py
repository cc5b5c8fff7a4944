"""What the parts of a trained recognizer do, on people it never saw: for the table of results.

Faces are the held-out people's of the config, under degradations drawn with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from edge_fr.detect import Detector
from edge_fr.engine import open_engine
from edge_fr.errors import InputError
from edge_fr.image import align, read_image
from edge_fr.models import resolve
from export.networks.adapters import DetailRouter
from export.networks.backbone import MobileNetV1
from export.networks.gate import Gate
from export.networks.recognizer import Found, Recognizer
from export.training import degradations
from export.training.config import Config
from export.training.data import PICTURES, pack
from export.training.degradations import Image, view
from export.training.masks import MaskRenderer, occlude
from export.training.start import load_trained
from export.training.teacher import to_tensor

Change = Callable[[Image, np.random.Generator], Image]
BATCH = 50


def findings(
    run: Path, data: Path, cache: Path, *, masked: Path | None = None, count: int = 1500
) -> dict[str, object]:
    """The gate's rank correlation with the index, the fusion's share of the global branch and the adapters'
    share by kind of degradation, and how well `mask_prob` tells real masks from bare faces.

    `masked` is a folder of photographs of people in masks; they are found and aligned as the runtime does
    it. `count` bounds the held-out faces.
    """
    recognizer, gate, config = load_trained(run / "recognizer.pt")
    faces = pack(config.sources, data, cache)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(faces.tune))[:count]
    if len(rows) < 2:
        raise InputError(f"{len(rows)} faces of held-out people in {data}, expected hundreds")
    renderer = MaskRenderer(data / config.mask_templates if config.mask_templates else None)
    crops = np.stack([faces.crops[row] for row in rows])
    result: dict[str, object] = {
        "held_out_faces": len(crops),
        "held_out_people": len(np.unique(faces.identity[rows])),
        "gate_spearman": gate_agreement(recognizer, gate, crops, config, renderer),
    }
    if recognizer.lgf is not None:
        result["global_share"] = global_shares(recognizer, crops[:400], renderer)
    if isinstance(recognizer.body, MobileNetV1) and recognizer.body.router is not None:
        result["adapters_share"] = adapters_shares(recognizer.body.router, crops[:400], renderer)
    if masked is not None and recognizer.foci is not None:
        result["mask_prob"] = mask_separation(recognizer, crops, masked)
    return result


def gate_agreement(
    recognizer: Recognizer, gate: Gate, crops: NDArray[np.uint8], config: Config, renderer: MaskRenderer
) -> float:
    """Spearman's correlation of the gate's index with the recognizer's, over views as in training."""
    views = np.stack(
        [
            view(crop, config.recipe, renderer, np.random.default_rng([7, i])).image
            for i, crop in enumerate(crops)
        ]
    )
    full, quick = [], []
    with torch.inference_mode():
        for start in range(0, len(views), BATCH):
            batch = to_tensor(views[start : start + BATCH])
            full.append(recognizer.find(batch).index_logit[:, 0].numpy())
            quick.append(gate.logit(batch)[:, 0].numpy())
    return spearman(np.concatenate(full), np.concatenate(quick))


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """The correlation of the ranks of two (N,) arrays without ties."""
    ranks_a, ranks_b = (np.argsort(np.argsort(values)) for values in (a, b))
    return float(np.corrcoef(ranks_a, ranks_b)[0, 1])


def kinds(renderer: MaskRenderer) -> dict[str, Change]:
    """One change of each kind, as strong as it often is."""

    def shrink(side_px: int) -> Change:
        def change(image: Image, rng: np.random.Generator) -> Image:
            small = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA)
            return np.asarray(cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC), np.uint8)

        return change

    return {
        "clean": lambda image, rng: image,
        "mask": lambda image, rng: renderer(image, rng)[0],
        "occluder": lambda image, rng: occlude(image, rng)[0],
        "24 px": shrink(24),
        "12 px": shrink(12),
        "out of focus": lambda image, rng: degradations.blur(image, 3.0),
        "moving": lambda image, rng: degradations.motion(image, 9.0, rng.uniform(0, np.pi)),
        "noise": lambda image, rng: degradations.noise(image, 20.0, rng),
        "dark": lambda image, rng: degradations.dark(image, 0.25, 1.4),
    }


def global_shares(
    recognizer: Recognizer, crops: NDArray[np.uint8], renderer: MaskRenderer
) -> dict[str, dict[str, float]]:
    """By kind of degradation the mean and spread of the global branch's weight, and the cosine of each
    branch alone, and of both fused, with the fused embedding of the clean face."""
    result = {}
    clean: NDArray[np.float32] | None = None
    for kind, change in kinds(renderer).items():
        found = [
            find(
                recognizer,
                [change(crop, np.random.default_rng([3, start, i])) for i, crop in enumerate(some)],
            )
            for start in range(0, len(crops), BATCH)
            for some in (crops[start : start + BATCH],)
        ]
        columns = [np.concatenate(column) for column in zip(*found, strict=True)]
        share, fused, whole, part = columns
        clean = fused if clean is None else clean
        result[kind] = {
            "share": float(share.mean()),
            "spread": float(share.std()),
            **{
                name: float((vectors * clean).sum(1).mean())
                for name, vectors in (("fused", fused), ("global", whole), ("local", part))
            },
        }
    return result


def adapters_shares(
    router: DetailRouter, crops: NDArray[np.uint8], renderer: MaskRenderer
) -> dict[str, dict[str, float]]:
    """By kind of degradation the mean and spread of the share s that the adapters have."""
    result = {}
    for kind, change in kinds(renderer).items():
        changed = [change(crop, np.random.default_rng([3, i])) for i, crop in enumerate(crops)]
        with torch.inference_mode():
            share = torch.sigmoid(router(to_tensor(np.stack(changed))))
        result[kind] = {"share": float(share.mean()), "spread": float(share.std())}
    return result


def find(recognizer: Recognizer, crops: list[Image]) -> tuple[NDArray[np.float32], ...]:
    """The global share N and the unit embeddings N x D: fused, of the global branch, of the local one."""
    with torch.inference_mode():
        found: Found = recognizer.find(to_tensor(np.stack(crops)))
    assert found.local is not None
    assert found.global_share is not None
    branches = (
        torch.nn.functional.normalize(branch).numpy() for branch in (found.f_global, found.local.feature)
    )
    return found.global_share[:, 0].numpy(), found.embedding.numpy(), *branches


def mask_separation(recognizer: Recognizer, bare: NDArray[np.uint8], folder: Path) -> dict[str, float]:
    """AUC of `mask_prob` for the folder's photographs, the face of each that the detector is surest of,
    against bare crops, and the shares that the bound of 0.5 gets right."""
    detector = Detector(open_engine(resolve("yunet")))
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    crops = []
    for path in paths:
        image = read_image(path)
        found = detector.detect(image)
        if len(found):
            crops.append(align(image, found.landmarks[np.argmax(found.scores)][None])[0])
    if not crops:
        raise InputError(f"no face found in the {len(paths)} pictures under {folder}")
    masked, unmasked = (_mask_logits(recognizer, list(some)) for some in (crops, bare))
    order = np.argsort(np.concatenate([unmasked, masked]), kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    high = ranks[len(unmasked) :].sum() - len(masked) * (len(masked) + 1) / 2
    return {
        "photographs": len(paths),
        "faces": len(crops),
        "auc": float(high / (len(masked) * len(unmasked))),
        "masks_found": float((masked >= 0).mean()),
        "bare_called_masked": float((unmasked >= 0).mean()),
    }


def _mask_logits(recognizer: Recognizer, crops: list[Image]) -> NDArray[np.float32]:
    logits = []
    with torch.inference_mode():
        for start in range(0, len(crops), BATCH):
            found = recognizer.find(to_tensor(np.stack(crops[start : start + BATCH])))
            assert found.attention is not None
            logits.append(found.attention.mask_logit[:, 0].numpy())
    return np.concatenate(logits)
