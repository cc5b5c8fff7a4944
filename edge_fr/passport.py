"""The passport of a built engine: what it was made of, by which library, and for which GPU.

An engine holds machine code for one GPU and one version of the library. Its passport lies beside it
(`face.engine` -> `face.engine.json`), so that an engine which is stale, copied from another machine or
damaged is told before the library sees it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from edge_fr.engine import ModelCard
from edge_fr.errors import EngineError

Library = Literal["tensorrt", "tensorrt_rtx"]
Range = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # least, best and greatest shape


class Gpu(NamedTuple):
    """A CUDA device; `driver` is the CUDA version of its driver. Two Orins differ in `multiprocessors`."""

    name: str
    capability: str
    multiprocessors: int
    driver: str


@dataclass(frozen=True)
class Passport:
    """What an engine was built from and for.

    `source` is the name of the ONNX file, `source_digest` of its bytes and its external weights,
    `engine_digest` of the engine file.
    `gpu` is None for an engine of tensorrt_rtx, which runs on any card that this library knows.
    `flags` are the choices handed to the builder; `profile` the shapes of each input.
    """

    source: str
    source_digest: str
    engine_digest: str
    card: ModelCard
    library: Library
    library_version: str
    gpu: Gpu | None
    flags: tuple[str, ...]
    profile: dict[str, Range]

    @property
    def key(self) -> str:
        """Equal for two builds that would give the same engine.

        The driver is left out: engines do not depend on it, and it changes with every system update.
        """
        gpu = self.gpu._replace(driver="") if self.gpu else None
        card = self.card.to_json()
        made_of = (self.source_digest, card, self.library, self.library_version, gpu)
        text = json.dumps([*made_of, sorted(self.flags), self.profile], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """The passport as indented JSON with sorted keys."""
        values = asdict(self)
        values["gpu"] = self.gpu._asdict() if self.gpu else None
        return json.dumps(values, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> Passport:
        """Reads `to_json`'s text; EngineError for anything else, CardError for its card."""
        try:
            values: dict[str, Any] = json.loads(text)
            if values.keys() != {f.name for f in fields(cls)}:
                raise ValueError(f"it has the fields {', '.join(values)}")
            if values["library"] not in get_args(Library):
                raise ValueError(f"its library is {values['library']!r}")
            values["card"] = ModelCard.from_json(json.dumps(values["card"]), where=where)
            values["gpu"] = Gpu(**values["gpu"]) if values["gpu"] else None
            values["flags"] = tuple(values["flags"])
            values["profile"] = {
                name: tuple(tuple(map(int, shape)) for shape in shapes)
                for name, shapes in values["profile"].items()
            }
            if any(len(shapes) != 3 for shapes in values["profile"].values()):
                raise ValueError("its profile has other than three shapes an input")
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise EngineError(f"{where} is no engine passport ({error}); {_REBUILD}") from error


_REBUILD = "build the engine here: edge-fr build MODEL.onnx -o MODEL.engine"


def passport_path(engine: Path) -> Path:
    """Where an engine's passport lies: `face.engine` -> `face.engine.json`."""
    return engine.with_name(engine.name + ".json")


def read_passport(engine: Path) -> Passport:
    """The passport beside an engine file. EngineError if there is none or it is damaged."""
    path = passport_path(engine)
    if not path.is_file():
        raise EngineError(f"{engine} has no passport at {path}; copy both files, or {_REBUILD}")
    return Passport.from_json(path.read_text(encoding="utf-8", errors="replace"), where=str(path))


def require_home(passport: Passport, *, version: str, gpu: Gpu, engine: Path) -> None:
    """EngineError that says what differs, unless the engine was built by this library for this GPU."""
    there: dict[str, object] = {passport.library: passport.library_version}
    here: dict[str, object] = {passport.library: version}
    if passport.gpu is not None:
        there |= {"GPU": passport.gpu.name, "compute capability": passport.gpu.capability}
        there |= {"multiprocessors": passport.gpu.multiprocessors}
        here |= {"GPU": gpu.name, "compute capability": gpu.capability}
        here |= {"multiprocessors": gpu.multiprocessors}
    differing = [
        f"{name} {there[name]}, here it is {here[name]}" for name in there if there[name] != here[name]
    ]
    if differing:
        library = "" if passport.library == "tensorrt" else f" --library {passport.library}"
        raise EngineError(
            f"{engine} was built for {'; '.join(differing)}; build it again on this machine: "
            f"edge-fr build {passport.source} -o {engine}{library}"
        )
