"""The options of a command that name its models, and the models opened as they say."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_fr.networks import Networks


MODEL_OPTIONS = ("detector", "embedder", "gate", "device", "threads")


def add_model_options(command: argparse.ArgumentParser) -> None:
    """What `open_models` reads; None where an option was not given."""
    command.add_argument("--detector", help="a model's name, an ONNX file or an engine (yunet)")
    command.add_argument("--embedder", help="a model's name, an ONNX file or an engine (recognizer)")
    command.add_argument(
        "--gate",
        help="the embedder's gate, likewise (recognizer-gate for files of recognizer, else none)",
    )
    command.add_argument("--device", choices=["cpu", "cuda"], help="(cpu)")
    command.add_argument("--threads", type=int, help="CPU threads of one model call (all cores)")
    add_unproven(command)


def add_unproven(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--unproven", action="store_true", help="take INT8 models that no comparison has passed"
    )


def open_models(arguments: argparse.Namespace) -> Networks:
    """The models that a command was given, where it wants them to run."""
    from edge_fr.networks import open_networks  # here, so that `edge-fr --help` needs none

    given = {name: getattr(arguments, name) for name in MODEL_OPTIONS if getattr(arguments, name) is not None}
    return open_networks(**given, unproven=arguments.unproven)
