"""Where the card of a model file is found: in the ONNX metadata, or in a file beside the model.

The metadata are read without the package onnx or a runtime, so that a device which runs built engines
needs neither.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from edge_fr._protobuf import fields
from edge_fr.engine import CARD_KEY, Head, ModelCard, Task, card_path
from edge_fr.errors import CardError, ModelNotFoundError

_METADATA = 14  # the field's number in ModelProto, see onnx.proto
_KEY, _VALUE = 1, 2  # of StringStringEntryProto


def read_card(path: Path) -> ModelCard:
    """The card of an ONNX file, from its metadata or else from the file `card_path(path)`.

    CardError if there is none, or if the one beside was written for other contents of the file.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"no model file at {path}")
    text = _metadata(path).get(CARD_KEY)
    if text is not None:
        return ModelCard.from_json(text, where=f"card in {path}")
    beside = card_path(path)
    if not beside.is_file():
        raise CardError(f"{path} has no model card, neither inside nor at {beside}; {_how_to_write(path)}")
    card = ModelCard.from_json(beside.read_text(encoding="utf-8", errors="replace"), where=str(beside))
    digest = f"sha256:{file_digest(path)}"
    if card.weights_digest != digest:
        raise CardError(
            f"{beside} was written for a file with {card.weights_digest}, but {path} now is {digest}; "
            f"{_how_to_write(path)}"
        )
    return card


def write_card(
    path: Path,
    *,
    task: Task,
    colour: Literal["BGR", "RGB"],
    input_range: tuple[float, float],
    licence: str,
    training_data: str,
    head: Head | None = None,
    embedding_size: int | None = None,
) -> Path:
    """Writes the card of a user's own ONNX file beside it, and returns where.

    The card's `weights_digest` is that of the whole file: it holds for this file alone.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"no model file at {path}")
    card = ModelCard(
        name=path.stem,
        task=task,
        colour=colour,
        input_range=input_range,
        weights_digest=f"sha256:{file_digest(path)}",
        licence=licence,
        training_data=training_data,
        head=head,
        template="arcface-112" if task == "embed" else None,
        embedding_size=embedding_size,
    )
    target = card_path(path)
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_text(card.to_json() + "\n", encoding="utf-8")
        os.replace(part, target)
    except OSError as error:
        raise CardError(f"{target} cannot be written ({error}); is the folder writable?") from error
    return target


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()


def _how_to_write(path: Path) -> str:
    return (
        f"say what it is, for example: edge-fr models card {path} --task embed --colour RGB "
        f'--input-range 0 255 --embedding-size 512 --licence "..." --training-data "..."'
    )


def _metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file: a walk over the outermost protobuf fields, past the graph."""
    try:
        entries = [value for number, value in fields(memoryview(path.read_bytes())) if number == _METADATA]
        pairs = [{key: _text(value) for key, value in fields(_message(entry))} for entry in entries]
        return {pair[_KEY]: pair[_VALUE] for pair in pairs}
    except (ValueError, KeyError) as error:
        raise CardError(f"{path} is damaged or not an ONNX file ({error})") from error


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError(f"the number {value} where a message belongs")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
