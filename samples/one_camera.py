"""One camera to events: prints who is seen, and appends it to events.jsonl.

python samples/one_camera.py rtsp://user:password@camera/stream people.db
python samples/one_camera.py video.mp4
"""

import sys

from edge_fr import JsonlSink, open_pipeline, open_source, run
from edge_fr.stream import is_live, open_camera
from edge_fr.structures import Event


class Printer:
    """A sink is anything with `write`."""

    def write(self, event: Event) -> None:
        decision = event.decision
        if decision is not None and event.type != "face.ended":
            who = decision.identity or decision.status
            print(f"{event.captured_at:%H:%M:%S} track {event.track_id}: {who}", *decision.refusals)


def main(uri: str, gallery: str | None = None) -> None:
    with (
        open_pipeline(gallery) as pipeline,
        # A camera may go, and comes back.
        open_camera(uri) if is_live(uri) else open_source(uri) as source,
        JsonlSink("events.jsonl") as events,
    ):
        summary = run(source, pipeline, sinks=[events, Printer()])
    print(f"{summary.frames} frames, {summary.fps:.1f} a second, {dict(summary.events)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
