"""Who is who when people come, go, cross and hide one another: the whole pipeline on scenes with known truth.

    python -m tests.bench.identity FOLDER [--scenes 18] [--json FILE]

FOLDER has a folder of aligned 112x112 crops for each person, four or more pictures of each. A scene is
drawn from them: every person is one picture that moves, turns, brightens and blurs a little from frame to
frame, before a blurred background. Half of the people are enrolled, by three other pictures of theirs.

queue    an enrolled person stands for 3 s and leaves; a stranger steps up .4, .8 or 1.2 s later, there
cross    two people walk past each other, one before the other, at 5 or 12.5 frames a second
meet     two people come together and turn back, at once or .3 s later, at 5 or 12.5 frames a second
hide     one stands while another passes before the face

For each kind: IDF1 and exchanged ids (faces of one person under an id that was another's before), people
under a wrong name (for more than half a second, and at all), names worn twice in one frame, enrolled people
who got their name, and the median time until they had it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr import Frame, open_pipeline
from edge_fr.networks import Networks, open_networks
from edge_fr.pipeline import Step
from edge_fr.recognizer import Recognizer
from tests.bench.identity_scores import Sight, Tally

WIDTH, HEIGHT = 640, 360
FACE = 78 / 112  # of a crop's side
RATES = 5.0, 12.5
GAPS_S = 0.4, 0.8, 1.2

Image = NDArray[np.uint8]


class Pose(NamedTuple):
    """Where a person's crop is, its side in pixels, and how near: nearer ones hide others."""

    x: float
    y: float
    side: float
    near: float = 0.0


@dataclass(frozen=True)
class Scene:
    """People of a scene, by name; `at` gives their poses at a time; `enrolled` ones are in the gallery."""

    kind: str
    fps: float
    seconds: float
    people: dict[str, Path]
    enrolled: frozenset[str]
    at: Callable[[float], dict[str, Pose]]


def people_in(folder: Path) -> dict[str, list[Path]]:
    """At least four pictures of each person, by name."""
    found = {p.name: sorted(p.glob("*.jpg")) for p in sorted(folder.iterdir()) if p.is_dir()}
    return {name: pictures for name, pictures in found.items() if len(pictures) >= 4}


def scenes(people: dict[str, list[Path]], count: int) -> Iterator[Scene]:
    """`count` scenes of each kind and variant, each of another pair of people."""
    rng = np.random.default_rng(11)
    names = sorted(people)

    def cast(n: int) -> tuple[list[str], dict[str, Path]]:
        chosen = [names[i] for i in rng.permutation(len(names))[:n]]
        return chosen, {name: people[name][3 + int(rng.integers(len(people[name]) - 3))] for name in chosen}

    for gap, n in product(GAPS_S, range(count)):
        (first, second), pictures = cast(2)
        yield Scene(
            f"queue {gap} s", 10.0, 8.0 + gap, pictures, frozenset({first}), _queue(first, second, gap, n)
        )
    for kind, fps, n in product(("cross", "meet", "hide"), RATES, range(count)):
        (first, second), pictures = cast(2)
        path = {"cross": _cross, "meet": _meet, "hide": _hide}[kind]
        both = frozenset({first, second} if n % 2 else {first})
        yield Scene(f"{kind} {fps:g} fps", fps, 6.0, pictures, both, path(first, second, n))


def _queue(first: str, second: str, gap: float, n: int) -> Callable[[float], dict[str, Pose]]:
    shift = 20.0 * ((n % 5) - 2)

    def at(t: float) -> dict[str, Pose]:
        if t < 3.0:
            return {first: Pose(320 + 3 * np.sin(t), 180, 110)}
        return {} if t < 3.0 + gap else {second: Pose(320 + shift + 3 * np.sin(t), 182, 106)}

    return at


