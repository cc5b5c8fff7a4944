"""Several real processes at one gallery, and processes that are killed while they write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fakes import card
from numpy.typing import NDArray

from edge_fr.gallery import Gallery

SIZE = 8
CARD = card(embedding_size=SIZE)
EACH = 30  # templates of a person: a commit of several pages

WRITER = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[4])
from fakes import card
from edge_fr.gallery import Gallery

path, prefix, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Gallery.open(path, card(embedding_size=8), create=True, busy_s=60) as gallery:
    for number in range(count):
        row = np.zeros((30, 8), np.float32)
        row[:, number % 8] = 1
        gallery.add(f"{prefix} {number}", row)
        if number % 5 == 4:
            gallery.remove(f"{prefix} {number}")
            print("removed", number, flush=True)
        else:
            print("added", number, flush=True)
"""


def start(path: Path, prefix: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, path, prefix, str(count), Path(__file__).parent],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def expected(prefix: str, count: int) -> set[str]:
    return {f"{prefix} {number}" for number in range(count) if number % 5 != 4}


def axis(number: int) -> NDArray[np.float32]:
    return np.eye(SIZE, dtype=np.float32)[[number % SIZE]]


def test_processes_that_enroll_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "people.db"  # both make it, too
    writers = [start(path, prefix, 20) for prefix in ("one", "two", "three")]
    for writer in writers:
        _, errors = writer.communicate(timeout=600)
        assert writer.returncode == 0, errors
    with Gallery.open(path, CARD) as gallery:
        assert {p.identity for p in gallery.identities()} == (
            expected("one", 20) | expected("two", 20) | expected("three", 20)
        )
        assert {p.templates for p in gallery.identities()} == {EACH}


def test_a_running_search_finds_who_another_process_enrolls(tmp_path: Path) -> None:
    path = tmp_path / "people.db"
    with Gallery.open(path, CARD, create=True, refresh_s=0, busy_s=60) as gallery:
        writer = start(path, "guest", 4)
        assert writer.stdout is not None
        for number in range(4):
            assert writer.stdout.readline() == f"added {number}\n"
            best = gallery.search(axis(number))[0][0]
            assert (best.identity, best.score) == (f"guest {number}", 1.0)
        _, errors = writer.communicate(timeout=600)
        assert writer.returncode == 0, errors
        assert (len(gallery), gallery.template_count) == (4, 4 * EACH)


@pytest.mark.parametrize("wait_ms", [0, 1, 3, 7, 12, 18, 25, 40])
def test_a_process_killed_while_it_enrolls_leaves_whole_people_and_all_it_confirmed(
    tmp_path: Path, wait_ms: int
) -> None:
    path = tmp_path / "people.db"
    writer = start(path, "guest", 10_000)
    assert writer.stdout is not None
    confirmed = [writer.stdout.readline() for _ in range(3)]
    time.sleep(wait_ms / 1000)  # lands somewhere between and within commits
    os.kill(writer.pid, signal.SIGKILL)
    confirmed += writer.stdout.readlines()
    writer.communicate(timeout=600)
    assert confirmed[-1].endswith("\n")
    last = int(confirmed[-1].split()[1])
    with Gallery.open(path, CARD) as gallery:
        people = gallery.identities()
        assert {p.templates for p in people} == {EACH}
        # The next one may have been on the disk, or half removed again, before it could be confirmed.
        assert expected("guest", last + 1) <= {p.identity for p in people}
        assert {p.identity for p in people} - expected("guest", last + 1) <= {f"guest {last + 1}"}
        assert gallery.template_count == EACH * len(people)
        assert gallery.add("after", axis(0)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["people.db"]
