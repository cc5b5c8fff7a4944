"""The networks that a camera runs on, in each precision, through the real parser and builder of TensorRT for
RTX. What they are calibrated on does not matter to either: drawn pictures do."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import drawn_people
import pytest

from calibration.__main__ import main
from edge_fr.build import Built, build
from edge_fr.cards import read_card
from edge_fr.models import resolve
from tests.bench.plans import kernel_sources

NETWORKS = ("recognizer", "recognizer-gate", "yunet")
PRECISIONS = ("fp32", "fp16", "int8")
Engines = Callable[[str, str], Built]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    """Gives the engine of a network in a precision, which is built when it is first asked for."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    folder = tmp_path_factory.mktemp("engines")
    pictures = folder / "pictures"
    for i in range(30):
        drawn_people.write(pictures / f"{i:02d}.png", f"person {i}", 1)

    @cache
    def engine(name: str, precision: str) -> Built:
        file = resolve(name)
        if precision != "fp32":
            file = folder / f"{name}.{precision}.onnx"
            asked = ["--precision", precision, "--target", "tensorrt", "-o", str(file)]
            given = ["--faces", str(pictures), "--aligned", "--size", "160x160"]
            assert main(["quantize", name, *asked, *given]) == 0
        return build(file, folder / f"{name}.{precision}.engine", library="tensorrt_rtx", unproven=True)

    return engine


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_parsed_and_built_in_every_precision(
    engines: Engines, name: str, precision: str
) -> None:
    made = engines(name, precision)
    assert made.passport.card.precision == precision
    assert made.passport.card.weights_digest == read_card(resolve(name)).weights_digest
    assert "STRONGLY_TYPED" in made.passport.flags  # the file's own precision, none that the builder chose
    assert made.path.stat().st_size > 0


# What is left of an engine without the text of its kernels is the weights, a scale and a bias for each
# channel, and the layers' names: of the small networks' engines the latter are a good part.
@pytest.mark.parametrize(
    ("name", "precision", "most"),
    [
        ("recognizer", "fp16", 0.55),
        ("recognizer", "int8", 0.35),
        ("recognizer-gate", "fp16", 0.6),
        ("recognizer-gate", "int8", 0.5),
        ("yunet", "fp16", 0.65),
        ("yunet", "int8", 0.7),
    ],
)
def test_an_engine_of_fewer_bits_holds_smaller_weights(
    engines: Engines, name: str, precision: str, most: float
) -> None:
    def weights(of: str) -> int:
        plan = engines(name, of).path.read_bytes()
        return len(plan) - sum(kernel_sources(plan))

    assert weights(precision) <= most * weights("fp32")
