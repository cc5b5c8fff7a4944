"""The models of a pipeline, opened once and shared by all its cameras."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_fr.cores import core_limit
from edge_fr.detect import Detector
from edge_fr.embed import Embedder
from edge_fr.engine import Device, Engine, open_engine
from edge_fr.models import resolve, resolve_gate
from edge_fr.recognizability import RecognizabilityNetwork
from edge_fr.structures import CROP_SIDE_PX
from edge_fr.timing import StageTimes, TimedEngine

_WEAK = 0.4  # too weak a face to begin a track still continues one; the gate refuses it all the same


@dataclass(frozen=True, slots=True)
class Networks:
    """A detector, an embedder, and the network of its gate, if it has one; `times` has theirs as well."""

    detector: Detector
    embedder: Embedder
    recognizability: RecognizabilityNetwork | None
    times: StageTimes

    def run_once(self) -> None:
        """Runs every model on something empty: the first run is a slow one."""
        self.detector.detect(np.zeros((480, 640, 3), np.uint8))
        blank = np.zeros((1, CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8)
        self.embedder.embed(blank)
        if self.recognizability is not None:
            self.recognizability(blank)


def open_networks(
    *,
    detector: str | Path = "yunet",
    embedder: str | Path = "recognizer",
    gate: str | Path | None = None,
    device: Device = "cpu",
    threads: int | None = None,
    unproven: bool = False,
) -> Networks:
    """Opens models by their names or files; several pipelines and recognizers may share them, also those of
    other threads, which then wait for each other.

    `gate` is the network that keeps faces from the embedder which it would make nothing of (None: the
    shipped one for the shipped recognizer, for smaller files and engines of it, too; another embedder does
    without). `unproven` takes INT8 models whose card has no passing verdict.
    """
    if (cores := core_limit()) is not None:
        cv2.setNumThreads(min(cores, cv2.getNumThreads()))  # of a quota of version 2 it does not know
    times = StageTimes()

    def opened(model: str | Path) -> Engine:
        engine = open_engine(resolve(model), device=device, threads=threads, unproven=unproven)
        return TimedEngine(engine, times)

    embed = Embedder(opened(embedder))
    guard = resolve_gate(gate, embed.card)
    return Networks(
        Detector(opened(detector), score_threshold=_WEAK),
        embed,
        None if guard is None else RecognizabilityNetwork(opened(guard), embed.card),
        times,
    )
