"""What the soak runs over: drawn people before cameras that fail by turns, and who is enrolled meanwhile."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from mqtt_broker import Broker
from numpy.typing import NDArray
from webhook_receiver import Receiver

from edge_fr import Gallery, Recognizer
from samples import standoff_clip, standoff_people
from tests.fake_cameras import start_server

READERS = ("gstreamer", "opencv", "gstreamer")
LIVE = len(READERS)
TROUBLES = ("restart", "frozen", "receivers", "restart", "gallery")
_NEWCOMERS = 1_000_000  # where their seeds begin


class Cameras:
    """Clips, each of its own length and size; the first LIVE are served by RTSP servers of their own."""

    def __init__(self, folder: Path, count: int) -> None:
        self.clips = clips(folder, count)
        self.ports: list[int] = []
        self._servers: list[subprocess.Popen[str]] = []
        for clip in self.clips[:LIVE]:
            port, server = start_server("h264", "--file", str(clip))
            self.ports.append(port)
            self._servers.append(server)

    def sources(self) -> list[str]:
        """How each is written into a site's file. A camera is looked at five times a second, so that most
        frames are those of the recordings, which wait until there is time for them."""
        live = [
            f"{{source: rtsp://127.0.0.1:{port}/live, fps: 5, reader: {reader}}}"
            for port, reader in zip(self.ports, READERS, strict=True)
        ]
        return [*live, *(f"{{source: {clip}}}" for clip in self.clips[LIVE:])]

    def kill(self, number: int) -> None:
        self._servers[number].kill()
        self._servers[number].communicate()

    def freeze(self, number: int) -> None:
        self._servers[number].send_signal(signal.SIGSTOP)

    def start(self, number: int) -> None:
        """Starts it again at its port; one that is frozen is killed before."""
        self.kill(number)
        port = str(self.ports[number])
        _, self._servers[number] = start_server("h264", "--port", port, "--file", str(self.clips[number]))

    def close(self) -> None:
        for number in range(len(self._servers)):
            self.kill(number)


def clips(folder: Path, count: int) -> list[Path]:
    """So many videos of somebody who walks up and is gone for a while, over and over for four hours: the one
    who is enrolled, the one who is not, by turns, and every fourth time both, too small to be recognizable.

    Small pictures, so that very many of them are soon done; a face gets to be 36 pixels wide. Each has a
    pause of its own length: they do not run in step.
    """
    quiet = ["ffmpeg", "-loglevel", "error", "-y"]
    whole, made = folder / "standoff.mp4", []
    standoff_clip.render(whole)
    for number in range(count):
        once, clip = folder / f"once{number}.mp4", folder / f"camera{number}.mp4"
        view = ("crop=640:360:120:180,scale=192:108", "crop=640:360:520:180,scale=192:108", "scale=160:90")
        pause = f"tpad=stop_mode=add:stop_duration={1.5 + 0.3 * number:.1f}:color=gray"
        picture = f"{view[2 if number % 4 == 3 else number % 2]}:flags=area,setpts=0.6*PTS,fps=10,{pause}"
        encode = ["-c:v", "libx264", "-preset", "veryfast", "-g", "10", "-bf", "0", "-an"]
        subprocess.run([*quiet, "-i", whole, "-vf", picture, *encode, once], check=True)
        repeat = ["-stream_loop", "-1", "-i", once, "-t", "14400", "-c", "copy", clip]
        subprocess.run([*quiet, *repeat], check=True)
        made.append(clip)
    return made


def someone(number: int, size: int) -> NDArray[np.float32]:
    """Three templates of a person who never comes by."""
    rows = np.random.default_rng(number).standard_normal((3, size), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def enroll(path: Path, strangers: int) -> None:
    with Recognizer.open(path, create=True) as recognizer:
        recognizer.enroll("Eileen Collins", standoff_people.portrait(standoff_people.COLLINS))
    with Gallery.open(path, None) as gallery:
        for number in range(strangers):
            gallery.add(f"Stranger {number}", someone(number, gallery.card.embedding_size or 0))


class Trouble:
    """One trouble after the other: each begins with a sample and is over with the next one."""

    def __init__(self, cameras: Cameras, receiver: Receiver, broker: Broker, gallery: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._cameras, self._receiver, self._broker, self._gallery = cameras, receiver, broker, gallery
        self._turn = 0
        self._undo = ExitStack()

    def next(self) -> None:
        self.end()
        kind, number = TROUBLES[self._turn % len(TROUBLES)], self._turn % len(self._cameras.ports)
        if kind == "restart":
            self._undo.callback(self._cameras.start, number)
            self._cameras.kill(number)
        elif kind == "frozen":
            self._undo.callback(self._cameras.start, number)
            self._cameras.freeze(number)
        elif kind == "receivers":
            self._undo.callback(self._receiver.start)
            self._undo.callback(self._broker.start)
            self._receiver.stop()
            self._broker.stop()
        else:
            with Gallery.open(self._gallery, None) as gallery:
                size = gallery.card.embedding_size or 0
                gallery.remove(f"Stranger {self._turn // len(TROUBLES)}")
                gallery.add(f"Newcomer {self._turn}", someone(_NEWCOMERS + self._turn, size))
        self.counts[kind] += 1
        self._turn += 1

    def end(self) -> None:
        self._undo.close()
