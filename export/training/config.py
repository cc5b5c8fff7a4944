"""The one file that says how a training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from edge_fr.errors import InputError
from export.networks.recognizer import Parts
from export.training.data import Source
from export.training.degradations import Recipe


class Weights(BaseModel):
    """How much each loss counts. 0 leaves it out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    distillation: float = 10.0
    prototypes: float = 0.3
    local: float = 3.0  # distillation of the local branch alone
    attention: float = 1.0
    index: float = 2.0
    diversion: float = 0.1
    projection: float = 0.5
    diversity: float = 0.05


class Config(BaseModel):
    """A training run. Paths of sources and mask templates are relative to the data folder (`--data`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 2
    bf16: bool = True
    base: str = "sface"  # a name of edge_fr.models or a path
    begin: tuple[Config, ...] = ()  # start with the mean of what these made; in YAML files beside this one
    keep: float = 0.5  # how far the body goes from the base to that run's, if it gets adapters: see blend.py
    router_views: int = 16000  # to teach the router of those adapters on
    parts: Parts = Parts()
    squeezed: int = 128  # channels of each place of F4 that the tail keeps
    frozen_blocks: int = 1  # the stem and so many blocks stay as they are; -1: everything learns
    sources: list[Source]
    mask_templates: str | None = None
    recipe: Recipe = Recipe()
    steps: int
    batch: int = 64
    body_lr: float = 2.5e-4
    tail_lr: float = 5e-5  # 6272 inputs a row: a small step moves the embedding far
    heads_lr: float = 1e-3
    gate_lr: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.08  # share of the steps
    clip: float = 5.0  # gradient norm
    ema: float = 0.998
    prototype_scale: float = 32.0
    prototype_margin: float = 0.2
    diversion_from: float = 0.5  # share of the steps after which index diversion is on
    weights: Weights = Weights()
    index_views: int = 0  # to fit index and gate on in the end, see index_fit.py; 0: they stay
    checkpoint_every: int = 100
    judge_every: int = 0  # steps between judgements on the held-out people; 0: only at the end

    @model_validator(mode="after")
    def _parts_need(self) -> Config:
        if self.parts.adapters and not self.begin:
            raise ValueError("parts.adapters need a run to begin with; name it under `begin`")
        if self.parts.fusion and not self.parts.local:
            raise ValueError("parts.fusion fuses the local branch; set parts.local, too")
        return self


def read_config(path: Path) -> Config:
    """Reads a YAML config; an unknown key or a wrong value is an InputError that names it.

    `extends: other.yaml` takes everything from the file beside it but what this one states.
    """
    try:
        return Config.model_validate(_read(path))
    except (ValidationError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        stated = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"no config at {path}; export/configs holds those of the shipped weights") from error
    if not isinstance(stated, dict):
        raise InputError(f"{path}: expected keys and values, got {type(stated).__name__}")
    named = stated.get("begin")
    if isinstance(named, str):
        named = [named]
    if isinstance(named, list):
        stated["begin"] = [_read(path.parent / n) if isinstance(n, str) else n for n in named]
    if "extends" not in stated:
        return stated
    return _merged(_read(path.parent / stated.pop("extends")), stated)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            both[key] = _merged(below[key], above[key])
    return both
