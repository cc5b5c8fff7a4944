"""Face recognition at the edge: camera to identity event, and one object for kiosks.

Names load their module on first use, so `import edge_fr` costs numpy at the most.

Nothing here reports to anybody: from 1.29 on, onnxruntime tells its maker of each session, unless the
environment forbids it before it is imported. This forbids it, for this process and those it starts.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from edge_fr.decide import DecisionPolicy as DecisionPolicy
    from edge_fr.engine import ModelCard as ModelCard
    from edge_fr.engine import open_engine as open_engine
    from edge_fr.errors import EdgeFrError as EdgeFrError
    from edge_fr.events import JsonlSink as JsonlSink
    from edge_fr.gallery import Gallery as Gallery
    from edge_fr.networks import Networks as Networks
    from edge_fr.networks import open_networks as open_networks
    from edge_fr.pipeline import Pipeline as Pipeline
    from edge_fr.pipeline import open_pipeline as open_pipeline
    from edge_fr.quality import QualityPolicy as QualityPolicy
    from edge_fr.recognizer import Recognizer as Recognizer
    from edge_fr.runner import run as run
    from edge_fr.stream import open_source as open_source
    from edge_fr.structures import Decision as Decision
    from edge_fr.structures import Event as Event
    from edge_fr.structures import Face as Face
    from edge_fr.structures import Faces as Faces
    from edge_fr.structures import Frame as Frame

_HOME = {
    "Decision": "structures",
    "DecisionPolicy": "decide",
    "EdgeFrError": "errors",
    "Event": "structures",
    "Face": "structures",
    "Faces": "structures",
    "Frame": "structures",
    "Gallery": "gallery",
    "JsonlSink": "events",
    "ModelCard": "engine",
    "Networks": "networks",
    "Pipeline": "pipeline",
    "QualityPolicy": "quality",
    "Recognizer": "recognizer",
    "open_engine": "engine",
    "open_networks": "networks",
    "open_pipeline": "pipeline",
    "open_source": "stream",
    "run": "runner",
}
__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'edge_fr' has no attribute {name!r}")
    return getattr(importlib.import_module(f"edge_fr.{_HOME[name]}"), name)
