"""What each `edge-fr` command does with its arguments: one call, and words about the result.

Modules are imported by the command that needs them, so that `edge-fr --help` needs none.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_fr.pipeline import Step
    from edge_fr.runner import Summary
    from edge_fr.stream import Camera, Source
    from edge_fr.structures import Event, Frame


def run(arguments: argparse.Namespace) -> int:
    from edge_fr.annotate import VideoAnnotator
    from edge_fr.decide import DecisionPolicy
    from edge_fr.events import JsonlSink
    from edge_fr.pipeline import open_pipeline
    from edge_fr.runner import Summary
    from edge_fr.runner import run as drive
    from edge_fr.stream import is_live, open_camera, open_source

    policy = DecisionPolicy(target_fpir=arguments.fpir, decide_within_ns=arguments.decide_within)
    summary, stop, signals = Summary(), threading.Event(), []

    def ask_to_stop(number: int, _: object) -> None:
        signals.append(number)
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # asked a second time, it ends at once

    with ExitStack() as stack:
        opened: Callable[..., Source | Camera] = (
            open_camera if is_live(arguments.source) else open_source  # a camera may go and come back
        )
        source = opened(arguments.source, reader=arguments.reader, camera=arguments.camera)
        stack.enter_context(source)
        pipeline = stack.enter_context(
            open_pipeline(
                arguments.gallery,
                detector=arguments.detector,
                embedder=arguments.embedder,
                gate=arguments.gate,
                device=arguments.device,
                threads=arguments.threads,
                unproven=arguments.unproven,
                decision=policy,
                stills=source.reader == "pictures",
            )
        )
        files = [stack.enter_context(JsonlSink(arguments.events))] if arguments.events else []
        video = stack.enter_context(VideoAnnotator(arguments.annotate)) if arguments.annotate else None
        printer = _Printer(arguments.json, stop=None if files or video else stop)
        progress = stack.enter_context(_Progress(source.frame_count, source.uri))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, ask_to_stop)

        def show(frame: Frame, step: Step) -> None:
            if video is not None:
                video.write(frame, step.faces, step.decisions)
            progress.advance()

        try:
            drive(source, pipeline, sinks=[*files, printer], on_step=show, stop=stop, summary=summary)
        finally:
            if not arguments.json:
                _tell(summary)
    return 130 if signal.SIGINT in signals else 0


class _Printer:
    """Prints events, as JSON or to read, until the reader of our output goes away (`| head`).

    `stop` is set then; None where the run has something else to write and goes on.
    """

    def __init__(self, as_json: bool, *, stop: threading.Event | None) -> None:
        self._as_json = as_json
        self._stop = stop
        self._gone = False
        if isinstance(
            sys.stdout, io.TextIOWrapper
        ):  # a file name that is no UTF-8 keeps its bytes as escapes
            sys.stdout.reconfigure(errors="backslashreplace")

    def write(self, event: Event) -> None:
        from edge_fr.events import to_json, to_line

        if self._gone:
            return
        try:
            print(to_line(event) if self._as_json else _line(to_json(event)), flush=True)
        except BrokenPipeError:
            self._gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at exit
            if self._stop is not None:
                self._stop.set()


def _line(event: dict[str, Any]) -> str:
    """An event as one line to read."""
    if event["type"].startswith("camera."):
        return f"{event['pts_ns'] / 1e9:9.2f} s  {event['type']} {event.get('reason', '')}".rstrip()
    who = event.get("identity") or event["decision"]["status"]
    candidates = event.get("candidates") or []
    score = f" score {candidates[0]['score']:.2f}" if candidates and event.get("identity") else ""
    reasons = "; ".join(event["decision"]["reasons"])
    detail = f" ({reasons})" if reasons and event["type"] == "face.unrecognizable" else ""
    when = f"{event['pts_ns'] / 1e9:9.2f} s"
    return f"{when}  track {event['track_id']:<4} {event['type']:<19} {who}{score}{detail}"


def _tell(summary: Summary) -> None:
    events = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.events.items())) or "no events"
    text = f"{summary.frames} frames in {summary.wall_s:.1f} s ({summary.fps:.1f} a second), {events}"
    if summary.damaged:
        text += f"; {summary.damaged} frames damaged"
    if summary.unfollowed:
        text += f"; {summary.unfollowed} faces seen too briefly to follow"
    if summary.dropped:
        text += f"; {summary.dropped} frames dropped to keep up"
    if summary.late:
        text += f"; {summary.late} frames came too late"
    print(text, file=sys.stderr)
    for what, reason in summary.skipped:
        print(f"skipped {what}: {reason}", file=sys.stderr)


class _Progress:
    """A progress bar on stderr; nothing at all when stderr is no terminal."""

    def __init__(self, total: int | None, text: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(text, total=total)

    def advance(self) -> None:
        self._bar.advance(self._task)

    def follow(self, items: Iterable[str]) -> Iterator[str]:
        """The same items, each counted when the next one is asked for."""
        for item in items:
            yield item
            self.advance()

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def enroll(arguments: argparse.Namespace) -> int:
    from edge_fr.recognizer import Recognizer

    with (
        Recognizer.open(
            arguments.gallery,
            create=True,
            detector=arguments.detector,
            embedder=arguments.embedder,
            gate=arguments.gate,
            device=arguments.device,
            threads=arguments.threads,
            unproven=arguments.unproven,
        ) as recognizer,
        _Progress(len(arguments.images), arguments.person) as progress,
    ):
        images = progress.follow(arguments.images)
        result = recognizer.enroll(arguments.person, images, force=arguments.force)
    if arguments.json:
        refused = [{"image": name, "reason": reason} for name, reason in result.refused]
        print(json.dumps({"identity": result.identity, "kept": result.kept, "refused": refused}))
    else:
        for name in result.kept:
            print(f"kept {name}")
        for name, reason in result.refused:
            print(f"refused {name}: {reason}", file=sys.stderr)
    return 0


def gallery_list(arguments: argparse.Namespace) -> int:
    from edge_fr.gallery import Gallery

    with Gallery.open(arguments.gallery, None, read_only=True) as gallery:
        people = gallery.identities()
    if arguments.json:
        rows = [
            {"identity": p.identity, "templates": p.templates, "enrolled_at": p.enrolled_at.isoformat()}
            for p in people
        ]
        print(json.dumps(rows, ensure_ascii=False))
    else:
        for p in people:
            print(f"{p.identity}  {p.templates} templates, since {p.enrolled_at:%Y-%m-%d}")
        if not people:
            print("nobody is enrolled; `edge-fr enroll PERSON IMAGE...` adds somebody", file=sys.stderr)
    return 0


def gallery_remove(arguments: argparse.Namespace) -> int:
    from edge_fr.gallery import Gallery

    with Gallery.open(arguments.gallery, None) as gallery:
        count = gallery.remove(arguments.person)
    values = {"removed": arguments.person, "templates": count}
    print(json.dumps(values) if arguments.json else f"removed {arguments.person}, {count} templates erased")
    return 0


def models_pull(arguments: argparse.Namespace) -> int:
    from edge_fr.fetch import pull

    pull(arguments.names or None, report=print)
    return 0


def models_list(arguments: argparse.Namespace) -> int:
    from edge_fr.models import list_models

    rows = list_models()
    if arguments.json:
        print(json.dumps([{**row._asdict(), "path": str(row.path)} for row in rows]))
    else:
        for row in rows:
            state = "here" if row.present else "not here: edge-fr models pull " + row.name
            print(f"{row.name:<16} {row.task:<7} {row.licence:<12} {state}")
    return 0


def models_show(arguments: argparse.Namespace) -> int:
    from edge_fr.cards import read_card
    from edge_fr.models import resolve

    card = read_card(resolve(arguments.model))
    if arguments.json:
        print(card.to_json())
        return 0
    for name, value in asdict(card).items():
        if isinstance(value, dict):
            for key, number in value.items():
                print(f"{name:<16} {key}: {number}")
        elif value not in (None, ""):
            print(f"{name:<16} {value}")
    return 0


def models_verify(arguments: argparse.Namespace) -> int:
    from edge_fr.models import verify

    for name in verify(arguments.names or None):
        print(f"{name}: ok")
    return 0


def models_card(arguments: argparse.Namespace) -> int:
    from edge_fr.cards import write_card

    path = write_card(
        Path(arguments.model),
        task=arguments.task,
        colour=arguments.colour,
        input_range=tuple(arguments.input_range),
        head=arguments.head,
        embedding_size=arguments.embedding_size,
        licence=arguments.licence,
        training_data=arguments.training_data,
    )
    print(path)
    return 0


def build(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from rich.console import Console

    from edge_fr.build import SIZES, read_faces
    from edge_fr.build import build as build_engine
    from edge_fr.cards import read_card
    from edge_fr.models import resolve

    model = resolve(arguments.model)
    asked = {name: tuple(getattr(arguments, name) or ()) for name in ("batch", "height", "width")}
    sizes = replace(SIZES[read_card(model).task], **{name: value for name, value in asked.items() if value})
    console = Console(stderr=True, quiet=not sys.stderr.isatty())
    with console.status("building") as status:
        built = build_engine(
            model,
            arguments.output or f"{model.stem}.engine",
            library=arguments.library,
            sizes=sizes,
            unproven=arguments.unproven,
            force=arguments.force,
            dla_core=arguments.dla,
            calibration=read_faces(arguments.calibration) if arguments.calibration else None,
            report=lambda line: print(line, file=sys.stderr),
            progress=lambda phase, step, steps: status.update(f"{phase} {step}/{steps}"),
        )
    print(f"{'kept' if built.reused else 'written to'} {built.path}")
    return 0


def bench(arguments: argparse.Namespace) -> int:
    from edge_fr.pipeline import open_pipeline
    from edge_fr.runner import run as drive
    from edge_fr.stream import open_source

    with (
        open_source(arguments.source) as source,
        open_pipeline(
            detector=arguments.detector,
            embedder=arguments.embedder,
            gate=arguments.gate,
            device=arguments.device,
            threads=arguments.threads,
            unproven=arguments.unproven,
            stills=source.reader == "pictures",
        ) as pipeline,
        _Progress(source.frame_count, "bench") as progress,
    ):
        summary = drive(source, pipeline, on_step=lambda frame, step: progress.advance())
    if arguments.json:
        print(
            json.dumps(
                {
                    "frames": summary.frames,
                    "faces": summary.faces,
                    "fps": round(summary.fps, 2),
                    "stages": summary.stages,
                }
            )
        )
    else:
        print(f"{summary.frames} frames, {summary.faces} faces, {summary.fps:.1f} frames a second")
        for name, row in summary.stages.items():
            print(f"{name:<16} p50 {row['p50_ms']:8.2f} ms   p95 {row['p95_ms']:8.2f} ms")
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    from edge_fr.doctor import diagnose

    findings = diagnose()
    if arguments.json:
        print(json.dumps([f._asdict() for f in findings]))
    else:
        for f in findings:
            remedy = f"  -> {f.remedy}" if f.remedy else ""
            print(f"{f.state:<8} {f.name:<16} {f.detail}{remedy}")
    return 0
