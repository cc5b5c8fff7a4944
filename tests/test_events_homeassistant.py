"""Home Assistant with a real mosquitto: who arrives arrives once, and what is gone is gone."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("paho.mqtt.client", reason="`pip install 'edge-fr[mqtt]'`")

import mqtt_broker
from home_assistant import HomeAssistant
from mqtt_broker import PATIENCE_S, Broker, Listener, OldBroker

from edge_fr.assembly import run_site
from edge_fr.configuration import read_site
from edge_fr.errors import InputError, ModelNotFoundError
from edge_fr.events import Letter, MqttDelivery, Outbox, RetryPolicy, face_event, sighting, to_line, uuid7
from edge_fr.events.homeassistant import HomeAssistant as Messages
from edge_fr.structures import Candidate, Decision, Event, EventType, Face, Frame, Status

needs_broker = pytest.mark.skipif(
    mqtt_broker.MOSQUITTO is None, reason="no mosquitto: `apt-get install mosquitto`"
)
AT_ONCE = RetryPolicy(first_delay_s=0.01, max_delay_s=0.02)
README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
IMAGE = np.zeros((480, 640, 3), np.uint8)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    it = Broker(tmp_path)
    it.start()
    yield it
    it.kill()


def answer(name: str | None, track: int = 1, *, ended: bool = False, camera: str = "door") -> Event:
    """A track's new answer, or its end: the person's name, or None for an unknown one."""
    now = datetime.now(timezone.utc)
    face = Face(np.array([9, 9, 99, 99], np.float32), 0.9, np.zeros((5, 2), np.float32), track, *[None] * 2,
                (), None, None, None)  # fmt: skip
    status: Status = "unknown" if name is None else "known"
    candidates = () if name is None else (Candidate(name, 0.7, 0.4),)
    decision = Decision(status, name, candidates, 0.4, 2)
    seen = sighting(Frame(IMAGE, 0, now, camera), face, now)
    return face_event(seen, track, 1, decision, {}, ended=ended)


def turn(kind: EventType, camera: str = "door") -> Event:
    now = datetime.now(timezone.utc)
    return Event(uuid7(), f"{camera}/{now.isoformat()}/{kind}", kind, camera, now, now, 0)


@pytest.fixture
def box(broker: Broker, tmp_path: Path) -> Iterator[Callable[..., Outbox]]:
    """Makes the outbox of a box with the camera door, or the cameras given."""
    open_ones = []

    def make(**options: Any) -> Outbox:
        options = {"cameras": ["door"], "timeout_s": PATIENCE_S, **options}
        delivery = MqttDelivery(broker.url, "edge-fr/gate", **options)
        open_ones.append(Outbox(tmp_path / "e.db", [delivery], retry=AT_ONCE, drain_s=PATIENCE_S))
        return open_ones[-1]

    yield make
    for it in open_ones:
        it.close()


def found(*entities: str) -> Callable[[HomeAssistant], bool]:
    return lambda home: set(entities) == set(home.entities)


def is_at(entity: str, *states: str) -> Callable[[HomeAssistant], bool]:
    """The entity's latest states are these."""
    return lambda home: tuple(home.history(entity)[-len(states) :]) == states


@needs_broker
def test_somebody_arrives_once_each_time_and_never_by_leaving(
    broker: Broker, box: Callable[..., Outbox]
) -> None:
    with HomeAssistant(broker.port) as home:
        outbox = box()
        home.wait_for(is_at("sensor.door", "nobody"))
        for track in (1, 2):
            outbox.write(answer("Anna", track))
            outbox.write(answer("Anna", track, ended=True))
        home.wait_for(lambda it: it.history("event.door").count("face.ended") == 2)
        assert len(home.arrivals("Anna")) == 2
        home.wait_for(is_at("sensor.door", "nobody", "Anna", "nobody", "Anna", "nobody"))


