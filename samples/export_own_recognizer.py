"""Your own iResNet, AdaFace or MobileFaceNet checkpoint becomes a recognizer for `edge-fr run --embedder`.

    python samples/export_own_recognizer.py adaface-ir50 adaface.ckpt face.onnx

`python -m export onnx` does the same. Here you see how a checkpoint with other key names is renamed first:
the MobileFaceNet of TreB1eN/InsightFace_Pytorch, which many took over, to that of insightface.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # export/ is not installed

from export.networks.published import LAYOUTS
from export.to_onnx import Origin, write_published
from export.weights import read_checkpoint

RENAMED = {  # in this order: first the layers of the whole, then what is in them
    r"^conv1\.": "layers.0.",
    r"^conv2_dw\.": "layers.1.",
    r"^conv_23\.": "layers.2.",
    r"^conv_3\.model\.": "layers.3.layers.",
    r"^conv_34\.": "layers.4.",
    r"^conv_4\.model\.": "layers.5.layers.",
    r"^conv_45\.": "layers.6.",
    r"^conv_5\.model\.": "layers.7.layers.",
    r"^conv_6_sep\.": "conv_sep.",
    r"^conv_6_dw\.": "features.layers.0.",
    r"^linear\.": "features.layers.2.",
    r"^bn\.": "features.layers.3.",
    r"\.conv\.(?=conv|bn|prelu)": ".layers.0.",
    r"\.conv_dw\.": ".layers.1.",
    r"\.project\.": ".layers.2.",
    r"\.conv\.": ".layers.0.",
    r"\.bn\.": ".layers.1.",
    r"\.prelu\.": ".layers.2.",
}


def renamed(key: str) -> str:
    for old, new in RENAMED.items():
        key = re.sub(old, new, key)
    return key


if __name__ == "__main__":
    name, checkpoint, output = sys.argv[1:]
    weights = read_checkpoint(Path(checkpoint))
    if "conv_6_sep.conv.weight" in weights:
        weights = {renamed(key): value for key, value in weights.items()}
    # Did you train with other pixels than the authors? dataclasses.replace(LAYOUTS[name], colour="BGR")
    layout = LAYOUTS[name]
    origin = Origin(name="my recognizer", licence="ours alone", training_data="our own photographs")
    print(
        write_published(name, layout, weights, Path(output), origin),
        "takes RGB; learned from",
        layout.pixels(),
    )
