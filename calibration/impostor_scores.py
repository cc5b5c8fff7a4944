"""How alike two different people look to a recognizer: the table in its card that thresholds come from.

python -m calibration.impostor_scores MODEL FOLDER --identities CSV [--eyes X1 Y1 X2 Y2] [--write DATA]

One picture of each identity is embedded and every pair of identities compared; at 1,200 of them twelve drawn
looks are taken as well, for what poor looks and whole tracks reach (`calibration.score_tables`). The CSV has
the columns image,identity, and 46 identities or more need a picture. Pictures are aligned 112x112 crops, or
all have the eyes at --eyes (pixels) and are warped to the template by these two points. --write puts the
tables into the card of MODEL, a file, under the name DATA. Two pictures under two names that are as alike as
half of the pairs of one person are left out; --worst lists the most alike ones to look at.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.camera_looks import LEAST_PX, LEAST_WITHOUT_INDEX_PX, camera_look
from calibration.cards import change_card, own_file
from calibration.score_tables import (
    ALIKE_SHARE,
    Looks,
    alike,
    bands,
    continuity,
    genuine,
    one_person,
    table,
)
from edge_fr.embed import Embedder
from edge_fr.engine import open_engine
from edge_fr.errors import EdgeFrError, ImageError, InputError
from edge_fr.image import TEMPLATE, read_image
from edge_fr.models import resolve
from edge_fr.structures import CROP_SIDE_PX

FEWEST_IDENTITIES = 46  # they make 1,035 pairs: with 45 the most frequent rate has fewer than MIN_PAIRS
BATCH = 32
LOOKED_AT = 1200  # people
LOOKS = 12  # at each of them

Point = tuple[float, float]


def by_identity(folder: Path, identities: Path) -> list[list[Path]]:
    """The pictures in `folder` of each identity that has one, by name.

    InputError for a CSV that cannot be read, and for fewer than FEWEST_IDENTITIES.
    """
    found: dict[str, list[Path]] = {}
    for image, identity in sorted(_rows(identities)):
        if (folder / image).is_file():
            found.setdefault(identity, []).append(folder / image)
    count = len(found)
    if count < FEWEST_IDENTITIES:
        raise InputError(
            f"{folder} has pictures of {count} identities of {identities}, which make "
            f"{count * (count - 1) // 2} pairs of two people; at least 1,000 pairs ({FEWEST_IDENTITIES} "
            f"identities) are needed: give a FOLDER and --identities with more people"
        )
    return list(found.values())


def _rows(identities: Path) -> list[tuple[str, str]]:
    """Image and identity of each line of the CSV."""
    expected = "a CSV file in UTF-8 with the columns image and identity"
    rows = []
    try:
        with identities.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            if not {"image", "identity"} <= set(columns):
                raise InputError(f"--identities {identities} has the columns {columns}, expected {expected}")
            for row in reader:
                if not row["image"] or not row["identity"]:
                    raise InputError(
                        f"--identities {identities}, line {reader.line_num}: image is {row['image']!r} and "
                        f"identity {row['identity']!r}, expected both"
                    )
                rows.append((row["image"], row["identity"]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"--identities {identities} cannot be read ({error}); expected {expected}"
        ) from error
    return rows


def read_crop(path: Path, eyes: tuple[Point, Point] | None) -> NDArray[np.uint8]:
    """A (112, 112, 3) uint8 BGR crop; with `eyes`, warped so that these points meet the template's."""
    image = read_image(path)
    if eyes is not None:
        warped = cv2.warpAffine(image, _similarity(eyes), (CROP_SIDE_PX, CROP_SIDE_PX))
        image = np.asarray(warped, np.uint8)
    if image.shape[:2] != (CROP_SIDE_PX, CROP_SIDE_PX):
        raise ImageError(f"{path} is {image.shape[:2]}, expected 112x112 aligned crops; else give --eyes")
    return image


def embed(embedder: Embedder, paths: list[Path], eyes: tuple[Point, Point] | None) -> NDArray[np.float32]:
    """The embeddings (N, D) of the pictures."""
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    return np.concatenate(
        [embedder.embed(np.stack([read_crop(path, eyes) for path in batch])).vectors for batch in batches]
    )


def draw_looks(embedder: Embedder, paths: list[Path], eyes: tuple[Point, Point] | None, count: int) -> Looks:
    """`count` drawn looks at each picture, of sizes at which the gate lets a face pass."""
    vectors, ri = [], []
    least_px = LEAST_PX if embedder.tells_ri else LEAST_WITHOUT_INDEX_PX
    for path in paths:
        crop = read_crop(path, eyes)
        found = embedder.embed(
            np.stack([camera_look(crop, path.name, number, least_px=least_px) for number in range(count)])
        )
        vectors.append(found.vectors)
        ri.append(found.ri)
    told = None if ri[0] is None else np.stack([row for row in ri if row is not None])
    return Looks(np.stack(vectors), told)


