"""What `edge-fr run` does: one source, or a whole site from its file, and its events to read."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edge_fr import heap, standard_streams
from edge_fr.annotate import VideoAnnotator
from edge_fr.decide import DecisionPolicy
from edge_fr.errors import EventError, InputError
from edge_fr.events import JsonlSink, to_json, to_line
from edge_fr.fleet import Load
from edge_fr.model_options import MODEL_OPTIONS, open_models
from edge_fr.pipeline import Step, open_pipeline
from edge_fr.printable import printable
from edge_fr.progress import Progress
from edge_fr.runner import Summary
from edge_fr.runner import run as drive
from edge_fr.stream import Camera, Mounting, Source, is_live, open_camera, open_source
from edge_fr.structures import Event, Frame

_OF_ONE_SOURCE = (
    *("gallery", "events", "candidates", "annotate", "camera", "reader", "certificate"),
    *("rotate", "flip", "aspect"),
    *("fpir", "decide_within", "tiles"),
    *MODEL_OPTIONS,
)


def run(arguments: argparse.Namespace) -> int:
    if (arguments.source is None) == (arguments.config is None):
        raise InputError("name a source, or a site's file with --config, and not both")
    heap.share()
    return _run_source(arguments) if arguments.config is None else _run_site(arguments)


def _run_source(arguments: argparse.Namespace) -> int:
    decision = {"target_fpir": arguments.fpir, "decide_within_ns": arguments.decide_within}
    policy = DecisionPolicy(**{name: value for name, value in decision.items() if value is not None})
    summary, stop = Summary(), threading.Event()
    candidates = bool(arguments.candidates)
    with ExitStack() as stack:
        opened: Callable[..., Source | Camera] = (
            open_camera if is_live(arguments.source) else open_source  # a camera may go and come back
        )
        source = opened(
            arguments.source,
            reader=arguments.reader or "auto",
            camera=arguments.camera,
            certificate=arguments.certificate,
            mounting=Mounting(arguments.rotate or 0, bool(arguments.flip), arguments.aspect),
        )
        stack.enter_context(source)
        pipeline = stack.enter_context(
            open_pipeline(
                arguments.gallery,
                open_models(arguments),
                decision=policy,
                stills=source.reader == "pictures",
                tiles=arguments.tiles,
            )
        )
        files = []
        if arguments.events:
            files.append(stack.enter_context(JsonlSink(arguments.events, candidates=candidates)))
        video = stack.enter_context(VideoAnnotator(arguments.annotate)) if arguments.annotate else None
        printer = Printer(arguments.json, stop=None if files or video else stop, candidates=candidates)
        progress = stack.enter_context(Progress(source.frame_count, source.uri))
        signals = stack.enter_context(stop_on_signals(stop))

        def show(frame: Frame, step: Step) -> None:
            if video is not None:
                video.write(frame, step.faces, step.decisions)
            progress.advance()

        try:
            drive(source, pipeline, sinks=[*files, printer], on_step=show, stop=stop, summary=summary)
        finally:
            if not arguments.json:
                tell(summary)
    return 130 if signal.SIGINT in signals else 0


def _run_site(arguments: argparse.Namespace) -> int:
    from edge_fr.assembly import run_site  # a site's file needs pydantic, one source does not
    from edge_fr.configuration import read_site
    from edge_fr.systemd import Service

    for option in _OF_ONE_SOURCE:
        if getattr(arguments, option) is not None:
            name = option.replace("_", "-")
            where = "a site has no such thing" if option == "annotate" else f"{arguments.config} says it"
            raise InputError(f"--{name} is for one source, beside --config {where}; leave it out")
    path = Path(arguments.config)
    site = read_site(path)
    summary, stop, service = Summary(), threading.Event(), Service()
    printer = Printer(arguments.json, stop=None, with_camera=True, candidates=site.events.candidates)
    try:
        with stop_on_signals(stop, service.stopping) as signals, Progress(None, str(path)) as progress:
            run_site(
                site,
                path.parent,
                stop,
                sinks=(printer,),
                unproven=arguments.unproven,
                on_step=lambda lane, frame, step: progress.advance(),
                on_lost=lambda error: print(printable(f"given up: {error}"), file=sys.stderr),
                on_load=_tell_load,
                service=service,
                summary=summary,
            )
    finally:
        if summary.wall_s and not arguments.json:  # else it could not begin
            tell(summary)
    return 130 if signal.SIGINT in signals else 0


@contextmanager
def stop_on_signals(stop: threading.Event, tell: Callable[[], None] | None = None) -> Iterator[list[int]]:
    """Within it, SIGINT, SIGTERM or SIGHUP sets `stop` and goes into the list it gives; a second one ends at
    once. `tell` is called as well. One that is ignored already, as `nohup` has it, stays ignored."""
    signals: list[int] = []

    def ask_to_stop(number: int, _: object) -> None:
        signals.append(number)
        stop.set()
        signal.signal(number, signal.SIG_DFL)
        if tell is not None:
            tell()

    heard = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in heard if signal.getsignal(number) != signal.SIG_IGN]
    before = [signal.signal(number, ask_to_stop) for number in numbers]
    try:
        yield signals
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _tell_load(load: Load) -> None:
    text = (
        "the machine keeps up again"
        if load.keeps_up
        else f"the machine cannot keep up: cameras get {load.share:.0%} of the frames asked for"
    )
    print(text, file=sys.stderr)


class Printer:
    """Prints events, as JSON or to read, until the reader of our output goes away (`| head`).

    `stop` is set then; None where the run has something else to write and goes on. `with_camera` puts the
    camera's name before each line to read. `candidates` prints all of each event's, see `to_json`.
    """

    def __init__(
        self,
        as_json: bool,
        *,
        stop: threading.Event | None,
        with_camera: bool = False,
        candidates: bool = False,
    ) -> None:
        self._as_json = as_json
        self._with_camera = with_camera
        self._candidates = candidates
        self._stop = stop
        self._gone = False

    def write(self, event: Event) -> None:
        if self._gone:
            return
        try:
            if self._as_json:
                text = to_line(event, candidates=self._candidates)
            else:
                camera = f"{event.camera:<12} " if self._with_camera else ""
                text = printable(camera + line(to_json(event)))
            print(text, flush=True)
        except BrokenPipeError:
            self._gone = True
            standard_streams.mute()
            if self._stop is not None:
                self._stop.set()
        except OSError as error:
            self._gone = True
            standard_streams.mute()
            raise EventError(f"cannot print events to stdout: {error.strerror}") from error


def line(event: dict[str, Any]) -> str:
    """An event as one line to read."""
    if event["type"].startswith("camera."):
        return f"{event['pts_ns'] / 1e9:9.2f} s  {event['type']} {event.get('reason', '')}".rstrip()
    who = event.get("identity") or event["decision"]["status"]
    scores = {c["identity"]: c["score"] for c in event["candidates"]}
    best = scores.get(event["identity"])
    score = "" if best is None else f" score {best:.2f}"
    reasons = "; ".join(event["decision"]["reasons"])
    detail = f" ({reasons})" if reasons and event["type"] != "face.ended" else ""
    when = f"{event['pts_ns'] / 1e9:9.2f} s"
    return f"{when}  track {event['track_id']:<4} {event['type']:<19} {who}{score}{detail}"


def tell(summary: Summary) -> None:
    events = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.events.items())) or "no events"
    text = f"{summary.frames} frames in {summary.wall_s:.1f} s ({summary.fps:.1f} a second), {events}"
    if summary.damaged:
        text += f"; {summary.damaged} frames damaged"
    if summary.too_slow:
        text += "; frames came more than 10 s apart, so nobody could be followed or reported"
    if summary.unfollowed:
        text += f"; {summary.unfollowed} faces seen too briefly to follow"
    if summary.dropped:
        text += f"; {summary.dropped} frames passed over for newer ones"
    if summary.late:
        text += f"; {summary.late} frames came too late"
    print(text, file=sys.stderr)
    for what, reason in summary.skipped:
        print(printable(f"skipped {what}: {reason}"), file=sys.stderr)
