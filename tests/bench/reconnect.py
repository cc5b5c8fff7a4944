"""A camera that restarts, freezes, talks nonsense and changes its size, round after round.

    python -m tests.bench.reconnect [--rounds 200] [--reader gstreamer | opencv] [--json]

Each round takes the camera away in one of these ways, in turn, and brings it back on the same port:

    restart   the server is killed and started again
    frozen    the server stops (SIGSTOP), its connections stay; then it is killed and started again
    silent    after the kill something accepts connections and sends nothing
    garbage   after the kill something answers nonsense, another one each time
    resized   the server that comes back sends another size

A round is done when frames of the new server come. It has to take no longer than the connection's
time-outs and the longest pause allow, from the moment at which the new server accepts connections.
Threads, file handles and resident memory are read after a warm-up of eight rounds (or half of them) and
at the end. Exits with 1 when a round was late, an event was lost or doubled, or something grew.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from edge_fr.camera_event import camera_event
from edge_fr.stream import Camera, ReconnectPolicy, open_camera
from edge_fr.structures import Event
from tests.fake_cameras import GARBAGE, RawServer, silent, start_server

POLICY = ReconnectPolicy(
    open_timeout_s=3.0, read_timeout_s=1.5, stale_after_s=0.7, first_delay_s=0.1, max_delay_s=0.5
)
WAYS = ("restart", "frozen", "restart", "silent", "resized", "garbage")
SIZES = ("320x240", "160x120")
WARM_UP = 8
# The longest pause before a try begins, and that try's time for its first frame. A try that was under way
# when the server came back meets its end first.
BOUND_S = 2 * POLICY.open_timeout_s + POLICY.max_delay_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--reader", default="gstreamer", choices=["gstreamer", "opencv"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = bench(arguments.rounds, arguments.reader, show=not arguments.json)
    print(json.dumps(report) if arguments.json else "\n".join(f"{k}: {v}" for k, v in report.items()))
    return 0 if report["passed"] else 1


class Owner:
    """Takes frames and changes off the camera, as a scheduler would, in a thread of its own."""

    def __init__(self, camera: Camera) -> None:
        self.events: list[Event] = []
        self.taken = 0
        self.backwards = 0
        self.size = (0, 0)
        self._camera = camera
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        last_ns = -1
        while not self._over.is_set():
            self._camera.wake.wait(0.1)
            self._camera.wake.clear()
            for c in self._camera.take_changes():
                event = camera_event(c)
                self.events.append(event)
            frame = self._camera.take()
            if frame is not None:
                self.taken += 1
                # The server sends its parameter sets before each slice of a key picture: FFmpeg makes two
                # pictures of it, which have one time.
                self.backwards += frame.pts_ns < last_ns
                last_ns = frame.pts_ns
                height, width = frame.image.shape[:2]
                self.size = (width, height)


def bench(rounds: int, reader: Any, *, show: bool) -> dict[str, object]:
    """Runs so many rounds and returns the figures."""
    recoveries: dict[str, list[float]] = {way: [] for way in WAYS}
    nonsense = sorted(GARBAGE)
    port, server = start_server("h264", "--size", SIZES[0], "--fps", "10")
    size = SIZES[0]
    at_start = _footprint()
    camera = open_camera(f"rtsp://127.0.0.1:{port}/live", reader=reader, camera="gate", policy=POLICY)
    camera.start()
    owner = Owner(camera)
    warm, warm_up = at_start, min(WARM_UP, rounds // 2)
    try:
        _wait(lambda: camera.state == "RUNNING", 60)
        for number in range(rounds):
            if number == warm_up:
                warm = _footprint()
            way = WAYS[number % len(WAYS)]
            connects = camera.counters.connects
            with ExitStack() as stack:
                if way == "frozen":
                    server.send_signal(signal.SIGSTOP)
                    _wait(lambda: camera.state == "RECONNECTING", 60)
                server.kill()
                server.communicate()
                if way in ("silent", "garbage"):
                    answer = (
                        silent if way == "silent" else GARBAGE[nonsense[number // len(WAYS) % len(nonsense)]]
                    )
                    fake = stack.enter_context(RawServer(answer, port))
                    _wait(lambda: fake.connections > 0, 60)  # noqa: B023  called before the next round
                else:
                    _wait(lambda: camera.state == "RECONNECTING", 60)
            if way == "resized":
                size = SIZES[1 - SIZES.index(size)]
            _, server = start_server("h264", "--port", str(port), "--size", size, "--fps", "10")
            back_at = time.monotonic()
            _wait(lambda: camera.counters.connects > connects and camera.state == "RUNNING", 120)  # noqa: B023
            took_s = time.monotonic() - back_at
            recoveries[way].append(took_s)
            width, _, height = size.partition("x")
            _wait(lambda: owner.size == (int(width), int(height)), 60)  # noqa: B023
            if show:
                print(
                    f"round {number + 1:3d} {way:<8} back after {took_s:5.2f} s  {_footprint()}",
                    file=sys.stderr,
                )
        _wait(lambda: camera.hanging == 0, 60)
        at_end = _footprint()
        counters = camera.counters
    finally:
        camera.close()
        owner.close()
        server.kill()
        server.communicate()
    said = [event.type for event in owner.events]
    alternate = said == ["camera.online", *["camera.offline", "camera.online"] * ((len(said) - 1) // 2)]
    unique = len({event.dedupe_key for event in owner.events}) == len(said)
    late = sum(took_s > BOUND_S for times in recoveries.values() for took_s in times)
    grew = {key: at_end[key] - warm[key] for key in at_end}
    # A thread or handle may be on its way out when they are counted; a leak would be one a round. Memory:
    # a frame of another size and its caps come and go, a leaked pipeline would be megabytes a round.
    steady = grew["threads"] <= 2 and grew["handles"] <= 4 and grew["rss_mb"] <= 16 + 0.02 * rounds
    enough = said.count("camera.offline") >= rounds
    return {
        "passed": bool(alternate and unique and enough and steady and not late and not owner.backwards),
        "rounds": rounds,
        "reader": reader,
        "recovery_bound_s": BOUND_S,
        "late_rounds": late,
        "recovery_s": {way: _spread(times) for way, times in recoveries.items() if times},
        "at_start": at_start,
        f"after_{warm_up}_rounds": warm,
        "at_end": at_end,
        "after_close": _footprint(),
        "events": dict(Counter(said)),
        "events_alternate": alternate,
        "events_unique": unique,
        "times_going_back": owner.backwards,
        "frames_taken": owner.taken,
        "counters": asdict(counters),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _spread(times: list[float]) -> dict[str, float]:
    times = sorted(times)
    return {"rounds": len(times), "median": round(times[len(times) // 2], 2), "worst": round(times[-1], 2)}


def _footprint() -> dict[str, int]:
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "handles": len(os.listdir("/proc/self/fd")),
        "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") // 2**20,
    }


def _wait(condition: Any, limit_s: float) -> None:
    give_up = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"nothing came of it within {limit_s:g} s")
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())