@needs_broker
def test_nobody_arrives_by_anothers_leaving_or_by_a_second_track(
    broker: Broker, box: Callable[..., Outbox]
) -> None:
    with HomeAssistant(broker.port) as home:
        outbox = box()
        home.wait_for(found("event.door", "sensor.door"))
        outbox.write(answer("Anna", 1))
        outbox.write(answer("Ben", 2))
        outbox.write(answer("Anna", 3))  # she is there, followed twice
        outbox.write(answer("Ben", 2, ended=True))
        outbox.write(answer("Anna", 1, ended=True))
        outbox.write(answer("Anna", 3, ended=True))
        home.wait_for(is_at("sensor.door", "nobody", "Anna", "Ben", "somebody", "nobody"))
        assert (len(home.arrivals("Anna")), len(home.arrivals("Ben"))) == (1, 1)
        last = next(c for c in home.changes if c.state == "somebody")
        assert last.attributes["people"] == ["Anna"]


@needs_broker
def test_a_name_that_is_taken_back_and_given_again_arrives_again(
    broker: Broker, box: Callable[..., Outbox]
) -> None:
    with HomeAssistant(broker.port) as home:
        outbox = box()
        home.wait_for(found("event.door", "sensor.door"))
        for number, name in enumerate(("Anna", None, "Anna")):
            outbox.write(replace(answer(name), dedupe_key=f"{number}"))
        home.wait_for(is_at("sensor.door", "Anna", "somebody", "Anna"))
        home.wait_for(lambda it: len(it.arrivals("Anna")) == 2)


@needs_broker
def test_nobody_arrives_when_home_assistant_starts_or_the_broker_comes_back(
    broker: Broker, box: Callable[..., Outbox]
) -> None:
    with HomeAssistant(broker.port) as home:
        outbox = box()
        home.wait_for(found("event.door", "sensor.door"))
        outbox.write(answer("Anna"))
        home.wait_for(lambda it: len(it.arrivals("Anna")) == 1)
        with HomeAssistant(broker.port, "started-later") as later:
            later.wait_for(is_at("sensor.door", "Anna"))  # she is still there
            assert not later.arrivals("Anna")
        broker.kill()
        broker.start()
        home.wait_for(is_at("sensor.door", "Anna", "unavailable", "Anna"))
        outbox.write(answer(None, 2))
        home.wait_for(lambda it: "face.unknown" in it.history("event.door"))
        assert len(home.arrivals("Anna")) == 1


@needs_broker
def test_nobody_is_there_any_more_when_a_box_starts_again(broker: Broker, box: Callable[..., Outbox]) -> None:
    with HomeAssistant(broker.port) as home:
        outbox = box()
        home.wait_for(found("event.door", "sensor.door"))
        outbox.write(answer("Anna"))  # and it never tells of her leaving: kill -9
        home.wait_for(is_at("sensor.door", "Anna"))
        outbox.close()
        home.wait_for(is_at("sensor.door", "unavailable"))
        box()
        home.wait_for(is_at("sensor.door", "unavailable", "nobody"))
        assert len(home.arrivals("Anna")) == 1


@needs_broker
def test_what_waited_for_the_network_too_long_is_delivered_and_makes_nobody_arrive(
    broker: Broker, box: Callable[..., Outbox]
) -> None:
    late = datetime.now(timezone.utc) - timedelta(minutes=5)
    with HomeAssistant(broker.port) as home, Listener(broker.port, "edge-fr/gate/door/event") as listener:
        outbox = box(people=["Anna"])
        home.wait_for(found("event.door", "sensor.door", "binary_sensor.Anna"))
        outbox.write(replace(answer("Anna"), emitted_at=late))
        outbox.write(answer(None, 2))
        home.wait_for(lambda it: it.history("event.door") == ["face.unknown"])
        home.wait_for(is_at("sensor.door", "somebody"))
        assert "on" not in home.history("binary_sensor.Anna")
        listener.wait_for(lambda m: [json.loads(i.payload)["identity"] for i in m] == ["Anna", None])


@needs_broker
def test_what_an_earlier_run_had_still_to_send_makes_nobody_arrive(
    broker: Broker, box: Callable[..., Outbox], tmp_path: Path
) -> None:
    nowhere = MqttDelivery("mqtt://127.0.0.1:1", "edge-fr/gate", timeout_s=0.1)
    with Outbox(tmp_path / "e.db", [nowhere], retry=AT_ONCE, drain_s=0) as outbox:
        outbox.write(answer("Anna"))
    with HomeAssistant(broker.port) as home:
        outbox = box()
        outbox.write(answer("Ben", 2))
        home.wait_for(is_at("sensor.door", "Ben"))
        assert not home.arrivals("Anna")


