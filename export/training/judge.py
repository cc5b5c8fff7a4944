"""How a recognizer does on the held-out people, one condition at a time. For choosing, not for reporting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from edge_fr.errors import InputError
from export.networks.recognizer import Recognizer
from export.training.data import Faces, Source
from export.training.masks import MaskRenderer
from export.training.teacher import to_tensor

CONDITIONS = ("clean", "px24", "px16", "px12", "px8", "mask", "mask+px24")

Embed = Callable[[torch.Tensor], torch.Tensor]  # crops N x 3 x 112 x 112 -> unit embeddings N x D


def degraded(crop: NDArray[np.uint8], condition: str, masks: MaskRenderer, seed: int) -> NDArray[np.uint8]:
    """The crop under a condition such as `mask+px24`: masked, then down to 24 pixels and back."""
    for part in condition.split("+"):
        if part == "mask":
            crop = masks(crop, np.random.default_rng(seed))[0]
        elif part.startswith("px"):
            side = int(part[2:])
            small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
            crop = np.asarray(cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC), np.uint8)
    return crop


def held_out_rows(faces: Faces, count: int, *, sources: Sequence[Source]) -> NDArray[np.int64]:
    """Up to `count` held-out faces of people with at least four pictures, drawn once; of those `sources`
    that name people and hold full-size crops. `faces` were packed from `sources`."""
    named = [i for i, source in enumerate(sources) if source.identities and source.layout == "aligned"]
    candidates = np.flatnonzero(faces.tune & np.isin(faces.source, named))
    names, counts = np.unique(faces.identity[candidates], return_counts=True)
    rows = candidates[np.isin(faces.identity[candidates], names[counts >= 4])]
    return np.random.default_rng(0).permutation(rows)[:count]


def embedder(recognizer: Recognizer, *, device: str = "cpu", bf16: bool = False) -> Embed:
    """The recognizer's embedding alone, without gradients, for crops that lie on any device."""

    def embed(crops: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return recognizer.find(crops.to(device), bf16=bf16).embedding

    return embed


def embeddings(
    embed: Embed, faces: Faces, rows: NDArray[np.int64], masks: MaskRenderer, condition: str
) -> NDArray[np.float32]:
    """What `embed` answers to those faces under the condition, in batches: N x D."""
    found = []
    for start in range(0, len(rows), 50):
        crops = [degraded(faces.crops[r], condition, masks, int(r)) for r in rows[start : start + 50]]
        found.append(embed(to_tensor(np.stack(crops))).cpu().numpy())
    return np.concatenate(found)


def judge(
    embed: Embed,
    faces: Faces,
    rows: NDArray[np.int64],
    masks: MaskRenderer,
    conditions: tuple[str, ...] = CONDITIONS,
) -> dict[str, dict[str, float]]:
    """Over all pairs of a clean face with another one under the condition: TAR at FAR 1e-2 and 1e-3, and the
    FAR at the score that clean strangers reach once in 1,000: how a threshold found on good pictures holds.
    """
    people = faces.identity[rows]
    if len(np.unique(people)) < 2:
        raise InputError(
            f"{len(np.unique(people))} held-out people with four pictures or more, judging needs 2; "
            f"add a source with identities to the config"
        )
    same = (people[:, None] == people) & ~np.eye(len(rows), dtype=bool)
    other = people[:, None] != people
    clean = embeddings(embed, faces, rows, masks, "clean")
    good = clean @ clean.T
    threshold = np.quantile(good[other], 1 - 1e-3)
    results = {}
    for condition in conditions:
        poor = clean if condition == "clean" else embeddings(embed, faces, rows, masks, condition)
        scores = clean @ poor.T
        genuine, impostor = scores[same], scores[other]
        results[condition] = {
            f"tar_at_far_{name}": float((genuine > np.quantile(impostor, 1 - far)).mean())
            for name, far in (("1e-2", 1e-2), ("1e-3", 1e-3))
        }
        results[condition]["far_at_clean_1e-3"] = float((impostor > threshold).mean())
    return results
