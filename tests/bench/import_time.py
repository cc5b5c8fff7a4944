"""How long `import edge_fr` takes in a fresh process, beside Python's own start and numpy's import."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 10
BUDGET_S = 0.3


def seconds(code: str) -> float:
    """Median wall time of a process that runs `code`."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    bare = seconds("")
    print(f"python                  {bare:.3f} s (median of {RUNS} processes)")
    for label, code in (
        ("import numpy", "import numpy"),
        ("import edge_fr", "import edge_fr"),
        ("edge_fr.Faces", "import edge_fr; edge_fr.Faces"),
    ):
        print(f"{label:<23} {seconds(code) - bare:.3f} s more")
    print(f"budget of import edge_fr: {BUDGET_S} s")


if __name__ == "__main__":
    main()
