"""How Home Assistant learns of a camera: the description of a sensor, published under a topic it watches."""

from __future__ import annotations

import hashlib
import json
import re


def topic_part(name: str) -> str:
    """The name as one level of a topic and part of an id: letters, digits, _ and -.

    A name that has to be changed for that gets a piece of its digest, so that no two become the same.
    """
    part = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if part == name and name:
        return part
    return f"{part}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def camera_sensor(
    prefix: str, box: str, topic: str, camera: str, *, state_topic: str, availability_topic: str
) -> tuple[str, str]:
    """The topic and the JSON that describe a camera as a sensor.

    Its state is who was seen last, or the event's type; its attributes are the whole event. `box` is an
    id without slashes for the machine, `topic` its name.
    """
    part = topic_part(camera)
    shown = camera.encode("utf-8", "backslashreplace").decode()
    description = {
        "name": shown,
        "unique_id": f"{box}-{part}",
        "state_topic": state_topic,
        # A state has at most 255 characters.
        "value_template": "{{ (value_json.identity or value_json.type)[:255] }}",
        "json_attributes_topic": state_topic,
        "availability_topic": availability_topic,
        "payload_available": "online",
        "payload_not_available": "offline",
        "force_update": True,  # the same person twice is two events
        "qos": 1,
        "icon": "mdi:face-recognition",
        "device": {"identifiers": [box], "name": topic, "model": "edge-fr"},
        "origin": {"name": "edge-fr"},
    }
    return f"{prefix}/sensor/{box}/{part}/config", json.dumps(description, ensure_ascii=False)
