"""Whether memory stays flat: `edge-fr run --config` over 100,000 frames of cameras that come and go.

    python -m tests.bench.soak [--frames 100000] [--cameras 6] [--out soak.json] [--keep FOLDER]

One process, the command as it is installed, reads three cameras on loopback through both readers, and
recordings, which are what keeps it at work all the time. It finds and follows two drawn people with
public-domain faces who walk up and vanish, asks a gallery of 500, and writes events to a JSONL file and
through the outbox to a webhook and to mosquitto. Meanwhile, by turns, each for a thousand frames: a camera
is killed, a camera freezes, the webhook and the broker are away, somebody is enrolled and another one
removed. It is measured from outside, by /proc and its metrics page.

After a warm-up of a fifth of the frames a line is fitted through the resident memory, the mean of two
readings a second: first averaged in sixteen blocks, because samples that follow each other are not
independent, then by least squares, with a 95 % interval. Exits with 1 when the upper end of the interval is
above the bound, when threads, handles or SQLite's logs grew beyond theirs, when a kind of event never came,
when an event did not reach the webhook, or when the process did not end by itself on SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what the tests share

from mqtt_broker import Broker
from ports import free_port
from webhook_receiver import SECRET, Receiver

from tests.bench.soak_scene import LIVE, Cameras, Trouble, enroll

EVERY = 1000  # frames from one sample, and one trouble, to the next
PATIENCE_S = 3600.0  # for a thousand frames on a machine that has hardly time for them, and for the end
BLOCKS = 16  # of 80 samples after the warm-up: each with every trouble once, which moves memory to and fro
STUDENT_95 = 2.145  # of BLOCKS - 2 degrees of freedom
# So much more after a month at 10 frames a second is 400 MiB. What 100,000 frames can tell is not much finer.
MOST_BYTES = 16 << 10  # for 1,000 frames
# One connection that is on its way out while the next one opens: a reader's threads and its sockets.
MORE_THREADS, MORE_HANDLES = 12, 12
MOST_LOG_BYTES = 4 << 20  # twice what the outbox plans for its log; the gallery's is smaller
KINDS = ("face.identified", "face.unknown", "face.unrecognizable", "face.ended", "camera.offline")
SITE = """
gallery: people.db
models: {{threads: 1}}
defaults: {{stale_after_s: 1, max_delay_s: 3}}
cameras:
{cameras}
events:
  jsonl: events.jsonl
  outbox: outbox.db
  outbox_max_bytes: 16777216
  webhook: {{url: "{webhook}", secret: "${{env:SOAK_SECRET}}"}}
  mqtt: {{url: "{mqtt}", topic: edge-fr/soak}}
metrics: {{port: {port}}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--cameras", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("soak.json"))
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    arguments = parser.parse_args()
    if arguments.frames < 2 * BLOCKS * EVERY:
        parser.error(f"--frames: a line through {BLOCKS} blocks needs {2 * BLOCKS * EVERY} or more")
    with ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-fr-")))
        folder.mkdir(parents=True, exist_ok=True)
        report = bench(folder, arguments.frames, arguments.cameras)
    report["faults"] = faults(report)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "samples"}, indent=1))
    return 1 if report["faults"] else 0


