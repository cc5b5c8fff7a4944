"""A stand-in for Home Assistant: its MQTT integration's rules for the entities that a broker describes.

As there: an event entity passes over retained messages and those without `event_type`; its attributes are
the message. A sensor's state is the rendered template, "None" is unknown, an empty one changes nothing; a
description that is taken back removes the entity. Only templates of the form {{ value_json.name }} are known.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from mqtt_broker import PATIENCE_S

KEYS = {
    "event": {"event_types"},
    "sensor": {"value_template", "json_attributes_topic"},
    "binary_sensor": {"value_template", "json_attributes_topic", "device_class"},
}
COMMON = {
    *("name", "unique_id", "state_topic", "qos", "icon", "device", "origin"),
    *("availability_topic", "payload_available", "payload_not_available"),
}


class Change(NamedTuple):
    """An entity took a state; of an event entity it is the event's type."""

    entity: str
    state: str
    attributes: dict[str, Any]


class HomeAssistant:
    """What one that has just been started makes of a broker's messages, until it is closed."""

    def __init__(self, port: int, client_id: str = "home-assistant") -> None:
        self.changes: list[Change] = []
        self.entities: dict[str, dict[str, Any]] = {}  # descriptions, by event.door, sensor.door, ...
        self.states: dict[str, str] = {}
        self._known: dict[str, str] = {}  # states, also while they are unavailable
        self._topics: dict[str, str] = {}  # entities by the topic of their description
        self._heard = threading.Condition()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def wait_for(self, there: Callable[[HomeAssistant], bool], timeout_s: float = PATIENCE_S) -> None:
        with self._heard:
            if not self._heard.wait_for(lambda: there(self), timeout_s):
                raise TimeoutError(f"not so; states {self.states}, changes {self.changes[-8:]}")

    def arrivals(self, person: str) -> list[Change]:
        """What starts an automation "when somebody arrives"."""
        return [
            change
            for change in self.changes
            if (change.entity.startswith("event.") and change.state == "face.identified")
            and change.attributes["identity"] == person
        ]

    def history(self, entity: str) -> list[str]:
        return [change.state for change in self.changes if change.entity == entity]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> HomeAssistant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_connect(self, client: Any, *_: object) -> None:
        client.subscribe("homeassistant/+/+/+/config", qos=1)
        for description in self.entities.values():
            self._subscribe(description)

    def _on_disconnect(self, *_: object) -> None:
        with self._heard:
            for entity, description in self.entities.items():
                if "availability_topic" in description:
                    self._set(entity, "unavailable", {})
            self._heard.notify_all()

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        with self._heard:
            if message.topic.startswith("homeassistant/"):
                self._discover(message.topic, message.payload)
            else:
                for entity, description in self.entities.items():
                    self._hear(entity, description, message)
            self._heard.notify_all()

    def _discover(self, topic: str, payload: bytes) -> None:
        if not payload:
            entity = self._topics.pop(topic, None)
            if entity is not None:
                del self.entities[entity], self.states[entity]
            return
        description = json.loads(payload)
        domain = topic.split("/")[1]
        assert set(description) <= COMMON | KEYS[domain], "Home Assistant knows no such key"
        assert description["device"]["identifiers"]
        assert description["origin"]["name"]
        entity = f"{domain}.{description['name']}"
        assert self._topics.setdefault(topic, entity) == entity
        others = [d["unique_id"] for e, d in self.entities.items() if e != entity]
        assert description["unique_id"] not in others
        self.entities[entity] = description
        self.states.setdefault(entity, "unknown")
        self._subscribe(description)

    def _subscribe(self, description: dict[str, Any]) -> None:
        for key in ("state_topic", "availability_topic"):
            if key in description:
                self._client.subscribe(description[key], qos=description["qos"])

    def _hear(self, entity: str, description: dict[str, Any], message: Any) -> None:
        if message.topic == description.get("availability_topic"):
            available = message.payload.decode() == description["payload_available"]
            self._set(entity, self._known.get(entity, "unknown") if available else "unavailable", {})
        if message.topic != description["state_topic"] or not message.payload:
            return
        values = json.loads(message.payload)
        if entity.startswith("event."):
            if not message.retain:
                kind = values.pop("event_type")
                assert kind in description["event_types"]
                self.changes.append(Change(entity, kind, values))
            return
        key = re.fullmatch(r"\{\{ value_json\.(\w+) \}\}", description["value_template"])
        assert key is not None
        state = str(values[key[1]])
        if entity.startswith("binary_sensor."):
            state = {"ON": "on", "OFF": "off"}[state]
        self._known[entity] = "unknown" if state == "None" else state
        if self.states[entity] != "unavailable":
            self._set(entity, self._known[entity], values)

    def _set(self, entity: str, state: str, attributes: dict[str, Any]) -> None:
        if self.states[entity] != state:
            self.changes.append(Change(entity, state, attributes))
        self.states[entity] = state
