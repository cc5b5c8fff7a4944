"""The `edge-fr` command: arguments in, one call, words out."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_fr.errors import EdgeFrError

if TYPE_CHECKING:
    from edge_fr.pipeline import Step, Summary
    from edge_fr.structures import Event, Frame


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0 on success, 1 on an error that was explained, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service stop ends a run like Ctrl-C
    try:
        return command(arguments)
    except EdgeFrError as error:
        print(f"edge-fr: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away: `edge-fr ... | head`
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-fr", description="Face recognition from cameras, videos and pictures."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, call: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=call)
        return command

    def add_json(command: argparse.ArgumentParser) -> None:
        command.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")

    def add_models(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--detector", default="yunet", help="a model's name or an ONNX file (%(default)s)"
        )
        command.add_argument(
            "--embedder", default="sface", help="a model's name or an ONNX file (%(default)s)"
        )
        command.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="(%(default)s)")
        command.add_argument("--threads", type=int, help="CPU threads of one model call (all cores)")

    run = add("run", _run, "watch a camera, video, picture or folder and report who is seen")
    run.add_argument(
        "source", help="0, v4l2:///dev/video0, rtsp://..., csi://0, a video, a picture, a folder/, test://"
    )
    run.add_argument("--gallery", help="the people database (without one everybody is unknown)")
    run.add_argument("--events", metavar="OUT.jsonl", help="append the events to this file")
    run.add_argument("--annotate", metavar="OUT.mp4", help="write the video with boxes and names")
    run.add_argument(
        "--reader", default="auto", choices=["auto", "opencv", "gstreamer"], help="(%(default)s)"
    )
    run.add_argument("--camera", help="the camera's name in events (made from the source)")
    run.add_argument(
        "--fpir", type=float, default=0.01, help="share of strangers that may be given a name (%(default)s)"
    )
    run.add_argument(
        "--decide-within", type=float, default=2.0, metavar="SECONDS", help="answer by then (%(default)s)"
    )
    add_models(run)
    add_json(run)

    enroll = add("enroll", _enroll, "add a person's pictures to a gallery")
    enroll.add_argument("person")
    enroll.add_argument("images", nargs="+", metavar="IMAGE")
    enroll.add_argument("--gallery", default="people.db", help="(%(default)s)")
    enroll.add_argument("--force", action="store_true", help="keep a picture that looks like somebody else")
    add_models(enroll)
    add_json(enroll)

    gallery = add("gallery", _gallery_list, "list or remove enrolled people")
    actions = gallery.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="who is enrolled")
    removal = actions.add_parser("remove", help="forget a person and erase the templates")
    removal.add_argument("person")
    for action, call in ((listing, _gallery_list), (removal, _gallery_remove)):
        action.set_defaults(command=call)
        action.add_argument("--gallery", default="people.db", help="(%(default)s)")
        add_json(action)

    models = add("models", _models_list, "fetch, list and check the models")
    actions = models.add_subparsers(required=True, metavar="ACTION")
    pull = actions.add_parser("pull", help="fetch models into the cache")
    pull.add_argument("names", nargs="*", metavar="NAME", help="(all)")
    pull.set_defaults(command=_models_pull)
    listing = actions.add_parser("list", help="which models there are, and which are here")
    add_json(listing)
    listing.set_defaults(command=_models_list)
    check = actions.add_parser("verify", help="hash the cached models again")
    check.add_argument("names", nargs="*", metavar="NAME", help="(all that are here)")
    check.set_defaults(command=_models_verify)
    card = actions.add_parser("card", help="write the card of a model of your own beside it")
    card.add_argument("model", metavar="MODEL.onnx")
    card.add_argument("--task", required=True, choices=["detect", "embed"])
    card.add_argument("--colour", required=True, choices=["BGR", "RGB"])
    card.add_argument("--input-range", required=True, nargs=2, type=float, metavar=("LOW", "HIGH"))
    card.add_argument("--head", choices=["yunet", "scrfd", "retinaface"], help="of a detector")
    card.add_argument("--embedding-size", type=int, help="of an embedder")
    card.add_argument("--licence", required=True)
    card.add_argument("--training-data", required=True)
    card.set_defaults(command=_models_card)

    bench = add("bench", _bench, "measure where the time of a frame goes on this machine")
    bench.add_argument("source", nargs="?", default="test://?frames=200", help="(%(default)s)")
    add_models(bench)
    add_json(bench)

    add_json(add("doctor", _doctor, "what this machine has, what is missing, and how to install it"))
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from edge_fr.annotate import VideoAnnotator
    from edge_fr.decide import DecisionPolicy
    from edge_fr.events import JsonlSink, to_json
    from edge_fr.pipeline import Summary, open_pipeline, run
    from edge_fr.stream import open_source

    policy = DecisionPolicy(target_fpir=arguments.fpir, decide_within_ns=round(arguments.decide_within * 1e9))
    summary = Summary()
    with ExitStack() as stack:
        source = stack.enter_context(
            open_source(arguments.source, reader=arguments.reader, camera=arguments.camera)
        )
        pipeline = open_pipeline(
            arguments.gallery,
            detector=arguments.detector,
            embedder=arguments.embedder,
            device=arguments.device,
            threads=arguments.threads,
            decision=policy,
            stills=source.reader == "pictures",
        )
        sinks = [stack.enter_context(JsonlSink(arguments.events))] if arguments.events else []
        video = stack.enter_context(VideoAnnotator(arguments.annotate)) if arguments.annotate else None
        progress = stack.enter_context(_progress(source.frame_count, f"{arguments.source}"))

        def show(frame: Frame, step: Step) -> None:
            if video is not None:
                video.write(frame, step.faces, pipeline.decisions)
            progress.advance()

        class Printer:
            def write(self, event: Event) -> None:
                values = to_json(event)
                print(json.dumps(values, ensure_ascii=False) if arguments.json else _line(values), flush=True)

        try:
            run(source, pipeline, sinks=[*sinks, Printer()], on_step=show, summary=summary)
        finally:
            if not arguments.json:
                _tell(summary)
    return 0


def _line(event: dict[str, Any]) -> str:
    """An event as one line to read."""
    who = event.get("identity") or event["type"].removeprefix("face.")
    candidates = event.get("candidates") or []
    score = f" score {candidates[0]['score']:.2f}" if candidates and event.get("identity") else ""
    reasons = "; ".join(event.get("decision", {}).get("reasons", []))
    detail = f" ({reasons})" if reasons and event["type"] == "face.unrecognizable" else ""
    when = f"{event['pts_ns'] / 1e9:9.2f} s"
    return f"{when}  track {event['track_id']:<4} {event['type']:<19} {who}{score}{detail}"


def _tell(summary: Summary) -> None:
    events = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.events.items())) or "no events"
    text = f"{summary.frames} frames in {summary.wall_s:.1f} s ({summary.fps:.1f} a second), {events}"
    if summary.damaged:
        text += f"; {summary.damaged} frames damaged"
    if summary.dropped:
        text += f"; {summary.dropped} frames dropped to keep up"
    print(text, file=sys.stderr)
    for what, reason in summary.skipped:
        print(f"skipped {what}: {reason}", file=sys.stderr)


class _progress:
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

    def __enter__(self) -> _progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _enroll(arguments: argparse.Namespace) -> int:
    from edge_fr.recognizer import Recognizer

    with Recognizer.open(
        arguments.gallery,
        detector=arguments.detector,
        embedder=arguments.embedder,
        device=arguments.device,
        threads=arguments.threads,
    ) as recognizer:
        result = recognizer.enroll(arguments.person, arguments.images, force=arguments.force)
    if arguments.json:
        refused = [{"image": name, "reason": reason} for name, reason in result.refused]
        print(json.dumps({"identity": result.identity, "kept": result.kept, "refused": refused}))
    else:
        for name in result.kept:
            print(f"kept {name}")
        for name, reason in result.refused:
            print(f"refused {name}: {reason}", file=sys.stderr)
    return 0


def _gallery_list(arguments: argparse.Namespace) -> int:
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


def _gallery_remove(arguments: argparse.Namespace) -> int:
    from edge_fr.gallery import Gallery

    with Gallery.open(arguments.gallery, None) as gallery:
        count = gallery.remove(arguments.person)
    values = {"removed": arguments.person, "templates": count}
    print(json.dumps(values) if arguments.json else f"removed {arguments.person}, {count} templates erased")
    return 0


def _models_pull(arguments: argparse.Namespace) -> int:
    from edge_fr.models import pull

    for path in pull(arguments.names or None):
        print(path)
    return 0


def _models_list(arguments: argparse.Namespace) -> int:
    from edge_fr.models import list_models

    rows = list_models()
    if arguments.json:
        print(json.dumps([{**row._asdict(), "path": str(row.path)} for row in rows]))
    else:
        for row in rows:
            state = "here" if row.present else "not here: edge-fr models pull " + row.name
            print(f"{row.name:<10} {row.task:<7} {row.licence:<12} {state}")
    return 0


def _models_verify(arguments: argparse.Namespace) -> int:
    from edge_fr.models import verify

    for name in verify(arguments.names or None):
        print(f"{name}: ok")
    return 0


def _models_card(arguments: argparse.Namespace) -> int:
    from edge_fr.models import write_card

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


def _bench(arguments: argparse.Namespace) -> int:
    from edge_fr.pipeline import open_pipeline, run
    from edge_fr.stream import open_source

    pipeline = open_pipeline(
        detector=arguments.detector,
        embedder=arguments.embedder,
        device=arguments.device,
        threads=arguments.threads,
    )
    with open_source(arguments.source) as source, _progress(source.frame_count, "bench") as progress:
        summary = run(source, pipeline, on_step=lambda frame, step: progress.advance())
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


def _doctor(arguments: argparse.Namespace) -> int:
    from edge_fr.doctor import diagnose

    findings = diagnose()
    if arguments.json:
        print(json.dumps([f._asdict() for f in findings]))
    else:
        for f in findings:
            remedy = f"  -> {f.remedy}" if f.remedy else ""
            print(f"{f.state:<8} {f.name:<16} {f.detail}{remedy}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
