"""Who is before which camera, by what the events of its tracks tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Presence:
    """Follows the tracks of cameras from one event to the next.

    A name arrives at a camera with the first of its tracks there, and leaves with the last. What is no news
    any more (an event that waited for the network) only takes away: nobody arrives late.
    """

    def __init__(self) -> None:
        self._tracks: dict[
            str, dict[int, str | None]
        ] = {}  # by camera: who each track is, None without a name
        self._newest: dict[str, str] = {}  # by camera: who arrived last and is still there
        self._offline: set[str] = set()

    def take(self, event: Mapping[str, Any], *, news: bool) -> bool:
        """Takes in one event, as JSON values; says whether it is one to act on.

        That is every one that is news, but for the name of somebody who is there already.
        """
        camera, kind = str(event.get("camera")), str(event.get("type"))
        tracks = self._tracks.setdefault(camera, {})
        if kind in ("camera.online", "camera.offline"):
            tracks.clear()
            (self._offline.add if kind == "camera.offline" else self._offline.discard)(camera)
        track, identity = event.get("track_id"), event.get("identity")
        there = identity is not None and identity in tracks.values()
        if track is not None:
            if kind == "face.ended" or tracks.get(track) != identity:
                tracks.pop(track, None)
            if news and kind != "face.ended":
                tracks[track] = identity
                if identity is not None and not there:
                    self._newest[camera] = identity
        if self._newest.get(camera) not in tracks.values():
            self._newest.pop(camera, None)
        return news and not (there and kind == "face.identified")

    def at(self, camera: str) -> dict[str, Any]:
        """Who is there: `person` is who arrived last and has not left, else "somebody" or "nobody", or None
        while the camera is offline; `people` are all names, in the order of their arrival."""
        tracks = self._tracks.get(camera, {})
        anybody = "somebody" if tracks else "nobody"
        return {
            "person": None if camera in self._offline else self._newest.get(camera, anybody),
            "people": list(dict.fromkeys(name for name in tracks.values() if name is not None)),
        }

    def of(self, person: str) -> dict[str, Any]:
        """Whether that person is before any camera, ON or OFF, and before which."""
        cameras = [camera for camera, tracks in self._tracks.items() if person in tracks.values()]
        return {"state": "ON" if cameras else "OFF", "cameras": cameras}
