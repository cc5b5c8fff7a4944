"""A camera's own faces make its recognizer smaller: a video in, an INT8 model with a verdict on it out.

python samples/calibrate_own_camera.py door.mp4 door.int8.onnx   # for a CPU
python samples/calibrate_own_camera.py door.mp4 door.engine      # for TensorRT, on the device with the GPU
edge-fr run rtsp://camera/stream --gallery people.db --embedder door.engine --gate gate.engine --device cuda

The video should show 600 faces or more as they are on usual days. What was found is in door.int8.court.html.
A refused model opens with --unproven only, and no engine is built from it. `edge-fr build recognizer-gate`
makes the gate's engine.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # calibration/ is not installed

from calibration.__main__ import main as calibration
from edge_fr.cli import main as edge_fr


def main(video: str, output: str, recognizer: str = "recognizer", library: str = "tensorrt") -> int:
    out = Path(output)
    engine = out.suffix == ".engine"
    small = out.with_suffix(".int8.onnx") if engine else out
    target = "tensorrt" if engine else "cpu"
    failed = calibration(["court", recognizer, "--faces", video, "--target", target, "-o", str(small)])
    if engine and not failed:
        return edge_fr(["build", str(small), "-o", output, "--library", library])
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
