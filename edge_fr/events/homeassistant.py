"""What Home Assistant is told over MQTT: entities by discovery, who is where, and what has just happened.

A camera is an event entity, for automations ("when Anna arrives"), and a sensor that says who is there. A
person of the site's list is a binary sensor. What an automation acts on is not retained, is told once, and
soon or never: neither a restart nor a broker that comes back makes anybody arrive. So the event entity has
no availability: coming back from "unavailable" would look to a state trigger like another event. The sensors
have it, and no `expire_after`: the broker tells when the box is lost, and who is there may stay for long.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, get_args

from edge_fr.events.delivery import Letter
from edge_fr.events.presence import Presence
from edge_fr.structures import EventType

NEWS_S = 30.0  # what gets out later than that after it was told is no news


class Post(NamedTuple):
    """A message for the broker; `payload` is empty where it takes a retained one back."""

    topic: str
    payload: bytes
    retained: bool


def topic_part(name: str) -> str:
    """The name as one level of a topic and part of an id: letters, digits, _ and -.

    A name that has to be changed for that gets a piece of its digest, so that no two become the same.
    """
    part = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if part == name and name:
        return part
    return f"{part}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


class HomeAssistant:
    """The messages for Home Assistant of the box whose MQTT topic is `topic`.

    `prefix` is where it looks for descriptions; None: it is told nothing, and what it was told is taken back.
    `cameras` are described at once, others with their first news. `people` get a binary sensor each.
    """

    def __init__(
        self, prefix: str | None, box: str, topic: str, *, cameras: Sequence[str], people: Sequence[str]
    ) -> None:
        self.prefix = prefix
        self._box = box
        self._topic = topic
        self._since_s = time.monotonic()
        self._whole_site = bool(cameras)
        self._cameras = dict.fromkeys(cameras)  # a set that keeps its order
        # As a gallery keeps names.
        self._people = dict.fromkeys(unicodedata.normalize("NFC", person).strip() for person in people)
        self._presence = Presence()

    def standing(self) -> list[Post]:
        """All that is retained for it now: the descriptions, and who is where."""
        if self.prefix is None:
            return []
        cameras = [post for camera in self._cameras for post in self._camera(camera)]
        return cameras + [post for person in self._people for post in self._person(person)]

    def subscriptions(self) -> list[str]:
        """Where messages of this box may lie that an earlier run left."""
        described = [f"{prefix}/+/{self._box}/+/config" for prefix in {self.prefix or "+", "+"}]
        return [*described, f"{self._topic}/+/presence", f"{self._topic}/people/+/presence"]

    def outdated(self, topic: str) -> Post | None:
        """Takes back a retained message that was found at the broker, if it is of a camera or person no more.

        Not where `cameras` were not said: then nobody knows which are left.
        """
        if self.prefix is not None and not self._whole_site:
            return None
        known = {post.topic for post in self.standing()}
        return None if topic in known else Post(topic, b"", True)

    def take(self, letter: Letter) -> list[Post]:
        """What an event that was just delivered changes, and the event itself if it is news."""
        event = json.loads(letter.body, parse_constant=lambda _: None)  # earlier versions wrote NaN
        presence = self._presence
        before = {person: presence.of(person) for person in self._people}
        where = presence.at(letter.camera)
        news = self._is_news(event)
        worth_telling = presence.take(event, news=news)
        if self.prefix is None:
            return []
        posts = []
        if news and letter.camera not in self._cameras:
            self._cameras[letter.camera] = None
            posts += self._camera(letter.camera)
        elif letter.camera in self._cameras and presence.at(letter.camera) != where:
            posts.append(self._whereabouts(letter.camera))
        for person, was in before.items():
            if presence.of(person) != was:
                posts.append(self._here(person))
        if worth_telling:
            told = {"event_type": event["type"], **event}
            posts.append(Post(self._camera_topic(letter.camera, "news"), _json(told), False))
        return posts

    def _is_news(self, event: dict[str, Any]) -> bool:
        """Whether the event is of this run and was told just now, whatever the clock was set to meanwhile."""
        try:
            age_s = time.time() - datetime.fromisoformat(event["emitted_at"]).timestamp()
        except (KeyError, TypeError, ValueError):
            return False  # not an event of ours
        return age_s <= min(NEWS_S, time.monotonic() - self._since_s)

    def _camera(self, camera: str) -> list[Post]:
        part = topic_part(camera)
        shown = camera.encode("utf-8", "backslashreplace").decode()
        presence = self._whereabouts(camera)
        sensor = {
            "name": shown,
            "unique_id": f"{self._box}-{part}",
            "state_topic": presence.topic,
            "value_template": "{{ value_json.person }}",
            "json_attributes_topic": presence.topic,
            **self._available,
        }
        event = {
            "name": shown,
            "unique_id": f"{self._box}-{part}-event",
            "state_topic": self._camera_topic(camera, "news"),
            "event_types": list(get_args(EventType)),
        }
        return [self._description("event", part, event), self._description("sensor", part, sensor), presence]

    def _person(self, person: str) -> list[Post]:
        part, here = topic_part(person), self._here(person)
        sensor = {
            "name": person,
            "unique_id": f"{self._box}-person-{part}",
            "state_topic": here.topic,
            "value_template": "{{ value_json.state }}",
            "json_attributes_topic": here.topic,
            "device_class": "occupancy",
            **self._available,
        }
        return [self._description("binary_sensor", part, sensor), here]

    @property
    def _available(self) -> dict[str, str]:
        return {
            "availability_topic": f"{self._topic}/status",
            "payload_available": "online",
            "payload_not_available": "offline",
        }

    def _description(self, component: str, part: str, entity: dict[str, Any]) -> Post:
        whole = {
            **entity,
            "qos": 1,
            "icon": "mdi:face-recognition",
            "device": {"identifiers": [self._box], "name": self._topic, "model": "edge-fr"},
            "origin": {"name": "edge-fr"},
        }
        return Post(f"{self.prefix}/{component}/{self._box}/{part}/config", _json(whole), True)

    def _whereabouts(self, camera: str) -> Post:
        return Post(self._camera_topic(camera, "presence"), _json(self._presence.at(camera)), True)

    def _here(self, person: str) -> Post:
        topic = f"{self._topic}/people/{topic_part(person)}/presence"
        return Post(topic, _json(self._presence.of(person)), True)

    def _camera_topic(self, camera: str, what: str) -> str:
        return f"{self._topic}/{topic_part(camera)}/{what}"


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace")
