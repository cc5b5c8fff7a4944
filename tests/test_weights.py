"""A user's checkpoint becomes a network, or an error that says what does not fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import drawn_weights
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edge_fr.errors import InputError, ModelError
from export.networks.published import LAYOUTS, Whole
from export.weights import faults, fitting, load_run, load_whole, read_checkpoint

Weights = dict[str, Tensor]
SHAPES: dict[str, Callable[[], Weights]] = {
    **{f"iresnet{n}": lambda n=n: drawn_weights.iresnet(n, shapes_only=True) for n in (18, 34, 50, 100)},
    **{f"adaface-ir{n}": lambda n=n: drawn_weights.adaface(n, shapes_only=True) for n in (18, 34, 50)},
    "adaface-ir101": lambda: drawn_weights.adaface(100, shapes_only=True),
    "mobilefacenet": lambda: drawn_weights.mobilefacenet(shapes_only=True),
    "mobilefacenet-foamliu": lambda: drawn_weights.foamliu(shapes_only=True),
}


def crops(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 255


def load(name: str, weights: Weights, **pixels: object) -> Whole:
    return load_whole(name, replace(LAYOUTS[name], **pixels), weights)  # type: ignore[arg-type]


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return functional.batch_norm(x, mean, var, w.get(f"{name}.weight"), w.get(f"{name}.bias"))


def iresnet(w: Weights, pixels: Tensor) -> Tensor:
    """arcface_torch's forward pass, from the weights alone; a unit without `downsample` takes every place."""
    x = functional.conv2d(pixels, w["conv1.weight"], padding=1)
    x = functional.prelu(norm(w, "bn1", x), w["prelu.weight"])
    for stage in range(1, 5):
        for unit in range(30):
            name = f"layer{stage}.{unit}"
            if f"{name}.conv1.weight" not in w:
                break
            stride = 2 if unit == 0 else 1
            y = functional.conv2d(norm(w, f"{name}.bn1", x), w[f"{name}.conv1.weight"], padding=1)
            y = functional.prelu(norm(w, f"{name}.bn2", y), w[f"{name}.prelu.weight"])
            y = functional.conv2d(y, w[f"{name}.conv2.weight"], stride=stride, padding=1)
            if f"{name}.downsample.0.weight" in w:
                x = functional.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(w, f"{name}.downsample.1", x)
            else:
                x = x[:, :, ::stride, ::stride]
            x = x + norm(w, f"{name}.bn3", y)
    x = norm(w, "bn2", x).flatten(1)
    return norm(w, "features", functional.linear(x, w["fc.weight"], w["fc.bias"]))


def in_iresnet_s_names(w: Weights) -> Weights:
    """AdaFace's weights of IR-18 under arcface_torch's names."""
    stem = {"input_layer.0": "conv1", "input_layer.1": "bn1", "input_layer.2": "prelu"}
    tail = {"output_layer.0": "bn2", "output_layer.3": "fc", "output_layer.4": "features"}
    inner = ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")
    units = {
        **{
            f"body.{i}.res_layer.{k}": f"layer{i // 2 + 1}.{i % 2}.{inner[k]}"
            for i in range(8)
            for k in range(6)
        },
        **{
            f"body.{i}.shortcut_layer.{k}": f"layer{i // 2 + 1}.{i % 2}.downsample.{k}"
            for i in range(8)
            for k in range(2)
        },
    }
    names = {**stem, **units, **tail}
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in w.items()}


