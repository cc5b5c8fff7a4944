"""From a site's file to a running fleet: models opened once, a lane for each camera, sinks for its events."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from edge_fr.configuration import CameraSite, Events, Look, Site, secret
from edge_fr.decide import DecisionPolicy
from edge_fr.errors import EdgeFrError
from edge_fr.events import Delivery, JsonlSink, MqttDelivery, Outbox, WebhookDelivery
from edge_fr.fleet import Fleet, Load
from edge_fr.health import HealthCheck
from edge_fr.lane import Lane
from edge_fr.metrics import SiteMetrics
from edge_fr.monitor import Monitor, health_page
from edge_fr.networks import Networks, open_networks
from edge_fr.pipeline import Step, assemble, open_people
from edge_fr.quality import QualityPolicy, usual_policy
from edge_fr.references import expand_address
from edge_fr.region import WHOLE, Region
from edge_fr.runner import Sink, Summary
from edge_fr.sensors import open_cards, read_sensors
from edge_fr.stream import Camera, Mounting, ReconnectPolicy, open_camera
from edge_fr.structures import Frame
from edge_fr.systemd import Service
from edge_fr.tiles import TiledDetector


def run_site(
    site: Site,
    folder: Path,
    stop: threading.Event,
    *,
    sinks: tuple[Sink, ...] = (),
    unproven: bool = False,
    on_step: Callable[[Lane, Frame, Step], None] | None = None,
    on_lost: Callable[[EdgeFrError], None] | None = None,
    on_load: Callable[[Load], None] | None = None,
    service: Service | None = None,
    summary: Summary | None = None,
) -> Summary:
    """Runs all cameras of a site until `stop` is set, or all of them are over.

    Relative paths are taken from `folder`. Events also go to `sinks`. Models, people, sinks and the port
    of the metrics are opened, and all secrets read, before the first camera is. `service` is told when
    the first camera runs, or all were tried, and from then on that the loop turns. Raises what `Fleet.run`
    does; pass `summary` to have the counts then.
    """
    with ExitStack() as stack:
        models = site.models
        networks = open_networks(
            detector=models.detector,
            embedder=models.embedder,
            gate=models.gate,
            device=models.device,
            threads=models.threads,
            unproven=unproven,
        )
        people = stack.enter_context(
            open_people(None if site.gallery is None else folder / site.gallery, networks.embedder.card)
        )
        outbox, own_sinks = _sinks(site.events, tuple(site.cameras), folder, stack)
        lanes = [
            Lane(
                _camera(name, camera, look, folder),
                assemble(networks, people, quality=_quality(look, networks), decision=_decision(look)),
                fps=look.fps,
                region=WHOLE if look.region is None else Region(*look.region),
                tiles=TiledDetector(networks.detector, look.tiles) if look.tiles else None,
            )
            for name, camera in site.cameras.items()
            for look in (site.look(name),)
        ]
        enrolled = None if site.gallery is None else people
        health = HealthCheck(lanes, outbox, gallery=enrolled)
        watchers = [] if on_step is None else [on_step]
        if site.metrics is not None:
            sensors = (read_sensors, *filter(None, [open_cards()]))
            metrics = SiteMetrics(lanes, outbox, gallery=enrolled, sensors=sensors)
            networks.run_once()  # what the first run takes is no frame's time
            networks.times.listener = metrics.took
            watchers.append(metrics.saw)
            own_sinks.append(metrics)
            pages = {"/metrics": metrics.app, "/healthz": health_page(health.report)}
            stack.enter_context(Monitor(site.metrics.address, site.metrics.port, pages))

        def on_each_step(lane: Lane, frame: Frame, step: Step) -> None:
            for watcher in watchers:
                watcher(lane, frame, step)

        def on_turn() -> None:
            health.turned()
            if service is not None and (service.is_ready or health.tried):
                service.alive()

        fleet = Fleet(
            networks,
            sinks=[*sinks, *own_sinks],
            max_age_s=site.events.max_age_s,
            on_step=on_each_step,
            on_lost=on_lost,
            on_load=on_load,
            on_turn=on_turn,
            summary=summary,
        )
        for lane in lanes:
            fleet.add(lane)
        fleet.run(stop)
        return fleet.summary


def _camera(name: str, site: CameraSite, look: Look, folder: Path) -> Camera:
    where = f"cameras.{name}.source"
    address, secrets = expand_address(site.source, where)
    try:
        return open_camera(
            _source(address, folder),
            camera=name,
            reader=look.reader or "auto",
            policy=_reconnect(look),
            secrets=secrets,
            certificate=None if site.certificate is None else folder / site.certificate,
            mounting=Mounting(site.rotate, site.flip, site.aspect),
        )
    except EdgeFrError as error:
        raise type(error)(f"{where}: {error}") from error


def _source(address: str, folder: Path) -> str:
    """A file's path from the folder; any other address, or a camera's number, as it is."""
    return address if "://" in address or address.isdecimal() else str(folder / address)


def _sinks(
    events: Events, cameras: tuple[str, ...], folder: Path, stack: ExitStack
) -> tuple[Outbox | None, list[Sink]]:
    """All that a site's events go to, and the outbox among them, if it has one."""
    sinks: list[Sink] = []
    if events.jsonl is not None:
        sinks.append(stack.enter_context(JsonlSink(folder / events.jsonl, candidates=events.candidates)))
    deliveries: list[Delivery] = []
    if events.webhook is not None:
        key = secret(events.webhook.secret, "events.webhook.secret")
        deliveries.append(WebhookDelivery(events.webhook.url, secret=key))
    if events.mqtt is not None:
        mqtt = events.mqtt
        deliveries.append(
            MqttDelivery(
                mqtt.url,
                mqtt.topic,
                username=mqtt.username,
                password=None if mqtt.password is None else secret(mqtt.password, "events.mqtt.password"),
                protocol=mqtt.protocol,
                cameras=cameras,
                people=mqtt.people,
                discovery_prefix=mqtt.discovery_prefix,
            )
        )
    outbox = None
    if events.outbox is not None:
        outbox = Outbox(
            folder / events.outbox,
            deliveries,
            max_bytes=events.outbox_max_bytes,
            candidates=events.candidates,
        )
        sinks.append(stack.enter_context(outbox))
    return outbox, sinks


def _quality(look: Look, networks: Networks) -> QualityPolicy:
    standard = usual_policy(networks.recognizability)
    return replace(
        standard,
        min_side_px=standard.min_side_px if look.min_side_px is None else look.min_side_px,
        min_recognizability=(
            standard.min_recognizability if look.min_recognizability is None else look.min_recognizability
        ),
    )


def _decision(look: Look) -> DecisionPolicy:
    standard = DecisionPolicy()
    within_s = look.decide_within_s
    return DecisionPolicy(
        target_fpir=look.target_fpir or standard.target_fpir,
        decide_within_ns=standard.decide_within_ns if within_s is None else round(within_s * 1e9),
    )


def _reconnect(look: Look) -> ReconnectPolicy:
    standard = ReconnectPolicy()
    stale_s, delay_s = look.stale_after_s or standard.stale_after_s, look.max_delay_s or standard.max_delay_s
    return ReconnectPolicy(
        stale_after_s=stale_s,
        read_timeout_s=max(standard.read_timeout_s, 2 * stale_s),
        max_delay_s=delay_s,
        first_delay_s=min(standard.first_delay_s, delay_s),
    )
