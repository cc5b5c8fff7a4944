"""MQTT with a real mosquitto: delivered means acknowledged, presence is told, cameras are described."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

pytest.importorskip("paho.mqtt.client", reason="`pip install '.[mqtt]'`")

import mqtt_broker
from mqtt_broker import PATIENCE_S, Broker, Listener, Message, OldBroker
from numbered_events import number_of, numbered

from edge_fr.errors import DeliveryError, InputError
from edge_fr.events import Letter, MqttDelivery, Outbox, RetryPolicy, to_line
from edge_fr.events.homeassistant import topic_part
from edge_fr.structures import EventType

needs_broker = pytest.mark.skipif(
    mqtt_broker.MOSQUITTO is None, reason="no mosquitto: `apt-get install mosquitto`"
)
AT_ONCE = RetryPolicy(first_delay_s=0.01, max_delay_s=0.02)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    it = Broker(tmp_path)
    it.start()
    yield it
    it.kill()


def events(messages: list[Message]) -> list[int]:
    return [number_of(m.payload) for m in messages if m.topic.endswith("/event")]


def statuses(messages: list[Message]) -> list[str]:
    return [m.payload for m in messages if m.topic == "edge-fr/gate/status"]


@needs_broker
def test_events_arrive_in_order_under_their_camera(broker: Broker, tmp_path: Path) -> None:
    with Listener(broker.port) as listener:
        with Outbox(
            tmp_path / "e.db",
            [MqttDelivery(broker.url, "edge-fr/gate", timeout_s=PATIENCE_S)],
            drain_s=PATIENCE_S,
        ) as outbox:
            for number in range(20):
                outbox.write(numbered(number))
        listener.wait_for(lambda m: len(events(m)) == 20)
        assert events(listener.messages) == list(range(20))
        (topic,) = {m.topic for m in listener.messages if m.topic.endswith("/event")}
        assert topic == "edge-fr/gate/door/event"


@needs_broker
def test_presence_is_told_at_the_start_and_the_end_and_kept_for_who_asks_later(
    broker: Broker, tmp_path: Path
) -> None:
    with (
        Outbox(tmp_path / "e.db", [MqttDelivery(broker.url, "edge-fr/gate")]),
        Listener(broker.port, client_id="during") as listener,
    ):
        listener.wait_for(lambda m: statuses(m) == ["online"])
    with Listener(broker.port, client_id="after") as listener:
        listener.wait_for(lambda m: statuses(m) == ["offline"])
        assert next(m for m in listener.messages if m.topic == "edge-fr/gate/status").retained


RUN_UNTIL_KILLED = """
import sys, time
from edge_fr.events import MqttDelivery, Outbox
with Outbox(sys.argv[1], [MqttDelivery(sys.argv[2], "edge-fr/gate")]):
    time.sleep(600)
