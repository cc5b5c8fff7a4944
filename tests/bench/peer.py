"""The same video and the same two models through a plain OpenCV loop and through the pipeline.

    python -m tests.bench.peer VIDEO [--json] [--rounds 3]

The peer is what a sample program does: FaceDetectorYN on each frame, alignCrop and FaceRecognizerSF on
each face of each frame. Both take turns, each in a process of its own, so that neither warms the other's
caches or competes with its threads; the ratio is of the medians. A face of the peer counts as found when
the pipeline has a box on it (IoU at least 0.5) in the same frame; a person of the peer, which is a track
through its faces, when half of their faces were. The pipeline says nothing of a face's first tenth of a
second, before its track is confirmed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from datetime import datetime, timezone
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.models import resolve
from edge_fr.structures import Faces, Frame
from edge_fr.track import Tracker

SCORE_THRESHOLD = 0.7


def opencv_loop(video: str) -> dict[str, Any]:
    """The peer: every face of every frame is detected, aligned and embedded."""
    detector = cv2.FaceDetectorYN.create(str(resolve("yunet")), "", (320, 320), SCORE_THRESHOLD)
    recognizer = cv2.FaceRecognizerSF.create(str(resolve("sface")), "")
    capture = cv2.VideoCapture(video)
    boxes: list[list[list[float]]] = []
    started = time.perf_counter()
    while True:
        more, image = capture.read()
        if not more:
            break
        detector.setInputSize((image.shape[1], image.shape[0]))
        _, rows = detector.detect(image)
        rows = np.zeros((0, 15), np.float32) if rows is None else rows
        for face in rows:
            recognizer.feature(recognizer.alignCrop(image, face))
        xyxy = np.c_[rows[:, :2], rows[:, :2] + rows[:, 2:4]]
        boxes.append(np.c_[xyxy, rows[:, 14]].round(3).tolist())
    wall_s = time.perf_counter() - started
    return {
        "frames": len(boxes),
        "wall_s": wall_s,
        "boxes": boxes,
        "frame_rate": capture.get(cv2.CAP_PROP_FPS),
    }


def pipeline_run(video: str) -> dict[str, Any]:
    """Ours: the whole pipeline with its defaults, from the file to events."""
    from edge_fr.networks import open_networks
    from edge_fr.pipeline import Step, open_pipeline
    from edge_fr.runner import run
    from edge_fr.stream import open_source

    boxes: list[list[list[float]]] = []

    def note(frame: Frame, step: Step) -> None:
        boxes.append(step.faces.boxes.round(1).tolist())

    networks = open_networks(embedder="sface")  # the loop's models
    with open_source(video) as source, open_pipeline(None, networks) as pipeline:
        summary = run(source, pipeline, on_step=note)
    engines_s = sum(row["total_s"] for name, row in summary.stages.items() if name.startswith("engine:"))
    return {
        "frames": summary.frames,
        "wall_s": summary.wall_s,
        "boxes": boxes,
        "outside_engines_share": 1 - engines_s / summary.wall_s,
        "stages": summary.stages,
        "events": dict(summary.events),
    }


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, M) intersection over union of xyxy boxes."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    area = [np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (a, b)]
    return np.asarray(common / (area[0][:, None] + area[1][None] - common), np.float32)


def found(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """How many of the peer's faces and people the pipeline found."""
    tracker = Tracker()
    hits: dict[int, list[bool]] = {}
    faces = both = 0
    for index, (a, b) in enumerate(zip(theirs["boxes"], ours["boxes"], strict=True)):
        rows = np.array(a, np.float32).reshape(-1, 5)
        found_by_peer = Faces(rows[:, :4], rows[:, 4], np.zeros((len(rows), 5, 2), np.float32))
        overlap = iou(rows[:, :4], np.array(b, np.float32).reshape(-1, 4)).max(axis=1, initial=0) >= 0.5
        faces, both = faces + len(rows), both + int(overlap.sum())
        now = Frame(
            np.zeros((2, 2, 3), np.uint8),
            round(index / theirs["frame_rate"] * 1e9),
            datetime.now(timezone.utc),
        )
        tracked = tracker(now, found_by_peer)
        for face in tracked:
            at = int(np.abs(rows[:, :4] - face.box).sum(axis=1).argmin())
            hits.setdefault(face.track_id or 0, []).append(bool(overlap[at]))
    return {
        "faces": {"peer": faces, "of_them_found": round(both / max(1, faces), 4)},
        "people": {"peer": len(hits), "of_them_found": sum(bool(np.mean(h) >= 0.5) for h in hits.values())},
        "ours": {"faces": sum(map(len, ours["boxes"])), "people": ours["events"].get("face.ended", 0)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("video")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["peer", "ours"], help=argparse.SUPPRESS)  # one timed process
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps((opencv_loop if arguments.only == "peer" else pipeline_run)(arguments.video)))
        return
    runs: dict[str, list[dict[str, Any]]] = {"peer": [], "ours": []}
    for _ in range(arguments.rounds):
        for side, done in runs.items():
            command = [sys.executable, "-m", "tests.bench.peer", arguments.video, "--only", side]
            done.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    fps = {side: statistics.median(r["frames"] / r["wall_s"] for r in done) for side, done in runs.items()}
    ours = sorted(runs["ours"], key=lambda r: r["wall_s"])[arguments.rounds // 2]
    result = {
        "video": arguments.video,
        "rounds": arguments.rounds,
        "fps": {side: round(value, 2) for side, value in fps.items()},
        "ratio": round(fps["ours"] / fps["peer"], 3),
        "outside_engines_share": round(ours["outside_engines_share"], 4),
        "found": found(runs["peer"][0], ours),
        "stages": ours["stages"],
        "events": ours["events"],
    }
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{result['fps']} frames a second, ratio {result['ratio']}")
    print(f"outside the engines {result['outside_engines_share']:.1%} of the time; {result['found']}")
    for name, row in result["stages"].items():
        print(f"{name:<16} p50 {row['p50_ms']:8.2f} ms   p95 {row['p95_ms']:8.2f} ms")


if __name__ == "__main__":
    main()
