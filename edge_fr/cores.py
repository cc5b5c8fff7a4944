"""How many CPU cores this process may keep busy: of all of them, or of those that it was given."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def core_count(root: Path = Path("/")) -> int:
    """The cores that this process may use: those of its affinity (`taskset`), and no more than the quota of
    its control groups (containers, systemd's CPUQuota=) pays for, rounded up. `root` is where /proc and /sys
    are found."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def core_limit() -> int | None:
    """`core_count`, where that is fewer than the machine has; None where all of them may be used."""
    count = core_count()
    return count if count < (os.cpu_count() or 1) else None


def _quotas(root: Path) -> Iterator[float]:
    """What each control group above this process pays for, in cores, where it says so."""
    groups = root / "proc/self/cgroup"
    lines = groups.read_text().splitlines() if groups.is_file() else []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2: one tree of all controllers
            tree, read = root / "sys/fs/cgroup", _quota
        elif "cpu" in controllers.split(","):
            tree, read = root / "sys/fs/cgroup/cpu", _quota_of_version_1
        else:
            continue
        # A container may see itself as the root of the tree, under the name that it has outside.
        inside = tree / group.strip("/")
        for folder in (inside, *inside.parents):
            yield from read(folder)
            if folder == tree:
                break


def _quota(folder: Path) -> Iterator[float]:
    file = folder / "cpu.max"
    if file.is_file():
        quota, period = file.read_text().split()
        if quota != "max":
            yield int(quota) / int(period)


def _quota_of_version_1(folder: Path) -> Iterator[float]:
    quota, period = folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    if quota.is_file() and period.is_file() and int(quota.read_text()) > 0:  # -1: none
        yield int(quota.read_text()) / int(period.read_text())
