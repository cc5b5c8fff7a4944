"""How large and how fast a gallery is.

    python -m tests.bench.gallery [--templates 1000 100000 1000000] [--folder .]

Prints one JSON object. Random templates of 128 values, 5 a person: the hardest case, because nobody stands
out. Times are medians in milliseconds unless named otherwise; one process measures one size, so that
memory is that size's own. The file lies in --folder. OPENBLAS_NUM_THREADS=1 shows the search on one core:
on a busy machine it is no slower than on several, which wait for each other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fr.engine import ModelCard
from edge_fr.gallery import Gallery

SIZE = 128
TEMPLATES_OF_A_PERSON = 5
CARD = ModelCard("bench", "embed", "RGB", (0.0, 255.0), "sha256:bench", "none", "none", embedding_size=SIZE)


def unit(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    rows = rng.standard_normal((count, SIZE), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def median_ms(call: Callable[[], object], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return round(float(np.median(times)) * 1e3, 4)


def memory_mib(field: str) -> float:
    """VmRSS, the memory in use, or VmHWM, the most there was in use, of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"/proc/self/status has no {field}")


def fill(path: Path, templates: int) -> float:
    """Makes a gallery of so many templates; returns the seconds it took.

    Through `Gallery.add` a person costs one synced commit. Here SQLite's sync is left out, by making the
    file in memory, or filling a million templates would measure the disk for an hour.
    """
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    with Gallery.open(path, CARD, create=True) as gallery:
        for person in range(templates // TEMPLATES_OF_A_PERSON):
            gallery.add(f"Person {person:07d}", unit(rng, TEMPLATES_OF_A_PERSON))
    return time.perf_counter() - start


def measure(templates: int, folder: Path) -> dict[str, object]:
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else folder
    with tempfile.TemporaryDirectory(dir=memory) as made, tempfile.TemporaryDirectory(dir=folder) as kept:
        fill_s = fill(Path(made) / "people.db", templates)
        path = Path(kept) / "people.db"
        path.write_bytes((Path(made) / "people.db").read_bytes())
        run = subprocess.run(
            [sys.executable, __file__, "--opened", str(path)], capture_output=True, text=True, check=True
        )
        return {"templates": templates, "fill_in_memory_s": round(fill_s, 2), **json.loads(run.stdout)}


def measure_opened(path: Path) -> dict[str, object]:
    rng = np.random.default_rng(1)
    before = memory_mib("VmRSS")
    start = time.perf_counter()
    gallery = Gallery.open(path, CARD, refresh_s=3600)
    open_s = time.perf_counter() - start
    with gallery:
        memory, peak = memory_mib("VmRSS") - before, memory_mib("VmHWM") - before
        repeats = 200 if len(gallery) < 50_000 else 15
        search = {}
        for count in (1, 8, 32):
            search[f"search_{count}_probes_ms"] = median_ms(
                partial(gallery.search, unit(rng, count)), repeats
            )
        names = iter(range(10_000))
        add_ms = median_ms(lambda: gallery.add(f"Guest {next(names)}", unit(rng, 5)), 20)
        leavers = iter(range(10_000))
        remove_ms = median_ms(lambda: gallery.remove(f"Guest {next(leavers)}"), 20)
        return {
            "people": len(gallery),
            "file_mib": round(path.stat().st_size / 2**20, 2),
            "open_s": round(open_s, 3),
            "memory_mib": round(memory, 1),
            "open_peak_mib": round(peak, 1),
            **search,
            "add_person_ms": add_ms,
            "remove_person_ms": remove_ms,
            "refresh_nothing_new_ms": median_ms(gallery.refresh, 200),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--templates", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--opened", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.opened:
        print(json.dumps(measure_opened(arguments.opened)))
        return
    sizes = [measure(templates, arguments.folder) for templates in arguments.templates]
    machine: dict[str, object] = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    machine["load_average"] = os.getloadavg()[0]  # above the number of cores, others distort the times
    print(json.dumps({**machine, "embedding_size": SIZE, "sizes": sizes}, indent=2))


if __name__ == "__main__":
    main()
