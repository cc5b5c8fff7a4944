"""Events to an MQTT broker; the one module that imports paho."""

from __future__ import annotations

import hashlib
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import urlsplit

from edge_fr.errors import DeliveryError, InputError, MissingDependencyError, RefusedError, install_command
from edge_fr.events.delivery import Letter
from edge_fr.events.homeassistant import HomeAssistant, Post, topic_part

if TYPE_CHECKING:
    from paho.mqtt.client import Client
    from paho.mqtt.reasoncodes import ReasonCode

log = logging.getLogger(__name__)

Protocol = Literal["5", "3.1.1"]

_KEEPALIVE_S = 30  # a box that lost its power is announced as offline one and a half times that later
_RECONNECT_S = 30.0
_GOODBYE_S = 2.0
_QUEUED = 1000  # messages that paho keeps for a broker that lets it connect and acknowledges nothing
# MQTT 5: the topic name or the payload is not acceptable. What else goes wrong may pass or be put right.
_REFUSED = {0x90, 0x99}
_NOT_THIS_VERSION = "Unsupported protocol version"
_OLDER = (
    '; if it speaks MQTT 3.1.1 only, give protocol="3.1.1" (in a site\'s file: events.mqtt.protocol: "3.1.1")'
)


class MqttDelivery:
    """Publishes each event with QoS 1; it counts as delivered when the broker acknowledges it (PUBACK).

    `url` is mqtt://host or mqtts://host, with a port where it is not 1883 or 8883. `topic` is this box's
    own among all that use the broker, for example "edge-fr/gate":

        <topic>/<camera>/event          the event's JSON, not retained: an old event is not news
        <topic>/<camera>/news           the same with its type as `event_type`: what has just happened, once
        <topic>/<camera>/presence       who is there, retained
        <topic>/people/<name>/presence  where somebody of `people` is, retained
        <topic>/status                  "online" or "offline", retained; "offline" for a lost box, too

    The middle three are for Home Assistant, see `edge_fr.events.homeassistant`. It finds each camera under
    `discovery_prefix`: those in `cameras` at once, others with their first event, and each of `people`, who
    are named as in the gallery. Where `cameras` are given, what was told of other cameras and people is taken
    back; with None as the prefix all is.

    The connection is kept up in a thread of its own, and made again with growing pauses. `protocol` "3.1.1"
    is for a broker that does not speak MQTT 5: it acknowledges an event that this user may not publish, too,
    and throws it away. TLS checks the broker against the machine's authorities, or those that the environment
    variable SSL_CERT_FILE names. A password never appears in a message.

    Raises InputError, and MissingDependencyError without paho.
    """

    def __init__(
        self,
        url: str,
        topic: str,
        *,
        username: str | None = None,
        password: str | None = None,
        protocol: Protocol = "5",
        cameras: Sequence[str] = (),
        people: Sequence[str] = (),
        discovery_prefix: str | None = "homeassistant",
        name: str = "mqtt",
        timeout_s: float = 10.0,
    ) -> None:
        host, port, secure = _address(url)
        _require_topic("topic", topic)
        if discovery_prefix is not None:
            _require_topic("discovery_prefix", discovery_prefix)
        if protocol not in get_args(Protocol):
            raise InputError(f'protocol is {protocol!r}, expected "5" or "3.1.1"')
        if not 0 < timeout_s <= 300:
            raise InputError(f"timeout_s is {timeout_s}, expected more than 0 and at most 300 seconds")
        if password is not None and username is None:
            raise InputError("a password for MQTT needs a username, too")
        self.name = name
        self._where = f"MQTT broker {host}:{port}"
        self._topic = topic
        self._status_topic = f"{topic}/status"
        self._protocol: Protocol = protocol
        self._timeout_s = timeout_s
        # Fixed, and the same for the same topic: when a box comes back before the broker has missed it,
        # the broker ends the old session, "offline" and all, before the new one says "online".
        box = f"edgefr{hashlib.sha256(topic.encode()).hexdigest()[:16]}"
        self._home: HomeAssistant | None = HomeAssistant(
            discovery_prefix, box, topic, cameras=cameras, people=people
        )
        self._posting = threading.Lock()  # what is retained last is what was so last
        self._retry_now: Callable[[], None] = lambda: None
        self._change = threading.Condition()
        self._connected = False
        self._trouble = "no connection yet"
        self._posts: set[int] = set()  # packet ids of what is for Home Assistant, until acknowledged
        self._acknowledged: dict[int, ReasonCode] = {}
        self._under_way: tuple[str, int] | None = None  # event id and packet id of what has no PUBACK yet
        self._client = self._make_client(box, host, port, secure, username, password)

    def __repr__(self) -> str:
        return f"MqttDelivery({self.name!r}, {self._where}, topic {self._topic!r})"

    def start(self, retry_now: Callable[[], None]) -> None:
        self._retry_now = retry_now
        self._client.loop_start()

    def deliver(self, letter: Letter) -> None:
        until_s = time.monotonic() + self._timeout_s
        with self._change:
            if not self._change.wait_for(lambda: self._connected, self._timeout_s):
                raise DeliveryError(f"{self._where}: {self._trouble}")
        # paho keeps what has no PUBACK yet and sends it again by itself in its next connection: to publish
        # it once more here would double it there.
        if self._under_way is None or self._under_way[0] != letter.event_id:
            self._under_way = (letter.event_id, self._publish(letter))
        packet = self._under_way[1]
        with self._change:
            if not self._change.wait_for(
                lambda: packet in self._acknowledged, max(0.0, until_s - time.monotonic())
            ):
                why = "connected" if self._connected else self._trouble
                raise DeliveryError(
                    f"{self._where} did not acknowledge an event within {self._timeout_s:g} s ({why})"
                )
            reason = self._acknowledged.pop(packet)
        self._under_way = None
        if reason.is_failure and reason.value not in _REFUSED:
            raise DeliveryError(f"{self._where} answered: {reason}", answered=True)
        with self._posting:
            if self._home is not None:
                self._post(self._home.take(letter))
        if reason.is_failure:
            raise RefusedError(f"{self._where} answered: {reason}")

    def close(self) -> None:
        if self._connected:
            said = self._client.publish(self._status_topic, "offline", qos=1, retain=True)
            with self._change:
                self._change.wait_for(lambda: said.mid in self._acknowledged, _GOODBYE_S)
        self._client.disconnect()
        self._client.loop_stop()

    def _publish(self, letter: Letter) -> int:
        with self._change:
            self._acknowledged.clear()
        topic = f"{self._topic}/{topic_part(letter.camera)}/event"
        sent = self._client.publish(topic, letter.body, qos=1)
        if sent.rc == load().MQTT_ERR_QUEUE_SIZE:
            raise DeliveryError(f"{self._where} has acknowledged none of the last {_QUEUED} messages")
        return sent.mid

    def _post(self, posts: Iterable[Post]) -> None:
        for topic, payload, retained in posts:
            # News with QoS 0: kept and sent again after a break, it would make somebody arrive twice or late.
            packet = self._client.publish(topic, payload, qos=int(retained), retain=retained).mid
            with self._change:
                if packet in self._acknowledged:
                    self._check(self._acknowledged[packet])
                else:
                    self._posts.add(packet)

    def _check(self, reason: ReasonCode) -> None:
        """Tells Home Assistant nothing any more where this user may not."""
        home = self._home
        if not reason.is_failure or home is None:
            return
        # mosquitto 2.0.11 breaks off the connection, too: told again, no event would get out.
        self._home = None
        log.warning(
            "%s does not let this user describe cameras to Home Assistant: %s. Allow it to write %s/# and "
            "%s/#, or set discovery_prefix to None",
            self._where,
            reason,
            home.prefix,
            self._topic,
        )

    def _make_client(
        self, box: str, host: str, port: int, secure: bool, username: str | None, password: str | None
    ) -> Client:
        mqtt = load()
        version = mqtt.MQTTv5 if self._protocol == "5" else mqtt.MQTTv311
        client: Client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=box, protocol=version)
        if secure:
            client.tls_set_context(ssl.create_default_context())
        if username is not None:
            client.username_pw_set(username, password)
        client.will_set(self._status_topic, "offline", qos=1, retain=True)
        client.max_queued_messages_set(_QUEUED)
        client.connect_timeout = self._timeout_s
        # paho doubles the pause from the first; by chance, so that boxes do not come back together.
        shortest_s, longest_s = random.uniform(0.5, 1.5), random.uniform(0.5, 1.0) * _RECONNECT_S
        client.reconnect_delay_set(shortest_s, longest_s)  # type: ignore[arg-type]  # it takes fractions
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.connect_async(host, port, keepalive=_KEEPALIVE_S)
        return client

    # paho calls the rest from its own thread.

    def _on_connect(
        self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        if reason.is_failure:
            hint = _OLDER if self._protocol == "5" and reason.getName() == _NOT_THIS_VERSION else ""
            self._note(connected=False, trouble=f"it refused the connection: {reason}{hint}")
            return
        with self._posting:  # before "online": what an earlier run left is not shown again
            if self._home is not None:
                self._post(self._home.standing())
                client.subscribe([(topic, 1) for topic in self._home.subscriptions()])
        client.publish(self._status_topic, "online", qos=1, retain=True)
        self._note(connected=True, trouble="")
        self._retry_now()

    def _on_connect_fail(self, client: Any, userdata: Any) -> None:
        self._note(connected=False, trouble="it cannot be reached")

    def _on_disconnect(
        self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        if self._connected:
            self._note(connected=False, trouble=f"the connection broke off: {reason}")
        elif not self._trouble.startswith("it refused"):
            hint = _OLDER if self._protocol == "5" else ""
            self._note(connected=False, trouble=f"it closed the connection without an answer{hint}")

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        if not (message.retain and message.payload):
            return
        with self._posting:
            post = None if self._home is None else self._home.outdated(message.topic)
            self._post([] if post is None else [post])

    def _on_publish(
        self, client: Any, userdata: Any, packet: int, reason: ReasonCode, properties: Any
    ) -> None:
        with self._change:
            self._acknowledged[packet] = reason
            self._change.notify_all()
            if packet in self._posts:
                self._posts.discard(packet)
                self._check(reason)

    def _note(self, *, connected: bool, trouble: str) -> None:
        with self._change:
            self._connected = connected
            self._trouble = trouble
            self._change.notify_all()


def load() -> Any:
    """paho's MQTT client. Raises MissingDependencyError."""
    try:
        import paho.mqtt.client as mqtt
    except ImportError as error:
        raise MissingDependencyError(f"MQTT needs paho ({error}): {install_command('mqtt')}") from error
    return mqtt


def _address(url: str) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InputError("the MQTT broker's address is no URL; expected mqtt://host:1883") from None
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise InputError(
            f"a broker's address is mqtt://host or mqtts://host, with or without :port, and nothing more; "
            f"got {parts.scheme or 'none'}://{parts.hostname or ''}"
        )
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"the address of the MQTT broker {parts.hostname} holds a user or a password; give them as "
            f"username and password"
        )
    secure = parts.scheme == "mqtts"
    return parts.hostname, port or (8883 if secure else 1883), secure


def _require_topic(name: str, topic: str) -> None:
    levels = topic.split("/")
    if not all(levels) or any(c in topic for c in "+#\0$") or len(topic.encode("utf-8", "replace")) > 1000:
        raise InputError(
            f"{name} is {topic!r}, expected levels such as edge-fr/gate: none empty, without + # $, at most "
            f"1000 bytes"
        )
