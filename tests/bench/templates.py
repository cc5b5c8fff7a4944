"""What it brings to search a person by all pictures together instead of by the best one of them.

    python -m tests.bench.templates FOLDER [--pictures 3] [--people 40]

FOLDER has a folder of aligned 112x112 crops for each person. Galleries of some people are made, of so many
pictures each; twelve drawn looks at another picture of each (see `calibration.camera_looks`) are searched
in them, and so are the looks at everybody else. It prints which share of looks finds the person both
ways, at the score that one in 10, 100 and 1,000 strangers' looks reaches with anybody.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.impostor_scores import draw_looks
from calibration.score_tables import RI_BANDS
from edge_fr.embed import Embedder
from edge_fr.engine import open_engine
from edge_fr.image import read_image
from edge_fr.models import resolve

LOOKS = 12
DRAWS = 30
RATES = 0.1, 0.01, 0.001

Floats = NDArray[np.float32]


def scores_both_ways(looks: Floats, templates: Floats) -> dict[str, Floats]:
    """The scores of (L, D) looks with people of (N, P, D) templates: (L, N) by the best one, and fused."""
    fused = templates.sum(axis=1)
    fused /= np.linalg.norm(fused, axis=1, keepdims=True)
    return {"best": np.einsum("ld,npd->lnp", looks, templates).max(axis=2), "fused": looks @ fused.T}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--model", default="recognizer")
    arguments = parser.parse_args()
    embedder = Embedder(open_engine(resolve(arguments.model)))
    rng = np.random.default_rng(3)
    chosen = []
    for folder in sorted(path for path in arguments.folder.iterdir() if path.is_dir()):
        pictures = sorted(folder.glob("*.jpg"))
        if len(pictures) > arguments.pictures:
            chosen.append([pictures[i] for i in rng.permutation(len(pictures))[: arguments.pictures + 1]])
    looks = draw_looks(embedder, [own[-1] for own in chosen], None, LOOKS)
    templates = np.stack(
        [embedder.templates(np.stack([read_image(path) for path in own[:-1]])) for own in chosen]
    )
    people = np.repeat(np.arange(len(chosen)), LOOKS)
    vectors, good = looks.vectors.reshape(len(people), -1), looks.band(RI_BANDS[0], np.inf).ravel()
    people, vectors = people[good], vectors[good]
    strangers: dict[str, list[Floats]] = {"best": [], "fused": []}
    found: dict[str, list[Floats]] = {"best": [], "fused": []}
    for _ in range(DRAWS):
        gallery = rng.permutation(len(chosen))[: arguments.people]
        enrolled = np.isin(people, gallery)
        own = np.argmax(gallery == people[enrolled][:, None], axis=1)
        for way, scores in scores_both_ways(vectors, templates[gallery]).items():
            strangers[way].append(scores[~enrolled].max(axis=1))
            right = scores[enrolled].argmax(axis=1) == own
            found[way].append(np.where(right, scores[enrolled].max(axis=1), -1))
    print(f"{arguments.people} of {len(chosen)} people enrolled by {arguments.pictures} pictures each")
    for way, scores in found.items():
        shares = [
            float((np.concatenate(scores) >= np.quantile(np.concatenate(strangers[way]), 1 - rate)).mean())
            for rate in RATES
        ]
        told = ", ".join(
            f"{100 * share:.1f} % at {rate:g}" for share, rate in zip(shares, RATES, strict=True)
        )
        print(f"{way:>6}: {told}")


if __name__ == "__main__":
    main()
