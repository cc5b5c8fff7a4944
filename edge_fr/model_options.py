"""The options of a command that name its models, and the models opened as they say."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_fr.networks import Networks


def add_model_options(command: argparse.ArgumentParser) -> None:
    """What `open_models` reads."""
    command.add_argument("--detector", default="yunet", help="a model's name or an ONNX file (%(default)s)")
    command.add_argument(
        "--embedder", default="recognizer", help="a model's name or an ONNX file (%(default)s)"
    )
    command.add_argument(
        "--gate",
        help="the embedder's gate, a name or an ONNX file (the shipped recognizer's own, else none)",
    )
    command.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="(%(default)s)")
    command.add_argument("--threads", type=int, help="CPU threads of one model call (all cores)")
    add_unproven(command)


def add_unproven(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--unproven", action="store_true", help="take INT8 models that no comparison has passed"
    )


def open_models(arguments: argparse.Namespace) -> Networks:
    """The models that a command was given, where it wants them to run."""
    from edge_fr.networks import open_networks  # here, so that `edge-fr --help` needs none

    return open_networks(
        detector=arguments.detector,
        embedder=arguments.embedder,
        gate=arguments.gate,
        device=arguments.device,
        threads=arguments.threads,
        unproven=arguments.unproven,
    )
