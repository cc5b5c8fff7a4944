"""Faces of 12 to 24 px in 4K, with tiles and without: how many are found, how soon, and at what cost.

    python -m tests.bench.standoff VIDEO_OR_FOLDER [--tiles 4] [--scenes 6] [--frames 40] [--json]

Faces of the video or photographs, with what is around them, are shrunk until they are 12, 16, 20 and 24 px
high and set into 3840 x 2160 pictures full of things, with noise: half of them stand still, the others walk
at up to 1.4 m/s, at ten frames a second. Each frame goes through the detector and a tracker twice, without
tiles and with them. A face is found when it is in a track, in a box that overlaps its own by an IoU of 0.4
(a pixel off on two sides of a face of 12 px leaves 0.7). Printed for each size: the share that was found at
all, in how many frames half of those and 19 in 20 of those were, and the share of all frames in which it was
found; and for both ways the boxes elsewhere that were tracked, and the median processor time of a frame in
the detector, with one thread that of the clock on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from edge_fr.detect import Detector
from edge_fr.engine import open_engine
from edge_fr.image import to_bgr
from edge_fr.models import resolve
from edge_fr.stream import open_source
from edge_fr.structures import Faces, Frame
from edge_fr.tiles import TiledDetector
from edge_fr.track import Tracker

HEIGHT, WIDTH = 2160, 3840
SIZES_PX = (12, 16, 20, 24)
NOBODY = ("brick", "chelsea", "coffee", "grass", "gravel", "hubble_deep_field", "moon", "rocket")
FPS = 10
A_SCENE = 24  # faces
AROUND = 5.0  # a patch's side in face heights
METRES_A_FACE = 0.22  # its height
PERIOD_NS = 1_000_000_000 // FPS

Image = NDArray[np.uint8]


@dataclass
class Walker:
    """A face in a scene: its patch, box in the patch, place in the first frame and way in each, in pixels."""

    size_px: int
    patch: Image
    box: NDArray[np.float32]
    start: NDArray[np.float64]
    step: NDArray[np.float64]
    found: dict[str, list[bool]] = field(default_factory=lambda: {"without": [], "with": []})

    def corner(self, number: int) -> NDArray[np.int64]:
        return np.rint(self.start + number * self.step).astype(np.int64)

    def truth(self, number: int) -> NDArray[np.float32]:
        return self.box + np.tile(self.corner(number), 2).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--tiles", type=int, default=4, help="a frame (%(default)s)")
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--frames", type=int, default=40, help="of each scene (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of one model call (%(default)s)")
    parser.add_argument("--save", type=Path, metavar="OUT.png", help="the last frame, with what was tracked")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    detector = Detector(open_engine(resolve("yunet"), threads=arguments.threads), score_threshold=0.4)
    faces = collect(arguments.source, detector, arguments.scenes * A_SCENE)
    report = measure(faces, detector, arguments)
    print(json.dumps(report, indent=None if arguments.json else 1))


def collect(source: Path, detector: Detector, wanted: int) -> list[tuple[Image, NDArray[np.float32]]]:
    """Patches around whole faces of 48 px or more, and the faces' boxes in them; shuffled."""
    faces = []
    with open_source(str(source)) as frames:
        step = max(1, (frames.frame_count or wanted) // wanted)
        for number, frame in enumerate(frames):
            if number % step == 0:
                found = detector.detect(frame.image)
                found = found[found.scores >= 0.8]
                edge = frame.image.shape[1::-1]
                whole = (found.boxes[:, :2] >= 0).all(axis=1) & (found.boxes[:, 2:] <= edge).all(axis=1)
                faces += [patch(frame.image, box) for box in found.boxes[whole] if box[3] - box[1] >= 48]
    np.random.default_rng(0).shuffle(faces)  # type: ignore[arg-type]
    if not faces:
        raise SystemExit(f"{source} shows no face of 48 px or more")
    return [faces[number % len(faces)] for number in range(wanted)]


def patch(image: Image, box: NDArray[np.float32]) -> tuple[Image, NDArray[np.float32]]:
    side = AROUND * float(box[3] - box[1])
    x, y = (box[:2] + box[2:]) / 2 - side / 2
    x0, y0 = max(0, round(float(x))), max(0, round(float(y)))
    part = image[y0 : round(float(y) + side), x0 : round(float(x) + side)]
    return np.ascontiguousarray(part), box - np.array([x0, y0, x0, y0], np.float32)


def empty_place(rng: np.random.Generator) -> Image:
    """A 4K picture full of things and nobody: scikit-image's photographs, 24 in a picture, in any order."""
    pictures = [getattr(skimage.data, name)() for name in NOBODY]
    down, across = 4, 6
    rows = []
    for _ in range(down):
        row = [to_bgr(pictures[rng.integers(len(pictures))])[:, :, ::-1] for _ in range(across)]
        cells = [cv2.resize(picture, (WIDTH // across, HEIGHT // down)) for picture in row]
        rows.append(np.hstack([cell[:, :: rng.choice((-1, 1))] for cell in cells]))
    return np.asarray(np.vstack(rows), np.uint8)


def walkers(
    faces: list[tuple[Image, NDArray[np.float32]]], frames: int, rng: np.random.Generator
) -> list[Walker]:
    """One in each cell of a grid, so that no two meet."""
    across, down = 6, A_SCENE // 6
    result = []
    for number, (image, box) in enumerate(faces):
        size = SIZES_PX[number % len(SIZES_PX)]
        scale = size / float(box[3] - box[1])
        fed = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        small = np.asarray(cv2.resize(image, fed, interpolation=cv2.INTER_AREA), np.uint8)
        ratio = np.array([fed[0] / image.shape[1], fed[1] / image.shape[0]] * 2, np.float32)
        fastest = 1.4 / METRES_A_FACE * size / FPS
        cell = np.array([WIDTH / across, HEIGHT / down])
        room = cell - (*fed,) - 8
        step = np.zeros(2)
        if (number // len(SIZES_PX)) % 2:
            step = rng.uniform(-1, 1, 2) * np.minimum(fastest, room / frames)
        way = step * frames
        start = rng.uniform(np.maximum(0, -way), room - np.maximum(0, way))
        start += cell * (number % across, number // across)
        result.append(Walker(size, small, box * ratio, start, step))
    return result


def draw(place: Image, people: list[Walker], number: int, noise: Image, rng: np.random.Generator) -> Image:
    picture = place.copy()
    for walker in people:
        x, y = walker.corner(number)
        h, w = walker.patch.shape[:2]
        ramp = [np.clip(np.minimum(np.arange(n) + 1, n - np.arange(n)) / (0.15 * n), 0, 1) for n in (h, w)]
        alpha = (ramp[0][:, None] * ramp[1])[:, :, None]
        under = picture[y : y + h, x : x + w]
        under[:] = np.rint(alpha * walker.patch + (1 - alpha) * under).astype(np.uint8)
    dy, dx = rng.integers(0, 64, 2)
    shaken = cv2.add(picture, noise[dy : dy + HEIGHT, dx : dx + WIDTH], dtype=cv2.CV_8U)
    return np.asarray(shaken, np.uint8)


def measure(
    faces: list[tuple[Image, NDArray[np.float32]]], detector: Detector, arguments: argparse.Namespace
) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    noise = np.rint(rng.normal(0, 4, (HEIGHT + 64, WIDTH + 64, 3))).astype(np.int16)
    everybody: list[Walker] = []
    times: dict[str, list[float]] = {"without": [], "with": []}
    others = {"without": 0, "with": 0}
    for scene in range(arguments.scenes):
        people = walkers(faces[scene * A_SCENE : (scene + 1) * A_SCENE], arguments.frames, rng)
        everybody += people
        place = empty_place(rng)
        trackers = {"without": Tracker(), "with": Tracker()}
        stages = {"without": detector, "with": TiledDetector(detector, arguments.tiles)}
        for number in range(arguments.frames):
            picture = draw(place, people, number, noise, rng)
            frame = Frame(picture, number * PERIOD_NS, datetime.now(timezone.utc), index=number)
            for way, stage in stages.items():
                started = time.process_time()
                found = stage(frame, Faces.empty())
                times[way].append(time.process_time() - started)
                tracked = trackers[way](frame, found)
                others[way] += count(tracked, people, number, way)
    if arguments.save is not None:
        annotated = picture.copy()
        for walker in people:
            mark(annotated, walker.truth(number), (0, 200, 255), 14)
        for box in tracked.boxes:
            mark(annotated, box, (0, 255, 0), 8)
        cv2.imwrite(str(arguments.save), annotated)
    ms = {way: float(np.median(rows)) * 1e3 for way, rows in times.items()}
    return {
        "tiles": arguments.tiles,
        "faces": {way: [row(everybody, size, way) for size in SIZES_PX] for way in ("without", "with")},
        "other_boxes_tracked": others,
        "frames": arguments.scenes * arguments.frames,
        "cpu_ms_a_frame": {way: round(value, 1) for way, value in ms.items()},
        "times_the_cost": round(ms["with"] / ms["without"], 2),
    }


def count(tracked: Faces, people: list[Walker], number: int, way: str) -> int:
    """Notes for everybody whether they were found; returns how many boxes lie on nobody's patch."""
    centres = (tracked.boxes[:, :2] + tracked.boxes[:, 2:]) / 2
    free = np.ones(len(tracked), np.bool_)
    for walker in people:
        truth = walker.truth(number)
        walker.found[way].append(max((iou(truth, box) for box in tracked.boxes), default=0.0) >= 0.4)
        corner = walker.corner(number)
        inside = (centres >= corner) & (centres <= corner + walker.patch.shape[1::-1])
        free &= ~inside.all(axis=1)
    return int(free.sum())


def row(everybody: list[Walker], size: int, way: str) -> dict[str, Any]:
    looked = [(w.found[way], bool(w.step.any())) for w in everybody if w.size_px == size]
    values: dict[str, Any] = {
        "px": size,
        "found": share([any(found) for found, _ in looked]),
        "of_all_frames": share([seen for found, _ in looked for seen in found]),
    }
    for name, moves in (("standing", False), ("walking", True)):
        first = [found.index(True) + 1 for found, moving in looked if moving == moves and any(found)]
        if first:
            values[f"{name}_found_after_frames"] = {
                "half": int(np.percentile(first, 50, method="higher")),
                "19_in_20": int(np.percentile(first, 95, method="higher")),
            }
    return values


def share(values: list[bool]) -> str:
    return f"{sum(values)}/{len(values)} = {np.mean(values):.0%}"


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    overlap = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (overlap <= 0).any():
        return 0.0
    inner = float(overlap.prod())
    return inner / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - inner)


def mark(picture: Image, box: NDArray[np.float32], colour: tuple[int, int, int], around: int) -> None:
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    cv2.rectangle(picture, (x0 - around, y0 - around), (x1 + around, y1 + around), colour, 2)


if __name__ == "__main__":
    main()
