"""What a connection has freed is the system's again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge_fr.stream import release

# A connection's thread fills its part of the heap, keeps the last block, as a library would, frees the rest.
CHILD = """
import threading
from edge_fr.stream.camera import Camera

kept = []

class Connection:
    reader, clock, dropped, damaged = "drawn", "file", 0, 0

    def __iter__(self):
        blocks = [bytearray(2000) for _ in range(50_000)]
        kept.append(blocks.pop())
        return iter(())

    def close(self):
        pass

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4 // 1024

before = resident_mib()
camera = Camera(lambda stop: Connection(), name="door", live=False)
camera.start()
while not camera.over:
    camera.wake.wait(0.1)
camera.close(timeout_s=60)
print(resident_mib() - before)
"""


def test_memory_that_a_closed_connection_freed_goes_back_to_the_system() -> None:
    if release._trim is None:
        pytest.skip("this C library is not glibc")
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20  # of 100; threads and the arena's own books are what stays