def mobilefacenet(w: Weights, pixels: Tensor) -> Tensor:
    """arcface_torch's forward pass, from the weights alone."""

    def block(name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        kernel = w[f"{name}.layers.0.weight"]
        groups = x.shape[1] // kernel.shape[1]
        x = functional.conv2d(x, kernel, stride=stride, padding=padding, groups=groups)
        x = norm(w, f"{name}.layers.1", x)
        slopes = w.get(f"{name}.layers.2.weight")
        return x if slopes is None else functional.prelu(x, slopes)

    def bottleneck(name: str, x: Tensor, stride: int) -> Tensor:
        x = block(f"{name}.layers.1", block(f"{name}.layers.0", x), stride, padding=1)
        return block(f"{name}.layers.2", x)

    x = block("layers.1", block("layers.0", pixels, 2, padding=1), padding=1)
    for layer, count in ((3, 4), (5, 6), (7, 2)):
        x = bottleneck(f"layers.{layer - 1}", x, 2)
        for unit in range(count):
            x = x + bottleneck(f"layers.{layer}.layers.{unit}", x, 1)
    x = block("features.layers.0", block("conv_sep", x)).flatten(1)
    return norm(w, "features.layers.3", functional.linear(x, w["features.layers.2.weight"]))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_published_names_and_shapes_fit_one_network_and_no_other(name: str) -> None:
    weights = SHAPES[name]()
    assert faults(LAYOUTS[name], weights) == ([], [], [])
    assert fitting(weights) == [name]


def test_an_iresnet_answers_what_its_authors_forward_pass_answers() -> None:
    weights = drawn_weights.iresnet(18, 16)
    whole = load("iresnet18", weights)
    with torch.inference_mode():
        expected = iresnet(weights, (crops() / 255 - 0.5) / 0.5)
        # Values reach 10; single precision in another order.
        torch.testing.assert_close(whole(crops()), expected, rtol=1e-4, atol=1e-4)


def test_an_adaface_network_takes_rgb_and_answers_what_its_authors_answers_for_bgr() -> None:
    weights = drawn_weights.adaface(18, 16)
    whole = load("adaface-ir18", {"epoch": 3, "state_dict": {f"model.{k}": v for k, v in weights.items()}})
    with torch.inference_mode():
        expected = iresnet(in_iresnet_s_names(weights), ((crops() / 255 - 0.5) / 0.5).flip(1))
        torch.testing.assert_close(whole(crops()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_mobilefacenet_of_either_width_answers_what_its_authors_forward_pass_answers(scale: int) -> None:
    weights = drawn_weights.mobilefacenet(scale, 16)
    whole = load("mobilefacenet", weights)
    with torch.inference_mode():
        expected = mobilefacenet(weights, (crops() / 255 - 0.5) / 0.5)
        torch.testing.assert_close(whole(crops()), expected, rtol=1e-4, atol=1e-4)


def test_other_pixels_than_the_authors_are_taken_in_the_order_they_are_stated_in() -> None:
    weights = drawn_weights.mobilefacenet(1, 16)
    mean, std = (1.0, 2.0, 3.0), (50.0, 100.0, 200.0)
    whole = load("mobilefacenet", weights, colour="BGR", mean=mean, std=std)
    pixels = (crops().flip(1) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.inference_mode():
        torch.testing.assert_close(whole(crops()), mobilefacenet(weights, pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {f"module.{key}": value for key, value in w.items()},
        lambda w: {"epoch": 7, "state_dict": w},
        lambda w: {"state_dict_backbone": w, "state_dict_softmax_fc": {"weight": torch.zeros(9, 16)}},
        lambda w: {key: value for key, value in w.items() if not key.endswith("num_batches_tracked")},
    ],
    ids=["bare", "module.", "state_dict", "with a classifier", "without counters"],
)
def test_weights_are_found_where_trainers_put_them(wrap: Callable[[Weights], dict[str, object]]) -> None:
    weights = drawn_weights.foamliu(16)
    whole = load("mobilefacenet-foamliu", wrap(weights))  # type: ignore[arg-type]
    torch.testing.assert_close(
        whole.state_dict()["tail.conv3.weight"], weights["conv3.weight"], rtol=0, atol=0
    )
    assert not whole.training


def test_keys_and_shapes_that_do_not_fit_are_named() -> None:
    weights = drawn_weights.foamliu(16)
    del weights["features.3.conv.2.weight"]
    weights["extra.weight"] = torch.zeros(2)
    weights["bn.bias"] = torch.zeros(3)
    expected = (
        r"the weights do not fit mobilefacenet-foamliu: 1 missing \(features\.3\.conv\.2\.weight\); "
        r"1 unexpected \(extra\.weight\); 1 of another shape \(bn\.bias \(3,\), not \(16,\)\)$"
    )
    with pytest.raises(ModelError, match=expected):
        load("mobilefacenet-foamliu", weights)


def test_the_network_that_the_weights_are_of_is_named_when_another_was_asked_for() -> None:
    weights = SHAPES["iresnet34"]()
    with pytest.raises(
        ModelError, match=r"do not fit iresnet50: 120 missing \(.*, \.\.\.\); all of them fit iresnet34"
    ):
        load("iresnet50", weights)
    with pytest.raises(ModelError, match=r"holds no weights by name, but epoch"):
        load("iresnet50", {"epoch": 3})  # type: ignore[dict-item]


class RunsCode:
    """What a hostile checkpoint holds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_runs_code_is_refused_and_its_code_not_run(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "face.pt", tmp_path / "was_here"
    state = {"state_dict": drawn_weights.foamliu(16), "callbacks": RunsCode(mark)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ModelError, match=r"face\.pt holds more than weights \(posix\.mkdir\).*could run code"
    ):
        read_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_checkpoint_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "face.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"face\.pt is damaged or no checkpoint"):
        read_checkpoint(tmp_path / "face.pt")


def test_weights_that_are_not_there_or_not_by_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no weights at .*face\.pt, expected a file that torch\.save wrote"):
        read_checkpoint(tmp_path / "face.pt")
    torch.save(torch.zeros(3), tmp_path / "face.pt")
    with pytest.raises(ModelError, match="holds a Tensor, expected weights by name"):
        read_checkpoint(tmp_path / "face.pt")


def test_a_published_checkpoint_is_no_run_of_ours(tmp_path: Path) -> None:
    torch.save(drawn_weights.foamliu(16), tmp_path / "face.pt")
    with pytest.raises(ModelError, match="was not written by `python -m export train`"):
        load_run(tmp_path / "face.pt")
