"""What it brings that a gallery keeps a face together with its mirror image.

    python -m tests.bench.enrolment DATASET [--embedder NAME] [--conditions px16,px12,mask+px24] [--json]

DATASET is one of `calibration evaluate` with pairs, such as lfw:FOLDER. The first picture of each pair is
enrolled, by its embedding alone and by its template; the second one looks for it under the condition. For
each condition: TAR at FAR 1e-2 both ways, and the paired difference with its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from calibration.conditions import captured, check, enlarge
from calibration.datasets import open_dataset
from calibration.datasets.dataset import Dataset
from calibration.metrics import Pairs, verification
from edge_fr.embed import Embedder
from edge_fr.engine import open_engine
from edge_fr.errors import InputError
from edge_fr.models import resolve

BATCH = 32
TAR = "tar_at_far_1e-2"


def crops(dataset: Dataset, pictures: NDArray[np.int64], condition: str) -> NDArray[np.uint8]:
    """The aligned crops (N, 112, 112, 3) of those pictures under the condition."""
    return np.stack([enlarge(captured(dataset.read(int(i)), condition, dataset.names[i])) for i in pictures])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("--embedder", default="recognizer")
    parser.add_argument("--conditions", default="px16,px12,mask+px24")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    conditions = arguments.conditions.split(",")
    for condition in conditions:
        check(condition)
    dataset = open_dataset(arguments.dataset)
    if dataset.pairs is None or dataset.people is None:
        raise InputError(f"{arguments.dataset} has no pairs of known people, expected some, as lfw has")
    embedder = Embedder(open_engine(resolve(arguments.embedder)))

    def embedded(pictures: NDArray[np.int64], condition: str, *, enroll: bool) -> NDArray[np.float32]:
        vectors = np.full((len(dataset.names), embedder.card.embedding_size or 0), np.nan, np.float32)
        label = f"{condition}, templates" if enroll else condition
        for start in track(range(0, len(pictures), BATCH), label, disable=arguments.json):
            rows = pictures[start : start + BATCH]
            ready = crops(dataset, rows, condition)
            vectors[rows] = embedder.templates(ready) if enroll else embedder.embed(ready).vectors
        return vectors

    first, second = dataset.pairs.first, dataset.pairs.second
    people = np.stack([dataset.people[first], dataset.people[second]], axis=1)
    enrolled = {
        way: embedded(np.unique(first), "clean", enroll=way == "template") for way in ("alone", "template")
    }
    result: dict[str, Any] = {}
    for condition in conditions:
        probes = embedded(np.unique(second), condition, enroll=False)[second]
        alone, template = (
            verification(
                Pairs((vectors[first] * probes).sum(1).astype(np.float64), dataset.pairs.same, people, None)
            )[TAR]
            for vectors in (enrolled["alone"], enrolled["template"])
        )
        change = template - alone
        result[condition] = {
            "alone": round(alone.value, 4),
            "template": round(template.value, 4),
            "change": round(change.value, 4),
            "interval": [round(end, 4) for end in change.interval],
        }
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
