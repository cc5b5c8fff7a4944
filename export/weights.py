"""A checkpoint of the user's becomes a network: read without running what is in it, and fitted key by key."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from edge_fr.errors import InputError, ModelError
from export.networks.gate import Gate
from export.networks.pixels import Pixels
from export.networks.published import LAYOUTS, Layout, Weights, Whole
from export.networks.recognizer import Recognizer
from export.training.config import Config
from export.training.start import load_trained

Checkpoint = Mapping[str, object]
SHOWN = 3  # of the keys that do not fit, of each kind
_COUNTER = "num_batches_tracked"  # of batches seen in training; some checkpoints leave it out


def read_checkpoint(path: Path) -> Checkpoint:
    """What `torch.save` wrote, tensors and plain values only; of a run's folder, its finished weights.

    ModelError for a file that would run code when it is loaded, and for one that is no checkpoint.
    """
    path = path / "recognizer.pt" if path.is_dir() else path
    if not path.is_file():
        raise InputError(
            f"no weights at {path}, expected a file that torch.save wrote or the folder of a run"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of, it then refuses
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        raise ModelError(
            f"{path} holds more than weights ({code[1] if code else 'a pickled object'}), and loading that "
            f"could run code. If you trust where it comes from, keep its weights alone: python -c "
            f"\"import torch; d = torch.load('{path}', weights_only=False); "
            f"torch.save(d.get('state_dict', d) if isinstance(d, dict) else d.state_dict(), 'weights.pt')\""
        ) from error
    except (RuntimeError, EOFError, LookupError, ValueError) as error:
        reason = str(error).split(". ")[0] or type(error).__name__
        raise ModelError(
            f"{path} is damaged or no checkpoint that torch.save wrote ({reason}); "
            f"expected a .pt or .pth of weights"
        ) from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{path} holds a {type(found).__name__}, expected weights by name")
    return cast(Checkpoint, found)


def is_run(checkpoint: Checkpoint) -> bool:
    """Whether `python -m export train` wrote it."""
    return {"config", "state"} <= checkpoint.keys()


def load_run(path: Path, *, visibility: bool = False) -> tuple[Recognizer, Gate, Config]:
    """Recognizer, gate and config of a finished run, from its folder or its `recognizer.pt`.

    InputError if it is not finished, ModelError for other weights.
    """
    if not is_run(read_checkpoint(path)):
        raise ModelError(f"{path} was not written by `python -m export train`; name the recognizer it is of")
    try:
        return load_trained(path / "recognizer.pt" if path.is_dir() else path, visibility=visibility)
    except (ValidationError, RuntimeError) as error:
        raise ModelError(
            f"{path} is a run of another version of this code ({error}); train it again"
        ) from error


class Faults(NamedTuple):
    """What of a checkpoint does not fit a network, by key."""

    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]

    def __str__(self) -> str:
        kinds = zip(("missing", "unexpected", "of another shape"), self, strict=True)
        return "; ".join(f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in kinds if keys)

    def number(self) -> int:
        return sum(map(len, self))


def faults(layout: Layout, weights: Weights) -> Faults:
    """What of `weights`, under their own names, does not fit the network of `layout`."""
    with torch.device("meta"):  # names and shapes alone
        whole = layout.build(weights, _size(layout, weights))
    state = whole.state_dict()
    expected = {key: tuple(state[full].shape) for full, key in _names(whole).items()}
    found = {key: tuple(value.shape) for key, value in weights.items() if not key.endswith(_COUNTER)}
    both = [key for key in expected if key in found]
    return Faults(
        missing=[key for key in expected if key not in found],
        unexpected=[key for key in found if key not in expected],
        reshaped=[f"{key} {found[key]}, not {expected[key]}" for key in both if found[key] != expected[key]],
    )


def fitting(checkpoint: Checkpoint) -> list[str]:
    """The names of the layouts whose keys and shapes are those of the checkpoint: one, or none."""
    return [
        name
        for name, layout in LAYOUTS.items()
        if any(
            layout.size_key in weights and faults(layout, weights).number() == 0
            for weights in _candidates(layout, checkpoint)
        )
    ]


def load_whole(name: str, layout: Layout, checkpoint: Checkpoint) -> Whole:
    """The network of `layout` with its weights, in eval mode; it takes RGB crops, whatever it learned from.

    The weights may lie in the checkpoint itself or one level down, as trainers save them, and their names
    may share a beginning (`module.`, `model.`). ModelError that names the first keys that do not fit.
    """
    tried = [(faults(layout, weights), weights) for weights in _candidates(layout, checkpoint)]
    if not tried:
        raise ModelError(f"the checkpoint holds no weights by name, but {_some(list(map(str, checkpoint)))}")
    wrong, weights = min(tried, key=lambda pair: pair[0].number())
    if wrong.number():
        others = fitting(checkpoint)
        hint = f"; all of them fit {others[0]}" if others else ""
        raise ModelError(f"the weights do not fit {name}: {wrong}{hint}")
    whole = layout.build(weights, _size(layout, weights))
    whole.load_state_dict({full: weights[key] for full, key in _names(whole).items()}, strict=False)
    mean, std = layout.mean, layout.std
    if layout.colour == "BGR":
        first = next(module for module in whole.body.modules() if isinstance(module, nn.Conv2d))
        first.weight.data = first.weight.data.flip(1)
        mean, std = mean[::-1], std[::-1]
    whole.body.pixels = Pixels(mean, std)
    return whole.eval()


def _size(layout: Layout, weights: Weights) -> int:
    """The embedding's size; 512 where the weight that tells it is missing, which is a fault of its own."""
    found = weights.get(layout.size_key)
    return 512 if found is None or found.ndim == 0 else len(found)


def _names(whole: Whole) -> dict[str, str]:
    """Every weight's name in `whole`, and in a checkpoint, which knows of no body and tail."""
    return {full: full.partition(".")[2] for full in whole.state_dict() if not full.endswith(_COUNTER)}


def _candidates(layout: Layout, checkpoint: Checkpoint) -> Iterator[Weights]:
    """The groups of weights in a checkpoint, without what all their names begin with."""
    for group in (checkpoint, *checkpoint.values()):
        if not isinstance(group, Mapping):
            continue
        weights = {str(key): value for key, value in group.items() if isinstance(value, Tensor)}
        if not weights:
            continue
        starts = [key.removesuffix(layout.size_key) for key in weights if key.endswith(layout.size_key)]
        for start in [start for start in starts if not start or start.endswith(".")] or [""]:
            yield {key.removeprefix(start): v for key, v in weights.items() if key.startswith(start)}


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
