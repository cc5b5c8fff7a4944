"""How many strangers get a name, and how many enrolled people get theirs, against what was asked for.

    python -m tests.bench.promise FOLDER [--identities CSV] [--eyes X1 Y1 X2 Y2] [--people PREFIX]

FOLDER has aligned 112x112 crops: a folder for each person, files named person_0001.jpg, or a CSV of
image,identity (pictures with the eyes at --eyes are warped). Of some people, galleries of 10, 100 and 600
are made, up to three pictures each; everybody else is a stranger. Twelve drawn looks at another picture of
each (8 to 64 px wide, blurred, noisy, compressed) are a track. It counts the looks and the tracks that get
a wrong name, for a target of 1 in 100 and 1 in 1,000, and the enrolled people's tracks that get the right
one: with the score that random pairs promise, and with `NameThreshold`.

--people PREFIX takes only those whom the training held out, under the source's name (celeba, bollywood).
A stranger whose clean picture is as like somebody's in the gallery as pictures of one person are is left
out: two names for one person.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.impostor_scores import _rows, draw_looks, embed
from calibration.score_tables import Looks, _usable, one_person
from edge_fr.decide import DecisionPolicy
from edge_fr.embed import Embedder
from edge_fr.engine import ModelCard, open_engine
from edge_fr.evidence import Evidence
from edge_fr.gallery import Cohort, NameThreshold, score_threshold
from edge_fr.models import resolve
from export.training.data import held_out

SIZES = 10, 100, 600
TARGETS = 1e-2, 1e-3
DRAWS = 12  # galleries of each size
TRACKS = 700  # people of whom looks are drawn
LOOKS = 12
TEMPLATES = 3
POLICY = DecisionPolicy()

Floats = NDArray[np.float32]
Rule = Callable[[int, float | None, float | None], float]
"""The score that a name takes at so many looks (0: a single one), of that recognizability and `others`."""


class Population(NamedTuple):
    """N people's templates, fused, and T looked-at people's other picture and drawn looks at it."""

    templates: Floats  # (N, D)
    looked_at: NDArray[np.intp]  # (T,) which people
    clean: Floats  # (T, D)
    looks: Looks
    again: NDArray[np.bool_]  # (T,) whether their looks are of another picture than the templates


def read(folder: Path, identities: Path | None) -> dict[str, list[Path]]:
    """The pictures of each person."""
    named = dict(_rows(identities)) if identities else {}
    people: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.jpg")):
        who = (
            named.get(path.name)
            if identities
            else path.parent.name
            if path.parent != folder
            else path.stem[:-5]
        )
        if who is not None:
            people.setdefault(who, []).append(path)
    return people


def prepare(
    people: dict[str, list[Path]], embedder: Embedder, eyes: tuple[tuple[float, float], ...] | None
) -> Population:
    rng = np.random.default_rng(5)
    names = sorted(people, key=lambda name: (len(people[name]) < 2, rng.random()))
    templates, looked, again = [], [], []
    for n, name in enumerate(names):
        pictures = [people[name][i] for i in rng.permutation(len(people[name]))]
        own = pictures[1:][:TEMPLATES] or pictures[:1]
        vectors = embed(embedder, own, eyes)  # type: ignore[arg-type]
        fused = vectors.sum(axis=0)
        templates.append(fused / np.linalg.norm(fused))
        if n < TRACKS:
            looked.append(pictures[0])
            again.append(len(pictures) > 1)
    looks = draw_looks(embedder, looked, eyes, LOOKS)  # type: ignore[arg-type]
    clean = embed(embedder, looked, eyes)  # type: ignore[arg-type]
    return Population(np.stack(templates), np.arange(len(looked)), clean, looks, np.array(again))


def named(scores: Floats, looks: int, ri: float | None, rule: Rule) -> int | None:
    """Whom (N,) scores with a gallery name."""
    order = np.argsort(scores)[::-1]
    best = float(scores[order[0]])
    others = (float(scores.sum()) - best) / (len(scores) - 1)
    if best < rule(looks, ri, others) or best - float(scores[order[1]]) < POLICY.margin:
        return None
    return int(order[0])


def count(people: Population, gallery: NDArray[np.intp], rule: Rule, limit: float) -> NDArray[np.int64]:
    """Strangers' tracks and looks, how many got a name; enrolled people's tracks, how many got theirs."""
    counted = np.zeros(6, np.int64)
    rows = people.templates[gallery]
    place = {int(person): n for n, person in enumerate(gallery)}
    for t, person in enumerate(people.looked_at):
        own = place.get(int(person))
        if own is None and (rows @ people.clean[t]).max() >= limit:
            continue
        if own is not None and not people.again[t]:
            continue
        evidence, found, falsely = Evidence(), False, False
        for face in _usable(people.looks, t):
            assert face.embedding is not None
            evidence.add(face)
            if evidence.looks >= POLICY.known_frames:
                who = named(rows @ evidence.probe, evidence.looks, evidence.ri, rule)
                found, falsely = found or who == own, falsely or who not in (None, own)
            if own is None:
                counted[2:4] += 1, named(rows @ face.embedding, 0, face.ri, rule) is not None
        if evidence.looks >= POLICY.known_frames:
            counted[0:2] += (1, falsely) if own is None else (0, 0)
            counted[4:6] += (1, found and own is not None) if own is not None else (0, 0)
    return counted


def rules(card: ModelCard, target: float, rows: Floats) -> dict[str, Rule]:
    before = score_threshold(card, target, len(rows)).score
    needed, cohort = NameThreshold(card, target), Cohort.of(rows)

    def now(looks: int, ri: float | None, others: float | None) -> float:
        if looks == 0:
            return needed.look(cohort, ri=ri, others=others)
        return needed.track(cohort, looks=looks, ri=ri, others=others)

    return {"random pairs": lambda looks, ri, others: before, "now": now}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--identities", type=Path, metavar="CSV")
    parser.add_argument("--eyes", type=float, nargs=4, metavar=("X1", "Y1", "X2", "Y2"))
    parser.add_argument("--people", metavar="PREFIX", help="only those whom the training held out")
    parser.add_argument("--model", default="recognizer")
    arguments = parser.parse_args()
    eyes = None if arguments.eyes is None else (tuple(arguments.eyes[:2]), tuple(arguments.eyes[2:]))
    people = read(arguments.folder, arguments.identities)
    if arguments.people:
        people = {name: p for name, p in people.items() if held_out(f"{arguments.people}/{name}")}
    embedder = Embedder(open_engine(resolve(arguments.model)))
    found = prepare(people, embedder, eyes)
    own_scores = (found.clean * found.templates[found.looked_at]).sum(axis=1)
    limit = one_person(
        own_scores[found.again], (found.clean @ found.clean.T)[np.triu_indices(len(found.clean), 1)]
    )
    print(f"{len(people)} people, {int(found.again.sum())} of them looked at in another picture; {limit:.2f}")
    print(f"{'people':>7} {'asked':>7} {'rule':>13} {'tracks':>8} {'looks':>8} {'found':>7}   (of)")
    rng = np.random.default_rng(6)
    for size in SIZES:
        if size > 0.9 * len(people):
            size = int(0.8 * len(people))
            if size < SIZES[0] or size in SIZES:
                continue
        for target in TARGETS:
            totals = {name: np.zeros(6, np.int64) for name in ("random pairs", "now")}
            for _ in range(DRAWS):
                first = rng.permutation(found.looked_at)[: max(1, min(size, len(found.looked_at) * 2 // 3))]
                rest = rng.permutation(np.setdiff1d(np.arange(len(found.templates)), found.looked_at))
                gallery = np.concatenate([first, rest[: size - len(first)]])
                for name, rule in rules(embedder.card, target, found.templates[gallery]).items():
                    totals[name] += count(found, gallery, rule, limit)
            for name, (tracks, wrong, looks, wrong_looks, own, right) in totals.items():
                shares = f"{100 * wrong / max(tracks, 1):7.2f}% {100 * wrong_looks / max(looks, 1):7.2f}%"
                print(
                    f"{size:7d} {100 * target:6.1f}% {name:>13} {shares} {100 * right / max(own, 1):6.1f}%   "
                    f"({tracks}, {looks}, {own})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
