"""From a paper to an ONNX file: networks, training and export. Workstation only, needs torch."""