@needs_broker
def test_a_person_of_the_list_is_present_wherever_she_is_and_others_have_no_sensor(
    broker: Broker, box: Callable[..., Outbox]
) -> None:
    with HomeAssistant(broker.port) as home:
        outbox = box(cameras=["door", "yard"], people=["Zoe\u0308"])  # the gallery has it composed
        home.wait_for(lambda it: it.states.get("binary_sensor.Zo\u00eb") == "off")
        outbox.write(answer("Ben", 1))
        outbox.write(answer("Zo\u00eb", 2))
        outbox.write(answer("Zo\u00eb", 1, camera="yard"))
        outbox.write(answer("Zo\u00eb", 2, ended=True))
        outbox.write(answer("Zo\u00eb", 1, ended=True, camera="yard"))
        home.wait_for(is_at("sensor.yard", "Zo\u00eb", "nobody"))
        home.wait_for(is_at("binary_sensor.Zo\u00eb", "off", "on", "off"))
        assert sum(entity.startswith("binary_sensor") for entity in home.entities) == 1
        assert home.entities["binary_sensor.Zo\u00eb"]["device_class"] == "occupancy"


@needs_broker
def test_who_is_before_a_camera_that_is_away_is_unknown(broker: Broker, box: Callable[..., Outbox]) -> None:
    with HomeAssistant(broker.port) as home:
        outbox = box()
        home.wait_for(found("event.door", "sensor.door"))
        outbox.write(answer("Anna"))
        outbox.write(turn("camera.offline"))
        outbox.write(turn("camera.online"))
        home.wait_for(is_at("sensor.door", "nobody", "Anna", "unknown", "nobody"))
        home.wait_for(is_at("event.door", "face.identified", "camera.offline", "camera.online"))


@needs_broker
def test_cameras_and_people_that_are_no_longer_of_the_site_are_taken_back(
    broker: Broker, box: Callable[..., Outbox]
) -> None:
    with HomeAssistant(broker.port) as home:
        outbox = box(cameras=["door", "yard"], people=["Anna", "Ben"])
        home.wait_for(lambda it: len(it.entities) == 6)
        outbox.close()
        outbox = box(cameras=["door"], people=["Anna"])
        home.wait_for(found("event.door", "sensor.door", "binary_sensor.Anna"))
        # What the camera had still to say brings no ghost back.
        outbox.write(
            replace(answer("Anna", camera="yard"), emitted_at=datetime(2026, 1, 1, tzinfo=timezone.utc))
        )
        outbox.write(answer("Anna"))
        home.wait_for(is_at("sensor.door", "Anna"))
        assert set(home.entities) == {"event.door", "sensor.door", "binary_sensor.Anna"}
        outbox.close()
    with Listener(broker.port, client_id="after") as listener:
        listener.wait_for(lambda m: len([i for i in m if i.retained]) == 6)
        left = {m.topic for m in listener.messages}
        assert not [topic for topic in left if "yard" in topic or "Ben" in topic]


@needs_broker
def test_all_is_taken_back_where_home_assistant_is_no_longer_wanted_and_of_no_other_box(
    broker: Broker, box: Callable[..., Outbox]
) -> None:
    with HomeAssistant(broker.port) as home:
        other = MqttDelivery(broker.url, "edge-fr/other", cameras=["lift"])
        other.start(lambda: None)
        outbox = box(people=["Anna"])
        home.wait_for(lambda it: len(it.entities) == 5)
        outbox.close()
        box(discovery_prefix=None)
        home.wait_for(found("event.lift", "sensor.lift"))
        other.close()
    with Listener(broker.port, "edge-fr/gate/#", client_id="after") as listener:
        listener.wait_for(lambda m: len(m) == 1)
        assert listener.messages[0].topic == "edge-fr/gate/status"


@needs_broker
def test_where_the_cameras_are_not_said_they_stay_from_one_run_to_the_next(
    broker: Broker, box: Callable[..., Outbox]
) -> None:
    with HomeAssistant(broker.port) as home:
        outbox = box(cameras=[])
        outbox.write(answer("Anna", camera="lift"))
        home.wait_for(found("event.lift", "sensor.lift"))
        outbox.close()
        outbox = box(cameras=[])
        outbox.write(answer("Anna", 2, camera="hall"))
        home.wait_for(found("event.lift", "sensor.lift", "event.hall", "sensor.hall"))


