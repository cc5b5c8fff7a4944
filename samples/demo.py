"""What the project does, in one command: `make demo`, or `make demo SOURCE=video.mp4` with your own input.

    python samples/demo.py [SOURCE] [--gallery people.db] [--out out/demo]

Without a source it renders a clip in which Eileen Collins and Grace Hopper walk up to a camera, and
enrolls the first. Her enrolled picture is the very portrait the clip was made of: the demo shows what
size and blur decide, not how well one face is told from another.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # its neighbours, from whatever folder it is run

from edge_fr import EdgeFrError, Event, Frame, JsonlSink, Recognizer, open_pipeline, open_source, run
from edge_fr.annotate import VideoAnnotator
from edge_fr.pipeline import Step
from edge_fr.runner import Summary
from samples import standoff_clip, standoff_people
from samples.contact_sheet import ContactSheet

CREDIT = "Portraits: NASA (Eileen Collins) and US Navy (Grace Hopper), public domain."


class EventTable:
    """A sink that lays events out for reading."""

    def __init__(self) -> None:
        self.rows = Table("time", "track", "event", "face", "answer", title="Events", box=SIMPLE_HEAD)

    def write(self, event: Event) -> None:
        face, decision = event.face, event.decision
        if face is None or decision is None:
            return
        best = decision.candidates[0] if decision.candidates else None
        scores = "" if best is None else f"score {best.score:.2f}, needs {decision.threshold:.2f}"
        if decision.identity:
            answer = f"[bold]{escape(decision.identity)}[/], {scores}"
        elif decision.status == "unrecognizable":
            answer = "; ".join(map(str, decision.refusals[:1]))
        else:
            answer = "unknown" + (f", nearest {escape(best.identity)}, {scores}" if best else "")
        colour = {"known": "green", "unknown": "yellow", "unrecognizable": "default"}[decision.status]
        size_px = min(face.box[2] - face.box[0], face.box[3] - face.box[1])
        kind = f"[{colour}]{event.type.removeprefix('face.')}[/]"
        self.rows.add_row(
            f"{event.pts_ns / 1e9:.1f} s", f"{event.track_id}", kind, f"{size_px:.0f} px", answer
        )


def demo(out: Path, source: str | None, gallery: str | None, console: Console) -> None:
    """Runs the pipeline over the source (None: the rendered clip) and writes the three files."""
    out.mkdir(parents=True, exist_ok=True)
    if source is None:
        source, gallery = str(rendered(out, console)), str(out / "standoff.db")
        Path(gallery).unlink(missing_ok=True)
        with Recognizer.open(gallery, create=True) as recognizer:
            recognizer.enroll("Eileen Collins", standoff_people.portrait(standoff_people.COLLINS))
        console.print("enrolled Eileen Collins; Grace Hopper is a stranger")
        credit = CREDIT
    else:
        credit = ""
    events_file, video_file, sheet_file = (
        out / name for name in ("events.jsonl", "annotated.mp4", "contact_sheet.png")
    )
    events_file.unlink(missing_ok=True)  # those of the demo before
    sheet, table, summary = ContactSheet(), EventTable(), Summary()
    try:
        with (
            open_source(source) as frames,
            JsonlSink(events_file) as events,
            VideoAnnotator(video_file) as video,
            Progress(console=console, transient=True) as bar,
        ):
            pipeline = open_pipeline(gallery, stills=frames.reader == "pictures")
            task = bar.add_task("watching (Ctrl-C ends it)", total=frames.frame_count)

            def show(frame: Frame, step: Step) -> None:
                video.write(frame, step.faces, step.decisions)
                sheet.see(frame, step.faces)
                bar.advance(task)

            run(frames, pipeline, sinks=[events, table, sheet], on_step=show, summary=summary)
    except KeyboardInterrupt:
        console.print("stopped")
    sheet.save(sheet_file, credit=credit)
    console.print(table.rows)
    console.print(f"{summary.frames} frames, {summary.fps:.1f} a second, drawing and video included")
    for path in (video_file, events_file, sheet_file):
        console.print(f"wrote {path}", soft_wrap=True, markup=False)


def rendered(out: Path, console: Console) -> Path:
    """The clip, rendered unless it is there and newer than the programs that draw it."""
    clip = out / "standoff.mp4"
    drawn_by = (Path(module.__file__ or "") for module in (standoff_clip, standoff_people))
    if not clip.exists() or clip.stat().st_mtime < max(path.stat().st_mtime for path in drawn_by):
        with console.status("rendering the clip"):
            part = out / "standoff.part.mp4"
            standoff_clip.render(part)
            part.replace(clip)
    return clip


def main() -> int:
    parser = argparse.ArgumentParser(description="Shows what edge_fr does; see the three files it writes.")
    parser.add_argument("source", nargs="?", help="a video, picture, folder or camera (a rendered clip)")
    parser.add_argument("--gallery", help="the people to look for in SOURCE (nobody)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="(%(default)s)")
    arguments = parser.parse_args()
    try:
        demo(arguments.out, arguments.source, arguments.gallery, Console())
    except EdgeFrError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
