"""What each `edge-fr` command does with its arguments: one call, and words about the result.

Modules are imported by the command that needs them, so that `edge-fr --help` needs none.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from edge_fr.printable import json_line, printable


def run(arguments: argparse.Namespace) -> int:
    from edge_fr.run_command import run

    return run(arguments)


def audit(arguments: argparse.Namespace) -> int:
    from edge_fr.audit_command import audit

    return audit(arguments)


def enroll(arguments: argparse.Namespace) -> int:
    from edge_fr.model_options import open_models
    from edge_fr.progress import Progress
    from edge_fr.recognizer import Recognizer

    with (
        Recognizer.open(arguments.gallery, open_models(arguments), create=True) as recognizer,
        Progress(len(arguments.images), arguments.person) as progress,
    ):
        images = progress.follow(arguments.images)
        result = recognizer.enroll(arguments.person, images, force=arguments.force)
    if arguments.json:
        refused = [{"image": name, "reason": reason} for name, reason in result.refused]
        print(json.dumps({"identity": result.identity, "kept": result.kept, "refused": refused}))
    else:
        for name in result.kept:
            print(printable(f"kept {name}"))
        for name, reason in result.refused:
            print(printable(f"refused {name}: {reason}"), file=sys.stderr)
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
        print(json_line(rows))
    else:
        for p in people:
            print(f"{printable(p.identity)}  {p.templates} templates, since {p.enrolled_at:%Y-%m-%d}")
        if not people:
            print("nobody is enrolled; `edge-fr enroll PERSON IMAGE...` adds somebody", file=sys.stderr)
    return 0


def gallery_remove(arguments: argparse.Namespace) -> int:
    from edge_fr.gallery import Gallery

    with Gallery.open(arguments.gallery, None) as gallery:
        count = gallery.remove(arguments.person)
    values = {"removed": arguments.person, "templates": count}
    text = printable(f"removed {arguments.person}, {count} templates erased")
    print(json.dumps(values) if arguments.json else text)
    return 0


def gallery_check(arguments: argparse.Namespace) -> int:
    from edge_fr.gallery_command import check

    return check(arguments)


def gallery_threshold(arguments: argparse.Namespace) -> int:
    from edge_fr.gallery_command import threshold

    return threshold(arguments)


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
                print(printable(f"{name:<16} {key}: {number}"))
        elif value not in (None, ""):
            print(printable(f"{name:<16} {value}"))
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
            report=lambda line: print(printable(line), file=sys.stderr),
            progress=lambda phase, step, steps: status.update(f"{phase} {step}/{steps}"),
        )
    print(f"{'kept' if built.reused else 'written to'} {built.path}")
    return 0


def bench(arguments: argparse.Namespace) -> int:
    from edge_fr.model_options import open_models
    from edge_fr.pipeline import open_pipeline
    from edge_fr.progress import Progress
    from edge_fr.runner import run as drive
    from edge_fr.stream import open_source
    from edge_fr.timing import ENGINE

    with (
        open_source(arguments.source) as source,
        open_pipeline(None, open_models(arguments), stills=source.reader == "pictures") as pipeline,
        Progress(source.frame_count, "bench") as progress,
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
        print(f"{summary.frames} frames, {summary.faces} faces, {summary.fps:.1f} frames a second; of one:")
        for name, row in summary.stages.items():
            name = f"  {name}" if name.startswith(ENGINE) else name  # part of the stage above it
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
            print(printable(f"{f.state:<8} {f.name:<16} {f.detail}{remedy}"))
    return 0
