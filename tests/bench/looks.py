"""What one look at a face is worth: how often it finds an enrolled person, and gives a stranger a name.

    python -m tests.bench.looks DATA [--config export/configs/recognizer.yaml]

DATA is the folder that the config's sources lie in. Of each person that the training held out the picture
with the best recognizability is enrolled; every other picture of theirs is a look, under a target FPIR of
1 %: for a person who is enrolled among all, and, with this person's template left out, for a stranger. A look
counts if the gate's network lets it pass. The first table is of looks scaled down, the second one of looks
drawn as in training (small, blurred, noisy, dark, compressed), by what the recognizer says of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fr._files import cache_folder
from edge_fr.decide import DecisionPolicy
from edge_fr.gallery import Cohort, NameThreshold
from edge_fr.networks import Networks, open_networks
from edge_fr.quality import QualityPolicy
from export.training.config import read_config
from export.training.data import Faces, pack
from export.training.degradations import Recipe, view
from export.training.judge import degraded, held_out_rows
from export.training.masks import MaskRenderer

POLICY = DecisionPolicy()
CONDITIONS = {"as they are": "clean", "7.5 px": "px24", "5 px": "px16", "3.8 px": "px12", "2.5 px": "px8"}
BOUNDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.01)
CAMERA = Recipe(clean=0, hopeless=0, mask=0, occluder=0, side_px=(8, 64))
BATCH = 32

Change = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]


class Looks:
    """The gallery of held-out people, and what it answers to each of their other pictures."""

    def __init__(self, faces: Faces, rows: NDArray[np.int64], networks: Networks) -> None:
        assert networks.recognizability is not None
        self._faces, self._networks, self._gate = faces, networks, networks.recognizability
        hope = np.concatenate([self._gate(faces.crops[part]) for part in _batches(rows)])
        people = np.unique(faces.identity[rows])
        best = [max(np.flatnonzero(faces.identity[rows] == who), key=lambda i: hope[i]) for who in people]
        self.people, self.rows = people, np.delete(rows, best)
        templates = [networks.embedder.templates(faces.crops[part]) for part in _batches(rows[best])]
        self._templates = np.concatenate(templates)
        self._cohort = Cohort.of(self._templates)
        self._needed = NameThreshold(networks.embedder.card, POLICY.target_fpir)

    def ask(self, change: Change) -> NDArray[np.float64]:
        """For each look the gate's index, the recognizer's, and whether an enrolled person was found and a
        stranger given a name: N x 4."""
        told = []
        for part in _batches(self.rows):
            crops = np.stack([change(self._faces.crops[row], int(row)) for row in part])
            found = self._networks.embedder.embed(crops)
            assert found.ri is not None
            scores = found.vectors @ self._templates.T
            own = self.people == self._faces.identity[part][:, None]
            ordered = np.sort(np.where(own, -1.0, scores), axis=1)
            others = (scores.sum(axis=1) - scores[own]) / (len(self.people) - 1)
            right = self._is_named(scores[own], ordered[:, -1], others, found.ri)
            others = others - (ordered[:, -1] - others) / (
                len(self.people) - 2
            )  # without the stranger's best
            wrong = self._is_named(ordered[:, -1], ordered[:, -2], others, found.ri)
            told.append(np.stack([self._gate(crops), found.ri, right, wrong], axis=1))
        return np.concatenate(told).astype(np.float64)

    def _is_named(
        self,
        score: NDArray[np.float32],
        following: NDArray[np.float32],
        others: NDArray[np.float32],
        ri: NDArray[np.float32],
    ) -> NDArray[np.bool_]:
        needed = [
            self._needed.look(self._cohort, ri=float(r), others=float(o))
            for r, o in zip(ri, others, strict=True)
        ]
        return np.asarray((score >= needed) & (score - following >= POLICY.margin), np.bool_)


def _batches(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def _line(name: str, told: NDArray[np.float64], asked: int) -> str:
    if not len(told):
        return f"{name:>12}       0"
    found, named = 100 * told[:, 2].mean(), 100 * told[:, 3].mean()
    return f"{name:>12} {len(told):7d} {100 * len(told) / asked:6.0f} % {found:6.0f} % {named:9.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", type=Path, default=Path("export/configs/recognizer.yaml"))
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    faces = pack(config.sources, arguments.data, cache_folder() / "training")
    networks = open_networks()
    looks = Looks(faces, held_out_rows(faces, len(faces.crops), sources=config.sources), networks)
    masks = MaskRenderer(None)
    least = QualityPolicy().min_recognizability
    print(f"{len(looks.people)} people, {len(looks.rows)} looks, FPIR {POLICY.target_fpir:.0%}")
    head = f"{'looks':>7} {'passed':>8} {'found':>8} {'strangers':>11}"
    print(f"{'eyes apart':>12} {head}")
    for name, condition in CONDITIONS.items():
        told = looks.ask(lambda crop, row, at=condition: degraded(crop, at, masks, row))
        print(_line(name, told[told[:, 0] >= least], len(told)))
    told = np.concatenate(
        [
            looks.ask(lambda crop, row, r=r: view(crop, CAMERA, masks, np.random.default_rng([r, row])).image)
            for r in range(3)
        ]
    )
    passed = told[told[:, 0] >= least]
    print(f"{'ri':>12} {head}")
    for low, high in zip((0.0, *BOUNDS), BOUNDS, strict=False):
        part = passed[(passed[:, 1] >= low) & (passed[:, 1] < high)]
        print(_line(f"{low:.1f} to {high:.1f}", part, len(told)))


if __name__ == "__main__":
    main()
