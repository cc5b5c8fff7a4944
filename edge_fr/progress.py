"""A progress bar for whoever watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from edge_fr.printable import printable


class Progress:
    """A progress bar on stderr; nothing at all when stderr is no terminal. `total` may be unknown."""

    def __init__(self, total: int | None, text: str) -> None:
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),  # "[" in a file's name is no style
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(printable(text), total=total)

    def advance(self, count: int = 1) -> None:
        self._bar.advance(self._task, count)

    def follow(self, items: Iterable[str]) -> Iterator[str]:
        """The same items, each counted when the next one is asked for."""
        for item in items:
            yield item
            self.advance()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