def _cross(first: str, second: str, n: int) -> Callable[[float], dict[str, Pose]]:
    speed = (120.0, 200.0, 300.0)[n % 3]  # px a second; a face is 65 px wide
    drop = (0.0, 25.0, 50.0)[n // 3 % 3]
    return lambda t: {
        first: Pose(320 + speed * (t - 3), 150, 90),
        second: Pose(320 - speed * (t - 3), 150 + drop, 100, near=1),
    }


def _meet(first: str, second: str, n: int) -> Callable[[float], dict[str, Pose]]:
    half_apart = (16.0, 28.0, 40.0)[n % 3]  # of the two faces, at the nearest
    pause_s, speed = (0.0, 0.3)[n // 3 % 2], (120.0, 200.0, 280.0)[n // 6 % 3]

    def at(t: float) -> dict[str, Pose]:
        half = half_apart + speed * max(0.0, abs(t - 3) - pause_s / 2)
        return {first: Pose(320 - half, 175, 92), second: Pose(320 + half, 175, 96, near=1)}

    return at


def _hide(first: str, second: str, n: int) -> Callable[[float], dict[str, Pose]]:
    speed = (110.0, 160.0, 220.0)[n % 3]
    return lambda t: {
        first: Pose(320 + 2 * np.sin(t), 170, 84),
        second: Pose(320 + speed * (t - 3), 176, 120, near=1),
    }


def draw(
    scene: Scene, t: float, crops: dict[str, Image], backdrop: Image, seed: int
) -> tuple[Image, list[Sight]]:
    """The frame at a time, and the faces that can be seen in it."""
    image = backdrop.astype(np.float32)
    covered = np.zeros((HEIGHT, WIDTH), np.float32)
    sights = []
    poses = scene.at(t)
    rng = np.random.default_rng([seed, round(t * 1000)])
    layers = []
    for name in sorted(poses, key=lambda name: poses[name].near):
        x, y, side, _ = poses[name]
        scale = side / 112 * (1 + 0.015 * np.sin(5 * t + seed))
        warp = cv2.getRotationMatrix2D((56, 56), float(4 * np.sin(2 * t + seed)), scale)
        warp[:, 2] += (x - 56 + rng.normal(0, 0.5), y - 56 + rng.normal(0, 0.5))
        crop = crops[name].astype(np.float32) * rng.uniform(0.88, 1.1)
        if rng.random() < 0.3:
            crop = cv2.GaussianBlur(crop, (0, 0), float(rng.uniform(0.5, 1.6)))
        layer = cv2.warpAffine(crop, warp, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
        alpha = cv2.warpAffine(_OVAL, warp, (WIDTH, HEIGHT))
        image = image * (1 - alpha[..., None]) + layer * alpha[..., None]
        layers.append((name, np.array([x, y]), side * FACE, alpha))
    for name, centre, size, alpha in reversed(layers):
        visible = 1 - float((covered * alpha).sum() / max(alpha.sum(), 1e-6))
        covered = np.maximum(covered, alpha)
        inside = size / 2 < centre[0] < WIDTH - size / 2
        if inside:
            sights.append(Sight(name, centre, size, visible > 0.6))
    noisy = image + rng.normal(0, 3, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), sights


def _oval() -> NDArray[np.float32]:
    mask = np.zeros((112, 112), np.float32)
    cv2.ellipse(mask, (56, 56), (50, 54), 0, 0, 360, 1.0, -1)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), 3), np.float32)


_OVAL = _oval()


def play(scene: Scene, networks: Networks, gallery: Path, seed: int, tally: Tally) -> None:
    """Runs the scene through a pipeline of its own and counts what came of it."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(40, 200, (9, 16, 3)).astype(np.float32)
    backdrop = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    crops = {name: np.asarray(cv2.imread(str(path)), np.uint8) for name, path in scene.people.items()}
    began = datetime(2026, 1, 1, tzinfo=timezone.utc)
    with open_pipeline(gallery, networks) as pipeline:
        for index in range(round(scene.seconds * scene.fps)):
            t = index / scene.fps
            image, sights = draw(scene, t, crops, backdrop, seed)
            frame = Frame(image, round(t * 1e9), began + timedelta(seconds=t), "bench", index)
            step: Step = pipeline.process(frame)
            tally.add(t, sights, step.faces, step.decisions, scene.enrolled)
        pipeline.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=18, help="of each kind and variant (%(default)s)")
    parser.add_argument("--only", help="kinds that begin so")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    people = people_in(arguments.folder)
    networks = open_networks()
    results: dict[str, dict[str, Any]] = {}
    tallies: dict[str, list[Tally]] = {}
    out = arguments.json or Path("identity.json")
    for seed, scene in enumerate(scenes(people, arguments.scenes)):
        if arguments.only and not scene.kind.startswith(arguments.only):
            continue
        gallery = out.parent / f".identity-{seed}.db"
        gallery.unlink(missing_ok=True)
        with Recognizer.open(gallery, networks, create=True) as recognizer:
            for name in sorted(scene.enrolled):
                recognizer.enroll(name, [_padded(path) for path in people[name][:3]], force=True)
        tally = Tally(1 / scene.fps)
        play(scene, networks, gallery, seed, tally)
        gallery.unlink()
        tallies.setdefault(scene.kind, []).append(tally)
        results[scene.kind] = summed(tallies[scene.kind])
    for kind, row in results.items():
        print(f"{kind:>14} " + "  ".join(f"{name} {value}" for name, value in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def summed(tallies: list[Tally]) -> dict[str, Any]:
    """One kind's scenes together."""
    times = [t for tally in tallies for t in tally.times_to_name()]
    return {
        "scenes": len(tallies),
        "idf1": round(float(np.mean([tally.idf1() for tally in tallies])), 3),
        "exchanged": sum(tally.exchanged() for tally in tallies),
        "wrong>0.5s": sum(tally.wrong_names(0.5) for tally in tallies),
        "wrong": sum(tally.wrong_names(0.0) for tally in tallies),
        "twice": sum(tally.twice for tally in tallies),
        "named": f"{len(times)}/{sum(len(tally.enrolled_seen) for tally in tallies)}",
        "seconds": round(median(times), 2) if times else None,
    }


def _padded(path: Path) -> Image:
    crop = cv2.imread(str(path))
    return np.asarray(cv2.copyMakeBorder(crop, 60, 60, 60, 60, cv2.BORDER_REPLICATE), np.uint8)


if __name__ == "__main__":
    main()
