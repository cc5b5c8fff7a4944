"""The named models: what they are and where their files lie on this machine.

The recognizer and its gate were trained here and come with the package; `edge_fr.fetch` brings the
others into the cache, which is $EDGE_FR_CACHE, ~/.cache/edge-fr, or, where there is no home folder,
/var/cache/edge-fr. A machine without a network is given a copy of another machine's folder
`<cache>/models`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge_fr._files import cache_folder
from edge_fr.cards import file_digest, read_card
from edge_fr.engine import ModelCard
from edge_fr.errors import CardError, ModelError, ModelNotFoundError, install_command

SHIPPED = ("recognizer", "recognizer-gate")  # with the package
_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class NamedModel:
    """A model that `pull` can fetch: its card, the sha256 of its public file, and its tensors."""

    card: ModelCard
    zoo_folder: str
    file_name: str
    sha256: str
    shapes: Mapping[str, tuple[int | str, ...]]


class Row(NamedTuple):
    """One line of `edge-fr models list`; `licence` is of the weights."""

    name: str
    task: str
    licence: str
    present: bool
    path: Path


MODELS: dict[str, NamedModel] = {
    "yunet": NamedModel(
        card=ModelCard(
            name="yunet",
            task="detect",
            head="yunet",
            colour="BGR",
            input_range=(0.0, 255.0),
            weights_digest="sha256:65db9577437b79d909220a23b20aa1a9f5a02b0c203d7066ebf6b07aaf26f065",
            licence="MIT",
            training_data="WIDER FACE; the terms of its photographs are yours to check",
            notes="YuNet 2023-03 from the OpenCV model zoo; height and width in multiples of 32",
        ),
        zoo_folder="face_detection_yunet",
        file_name="face_detection_yunet_2023mar_int8bq.onnx",
        sha256="49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        shapes={
            "input": ("batch", 3, "height", "width"),
            **{
                f"{kind}_{stride}": ("batch", f"anchors_{stride}", channels)
                for stride in (8, 16, 32)
                for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
            },
        },
    ),
    "sface": NamedModel(
        card=ModelCard(
            name="sface",
            task="embed",
            colour="RGB",
            input_range=(0.0, 255.0),
            template="arcface-112",
            embedding_size=128,
            weights_digest="sha256:9da8b6404dc4faf65698bc8b3d21f5642c5523be67ead22f1f1247be3325194b",
            licence="Apache-2.0",
            training_data=(
                "not stated with the weights; the SFace paper (Zhong et al., 2021) trains on CASIA-WebFace, "
                "VGGFace2 and MS-Celeb-1M, whose terms are yours to check"
            ),
            impostor_scores={
                "5e-1": 0.1171,
                "1e-1": 0.2345,
                "1e-2": 0.3331,
                "1e-3": 0.4075,
                "1e-4": 0.4683,
                "1e-5": 0.5208,
            },
            impostor_bands={
                "alike": {"5e-1": 0.2675, "1e-1": 0.3331, "1e-2": 0.4074, "1e-3": 0.4682, "1e-4": 0.5208},
                "track ri>=0": {
                    "5e-1": 0.1443,
                    "1e-1": 0.264,
                    "1e-2": 0.3659,
                    "1e-3": 0.4422,
                    "1e-4": 0.5011,
                },
                "look ri>=0": {
                    "5e-1": 0.1115,
                    "1e-1": 0.2313,
                    "1e-2": 0.332,
                    "1e-3": 0.4073,
                    "1e-4": 0.4694,
                    "1e-5": 0.5209,
                },
            },
            continuity_scores={"ri>=0": 0.3019},
            genuine_scores={"ri>=0": 0.209},
            impostor_data=(
                "CelebA at half size (89x109), aligned by the eyes: one picture of each of 5,429 people, "
                "14,734,246 pairs, 60 more left out as one person under two names; 12 drawn looks of 26 px "
                "and more at 1,200 people; people alike are each one's nearest 10%"
            ),
            notes="SFace 2021-12 from the OpenCV model zoo",
        ),
        zoo_folder="face_recognition_sface",
        file_name="face_recognition_sface_2021dec_int8bq.onnx",
        sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
        shapes={"data": ("batch", 3, 112, 112), "fc1": ("batch", 128)},
    ),
}


def models_folder() -> Path:
    """Where the named models lie on this machine."""
    return cache_folder() / "models"


def offline() -> str:
    """How a machine without a network gets its models."""
    return (
        "Without a network: run `edge-fr models pull` on another machine, copy its folder "
        f"~/.cache/edge-fr/models to {models_folder()} here, and check the copy with `edge-fr models verify`"
    )


def resolve(name_or_path: str | Path) -> Path:
    """The file of a named model, or the given path as it is.

    ModelNotFoundError for a named model that was not pulled, and for a word that is neither a name
    nor an existing file.
    """
    name = str(name_or_path)
    if name in SHIPPED:
        path = _WEIGHTS / f"{name}.onnx"
        if not path.is_file():
            raise ModelNotFoundError(
                f"{path} is not there, though it comes with the package: {install_command()}"
            )
        return path
    if name in MODELS:
        path = pulled_path(name)
        if not os.path.isfile(path):
            raise ModelNotFoundError(
                f"{path} is not there; `edge-fr models pull {name}` fetches it. {offline()}"
            )
        return path
    path = Path(name_or_path)
    if not path.suffix and not path.exists():
        raise ModelNotFoundError(
            f"{name!r} is neither a file nor a named model, which are {', '.join((*SHIPPED, *MODELS))}; "
            f"`edge-fr models list` shows them"
        )
    return path


def resolve_gate(gate: str | Path | None, embedder: ModelCard) -> Path | None:
    """The gate's file: the one asked for, else the shipped one if it guards the weights of the embedder, in
    whatever precision; None for other weights."""
    if gate is not None:
        return resolve(gate)
    shipped = resolve(SHIPPED[1])
    return shipped if read_card(shipped).guards == embedder.weights_digest else None


def list_models() -> list[Row]:
    """The named models, and which of them are here."""
    shipped = ((name, resolve(name)) for name in SHIPPED)
    return [
        *(Row(name, c.task, c.licence, True, path) for name, path in shipped for c in (read_card(path),)),
        *(
            Row(name, model.card.task, model.card.licence, os.path.isfile(path), path)
            for name, model in MODELS.items()
            for path in (pulled_path(name),)
        ),
    ]


def verify(names: Collection[str] | None = None, *, models: Mapping[str, NamedModel] = MODELS) -> list[str]:
    """Reads the named files again and returns the names checked (None: those that were pulled, or all if
    none was, and those that came with the package).

    ModelError that names every file which is absent, differs from what was pulled or shipped, or carries
    the card of another version of edge_fr.
    """
    pulled = [name for name in models if os.path.isfile(pulled_path(name))]
    names = list(names or [*SHIPPED, *(pulled or models)])
    faults = {
        name: file_fault(resolve(name)) if name in SHIPPED else fault(named(name, models)) for name in names
    }
    lines = [f"\n  {name}: {what}" for name, what in faults.items() if what]
    if lines:
        raise ModelError(
            f"models are not usable:{''.join(lines)}\n`edge-fr models pull` fetches {', '.join(models)}; "
            f"what came with the package is mended by {install_command()}. {offline()}"
        )
    return names


def named(name: str, models: Mapping[str, NamedModel]) -> NamedModel:
    if name not in models:
        raise ModelNotFoundError(f"no model is called {name!r}; there are {', '.join(models)}")
    return models[name]


def pulled_path(name: str) -> Path:
    return models_folder() / f"{name}.onnx"


def fault(model: NamedModel) -> str | None:
    """What is wrong with the cached file, or None."""
    path = pulled_path(model.card.name)
    if wrong := file_fault(path):
        return wrong
    try:
        return None if read_card(path) == model.card else f"{path} has the card of another version of edge_fr"
    except CardError as error:
        return str(error)


def file_fault(path: Path) -> str | None:
    """How the file differs from the sha256 that is recorded beside it, or None."""
    record = path.with_suffix(".sha256")
    if not os.path.isfile(path):
        return f"{path} is not there"
    if not record.is_file():
        return f"{record} is not there; copy the folder whole"
    expected, got = record.read_text(encoding="utf-8", errors="replace").split(" ")[0], file_digest(path)
    return None if got == expected else f"{path} has sha256 {got}, expected {expected}"
