"""Face recognition at the edge: camera to identity event, and one object for kiosks.

Names load their module on first use, so `import edge_fr` costs numpy alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_fr.engine import ModelCard as ModelCard
    from edge_fr.engine import open_engine as open_engine
    from edge_fr.errors import EdgeFrError as EdgeFrError
    from edge_fr.structures import Decision as Decision
    from edge_fr.structures import Event as Event
    from edge_fr.structures import Faces as Faces
    from edge_fr.structures import Frame as Frame

_HOME = {
    "Decision": "structures",
    "EdgeFrError": "errors",
    "Event": "structures",
    "Faces": "structures",
    "Frame": "structures",
    "ModelCard": "engine",
    "open_engine": "engine",
}
__all__ = sorted(_HOME)  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'edge_fr' has no attribute {name!r}")
    return getattr(importlib.import_module(f"edge_fr.{_HOME[name]}"), name)
