"""What a site is, in one YAML file: cameras, people, models, where events go.

`read_site` checks it whole before anything is opened; what nobody knows is an error that names it.
`python -m edge_fr.configuration` prints the JSON schema, which editors complete and check by.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from edge_fr.errors import InputError, MissingDependencyError, install_command
from edge_fr.references import expand, is_reference, mask

try:
    import yaml  # type: ignore[import-untyped]
    from pydantic import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        ValidationError,
        model_validator,
    )
except ImportError as error:
    raise MissingDependencyError(
        f"a configuration file needs pydantic and PyYAML ({error}); install them with: "
        f"{install_command('site')}"
    ) from error

_PASSWORD = re.compile(r"[a-z0-9+.-]+://[^@/:]*:(?P<password>[^@]*)@", re.IGNORECASE)
_NAME = re.compile(r"[^/+#\s\x00-\x1f]+")  # also an MQTT topic's level

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0, le=1)]


def _by_reference(value: str) -> str:
    if not is_reference(value):
        raise ValueError("a secret stands elsewhere: write ${env:NAME} or ${file:/path}")
    return value


def _no_password(value: str) -> str:
    match = _PASSWORD.match(mask(value))
    if match and match["password"].strip("\0"):
        raise ValueError(
            "the password in the address stands elsewhere: write ${env:NAME} or ${file:/path} for it"
        )
    return value


Secret = Annotated[str, AfterValidator(_by_reference)]
Address = Annotated[str, Field(min_length=1), AfterValidator(_no_password)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelFiles(_Part):
    """The models, by their names or files, and where they run."""

    detector: str = "yunet"
    embedder: str = "recognizer"
    gate: str | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Annotated[int, Field(ge=1)] | None = None


class Look(_Part):
    """How a camera is looked at; `defaults` holds what every camera has that does not say otherwise."""

    fps: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="the most frames a second that are looked at"
    )
    region: tuple[Share, Share, Share, Share] | None = Field(
        default=None, description="left, top, right, bottom in shares of the picture"
    )
    tiles: Annotated[int, Field(ge=0, le=64)] | None = Field(
        default=None,
        description="parts of 426 x 426 px that are looked at enlarged in every frame, for faces from 12 px "
        "in large pictures; each costs what a picture of 640 x 640 does. 0: none",
    )
    min_side_px: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="smaller faces are not recognized"
    )
    min_recognizability: Share | None = None
    target_fpir: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="share of strangers that may be given a name"
    )
    decide_within_s: Seconds | None = None
    reader: Literal["auto", "opencv", "gstreamer"] | None = None
    stale_after_s: Seconds | None = None
    max_delay_s: Seconds | None = Field(
        default=None, description="longest pause before a camera is tried again"
    )


def _aspect(value: object) -> object:
    """YAML 1.1 takes 16:9 for a number to the base of 60."""
    return f"{value // 60}:{value % 60}" if type(value) is int and value >= 60 else value


Aspect = Annotated[str, BeforeValidator(_aspect), Field(pattern=r"^[1-9]\d{0,4}:[1-9]\d{0,4}$")]


class CameraSite(Look):
    """One camera."""

    source: Address = Field(
        description="rtsp(s)://..., http(s)://... (MJPEG, HLS), csi://0, v4l2:///dev/video0, a video, test://"
    )
    certificate: Path | None = Field(
        default=None,
        description="PEM file of a camera that made its own certificate; nothing else is trusted",
    )
    rotate: Literal[0, 90, 180, 270] = Field(
        default=0,
        description="degrees clockwise by which its pictures are turned; regions come after",
    )
    flip: bool = Field(default=False, description="its pictures are mirrored, before they are turned")
    aspect: Aspect | None = Field(
        default=None,
        description="width:height of its pictures as they are to be seen, if it tells no or a wrong one",
    )


class Webhook(_Part):
    url: str
    secret: Secret


class Mqtt(_Part):
    url: str = Field(description="mqtt://host or mqtts://host")
    topic: str = Field(description="of this box alone, such as edge-fr/gate")
    username: str | None = None
    password: Secret | None = None
    protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(str)] = Field(
        default="5", description="3.1.1 for a broker that does not speak MQTT 5"
    )
    discovery_prefix: str | None = Field(
        default="homeassistant",
        description="where Home Assistant looks for cameras; null: it is told nothing",
    )
    people: tuple[str, ...] = Field(
        default=(), description="who gets a sensor of their own in Home Assistant, by names in the gallery"
    )


class Events(_Part):
    """Where events go. Webhook and MQTT need `outbox`, the file in which events wait for them."""

    jsonl: Path | None = None
    outbox: Path | None = None
    outbox_max_bytes: Annotated[int, Field(ge=1 << 20)] = 256 << 20
    webhook: Webhook | None = None
    mqtt: Mqtt | None = None
    candidates: bool = Field(
        default=False, description="tell of each event also the people below the threshold, up to five"
    )
    max_age_s: Seconds = Field(default=5.0, description="older frames of a live camera are not looked at")

    @model_validator(mode="after")
    def _outbox_for_receivers(self) -> Events:
        if (self.webhook or self.mqtt) and self.outbox is None:
            raise ValueError("webhook and mqtt need outbox, the file in which events wait for them")
        if self.outbox is not None and not (self.webhook or self.mqtt):
            raise ValueError("outbox without webhook or mqtt would fill for nobody; use jsonl")
        return self


class Metrics(_Part):
    """Prometheus metrics and /healthz; on another address than this machine's own, anybody may read them."""

    address: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 9464


