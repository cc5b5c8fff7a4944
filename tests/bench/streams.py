"""What this machine sustains of many cameras: rate and latency, over real RTSP on loopback.

    python -m tests.bench.streams VIDEO [--cameras 4 8] [--seconds 60] [--fps 10] [--json]

VIDEO is scaled to 720p at --fps frames a second, repeated without encoding it again, and served once for
each camera by a server in a process of its own, which takes a part of the same cores. For each number
of cameras: frames a second of each camera, the share of what was asked for, and the time from
capture to events, p50, p95 and the longest. A warm-up of ten seconds is not counted.

    python -m tests.bench.streams VIDEO --batching [--json]

The same video as a file, four times at once, as fast as it goes: frames a second of four cameras in one
process against four processes of one camera, in turns, three rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge_fr.fleet import Fleet
from edge_fr.lane import Lane
from edge_fr.networks import open_networks
from edge_fr.pipeline import Step, assemble, open_people
from edge_fr.stream import open_camera
from edge_fr.structures import Frame
from tests.fake_cameras import start_server

WARM_UP_S = 10.0
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--cameras", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--fps", type=int, default=10)
    parser.add_argument("--gallery", type=Path)
    parser.add_argument("--threads", type=int, default=2, help="of one model call (%(default)s)")
    parser.add_argument("--batching", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(from_files([arguments.video], arguments)))
        return
    with tempfile.TemporaryDirectory(prefix="edge-fr-") as folder:
        clip = Path(folder) / "clip.mp4"
        if arguments.batching:
            prepare(arguments.video, clip, fps=arguments.fps, seconds=20)
            report: Any = batching(clip, arguments)
        else:
            prepare(arguments.video, clip, fps=arguments.fps, seconds=arguments.seconds + 120)
            report = [live(clip, count, arguments) for count in arguments.cameras]
    print(json.dumps(report, indent=None if arguments.json else 1))


def prepare(video: Path, clip: Path, *, fps: int, seconds: float) -> None:
    """The video at 720p, in H.264, repeated until it lasts so long."""
    once = clip.with_name("once.mp4")
    encode = [
        "-vf",
        f"scale=1280:720,fps={fps}",
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-g",
        f"{fps}",
        "-an",
    ]
    quiet = ["ffmpeg", "-loglevel", "error", "-y"]
    subprocess.run([*quiet, "-i", str(video), *encode, "-bf", "0", str(once)], check=True)
    loop = ["-stream_loop", "-1", "-i", str(once), "-t", f"{seconds:.0f}", "-c", "copy", str(clip)]
    subprocess.run([*quiet, *loop], check=True)


def fleet_for(arguments: argparse.Namespace, **hooks: Any) -> tuple[Fleet, Any]:
    """A fleet, and what makes a pipeline for one more of its cameras."""
    networks = open_networks(threads=arguments.threads)
    networks.run_once()
    people = open_people(arguments.gallery, networks.embedder.card)
    return Fleet(networks, **hooks), lambda: assemble(networks, people)


def live(clip: Path, count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """So many cameras of that clip for so many seconds."""
    latencies: list[float] = []
    began = time.monotonic() + WARM_UP_S

    def note(lane: Lane, frame: Frame, step: Step) -> None:
        if time.monotonic() >= began:
            latencies.append((datetime.now(timezone.utc) - frame.captured_at).total_seconds() * 1e3)

    fleet, pipeline = fleet_for(arguments, on_step=note)
    stop = threading.Event()
    with ExitStack() as stack:
        lanes = []
        for number in range(count):
            port, server = start_server("h264", "--file", str(clip))
            stack.callback(server.wait)
            stack.callback(server.kill)
            camera = open_camera(f"rtsp://127.0.0.1:{port}/live", camera=f"camera{number}")
            lanes.append(Lane(camera, pipeline(), fps=arguments.fps))
            fleet.add(lanes[-1])
        thread = threading.Thread(target=fleet.run, args=(stop,))
        thread.start()
        time.sleep(WARM_UP_S)
        before = [(lane.taken, lane.camera.counters.frames) for lane in lanes]
        time.sleep(arguments.seconds)
        after = [(lane.taken, lane.camera.counters.frames) for lane in lanes]
        stop.set()
        thread.join()
    taken = [b[0] - a[0] for a, b in zip(before, after, strict=True)]
    came = [b[1] - a[1] for a, b in zip(before, after, strict=True)]
    return {
        "cameras": count,
        "fps_each": [round(n / arguments.seconds, 2) for n in taken],
        "fps_came": [round(n / arguments.seconds, 2) for n in came],
        "latency_ms": {
            "p50": round(float(np.percentile(latencies, 50)), 1),
            "p95": round(float(np.percentile(latencies, 95)), 1),
            "max": round(max(latencies), 1),
        },
        "faces": sum(lane.faces for lane in lanes),
        "too_old": sum(lane.too_old for lane in lanes),
        "clocks": sorted({lane.camera.clock for lane in lanes}),  # type: ignore[attr-defined]
    }


def from_files(videos: list[Path], arguments: argparse.Namespace) -> dict[str, float]:
    """Frames and seconds of a fleet that reads files as fast as it can."""
    fleet, pipeline = fleet_for(arguments)
    for number, video in enumerate(videos):
        fleet.add(Lane(open_camera(video, camera=f"camera{number}"), pipeline()))
    began = time.perf_counter()
    fleet.run(threading.Event())
    return {"frames": fleet.summary.frames, "seconds": time.perf_counter() - began}


def batching(clip: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Frames a second of four files: one process, then four at once, in turns."""
    together, apart = [], []
    command = [sys.executable, "-m", "tests.bench.streams", str(clip), "--one"]
    command += ["--threads", str(arguments.threads)]
    for _ in range(ROUNDS):
        one = from_files([clip] * 4, arguments)
        together.append(one["frames"] / one["seconds"])
        processes = [
            subprocess.Popen(
                [*command, "--threads", str(arguments.threads)], stdout=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        done = [json.loads(process.communicate()[0]) for process in processes]
        apart.append(sum(d["frames"] for d in done) / max(d["seconds"] for d in done))
    return {
        "one_process_fps": [round(v, 1) for v in together],
        "four_processes_fps": [round(v, 1) for v in apart],
        "ratio": round(float(np.median(np.array(together) / np.array(apart))), 3),
    }


if __name__ == "__main__":
    main()
