"""What a site's cameras do, in the numbers that Prometheus collects.

What cameras, lanes and the outbox count themselves is read when it is asked for; what nobody keeps is
counted here as it happens. Labels are the names of cameras, receivers and sensors, and words of fixed
lists: never a person, never anything that a camera sees.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, get_args

import numpy as np

from edge_fr.engine import Task
from edge_fr.errors import EventError, MissingDependencyError, install_command
from edge_fr.events import Outbox
from edge_fr.gallery import Gallery
from edge_fr.lane import Lane
from edge_fr.pipeline import Step
from edge_fr.quality import COMPONENTS
from edge_fr.sensors import Sensor
from edge_fr.stream.reconnect import State
from edge_fr.structures import Event, EventType, Frame
from edge_fr.timing import ENGINE

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication  # from Python 3.11 on

try:
    from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, make_wsgi_app
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, StateSetMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise MissingDependencyError(
        f"metrics need prometheus_client ({error}); install it with: {install_command('site')}"
    ) from error

STAGES = ("detect", "track", "align", "gate", "embed", "decide")
_OTHER = "other"  # a stage or reason of somebody's own
_STAGE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LATENCY_S = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)


class SiteMetrics:
    """The metrics of a fleet's lanes, its outbox and its gallery, if it has them, in a registry of their own.

    Hand `saw` to the fleet as `on_step`, this object as a sink, and `took` to the networks' times as
    their listener. `app` is the page, a WSGI application. All of it may be used from any thread.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        outbox: Outbox | None = None,
        *,
        gallery: Gallery | None = None,
        sensors: Sequence[Callable[[], Iterable[Sensor]]] = (),
    ) -> None:
        registry = CollectorRegistry()
        self.app: WSGIApplication = make_wsgi_app(registry)
        self._stages = Histogram(
            "edge_fr_stage_seconds",
            "What a stage took of one frame; frames that go through it together have equal shares",
            ["stage"],
            buckets=_STAGE_S,
            registry=registry,
        )
        self._engines = Histogram(
            "edge_fr_engine_seconds",
            "What a model took of one frame, with all its calls, as part of a stage",
            ["task"],
            buckets=_STAGE_S,
            registry=registry,
        )
        self._latency = Histogram(
            "edge_fr_capture_to_event_seconds",
            "From a live camera's frame to its events being with the sinks",
            ["camera"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self._faces = Counter(
            "edge_fr_faces",
            "Faces in frames: embedded, refused, or passed over because their track has shown better ones",
            ["camera", "outcome"],
            registry=registry,
        )
        self._refused = Counter(
            "edge_fr_faces_refused",
            "Refused faces by ISO/IEC 29794-5 component; a face may have several",
            ["camera", "reason"],
            registry=registry,
        )
        self._events = Counter("edge_fr_events", "Events", ["camera", "type"], registry=registry)
        self._begin_at_zero([lane.camera.name for lane in lanes])
        registry.register(_Cameras(lanes))
        if outbox is not None:
            registry.register(_Receivers(outbox))
        if gallery is not None:
            registry.register(_People(gallery))
        registry.register(_Machine(sensors))
        ProcessCollector(registry=registry)

    def saw(self, lane: Lane, frame: Frame, step: Step) -> None:
        """Counts what became of a frame's faces, and how long the frame took if its camera is live."""
        camera, faces = lane.camera.name, step.faces
        refusals = [reasons for reasons in faces.refusals or () if reasons]
        embedded = 0 if faces.embeddings is None else int((~np.isnan(faces.embeddings[:, 0])).sum())
        self._faces.labels(camera, "embedded").inc(embedded)
        self._faces.labels(camera, "refused").inc(len(refusals))
        self._faces.labels(camera, "passed over").inc(len(faces) - embedded - len(refusals))
        for reasons in refusals:
            for refusal in reasons:
                known = refusal.component in COMPONENTS
                self._refused.labels(camera, refusal.component if known else _OTHER).inc()
        if lane.camera.live:  # below 0 where a camera's clock is ahead of ours
            self._latency.labels(camera).observe(max(0.0, lane.latency_s))

    def write(self, event: Event) -> None:
        """Counts an event, as a sink."""
        self._events.labels(event.camera, event.type).inc()

    def took(self, name: str, duration_ns: int) -> None:
        """Notes a duration, as a listener of `StageTimes`."""
        if name.startswith(ENGINE):
            self._engines.labels(name.removeprefix(ENGINE)).observe(duration_ns / 1e9)
        else:
            self._stages.labels(name if name in STAGES else _OTHER).observe(duration_ns / 1e9)

    def _begin_at_zero(self, cameras: list[str]) -> None:
        """So that the first event of a kind is a rise, and not the beginning of a series."""
        for stage in STAGES:
            self._stages.labels(stage)
        for task in get_args(Task):
            self._engines.labels(task)
        for camera in cameras:
            self._latency.labels(camera)
            for outcome in ("embedded", "refused", "passed over"):
                self._faces.labels(camera, outcome)
            for reason in COMPONENTS:
                self._refused.labels(camera, reason)
            for kind in get_args(EventType):
                self._events.labels(camera, kind)


class _Cameras(Collector):
    """What the cameras and their lanes count."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes

    def collect(self) -> Iterator[Metric]:
        of_camera = ["camera"]
        frames = CounterMetricFamily(
            "edge_fr_frames",
            "Frames by what became of them: looked at, replaced by a newer one (dropped), too old to be "
            "announced as now, or damaged",
            labels=["camera", "outcome"],
        )
        connects = CounterMetricFamily(
            "edge_fr_camera_connects", "Connections that gave a first frame", labels=of_camera
        )
        failures = CounterMetricFamily(
            "edge_fr_camera_failures", "Connections that broke or never came about", labels=of_camera
        )
        stale = CounterMetricFamily(
            "edge_fr_camera_stale", "Times that the frames stopped coming", labels=of_camera
        )
        abandoned = CounterMetricFamily(
            "edge_fr_camera_abandoned", "Connections left behind because they hung", labels=of_camera
        )
        hanging = GaugeMetricFamily(
            "edge_fr_camera_hanging", "Connections left behind that still hang", labels=of_camera
        )
        state = StateSetMetricFamily("edge_fr_camera_state", "1 for the camera's state", labels=of_camera)
        asked = GaugeMetricFamily(
            "edge_fr_camera_asked_fps", "Frames a second asked for, where there is a bound", labels=of_camera
        )
        rate = GaugeMetricFamily(
            "edge_fr_camera_fps", "Frames a second taken, of the last ten seconds", labels=of_camera
        )
        share = GaugeMetricFamily(
            "edge_fr_camera_share", "Frames taken to those that came and were asked for", labels=of_camera
        )
        unfollowed = CounterMetricFamily(
            "edge_fr_faces_unfollowed", "Faces that came and went too soon to be followed", labels=of_camera
        )
        for lane in self._lanes:
            camera, counters = lane.camera, lane.camera.counters
            name = [camera.name]
            too_old = lane.too_old  # before what was taken, which is never less
            for outcome, count in (
                ("dropped", counters.dropped),
                ("too old", too_old),
                ("damaged", counters.damaged),
                ("looked at", lane.taken - too_old),
            ):
                frames.add_metric([*name, outcome], count)
            connects.add_metric(name, counters.connects)
            failures.add_metric(name, counters.failures)
            stale.add_metric(name, counters.stale)
            abandoned.add_metric(name, counters.abandoned)
            hanging.add_metric(name, camera.hanging)
            now = camera.state
            state.add_metric(name, {each: each == now for each in get_args(State)})
            if lane.fps is not None:
                asked.add_metric(name, lane.fps)
            rate.add_metric(name, lane.rate)
            share.add_metric(name, lane.share)
            unfollowed.add_metric(name, lane.unfollowed)
        yield from (frames, connects, failures, stale, abandoned, hanging, state, asked, rate, share)
        yield unfollowed


class _Receivers(Collector):
    """How far the outbox has come with each receiver; its counts go back to when its file was made."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def collect(self) -> Iterator[Metric]:
        readable = GaugeMetricFamily("edge_fr_outbox_readable", "1 while the outbox can be read")
        try:
            status = self._outbox.status()
        except EventError:  # told by this 0, and with its reason by /healthz; the other metrics go on
            readable.add_metric([], 0)
            yield readable
            return
        readable.add_metric([], 1)
        of_receiver = ["receiver"]
        waiting = GaugeMetricFamily(
            "edge_fr_outbox_waiting", "Events that the receiver has still to get", labels=of_receiver
        )
        delivered = CounterMetricFamily("edge_fr_outbox_delivered", "Events it took", labels=of_receiver)
        refused = CounterMetricFamily(
            "edge_fr_outbox_refused", "Events it will never take", labels=of_receiver
        )
        lost = CounterMetricFamily(
            "edge_fr_outbox_lost", "Events removed undelivered because the file was full", labels=of_receiver
        )
        trouble = GaugeMetricFamily(
            "edge_fr_outbox_trouble", "1 while its last attempt failed", labels=of_receiver
        )
        for name, counts in status.items():
            waiting.add_metric([name], counts.waiting)
            delivered.add_metric([name], counts.delivered)
            refused.add_metric([name], counts.refused)
            lost.add_metric([name], counts.lost)
            trouble.add_metric([name], counts.trouble is not None)
        yield from (readable, waiting, delivered, refused, lost, trouble)


class _People(Collector):
    """Whether those who are recognized are those who are enrolled now."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery

    def collect(self) -> Iterator[Metric]:
        trouble = self._gallery.trouble  # told by this 0, and with its reason by /healthz
        yield GaugeMetricFamily(
            "edge_fr_gallery_readable", "1 while the gallery can be read", value=float(trouble is None)
        )
        yield GaugeMetricFamily(
            "edge_fr_gallery_age_seconds", "Since the gallery was last read", value=self._gallery.age_s
        )


class _Machine(Collector):
    """Threads of this process, and the power and temperatures of the machine where it tells them."""

    def __init__(self, sensors: Sequence[Callable[[], Iterable[Sensor]]]) -> None:
        self._sensors = sensors

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("process_threads", "Threads", value=len(os.listdir("/proc/self/task")))
        power = GaugeMetricFamily("edge_fr_power_watts", "Power drawn", labels=["sensor"])
        celsius = GaugeMetricFamily("edge_fr_temperature_celsius", "Temperature", labels=["sensor"])
        for sensor in chain.from_iterable(read() for read in self._sensors):
            (power if sensor.unit == "W" else celsius).add_metric([sensor.name], sensor.value)
        yield from (metric for metric in (power, celsius) if metric.samples)