class Site(_Part):
    """A whole site."""

    gallery: Path | None = Field(
        default=None, description="the people database; without one everybody is unknown"
    )
    models: ModelFiles = ModelFiles()
    defaults: Look = Look()
    cameras: Annotated[dict[str, CameraSite], Field(min_length=1)]
    events: Events = Events()
    metrics: Metrics | None = None

    @model_validator(mode="after")
    def _camera_names(self) -> Site:
        for name in self.cameras:
            if not _NAME.fullmatch(name):
                raise ValueError(f"camera name {name!r} holds a space, '/', '+' or '#'")
        return self

    def look(self, camera: str) -> Look:
        """How that camera is looked at, with the defaults where it says nothing."""
        own = {key: getattr(self.cameras[camera], key) for key in Look.model_fields}
        return Look(
            **{key: getattr(self.defaults, key) if value is None else value for key, value in own.items()}
        )


def read_site(path: Path) -> Site:
    """Reads a site's file; paths in it are relative to it. InputError says every fault by its place.

    References stay as they are written; `secret` resolves one when it is needed.
    """
    try:
        stated = yaml.load(path.read_text(encoding="utf-8"), Loader=_OneOfEach)
    except FileNotFoundError as error:
        raise InputError(f"no configuration at {path}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as YAML: {_yaml_fault(error)}") from None
    if not isinstance(stated, dict):
        raise InputError(f"{path}: expected keys and values, got {type(stated).__name__}")
    try:
        return Site.model_validate(stated)
    except ValidationError as error:
        raise InputError("\n".join([f"{path} cannot be used:", *_faults(error)])) from error


def secret(reference: str, where: str) -> str:
    """What a reference stands for; InputError that names the place and never the secret."""
    return expand(reference, where)


def schema() -> dict[str, Any]:
    """The JSON schema of a site's file."""
    return Site.model_json_schema()


class _OneOfEach(yaml.SafeLoader):  # type: ignore[misc]
    """YAML whose maps name each key once: the second would silently replace the first."""


def _mapping(loader: _OneOfEach, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is no text", node.start_mark
            )
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} is there twice", node.start_mark)
    return dict(
        zip(keys, (loader.construct_object(value, deep=True) for _, value in node.value), strict=True)
    )


_OneOfEach.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _yaml_fault(error: Exception) -> str:
    """What is wrong, and where; the text there is not repeated, it may be a secret."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark
    ours = isinstance(error, yaml.constructor.ConstructorError) and "tag" not in error.problem
    problem = error.problem if ours else re.sub(r"(['\"]).{2,}\1", "***", error.problem or "")
    return problem + (f", line {mark.line + 1}, column {mark.column + 1}" if mark else "")


def _faults(error: ValidationError) -> list[str]:
    """One line for each fault; what was written is not repeated, it may be a secret."""
    return [
        f"  {'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors(include_input=False, include_url=False)
    ]


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