def _similarity(eyes: tuple[Point, Point]) -> NDArray[np.float64]:
    """The (2, 3) rotation, scale and shift that moves two points onto the template's eyes."""
    left, right = (complex(*point) for point in eyes)
    if left == right:
        raise InputError(f"--eyes are both at {eyes[0]}, expected X1 Y1 X2 Y2 of two different points")
    # Rounded to the digits that the template is written with: float32 would move single grey levels.
    to_left, to_right = (complex(*point) for point in TEMPLATE[:2].astype(np.float64).round(4))
    turn = (to_right - to_left) / (right - left)
    shift = to_left - turn * left
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m calibration.impostor_scores")
    parser.add_argument("model", help="a named model or an .onnx file")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--identities", type=Path, required=True, metavar="CSV")
    parser.add_argument("--eyes", type=float, nargs=4, metavar=("X1", "Y1", "X2", "Y2"))
    parser.add_argument("--write", metavar="DATA", help="put the table into the card; what the pictures are")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="list the N most alike pairs")
    parser.add_argument("--unproven", action="store_true", help="an int8 file without a passing verdict, too")
    try:
        _measure(parser.parse_args(arguments))
    except EdgeFrError as error:
        print(f"impostor_scores: {error}", file=sys.stderr)
        return 1
    return 0


def _measure(arguments: argparse.Namespace) -> None:
    if arguments.write:
        own_file(arguments.model)
    model = resolve(arguments.model)
    eyes = None if arguments.eyes is None else (tuple(arguments.eyes[:2]), tuple(arguments.eyes[2:]))
    people = by_identity(arguments.folder, arguments.identities)
    embedder = Embedder(open_engine(model, unproven=arguments.unproven))
    measured, worst = measure(embedder, people, eyes, arguments.worst)
    print(json.dumps(measured))
    print("".join(f"{line}\n" for line in worst), end="")
    if arguments.write:
        alike = f"people alike are each one's nearest {ALIKE_SHARE:.0%}"
        left_out = f"{measured.pop('one_person')} more left out as one person under two names"
        data = (
            f"{arguments.write}: {measured.pop('identities')} identities, {measured.pop('pairs')} pairs, "
            f"{left_out}; {LOOKS} drawn looks at {min(len(people), LOOKED_AT)} people; {alike}"
        )
        change_card(model, impostor_data=data, **measured)


def measure(
    embedder: Embedder, people: list[list[Path]], eyes: tuple[Point, Point] | None, worst: int = 0
) -> tuple[dict[str, Any], list[str]]:
    """The fields of a card that thresholds are read from, and what they rest on: `identities`, `pairs`, and
    `one_person`, the pairs that were taken for one person's; and the lines of the `worst` pairs."""
    paths = [pictures[0] for pictures in people]
    vectors = embed(embedder, paths, eyes)
    twice = [n for n, pictures in enumerate(people) if len(pictures) > 1]
    seconds = embed(embedder, [people[n][1] for n in twice], eyes) if twice else vectors[:0]
    rows, columns = np.triu_indices(len(paths), 1)
    scores = (vectors @ vectors.T)[rows, columns]
    limit = one_person((vectors[twice] * seconds).sum(axis=1), scores)
    strangers = scores[scores < limit]
    # Those with two pictures first: only they tell how alike two pictures of one person are.
    chosen = np.array([*twice, *np.setdiff1d(np.arange(len(paths)), twice)])[:LOOKED_AT].astype(np.intp)
    looks = draw_looks(embedder, [paths[n] for n in chosen], eyes, LOOKS)
    both = min(len(twice), len(chosen))
    tables = {"alike": alike(vectors, limit), **bands(looks, vectors, chosen, limit)}
    measured = {
        "identities": len(paths),
        "pairs": len(strangers),
        "one_person": len(scores) - len(strangers),
        "impostor_scores": table(strangers),
        "impostor_bands": {name: found for name, found in tables.items() if found},
        "continuity_scores": continuity(looks),
        "genuine_scores": genuine(looks[:both], seconds[:both]),
    }
    most_alike = np.argsort(scores)[::-1][:worst]
    return measured, [f"{scores[pair]:.4f} {paths[rows[pair]]} {paths[columns[pair]]}" for pair in most_alike]


if __name__ == "__main__":
    sys.exit(main())
