"""What the teacher says of every clean face, computed once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch.nn import functional

from edge_fr.errors import InputError
from export.networks.backbone import load_sface
from export.training.data import Faces
from export.training.lanes import Lanes


def to_tensor(crops: NDArray[np.uint8]) -> torch.Tensor:
    """Crops N x 112 x 112 x 3 BGR uint8 -> N x 3 x 112 x 112 RGB float, channels last in memory."""
    rgb = torch.from_numpy(np.ascontiguousarray(crops[..., ::-1]))
    return rgb.permute(0, 3, 1, 2).float()


def teach(
    faces: Faces, model: Path, cache: Path, *, device: str = "cpu", threads: int = 1, bf16: bool = False
) -> NDArray[np.float32]:
    """The teacher's unit embeddings N x 128 of the clean crops, from the cache if they are there.

    An embedding is the direction of the sum over the crop and its mirror image: a steadier target than
    the crop alone, and the same for both, so that the student may be shown either.
    """
    made_by = hashlib.sha256(model.read_bytes()).hexdigest()[:8] + ("-bf16" if bf16 else "")
    path = cache / f"teacher-{faces.digest}-{made_by}.npy"
    if not path.is_file():
        body, tail = (part.eval().requires_grad_(False).to(device) for part in load_sface(model))
        lanes = Lanes(body, threads, bf16=bf16)
        rows = []
        with torch.no_grad():
            for start in track(range(0, len(faces.crops), 64), description="teacher"):
                crops = to_tensor(faces.crops[start : start + 64]).to(device)
                f4 = lanes.forward(torch.cat([crops, crops.flip(3)]))[1]
                embeddings = functional.normalize(tail(f4.flatten(1)))  # 2N x 128
                rows.append(functional.normalize(torch.stack(embeddings.chunk(2)).sum(0)).cpu())
        partial = path.with_suffix(".partial.npy")
        np.save(partial, torch.cat(rows).numpy())
        partial.rename(path)
    embeddings = np.load(path)
    if embeddings.shape != (len(faces.crops), 128):
        raise InputError(f"{path} holds {embeddings.shape}, expected {(len(faces.crops), 128)}; delete it")
    return np.asarray(embeddings, dtype=np.float32)
