"""What `edge-fr audit` does: watches one source for some minutes and writes the page."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import numpy as np

from edge_fr._files import publish
from edge_fr.audit.figures import Figures
from edge_fr.audit.gathering import Gathering
from edge_fr.audit.page import About, page
from edge_fr.audit.pictures import Pictures
from edge_fr.audit.statements import changes
from edge_fr.audit.upright import EVERY, MOST_FRAMES, best_turn
from edge_fr.errors import EdgeFrError, EventError, InputError, SourceReadError
from edge_fr.model_options import open_models
from edge_fr.networks import Networks
from edge_fr.pipeline import Stage, Step, open_pipeline
from edge_fr.printable import printable
from edge_fr.progress import Progress
from edge_fr.quality import usual_policy
from edge_fr.run_command import stop_on_signals
from edge_fr.runner import Summary
from edge_fr.runner import run as drive
from edge_fr.stream import Camera, Mounting, Source, is_live, open_camera, open_source
from edge_fr.structures import Faces, Frame

_MINUTES = 10.0  # of what has no end of its own


def audit(arguments: argparse.Namespace) -> int:
    output = Path(arguments.output)
    _require_writable(output)
    if arguments.fov is not None and not 0 < arguments.fov < 180:
        raise InputError(f"--fov is {arguments.fov:g}, expected degrees between 0 and 180")
    if arguments.minutes is not None and not 0 < arguments.minutes <= 60 * 24 * 31:
        raise InputError(f"--minutes is {arguments.minutes:g}, expected more than 0 and at most a month")
    started_at, summary, stop = datetime.now().astimezone(), Summary(), threading.Event()
    with ExitStack() as stack:
        live = is_live(arguments.source)
        opened: Callable[..., Source | Camera] = open_camera if live else open_source
        source = opened(
            arguments.source,
            reader=arguments.reader,
            camera=arguments.camera,
            certificate=arguments.certificate,
            mounting=Mounting(arguments.rotate or 0, bool(arguments.flip), arguments.aspect),
        )
        networks = open_models(arguments)
        policy = usual_policy(networks.recognizability)
        pipeline = stack.enter_context(
            open_pipeline(
                None,
                networks,
                quality=policy,
                stages=judge_everyone(networks),
                stills=source.reader == "pictures",
            )
        )
        gathering = Gathering(live=live, pictures=Pictures() if arguments.pictures else None)
        stack.enter_context(source)
        progress = stack.enter_context(Progress(source.frame_count, source.uri))
        signals = stack.enter_context(stop_on_signals(stop))
        ends = source.frame_count is not None
        minutes = arguments.minutes or (None if ends else _MINUTES)
        if live and minutes is not None:  # by the wall: a camera that gives no frame has no other clock
            timer = threading.Timer(60 * minutes, stop.set)
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)

        def observe(frame: Frame, step: Step) -> None:
            gathering.observe(frame, step)
            turns = gathering.figures.turns
            if gathering.figures.frames % EVERY == 1 and turns.total() < MOST_FRAMES:
                turn = best_turn(networks, frame.image)
                turns.update([] if turn is None else [turn])
            if gathering.figures.frames == 1:
                text = f"watching {source.uri}; Ctrl-C ends it and writes the page"
                print(printable(text), file=sys.stderr)
            progress.advance()
            if not live and minutes is not None and frame.pts_ns >= 60e9 * minutes:
                stop.set()

        failure: EdgeFrError | None = None
        try:
            drive(source, pipeline, sinks=[gathering], on_step=observe, stop=stop, summary=summary)
        except EdgeFrError as error:
            gathering.figures.trouble, failure = str(error), error
        gathering.finish()
        about = About(
            camera=source.name if isinstance(source, Camera) else source.camera,
            source=source.uri,
            started_at=started_at,
            models={
                "recognizer": f"{networks.embedder.card.name} {networks.embedder.card.precision}",
                "gate": "none" if networks.recognizability is None else "the recognizer's network",
            },
            clock=source.clock,
            fov_deg=arguments.fov,
            policy=policy,
        )
    _add_losses(gathering.figures, summary)
    if gathering.figures.frames:
        _write(page(gathering.figures, about, gathering.pictures), output)
        print(output)
        for statement in changes(gathering.figures):
            print(printable(f"- {statement.text} ({statement.basis})"))
    if failure is not None:
        raise failure
    if not gathering.figures.frames and signal.SIGINT not in signals:
        reason = gathering.figures.outage_reason or "none came in that time"
        raise SourceReadError(f"{about.source} gave not a single frame: {reason}; no page was written")
    return 130 if signal.SIGINT in signals else 0


def judge_everyone(networks: Networks) -> list[Stage]:
    """A stage that has the gate's network judge the faces too that the gate refused before it asked it.

    No stage where there is no such network.
    """
    network = networks.recognizability
    if network is None:
        return []

    def judged(frame: Frame, faces: Faces) -> Faces:
        if faces.crops is None or faces.ri is None:
            return faces
        missing = np.flatnonzero(np.isnan(faces.ri))
        ri = faces.ri.copy()
        ri[missing] = network(faces.crops[missing])
        return faces.with_(ri=ri)

    return [judged]


def _add_losses(figures: Figures, summary: Summary) -> None:
    figures.dropped, figures.late = summary.dropped, summary.late
    figures.damaged, figures.unfollowed = summary.damaged, summary.unfollowed


def _require_writable(path: Path) -> None:
    """Refuses before the minutes are spent what could not be written after them."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise EventError(
            f"cannot write the page to {path}; name a file in a folder that exists and that this user may "
            f"write to"
        )


def _write(text: str, path: Path) -> None:
    try:
        publish(text.encode("utf-8", "replace"), path, private=True)
    except OSError as error:
        raise EventError(f"cannot write the page to {path}: {error.strerror}") from error
