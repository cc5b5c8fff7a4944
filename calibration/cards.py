"""Puts what was measured into the card of a model file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx

from edge_fr.cards import read_card
from edge_fr.engine import CARD_KEY, ModelCard, card_path
from edge_fr.errors import InputError
from edge_fr.models import MODELS, SHIPPED


def own_file(model: str) -> Path:
    """The model's path; InputError for a named model, whose card is the package's."""
    if model in (*SHIPPED, *MODELS):
        raise InputError(
            f"the card is to be written into a file of your own, and {model} is a named model: copy it"
        )
    return Path(model)


def change_card(path: Path, **changes: Any) -> ModelCard:
    """Sets fields of an ONNX file's card, inside it or beside it, wherever the card is."""
    card = ModelCard(**{**vars(read_card(path)), **changes})
    model = onnx.load(path, load_external_data=False)
    inside = [entry for entry in model.metadata_props if entry.key == CARD_KEY]
    target = path if inside else card_path(path)
    part = target.with_name(f".{target.name}.part")
    if inside:
        inside[0].value = card.to_json()
        part.write_bytes(model.SerializeToString())
    else:
        part.write_text(card.to_json() + "\n", encoding="utf-8")
    os.replace(part, target)
    return card