def test_the_automation_of_the_readme_starts_when_that_person_arrives_and_at_nothing_else() -> None:
    (block,) = re.findall(r"```yaml\n(triggers:.*?)```", README, re.S)
    topic, template, payload = (
        re.search(rf'{key}: "?(.+?)"?\n', block)[1]  # type: ignore[index]
        for key in ("topic", "value_template", "payload")
    )
    messages = Messages("homeassistant", "box", "edge-fr/gate", cameras=["door"], people=[])
    started = []
    steps = [answer("Grace Hopper"), answer("Grace Hopper", ended=True), answer("Ada", 2), answer(None, 3)]
    for event in steps:
        news = [post for post in messages.take(Letter.of(to_line(event))) if post.topic == topic]
        values = json.loads(news[0].payload)
        text = re.sub(
            r"\{\{ value_json\.(\w+) \}\}", lambda key, values=values: str(values[key[1]]), template
        )
        started.append(text == payload)
    assert started == [True, False, False, False]


def test_what_gets_out_late_in_a_run_of_hours_is_no_news_and_what_gets_out_soon_is() -> None:
    messages = Messages("homeassistant", "box", "gate", cameras=["door"], people=[])
    messages._since_s -= 3600
    for track, (late_s, told) in enumerate([(20, True), (40, False)]):
        emitted_at = datetime.now(timezone.utc) - timedelta(seconds=late_s)
        posts = messages.take(Letter.of(to_line(replace(answer(f"{late_s}", track), emitted_at=emitted_at))))
        assert bool(posts) == told


@needs_broker
def test_descriptions_under_another_prefix_are_taken_back(broker: Broker, box: Callable[..., Outbox]) -> None:
    outbox = box(discovery_prefix="house")
    with Listener(broker.port, "house/#") as listener:
        listener.wait_for(lambda m: len(m) == 2)
        outbox.close()
        box()
        listener.wait_for(lambda m: [i.payload for i in m[2:]] == ["", ""])


def test_a_clock_that_is_set_meanwhile_neither_ends_news_nor_makes_any() -> None:
    messages = Messages("homeassistant", "box", "gate", cameras=["door"], people=[])
    ahead = datetime.now(timezone.utc) + timedelta(days=3)  # and then the clock was set back
    told = messages.take(Letter.of(to_line(replace(answer("Anna"), emitted_at=ahead))))
    assert [post.topic for post in told] == ["gate/door/presence", "gate/door/news"]
    behind = datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert messages.take(Letter.of(to_line(replace(answer("Ben", 2), emitted_at=behind)))) == []


def test_a_number_without_an_end_in_an_old_outbox_is_none_for_home_assistant() -> None:
    messages = Messages("homeassistant", "box", "gate", cameras=["door"], people=[])
    line = to_line(answer("Anna")).replace('"ri": null', '"ri": NaN')
    news = messages.take(Letter.of(line))[-1]
    assert json.loads(news.payload, parse_constant=pytest.fail)["ri"] is None


def test_a_letter_that_is_no_event_of_this_package_is_passed_over() -> None:
    messages = Messages("homeassistant", "box", "gate", cameras=["door"], people=["Anna"])
    assert messages.take(Letter("1", "1", "door", b'{"hello": 1}')) == []


def test_a_protocol_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match=r"protocol is '4', expected \"5\" or \"3.1.1\""):
        MqttDelivery("mqtt://host", "gate", protocol="4")  # type: ignore[arg-type]


@needs_broker
def test_a_site_s_file_says_the_cameras_the_people_and_the_protocol(broker: Broker, tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    with OldBroker(broker) as old, HomeAssistant(broker.port) as home:
        site.write_text(
            "cameras: {door: {source: 'test://?frames=3'}}\n"
            f"events: {{outbox: o.db, mqtt: {{url: '{old.url}', topic: edge-fr/gate, people: [Anna], "
            "protocol: 3.1.1}}"
        )
        try:
            run_site(read_site(site), tmp_path, threading.Event())
        except ModelNotFoundError as error:
            pytest.skip(str(error))
        home.wait_for(found("event.door", "sensor.door", "binary_sensor.Anna"))
