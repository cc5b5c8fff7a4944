"""Detection, alignment and embedding end to end, on the first 600 pairs of LFW.

    python -m tests.bench.lfw LFW_FOLDER [--json]

LFW_FOLDER holds `pairs.txt`, `original250/` (the photographs) and `aligned112/` (crops made ready by
others). Both are embedded by the same model: the first with this package's detector and alignment (the
face nearest the middle is meant), the second as they are. A photograph without a face counts as score -1.
Accuracy is at the best threshold for the 600 pairs; intervals are 95 % by bootstrap over pairs.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from edge_fr.detect import Detector
from edge_fr.embed import Embedder
from edge_fr.engine import open_engine
from edge_fr.image import align, read_image
from edge_fr.models import resolve
from edge_fr.structures import Faces, Frame

Pair = tuple[str, str, bool]


def first_fold(pairs_file: Path) -> list[Pair]:
    """The 300 pairs of the same person and the 300 of different ones, as file names."""
    pairs: list[Pair] = []
    for line in pairs_file.read_text().splitlines()[1:601]:
        words = line.split("\t")
        if len(words) == 3:
            pairs.append((_file(words[0], words[1]), _file(words[0], words[2]), True))
        else:
            pairs.append((_file(words[0], words[1]), _file(words[2], words[3]), False))
    return pairs


def _file(person: str, number: str) -> str:
    return f"{person}_{int(number):04d}.jpg"


def crop_of_photograph(path: Path, detector: Detector) -> NDArray[np.uint8] | None:
    """The aligned crop of the face nearest the middle of a photograph, (112, 112, 3)."""
    image = read_image(path)
    faces = detector(Frame(image, 0, datetime.now(timezone.utc)), Faces.empty())
    if len(faces) == 0:
        return None
    middle = np.array(image.shape[1::-1]) / 2
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    nearest = int(np.linalg.norm(centres - middle, axis=1).argmin())
    return align(image, faces.landmarks[[nearest]])[0]


def measure(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> dict[str, Any]:
    """Accuracy at the best threshold and TAR at FAR 1e-2 of (N,) scores, with bootstrap intervals."""

    def accuracy(s: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
        order = np.argsort(-s)
        right = np.r_[0, np.cumsum(np.where(y[order], 1, -1))] + (~y).sum()
        return float(right.max() / len(s))

    def tar(s: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
        threshold = np.sort(s[~y])[::-1][int(0.01 * (~y).sum())]
        return float((s[y] > threshold).mean())

    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(scores), len(scores)) for _ in range(1000)]
    result: dict[str, Any] = {}
    for name, figure in (("accuracy", accuracy), ("tar_at_far_1e-2", tar)):
        low, high = np.percentile([figure(scores[d], same[d]) for d in draws], [2.5, 97.5])
        value = figure(scores, same)
        result[name] = {"value": round(value, 4), "interval": [round(float(low), 4), round(float(high), 4)]}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detector", default="yunet")
    parser.add_argument("--embedder", default="recognizer")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    pairs = first_fold(arguments.folder / "pairs.txt")
    names = sorted({name for pair in pairs for name in pair[:2]})
    detector = Detector(open_engine(resolve(arguments.detector)))
    embedder = Embedder(open_engine(resolve(arguments.embedder)))
    same = np.array([pair[2] for pair in pairs])
    result: dict[str, Any] = {"pairs": len(pairs), "photographs": len(names)}
    for way in ("end_to_end", "ready_aligned"):
        vectors: dict[str, NDArray[np.float32]] = {}
        for name in track(names, way, disable=arguments.json):
            if way == "end_to_end":
                crop = crop_of_photograph(arguments.folder / "original250" / name, detector)
            else:
                crop = read_image(arguments.folder / "aligned112" / name)
            if crop is not None:
                vectors[name] = embedder.embed(crop[None]).vectors[0]
        scores = np.array(
            [float(vectors[a] @ vectors[b]) if a in vectors and b in vectors else -1.0 for a, b, _ in pairs]
        )
        result[way] = {"without_a_face": len(names) - len(vectors), **measure(scores, same)}
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
