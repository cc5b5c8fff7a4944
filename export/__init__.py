"""From a paper to an ONNX file: networks, training and export. Workstation only, needs torch."""

import edge_fr  # noqa: F401  forbids onnxruntime's telemetry, before a library loads it