"""


@needs_broker
def test_a_box_that_is_lost_is_announced_as_offline_and_as_online_when_it_is_back(
    broker: Broker, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", RUN_UNTIL_KILLED, str(tmp_path / "e.db"), broker.url]
    with Listener(broker.port) as listener:
        box = subprocess.Popen(command)
        try:
            listener.wait_for(lambda m: statuses(m) == ["online"])
        finally:
            box.send_signal(signal.SIGKILL)
            box.wait()
        listener.wait_for(lambda m: statuses(m) == ["online", "offline"])
        box = subprocess.Popen(command)
        try:
            listener.wait_for(lambda m: statuses(m) == ["online", "offline", "online"])
        finally:
            box.send_signal(signal.SIGKILL)
            box.wait()


@needs_broker
def test_a_box_that_takes_its_lost_session_over_stays_online(broker: Broker) -> None:
    # As after a power cut: the broker has not missed the first connection when the second one comes.
    first, second = (MqttDelivery(broker.url, "edge-fr/gate") for _ in range(2))
    with Listener(broker.port) as listener:
        first.start(lambda: None)
        listener.wait_for(lambda m: statuses(m) == ["online"])
        first._client.reconnect_delay_set(3600, 3600)  # a box without power does not come back by itself
        second.start(lambda: None)
        listener.wait_for(lambda m: statuses(m) == ["online", "offline", "online"])
        second.close()
        first.close()


@needs_broker
def test_home_assistant_is_told_of_each_camera_once_and_for_later(broker: Broker, tmp_path: Path) -> None:
    delivery = MqttDelivery(broker.url, "edge-fr/gate", cameras=["door"], timeout_s=PATIENCE_S)
    with Outbox(tmp_path / "e.db", [delivery], drain_s=PATIENCE_S) as outbox:
        outbox.write(numbered(1))
        outbox.write(numbered(2, camera="Hof Süd/1"))
        outbox.write(numbered(3, camera="Hof Süd/1"))
    with Listener(broker.port, "homeassistant/#") as listener:
        listener.wait_for(lambda m: len(m) == 4)
        assert all(m.retained for m in listener.messages)
        described: dict[str, Any] = {}
        for message in listener.messages:
            values = json.loads(message.payload)
            described[f"{message.topic.split('/')[1]} {values['name']}"] = values
            assert message.topic.endswith("/config")
            assert len(message.topic.split("/")) == 5  # what Home Assistant takes for a description
    door, yard = described["sensor door"], described["sensor Hof Süd/1"]
    assert door["state_topic"] == door["json_attributes_topic"] == "edge-fr/gate/door/presence"
    assert door["availability_topic"] == "edge-fr/gate/status"
    assert yard["state_topic"] == f"edge-fr/gate/{topic_part('Hof Süd/1')}/presence"
    event = described["event door"]
    assert event["state_topic"] == "edge-fr/gate/door/news"
    assert set(event["event_types"]) == set(get_args(EventType))
    assert not [key for key in event if "avail" in key]  # to be back from "unavailable" is no event
    assert len({values["unique_id"] for values in described.values()}) == 4
    assert all(values["device"] == door["device"] for values in described.values())


@needs_broker
def test_home_assistant_is_told_nothing_where_that_is_not_wanted(broker: Broker, tmp_path: Path) -> None:
    delivery = MqttDelivery(
        broker.url, "edge-fr/gate", cameras=["door"], discovery_prefix=None, timeout_s=PATIENCE_S
    )
    with Listener(broker.port) as listener:
        with Outbox(tmp_path / "e.db", [delivery], drain_s=PATIENCE_S) as outbox:
            outbox.write(numbered(1))
        listener.wait_for(lambda m: statuses(m)[-1:] == ["offline"])
        assert {m.topic for m in listener.messages} == {"edge-fr/gate/door/event", "edge-fr/gate/status"}


@needs_broker
def test_events_written_while_the_broker_is_dead_arrive_when_it_is_back(
    broker: Broker, tmp_path: Path
) -> None:
    delivery = MqttDelivery(broker.url, "edge-fr/gate", timeout_s=1)
    with (
        Listener(broker.port) as listener,
        Outbox(tmp_path / "e.db", [delivery], retry=AT_ONCE, drain_s=PATIENCE_S) as outbox,
    ):
        outbox.write(numbered(1))
        listener.wait_for(lambda m: events(m) == [1])
        broker.kill()
        for number in (2, 3, 4):
            outbox.write(numbered(number))
        while (trouble := outbox.status()["mqtt"].trouble) is None:
            time.sleep(0.01)
        assert f"MQTT broker 127.0.0.1:{broker.port}" in trouble
        broker.start()
        listener.wait_for(lambda m: 4 in events(m))
        # What lost its PUBACK comes twice; everything comes, and first in order.
        assert list(dict.fromkeys(events(listener.messages))) == [1, 2, 3, 4]
        listener.wait_for(lambda m: statuses(m)[-1:] == ["online"])


@needs_broker
def test_an_event_is_delivered_only_when_the_broker_says_so(broker: Broker, tmp_path: Path) -> None:
    delivery = MqttDelivery(broker.url, "edge-fr/gate", timeout_s=1)
    with Listener(broker.port) as listener:
        with Outbox(tmp_path / "e.db", [delivery], retry=AT_ONCE, drain_s=PATIENCE_S) as outbox:
            outbox.write(numbered(1))
            listener.wait_for(lambda m: events(m) == [1])
            while (status := outbox.status()["mqtt"]).waiting or status.trouble is not None:
                time.sleep(0.01)  # until the box has heard, too, that this one was taken
            broker.signal(signal.SIGSTOP)  # it is there, and answers nothing
            outbox.write(numbered(2))
            while (trouble := outbox.status()["mqtt"].trouble) is None:
                time.sleep(0.01)
            assert "did not acknowledge an event within 1 s (connected)" in trouble
            assert outbox.status()["mqtt"].waiting == 1
            broker.signal(signal.SIGCONT)
            while outbox.status()["mqtt"].waiting:
                time.sleep(0.01)
        listener.wait_for(lambda m: statuses(m)[-1:] == ["offline"])
        assert events(listener.messages) == [1, 2]  # tried several times, published once


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """A broker that lets nobody in without a password, and the user `box` publish its status only."""
    passwords, rules = tmp_path / "passwords", tmp_path / "rules"
    passwords.write_text("box:hunter2-hunter2\nyard:hunter3-hunter3\n")
    tool = Path(str(mqtt_broker.MOSQUITTO)).parent.parent / "bin" / "mosquitto_passwd"
    subprocess.run([tool, "-U", passwords], check=True)
    rules.write_text("user box\ntopic write edge-fr/gate/status\nuser yard\ntopic write edge-fr/yard/#\n")
    it = Broker(tmp_path, f"allow_anonymous false\npassword_file {passwords}\nacl_file {rules}")
    it.start()
    yield it
    it.kill()


@needs_broker
def test_an_event_that_this_user_may_not_publish_is_not_taken_for_delivered(
    guarded: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = MqttDelivery(
        guarded.url, "edge-fr/gate", username="box", password="hunter2-hunter2", timeout_s=PATIENCE_S
    )
    delivery.start(lambda: None)
    with pytest.raises(DeliveryError, match="answered: Not authorized") as caught:
        delivery.deliver(Letter.of(to_line(numbered(1))))
    assert caught.value.answered
    delivery.close()
    assert "hunter2" not in caplog.text


@needs_broker
def test_a_user_who_may_not_describe_cameras_can_still_send_events(
    guarded: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = MqttDelivery(
        guarded.url, "edge-fr/yard", username="yard", password="hunter3-hunter3", timeout_s=PATIENCE_S
    )
    delivery.start(lambda: None)
    for number in range(3):
        delivery.deliver(Letter.of(to_line(numbered(number))))
    delivery.close()
    assert "does not let this user describe cameras to Home Assistant: Not authorized" in caplog.text


@needs_broker
def test_a_wrong_password_is_an_error_that_does_not_repeat_it(
    guarded: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = MqttDelivery(
        guarded.url, "edge-fr/gate", username="box", password="hunter4-hunter4", timeout_s=5
    )
    with Outbox(tmp_path / "e.db", [delivery], retry=AT_ONCE) as outbox:
        outbox.write(numbered(1))
        while (trouble := outbox.status()["mqtt"].trouble) is None or "no connection yet" in trouble:
            time.sleep(0.01)
    assert "it refused the connection: Not authorized" in trouble
    for text in (trouble, repr(delivery), caplog.text):
        assert "hunter" not in text
    for file in tmp_path.glob("e.db*"):
        assert b"hunter" not in file.read_bytes()


@needs_broker
@pytest.mark.parametrize(
    ("answers", "said"),
    [(True, "it refused the connection: Unsupported protocol version"), (False, "it closed the connection")],
)
def test_a_broker_that_speaks_no_mqtt_5_is_an_error_that_says_what_to_give(
    broker: Broker, tmp_path: Path, answers: bool, said: str
) -> None:
    with OldBroker(broker, answers=answers) as old:
        delivery = MqttDelivery(old.url, "edge-fr/gate", timeout_s=1)
        with Outbox(tmp_path / "e.db", [delivery], retry=AT_ONCE, drain_s=0) as outbox:
            outbox.write(numbered(1))
            while said not in (outbox.status()["mqtt"].trouble or ""):
                time.sleep(0.01)
            assert 'MQTT 3.1.1 only, give protocol="3.1.1"' in (outbox.status()["mqtt"].trouble or "")
            assert outbox.status()["mqtt"].waiting == 1


@needs_broker
def test_events_and_descriptions_go_to_a_broker_that_speaks_mqtt_3_1_1_only(
    broker: Broker, tmp_path: Path
) -> None:
    with OldBroker(broker) as old, Listener(broker.port) as listener:
        delivery = MqttDelivery(
            old.url, "edge-fr/gate", cameras=["door"], protocol="3.1.1", timeout_s=PATIENCE_S
        )
        with Outbox(tmp_path / "e.db", [delivery], drain_s=PATIENCE_S) as outbox:
            for number in range(3):
                outbox.write(numbered(number))
            listener.wait_for(lambda m: events(m) == [0, 1, 2])
            assert outbox.status()["mqtt"].trouble is None
        listener.wait_for(lambda m: statuses(m) == ["online", "offline"])
        listener.wait_for(lambda m: len([i for i in m if i.topic.endswith("/config")]) == 2)


def test_a_broker_that_is_not_there_is_named() -> None:
    delivery = MqttDelivery("mqtt://127.0.0.1:1", "edge-fr/gate", timeout_s=1)
    delivery.start(lambda: None)
    said, give_up = "no connection yet", time.monotonic() + PATIENCE_S
    while "no connection yet" in said and time.monotonic() < give_up:  # it may take longer than the time-out
        with pytest.raises(DeliveryError) as caught:
            delivery.deliver(Letter.of(to_line(numbered(1))))
        said = str(caught.value)
    assert said == "MQTT broker 127.0.0.1:1: it cannot be reached"
    delivery.close()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://host", r"mqtt://host or mqtts://host.*got http://host"),
        ("mqtt://host/edge-fr", "and nothing more; got mqtt://host"),
        ("mqtt://box:hunter2@host", "the MQTT broker host holds a user or a password"),
        ("mqtt://host:port", "is no URL"),
        ("host", "got none://"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_repeating_it(url: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        MqttDelivery(url, "edge-fr/gate")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("topic", ["", "/gate", "gate/", "a//b", "edge-fr/+", "#", "$SYS/x"])
def test_a_topic_that_cannot_be_used_is_refused(topic: str) -> None:
    with pytest.raises(InputError, match="expected levels such as edge-fr/gate"):
        MqttDelivery("mqtt://host", topic)


def test_a_password_needs_a_name() -> None:
    with pytest.raises(InputError, match="needs a username"):
        MqttDelivery("mqtt://host", "gate", password="hunter2")


def test_no_two_cameras_share_a_topic() -> None:
    names = ["cam 1", "cam_1", "cam/1", "", os.fsdecode(b"caf\xe9"), "+", "#"]
    parts = [topic_part(name) for name in names]
    assert len(set(parts)) == len(names)
    assert parts[1] == "cam_1"
    assert all(part and not set(part) & set("/+#\0 ") and part.isascii() for part in parts)