def slope(frames: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """How much `values` gain in 1,000 frames: the least-squares slope of BLOCKS means, and the lower and
    upper end of its 95 % interval."""
    x = np.array([part.mean() for part in np.array_split(np.array(frames, float) / 1000, BLOCKS)])
    y = np.array([part.mean() for part in np.array_split(np.array(values, float), BLOCKS)])
    spread = float(((x - x.mean()) ** 2).sum())
    fitted = float(((x - x.mean()) * y).sum()) / spread
    rest = y - y.mean() - fitted * (x - x.mean())
    half = STUDENT_95 * float(np.sqrt((rest**2).sum() / (BLOCKS - 2) / spread))
    return fitted, fitted - half, fitted + half


def faults(report: dict[str, Any]) -> list[str]:
    """What a run did not hold to."""
    found = []
    upper = report["rss_bytes_per_1000_frames"]["upper"]
    if upper > MOST_BYTES:
        found.append(f"memory: up to {upper:.0f} bytes more for 1,000 frames, the bound is {MOST_BYTES}")
    warm, end = report["after_warm_up"], report["at_end"]
    for what, more in (("threads", MORE_THREADS), ("handles", MORE_HANDLES)):
        if end[what] > warm[what] + more:
            found.append(f"{what}: {warm[what]} after the warm-up, {end[what]} at the end")
    for name, size in report["largest_files"].items():
        if name.endswith("-wal") and size > MOST_LOG_BYTES:
            found.append(f"{name}: {size} bytes, the bound is {MOST_LOG_BYTES}")
    found += [f"no {kind} ever came" for kind in KINDS if not report["events"].get(kind)]
    if report["undelivered"]:
        found.append(f"{report['undelivered']} events did not reach the webhook")
    if report["exit_code"] != 0:
        found.append(f"it ended with {report['exit_code']}, expected 0")
    return found


class Watched:
    """The process that is measured."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.largest_files: Counter[str] = Counter()
        self._readings: list[list[int]] = []  # resident and anonymous bytes
        self._url = f"http://127.0.0.1:{port}/metrics"
        command = [
            sys.executable,
            "-m",
            "edge_fr.cli",
            "run",
            "--config",
            str(folder / "site.yaml"),
            "--json",
        ]
        environment = {**os.environ, "SOAK_SECRET": SECRET}
        with (folder / "stderr.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)

    def page(self) -> dict[tuple[str, ...], float]:
        """Its metrics, by name and the values of the labels; empty until they are there."""
        try:
            with urllib.request.urlopen(self._url, timeout=30) as answer:
                text = answer.read().decode()
        except (ConnectionRefusedError, urllib.error.URLError):
            if self.process.poll() is not None:
                raise SystemExit(f"it ended: {(self.folder / 'stderr.log').read_text()}") from None
            return {}
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def frames(self) -> int:
        page = self.page()
        return int(
            sum(n for key, n in page.items() if key[0] == "edge_fr_frames_total" and "looked at" in key)
        )

    def read_memory(self) -> None:
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        memory = dict(line.split(":", 1) for line in rollup if ":" in line)
        self._readings.append([int(memory[name].split()[0]) * 1024 for name in ("Rss", "Anonymous")])

    def sample(self) -> dict[str, int]:
        """What there is now, and the memory there was since the last sample, on average."""
        proc = Path(f"/proc/{self.process.pid}")
        frames = self.frames()
        self.read_memory()
        resident, anonymous = np.mean(self._readings, axis=0)
        self._readings.clear()
        for path in self.folder.iterdir():
            if path.name.startswith(("outbox.db", "people.db", "events.jsonl", "stderr.log")):
                self.largest_files[path.name] = max(self.largest_files[path.name], path.stat().st_size)
        return {
            "frames": frames,
            "rss_bytes": round(resident),
            "anonymous_bytes": round(anonymous),
            "threads": len(list((proc / "task").iterdir())),
            "handles": len(list((proc / "fd").iterdir())),
        }

    def wait_for(self, frames: int) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while self.frames() < frames:
            if time.monotonic() > give_up:
                raise TimeoutError(f"it did not come to {frames} frames within {PATIENCE_S:g} s more")
            for _ in range(10):  # asking for the page oftener costs the watched process time
                time.sleep(0.5)
                self.read_memory()


@contextmanager
def started(folder: Path, count: int) -> Iterator[tuple[Watched, Trouble, Receiver]]:
    with ExitStack() as stack:
        enroll(folder / "people.db", 500)
        cameras = Cameras(folder, count)
        stack.callback(cameras.close)
        receiver = stack.enter_context(Receiver())
        broker = Broker(folder)
        broker.start()
        stack.callback(broker.stop)
        port = free_port()
        sources = [f"  camera{number}: {how}" for number, how in enumerate(cameras.sources())]
        text = SITE.format(cameras="\n".join(sources), webhook=receiver.url, mqtt=broker.url, port=port)
        (folder / "site.yaml").write_text(text)
        watched = Watched(folder, port)
        stack.callback(watched.process.kill)
        yield watched, Trouble(cameras, receiver, broker, folder / "people.db"), receiver


def bench(folder: Path, frames: int, count: int) -> dict[str, Any]:
    """Runs so many frames of so many cameras and returns the figures."""
    with started(folder, count) as (watched, trouble, receiver):
        began = time.monotonic()
        samples = []
        for goal in range(EVERY, frames + 1, EVERY):
            watched.wait_for(goal)
            samples.append({"seconds": round(time.monotonic() - began), **watched.sample()})
            print(json.dumps(samples[-1]), file=sys.stderr, flush=True)
            trouble.next()
        wall_s = time.monotonic() - began
        trouble.end()
        page = watched.page()
        settled = time.monotonic() + PATIENCE_S
        while time.monotonic() < settled and page["edge_fr_outbox_waiting", "webhook"] > 0:
            time.sleep(1)
            page = watched.page()
        watched.process.send_signal(signal.SIGTERM)
        code = watched.process.wait(PATIENCE_S)
        told = {json.loads(line)["event_id"] for line in (folder / "events.jsonl").read_text().splitlines()}
        arrived = {json.loads(post.body)["event_id"] for post in receiver.taken}
    warm = [sample for sample in samples if sample["frames"] > frames // 5]
    slopes = {}
    for what in ("rss_bytes", "anonymous_bytes"):
        fitted, lower, upper = slope([s["frames"] for s in warm], [s[what] for s in warm])
        rounded = {"slope": round(fitted), "lower": round(lower), "upper": round(upper)}
        slopes[f"{what}_per_1000_frames"] = rounded
    events: Counter[str] = Counter()
    for key, number in page.items():
        if key[0] == "edge_fr_events_total":
            events[key[-1]] += int(number)
    return {
        **slopes,
        "bound_bytes_per_1000_frames": MOST_BYTES,
        "frames": samples[-1]["frames"],
        "frames_a_second": round(samples[-1]["frames"] / wall_s, 1),
        "wall_s": round(wall_s),
        "cameras": {"live": LIVE, "recordings": count - LIVE},
        "troubles": dict(trouble.counts),
        "connects": int(sum(n for key, n in page.items() if key[0] == "edge_fr_camera_connects_total")),
        "faces": {
            outcome: int(
                sum(n for k, n in page.items() if k[0] == "edge_fr_faces_total" and k[-1] == outcome)
            )
            for outcome in ("embedded", "refused", "passed over")
        },
        "events": dict(events),
        "undelivered": len(told - arrived),
        "doubled": len(receiver.taken) - len(arrived),
        "exit_code": code,
        "after_warm_up": warm[0],
        "at_end": samples[-1],
        "largest_files": dict(watched.largest_files),
        "samples": samples,
    }


if __name__ == "__main__":
    sys.exit(main())
