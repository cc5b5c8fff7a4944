"""What a thread or a connection has freed is the system's again, in a process that runs for months."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge_fr import heap

glibc_only = pytest.mark.skipif(not heap._GLIBC, reason="this C library is not glibc")

# A connection's thread fills its part of the heap, keeps the last block, as a library would, frees the rest.
CONNECTION = """
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

# Eight threads allocate side by side; the C library says how many heaps it made for them.
THREADS = """
import argparse, ctypes, os, sys, threading
from edge_fr import heap, run_command
from edge_fr.errors import InputError

if sys.argv[1] == "run":
    try:
        names = ["config", "fpir", "decide_within", "reader", "camera", "candidates", "certificate"]
        unsaid = dict.fromkeys([*names, "rotate", "flip", "aspect"])
        run_command.run(argparse.Namespace(source="test://?width=0", **unsaid))
    except InputError:
        pass
meet = threading.Barrier(8)

def allocate():
    block = bytearray(100_000)
    meet.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
c = ctypes.CDLL(None)
c.fdopen.restype = ctypes.c_void_p
told, tell = os.pipe()
stream = ctypes.c_void_p(c.fdopen(tell, b"w"))
c.malloc_info(0, stream)
c.fclose(stream)
print(os.read(told, 1 << 16).count(b"<heap "))
"""


def output(program: str, *arguments: str) -> int:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@glibc_only
def test_memory_that_a_closed_connection_freed_goes_back_to_the_system() -> None:
    assert output(CONNECTION) < 20  # of 100; threads and the arena's own books are what stays


@glibc_only
def test_the_threads_of_a_run_share_one_heap() -> None:
    assert output(THREADS, "import") > 1  # what the C library does by itself
    assert output(THREADS, "run") == 1
