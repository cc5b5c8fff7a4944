"""A real MQTT broker on this machine, and a listener that misses nothing while it is connected again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from ports import free_port

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PATIENCE_S = 60.0  # far more than anything here takes, on a machine with other work


class Broker:
    """mosquitto with its state in a folder; it can be stopped, killed and started again at the same port."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true") -> None:
        self.port = free_port()
        self._settings = folder / "mosquitto.conf"
        # `user`: as root it would become another, who may not write into the folder.
        self._settings.write_text(
            f"listener {self.port} 127.0.0.1\npersistence true\npersistence_location {folder}/\n"
            "autosave_on_changes true\nautosave_interval 1\n"  # a subscription survives kill -9
            f"max_queued_messages 0\nuser root\nlog_dest none\n{settings}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._settings)])
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S).close()
                return
            except ConnectionRefusedError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """Ends it in an orderly way: it writes down what it has acknowledged."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9: what it had acknowledged and not passed on is gone."""
        self._end(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_S)
            self._process = None


class OldBroker:
    """A real broker behind a door that lets MQTT 3.1.1 in and no MQTT 5, as brokers did before 2019.

    `answers` False: it closes the connection instead of saying why, as some do.
    """

    def __init__(self, broker: Broker, *, answers: bool = True) -> None:
        self._broker, self._answers = broker, answers
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self._sockets = [self._server]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for it in self._sockets:
            with contextlib.suppress(OSError):
                it.shutdown(socket.SHUT_RDWR)
            it.close()

    def __enter__(self) -> OldBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                box, _ = self._server.accept()
                self._sockets.append(box)
                connect = box.recv(4096)
                if connect[connect.index(b"MQTT") + 4] != 4:  # the protocol's level
                    if self._answers:
                        box.sendall(bytes([0x20, 2, 0, 1]))  # CONNACK: unacceptable protocol version
                    box.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self._broker.port))
                self._sockets.append(there)
                there.sendall(connect)
                for a, b in ((box, there), (there, box)):
                    threading.Thread(target=self._pass_on, args=(a, b), daemon=True).start()

    def _pass_on(self, a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(4096):
                b.sendall(data)
            b.shutdown(socket.SHUT_RDWR)


class Message(NamedTuple):
    topic: str
    payload: str
    retained: bool


class Listener:
    """Hears everything that matches a topic, with a session that the broker keeps while it is away."""

    def __init__(self, port: int, topic: str = "#", client_id: str = "listener") -> None:
        self.messages: list[Message] = []
        self._heard = threading.Condition()
        self._subscribed = threading.Event()
        self._topic = topic
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, clean_session=False)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()
        if not self._subscribed.wait(PATIENCE_S):
            self.close()
            raise TimeoutError("the broker took no subscription")

    def wait_for(self, there: Callable[[list[Message]], bool], timeout_s: float = PATIENCE_S) -> None:
        with self._heard:
            if not self._heard.wait_for(lambda: there(self.messages), timeout_s):
                raise TimeoutError(f"did not hear it; heard {len(self.messages)}: {self.messages[-5:]}")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_connect(self, client: Any, *_: object) -> None:
        client.subscribe(self._topic, qos=1)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        with self._heard:
            self.messages.append(Message(message.topic, message.payload.decode(), message.retain))
            self._heard.notify_all()
