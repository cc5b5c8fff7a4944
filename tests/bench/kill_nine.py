"""Whether an event is lost when the process is killed and its receivers restart.

    python -m tests.bench.kill_nine [--rounds 100] [--seed 0]

A child writes events through the outbox to a webhook and a real mosquitto, one after the other without a
pause. In each round it is killed (kill -9) after a random time and started again; the webhook's server or
the broker restarts in some rounds. The child notes each event's number in two plain files, each synced:
one before and one after `write`. At the end a last child delivers what waits, and every event of the
second file must have arrived at both; what arrived must be in the first. The webhook's server breaks off
all connections when it restarts; mosquitto is ended with SIGTERM, because it keeps what it has
acknowledged in memory: kill -9 would lose events of its own.

Prints one JSON object; exits with 1 when an event is missing, was doubled under another dedupe key or
another event id, or first arrived out of order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what the tests share

from mqtt_broker import Broker, Listener
from numbered_events import number_of, numbered
from webhook_receiver import SECRET, Receiver

from edge_fr.events import MqttDelivery, Outbox, RetryPolicy, WebhookDelivery

PATIENCE_S = 120.0
_QUICK = RetryPolicy(first_delay_s=0.05, max_delay_s=0.5)
_LONGEST_LIFE_S = 3.0  # about one of them is spent on starting Python


@dataclass(frozen=True, slots=True)
class Tally:
    """What one receiver got, held against what the child had stored."""

    deliveries: int
    events: int
    missing: int  # stored, and did not arrive
    unknown: int  # arrived, and was never written
    doubled: int  # arrivals of an event that had arrived before
    renamed: int  # of these, with another dedupe key or event id
    out_of_order: int  # first arrivals after that of a younger event


def tally(bodies: Sequence[bytes], begun: set[int], stored: set[int]) -> Tally:
    numbers = [number_of(body) for body in bodies]
    first: dict[int, tuple[str, str]] = {}
    renamed = out_of_order = newest = 0
    for number, body in zip(numbers, bodies, strict=True):
        values = json.loads(body)
        names = (values["event_id"], values["dedupe_key"])
        if number in first:
            renamed += first[number] != names
        else:
            first[number] = names
            out_of_order += number < newest
            newest = max(newest, number)
    counted = Counter(numbers)
    return Tally(
        deliveries=len(numbers),
        events=len(counted),
        missing=len(stored - counted.keys()),
        unknown=len(counted.keys() - begun),
        doubled=len(numbers) - len(counted),
        renamed=renamed,
        out_of_order=out_of_order,
    )


def write_events(folder: Path, webhook: str, broker: str, *, last: bool) -> None:
    """The child: writes events until it is killed, or, as the last one, only delivers what waits."""
    deliveries = [
        WebhookDelivery(webhook, secret=SECRET, timeout_s=5),
        MqttDelivery(broker, "edge-fr/box", timeout_s=5),
    ]
    number = len((folder / "begun").read_text().splitlines()) if (folder / "begun").exists() else 0
    with Outbox(folder / "events.db", deliveries, retry=_QUICK) as outbox:
        if last:
            until_s = time.monotonic() + PATIENCE_S
            while any(status.waiting for status in outbox.status().values()):
                if time.monotonic() > until_s:
                    raise TimeoutError(f"not delivered: {outbox.status()}")
                time.sleep(0.05)
            return
        with (folder / "begun").open("a") as begun, (folder / "stored").open("a") as stored:
            while True:
                number += 1
                for file in (begun, stored):
                    if file is stored:
                        outbox.write(numbered(number))
                    file.write(f"{number}\n")
                    file.flush()
                    os.fsync(file.fileno())


def _stored(folder: Path) -> int:
    path = folder / "stored"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def attempt(folder: Path, rounds: int, seed: int, at_least: int = 0) -> dict[str, object]:
    """Kills and restarts so many times; returns what was counted.

    A child's life counts from when it has stored `at_least` events, however long that takes: on a slow
    machine it might otherwise be killed each time before its first one.
    """
    chance = random.Random(seed)
    restarts = Counter[str]()
    broker = Broker(folder)
    broker.start()
    receiver = Receiver()
    command = [
        sys.executable,
        "-m",
        "tests.bench.kill_nine",
        "--child",
        str(folder),
        receiver.url,
        broker.url,
    ]
    try:
        with Listener(broker.port, "edge-fr/+/+/event") as listener:
            for _ in range(rounds):
                child, before = subprocess.Popen(command), _stored(folder)
                try:
                    until_s = time.monotonic() + PATIENCE_S
                    while _stored(folder) < before + at_least and child.poll() is None:
                        if time.monotonic() > until_s:
                            raise TimeoutError("the child stores nothing")
                        time.sleep(0.01)
                    time.sleep(chance.uniform(0.2, 1.0) * _LONGEST_LIFE_S)
                    if chance.random() < 0.3:
                        receiver.stop()
                        time.sleep(chance.uniform(0.0, 0.5))
                        receiver.start()
                        restarts["webhook"] += 1
                    if chance.random() < 0.3:
                        broker.stop()
                        time.sleep(chance.uniform(0.0, 0.5))
                        broker.start()
                        restarts["mosquitto"] += 1
                    if chance.random() < 0.5:
                        time.sleep(chance.uniform(0.0, 1.5))
                    if child.poll() is not None:
                        raise RuntimeError(f"the child ended by itself, with {child.returncode}")
                finally:
                    child.kill()
                    child.wait()
            subprocess.run([*command, "--last"], check=True, timeout=2 * PATIENCE_S)
            begun, stored = (
                # A number that was cut short by the kill is no number that was noted.
                {int(line) for line in (folder / name).read_text().split("\n")[:-1]}
                for name in ("begun", "stored")
            )
            listener.wait_for(lambda messages: stored <= {number_of(m.payload) for m in messages}, PATIENCE_S)
            heard = [message.payload.encode() for message in listener.messages]
    finally:
        receiver.stop()
        broker.kill()
    return {
        "rounds": rounds,
        "seed": seed,
        "restarts": dict(restarts),
        "stored": len(stored),
        "begun": len(begun),
        "unsigned": sum(not post.signed for post in receiver.posts),
        "webhook": asdict(tally([post.body for post in receiver.taken], begun, stored)),
        "mqtt": asdict(tally(heard, begun, stored)),
    }


def faults(counts: dict[str, object]) -> list[str]:
    """What must not have happened, and did."""
    found = ["unsigned"] if counts["unsigned"] else []
    for name in ("webhook", "mqtt"):
        sink = counts[name]
        assert isinstance(sink, dict)
        found += [
            f"{name}: {key}" for key in ("missing", "unknown", "renamed", "out_of_order") if sink[key] != 0
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--last", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        folder, webhook, broker = arguments.child
        write_events(Path(folder), webhook, broker, last=arguments.last)
        return
    with tempfile.TemporaryDirectory() as folder:
        counts = attempt(Path(folder), arguments.rounds, arguments.seed)
    print(json.dumps({**counts, "faults": faults(counts)}, indent=2))
    sys.exit(1 if faults(counts) else 0)


if __name__ == "__main__":
    main()
