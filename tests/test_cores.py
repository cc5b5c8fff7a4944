"""How many cores a process may use: its affinity, and what its control groups pay for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edge_fr.cores import core_count

ALL = len(os.sched_getaffinity(0))
ROOT = Path(__file__).resolve().parents[1]


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, content in {"proc/self/cgroup": groups, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


V1 = "12:memory:/docker/8a\n4:cpu,cpuacct:/docker/8a\n1:name=systemd:/docker/8a\n"


@pytest.mark.parametrize(
    ("groups", "files", "count"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, ALL),
        # A service's quota, and that of the slice it is in: the smaller one.
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "1000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 1000"}, 1),
        # A container that sees the name it has outside, and itself as the root.
        ("0::/docker/8a\n", {"sys/fs/cgroup/cpu.max": "90000 100000\n"}, 1),
        (
            V1,
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            1,
        ),
        (
            V1,
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            ALL,
        ),
        ("", {}, ALL),
    ],
)
def test_a_quota_of_the_control_groups_counts(
    tmp_path: Path, groups: str, files: dict[str, str], count: int
) -> None:
    assert core_count(machine(tmp_path, groups, files)) == count


def test_part_of_a_core_counts_as_one(tmp_path: Path) -> None:
    if ALL < 2:
        pytest.skip("this machine has one core")
    files = {"sys/fs/cgroup/cpu.max": "150000 100000\n"}
    assert core_count(machine(tmp_path, "0::/\n", files)) == 2


def test_a_machine_without_control_groups_has_all_its_cores(tmp_path: Path) -> None:
    assert core_count(tmp_path) == ALL


COUNT = """
import json, cv2
from pathlib import Path
from edge_fr import open_engine, open_networks
from edge_fr.cores import core_count
from edge_fr.models import resolve
def threads(): return int(Path('/proc/self/status').read_text().split('Threads:')[1].split()[0])
before = threads()
engine = open_engine(resolve('recognizer-gate'))
ours = threads() - before
open_networks(detector=DETECTOR)
print(json.dumps([core_count(), 1 + ours, cv2.getNumThreads()]))
"""


def counted(detector: Path, join: Callable[[], None]) -> list[int]:
    """The cores of a process that begins with `join`, and the threads that onnxruntime and OpenCV take."""
    code = COUNT.replace("DETECTOR", repr(str(detector)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=join,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    counts: list[int] = json.loads(done.stdout)
    return counts


def test_onnxruntime_and_opencv_take_the_cores_of_the_affinity(pulled: Callable[[str], Path]) -> None:
    one = {min(os.sched_getaffinity(0))}
    assert counted(pulled("yunet"), lambda: os.sched_setaffinity(0, one)) == [1, 1, 1]


@pytest.fixture
def group_of_half_a_core() -> Iterator[Path]:
    """A control group of this machine that pays for half a core."""
    trees = {
        Path("/sys/fs/cgroup"): {"cpu.max": "50000 100000"},
        Path("/sys/fs/cgroup/cpu"): {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
    }
    for tree, files in trees.items():
        group = tree / f"edge-fr-{os.getpid()}"
        try:
            group.mkdir()
            for name, content in files.items():
                if not (group / name).exists():
                    raise FileNotFoundError(name)
                (group / name).write_text(content)
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("this user may make no control group")


def test_onnxruntime_and_opencv_take_the_cores_that_a_control_group_pays_for(
    pulled: Callable[[str], Path], group_of_half_a_core: Path
) -> None:
    tasks = group_of_half_a_core / "cgroup.procs"
    assert counted(pulled("yunet"), lambda: tasks.write_text("0") and None) == [1, 1, 1]
