"""Smaller models: the same function, near enough, in the form that each runtime takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fakes import card
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_files import save, tensor

from calibration.equalise import couples, equalise, turn_steep_slopes
from calibration.fp16 import kept_in_fp32, to_fp16
from calibration.prepare import constants, layers, prepare, put
from calibration.quantize import Target, kept_by_rule, to_int8
from calibration.ranges import Histogram, Range, channel_peaks, observe
from edge_fr.build import build
from edge_fr.engine import CARD_KEY
from edge_fr.errors import EngineError, InputError, ModelError

Floats = NDArray[np.float32]
RNG = np.random.default_rng(0)


def weights(*shape: int) -> Floats:
    return np.random.default_rng(sum(shape)).normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)


def small_network(path: Path) -> ModelProto:
    """What recognizers are made of, small: stem, depthwise and pointwise layers with BatchNorm and PRelu, a
    residual sum, a gate, an attention from pooled features, a linear layer and a norm."""
    slopes = np.linspace(-0.4, 0.9, 8, dtype=np.float32).reshape(8, 1, 1)
    steep = slopes.copy()
    steep[3] = 1.4  # above 1, where max(x, slope * x) is not PRelu
    stored = {
        "mean": np.float32([127.5]),
        "factor": np.float32([1 / 128]),
        "w1": weights(8, 3, 3, 3),
        "g": RNG.uniform(0.5, 2, 8).astype(np.float32),
        "b": RNG.normal(0, 0.2, 8).astype(np.float32),
        "m": RNG.normal(0, 0.2, 8).astype(np.float32),
        "v": RNG.uniform(0.5, 2, 8).astype(np.float32),
        "steep": steep,
        # channels of very different size, as depthwise layers have them
        "w2": weights(8, 1, 3, 3) * np.geomspace(0.02, 1, 8, dtype=np.float32).reshape(8, 1, 1, 1),
        "b2": RNG.normal(0, 0.1, 8).astype(np.float32),
        "slopes": slopes,
        "w3": weights(8, 8, 1, 1),
        "b3": RNG.normal(0, 0.1, 8).astype(np.float32),
        "w4": weights(8, 8, 1, 1),
        "b4": np.zeros(8, np.float32),
        "w5": weights(1, 8, 1, 1),
        "b5": np.zeros(1, np.float32),
        "w6": weights(16, 8 * 64),
        "b6": RNG.normal(0, 0.1, 16).astype(np.float32),
        "axes": np.array([1]),
        "tiny": np.float32([1e-8]),
    }
    node = helper.make_node
    nodes = [
        node("Sub", ["x", "mean"], ["centred"]),
        node("Mul", ["centred", "factor"], ["scaled"]),
        node("Conv", ["scaled", "w1"], ["c1"], name="stem", pads=[1] * 4, strides=[2, 2]),
        node("BatchNormalization", ["c1", "g", "b", "m", "v"], ["n1"]),
        node("PRelu", ["n1", "steep"], ["p1"]),
        node("Conv", ["p1", "w2", "b2"], ["c2"], name="depthwise", pads=[1] * 4, group=8),
        node("PRelu", ["c2", "slopes"], ["p2"]),
        node("Conv", ["p2", "w3", "b3"], ["c3"], name="pointwise"),
        node("Relu", ["c3"], ["r3"]),
        node("Conv", ["r3", "w4", "b4"], ["c4"], name="branch"),
        node("Add", ["c4", "r3"], ["sum"]),
        node("Conv", ["sum", "w5", "b5"], ["look"], name="look"),
        node("Sigmoid", ["look"], ["gate"]),
        node("Mul", ["sum", "gate"], ["gated"]),
        node("Flatten", ["gated"], ["flat"]),
        node("Gemm", ["flat", "w6", "b6"], ["feature"], name="fc", transB=1),
        node("Mul", ["feature", "feature"], ["squares"], name="square"),
        node("ReduceSum", ["squares", "axes"], ["power"], name="power"),
        node("Add", ["power", "tiny"], ["safe"], name="safe"),
        node("Sqrt", ["safe"], ["length"], name="length"),
        node("Div", ["feature", "length"], ["embedding"], name="unit"),
    ]
    file = save(
        path, nodes, [tensor("x", "batch", 3, 16, 16)], [tensor("embedding", "batch", 16)], constants=stored
    )
    return onnx.load(file)


def pictures(count: int, seed: int) -> Floats:
    """Smooth pictures, since weights and noise of one size would leave no signal."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 3, 4, 4))
    return coarse.repeat(4, axis=2).repeat(4, axis=3).astype(np.float32)


def run(model: ModelProto, x: Floats) -> Floats:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    (result,) = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    ).run(None, {"x": x})
    return np.asarray(result, np.float32)


def cosines(a: Floats, b: Floats) -> NDArray[np.float64]:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a.astype(np.float64) * b).sum(axis=1) / norms)


def batches(*seeds: int) -> dict[str, list[Floats]]:
    return {str(seed): [pictures(8, seed), pictures(8, seed + 100)] for seed in seeds}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    return small_network(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def level(network: ModelProto) -> ModelProto:
    model = prepare(network)
    return turn_steep_slopes(equalise(model, channel_peaks(model, batches(1, 2))))


@pytest.fixture(scope="module")
def ranges(level: ModelProto) -> dict[str, Range]:
    return observe(level, batches(1, 2))


def kinds(model: ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def made_by(model: ModelProto, tensor_name: str) -> str:
    return next(node.op_type for node in model.graph.node if tensor_name in node.output)


def test_preparing_folds_batchnorm_and_computes_the_same(network: ModelProto) -> None:
    model = prepare(network)
    assert "BatchNormalization" not in kinds(model)
    # float32 sums in another order
    np.testing.assert_allclose(run(model, pictures(4, 5)), run(network, pictures(4, 5)), atol=1e-6)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)


def test_a_model_older_than_opset_13_is_refused(network: ModelProto) -> None:
    old = ModelProto()
    old.CopyFrom(network)
    old.opset_import[0].version = 11
    with pytest.raises(ModelError, match="opset 11, expected at least 13"):
        prepare(old)


def test_equalising_computes_the_same_and_levels_the_channels(network: ModelProto) -> None:
    model = prepare(network)
    before = channel_peaks(model, batches(1))
    equal = equalise(model, before)
    # every factor is rounded once to float32
    np.testing.assert_allclose(run(equal, pictures(4, 5)), run(model, pictures(4, 5)), atol=1e-5)
    after = channel_peaks(equal, batches(1))
    (to_pointwise,) = [couple for couple in couples(model) if couple.second.name == "pointwise"]
    spread = [
        float(peaks[to_pointwise.tensor].max() / peaks[to_pointwise.tensor].min())
        for peaks in (before, after)
    ]
    assert spread[1] < spread[0] / 2


def test_a_slope_above_one_is_turned_over_and_computes_the_same(network: ModelProto) -> None:
    model = prepare(network)
    turned = turn_steep_slopes(model)
    slopes = {n.output[0]: constants(turned)[n.input[1]] for n in turned.graph.node if n.op_type == "PRelu"}
    assert float(slopes["p1"].max()) <= 1
    np.testing.assert_allclose(run(turned, pictures(4, 5)), run(model, pictures(4, 5)), atol=1e-5)


def test_what_decides_a_gate_or_works_on_pooled_features_stays_in_floating_point(level: ModelProto) -> None:
    assert kept_by_rule(level) == {"look": "decides a gate"}
    node, stored = helper.make_node, {"w": weights(2, 3)}
    nodes = [
        node("ReduceMean", ["x"], ["p"], axes=[2, 3], keepdims=0),
        node("MatMul", ["p", "wt"], ["y"], name="m"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("x", "b", 3, 4, 4)],
        [tensor("y", "b", 2)],
        [onnx.numpy_helper.from_array(stored["w"].T.copy(), "wt")],
    )
    assert kept_by_rule(helper.make_model(graph)) == {"m": "works on pooled features"}


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_int8_is_near_fp32(level: ModelProto, ranges: dict[str, Range], target: Target) -> None:
    model = to_int8(level, ranges, target=target)
    onnx.checker.check_model(model, full_check=True)
    # Six layers with 8-bit inputs: each adds noise of about 1/255 of its range, so a cosine of about
    # 1 - 6 * (3/255)**2 / 2; .995 leaves room for the spread of random weights.
    assert cosines(run(model, pictures(16, 7)), run(level, pictures(16, 7))).min() > 0.995


def test_both_flavours_are_near_each_other(level: ModelProto, ranges: dict[str, Range]) -> None:
    cpu, tensorrt = (run(to_int8(level, ranges, target=t), pictures(16, 7)) for t in ("cpu", "tensorrt"))
    assert cosines(cpu, tensorrt).min() > 0.995  # as near as either is to fp32


def test_onnxruntime_computes_the_tensorrt_flavour_as_onnx_defines_it(
    level: ModelProto, ranges: dict[str, Range]
) -> None:
    model = to_int8(level, ranges, target="tensorrt")
    model.opset_import[0].version = 19  # the first whose QuantizeLinear the reference has; the same for int8
    (defined,) = ReferenceEvaluator(model).run(None, {"x": pictures(4, 7)})
    # The same integers; but a value that lies on the edge between two steps may fall to either side.
    assert cosines(run(model, pictures(4, 7)), defined).min() > 0.9999


def test_the_tensorrt_flavour_has_what_its_parser_takes(level: ModelProto, ranges: dict[str, Range]) -> None:
    model = to_int8(level, ranges, target="tensorrt")
    known = constants(model)
    zeros = [
        known[n.input[2]] for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    quantised = [node for node in layers_of(model) if node.name != "look"]
    assert len(quantised) == 5
    for node in quantised:
        assert made_by(model, node.input[0]) == made_by(model, node.input[1]) == "DequantizeLinear"
        assert node.input[2] in known  # the bias in float
        assert known[node.input[2]].dtype == np.float32
    (residual,) = [n for n in model.graph.node if n.op_type == "Add" and n.output[0] == "sum"]
    assert residual.input[0] == "c4"
    assert made_by(model, residual.input[1]) == "DequantizeLinear"


def layers_of(model: ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]


def test_the_cpu_flavour_runs_on_onnxruntimes_integer_kernels(
    level: ModelProto, ranges: dict[str, Range], tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        to_int8(level, ranges, target="cpu").SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    run_as = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert run_as.count("QLinearConv") == 4  # stem, depthwise, pointwise, branch
    assert run_as.count("QGemm") == 1
    assert "PRelu" not in run_as
    assert run_as.count("QLinearMul") == 2  # a PRelu each, in integers
    assert run_as.count("QLinearAdd") == 1 + 2


def test_what_works_on_8_bits_in_the_cpu_flavour_has_a_kernel_in_every_onnxruntime(
    level: ModelProto, ranges: dict[str, Range]
) -> None:
    """Max, Min, Add and the like of 8 bits have none in 1.20 to 1.23."""
    graph = onnx.shape_inference.infer_shapes(to_int8(level, ranges, target="cpu")).graph
    eight = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    bits = {v.name for v in graph.value_info if v.type.tensor_type.elem_type in eight}
    fed = {node.op_type for node in graph.node if node.input[0] in bits}
    assert fed == {"DequantizeLinear", "Clip"}


def test_a_layer_that_is_to_be_kept_stays_in_floating_point(
    level: ModelProto, ranges: dict[str, Range]
) -> None:
    known = constants(level)
    for target in ("cpu", "tensorrt"):
        model = to_int8(level, ranges, target=target, keep=["depthwise"])
        (node,) = [n for n in model.graph.node if n.name == "depthwise"]
        assert constants(model)[node.input[1]].dtype == known[node.input[1]].dtype == np.float32
        everything = [node.name for node in layers(level)]
        untouched = to_int8(level, ranges, target=target, keep=everything)
        assert np.array_equal(run(untouched, pictures(4, 7)), run(level, pictures(4, 7)))


def test_a_layer_to_keep_that_is_none_is_named(level: ModelProto, ranges: dict[str, Range]) -> None:
    with pytest.raises(InputError, match="stemm are no layers of the model, which are stem, depthwise"):
        to_int8(level, ranges, target="cpu", keep=["stemm"])
    without = {name: r for name, r in ranges.items() if name != "c4"}
    with pytest.raises(InputError, match="'c4' has no range"):
        to_int8(level, without, target="cpu")


def test_a_prelu_that_turns_values_over_is_not_cut_off() -> None:
    node = helper.make_node
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv"), node("PRelu", ["c", "s"], ["p"])]
    nodes.append(node("Conv", ["p", "v"], ["y"], name="next"))
    stored = {
        "w": np.float32([1, -1]).reshape(2, 1, 1, 1),
        "s": np.full((2, 1, 1), -3, np.float32),
        "v": np.ones((1, 2, 1, 1), np.float32),
    }
    constant = [onnx.numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "g", [tensor("x", 1, 1, 1, 101)], [tensor("y", 1, 1, 1, 101)], constant)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.linspace(-1, 1, 101, dtype=np.float32).reshape(1, 1, 1, 101)  # 3|x| + |x| comes out
    small = to_int8(model, observe(model, {"all": [x]}, percentile=100), target="cpu")
    # values span -1..3: a step is 4/255, and two channels are rounded twice each
    np.testing.assert_allclose(run(small, x), 4 * np.abs(x), atol=4 * 4 / 255)


def test_a_channel_without_weights_keeps_its_bias_in_int32(network: ModelProto) -> None:
    model = prepare(network)
    (stem, *_) = layers(model)
    known = constants(model)
    dead, bias = known[stem.input[1]].copy(), known[stem.input[2]].copy()
    dead[2], bias[2] = 0, 3.0
    for name, value in ((stem.input[1], dead), (stem.input[2], bias)):
        put(model, name, value)
    stored = constants(to_int8(model, observe(model, batches(1)), target="cpu"))
    found = stored["stem.bias.q"].astype(np.float64) * stored["stem.bias.scale"]
    # half a step, which is 1/255 of the input's span of 2 times 1/127 of the greatest weight
    np.testing.assert_allclose(found, bias, atol=0.5 * (2 / 255) * float(np.abs(dead).max()) / 127)


def test_fp16_keeps_norms_and_what_overflows_in_fp32(network: ModelProto) -> None:
    model = prepare(network)
    found = observe(model, batches(1))
    kept = kept_in_fp32(model, found)
    assert kept["square"] == kept["power"] == kept["unit"] == "is part of a norm"
    assert kept["safe"] == "has a constant that FP16 cannot hold"
    assert "depthwise" not in kept
    loud = {**found, "c2": Range(-9000.0, 9000.0, 9000.0)}
    assert kept_in_fp32(model, loud)["depthwise"] == "reaches 9000"  # times the headroom: beyond 65504


def test_fp16_is_near_fp32_and_half_the_size(network: ModelProto) -> None:
    model = prepare(network)
    half = to_fp16(model, observe(model, batches(1)))
    onnx.checker.check_model(half, full_check=True)
    stored = {t.data_type for t in half.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in stored
    assert half.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert run(half, pictures(4, 7)).dtype == np.float32
    # 11 bits of mantissa: each of five layers rounds by at most 1/2048
    assert cosines(run(half, pictures(8, 7)), run(model, pictures(8, 7))).min() > 0.9999
    assert half.ByteSize() < 0.65 * model.ByteSize()  # half of the weights, and the same nodes


def test_fp16_of_a_model_that_would_overflow_is_finite(network: ModelProto) -> None:
    model = prepare(network)
    for held in model.graph.initializer:
        if held.name == "w6":
            held.CopyFrom(onnx.numpy_helper.from_array(constants(model)["w6"] * 3e4, "w6"))
    found = observe(model, batches(1))
    assert found["squares"].peak > 65504
    assert np.isfinite(run(to_fp16(model, found), pictures(8, 7))).all()


def test_a_range_is_the_widest_of_the_strata_s_percentiles() -> None:
    rng = np.random.default_rng(0)
    wide, narrow = (
        rng.normal(0, 2, (1, 30000)).astype(np.float32),
        rng.normal(0, 1, (1, 30000)).astype(np.float32),
    )
    for percentile in (99.0, 99.9):
        histogram = Histogram()
        histogram.add(wide)
        low, high = histogram.limits(percentile)
        exact = np.percentile(wide, [100 - percentile, percentile])
        # a bin is 1/4096 of a span that is at most twice the greatest value
        np.testing.assert_allclose([low, high], exact, atol=2 * 16 / 8192 + 0.02)
    node = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [tensor("x", "n", 30000)], [tensor("y", "n", 30000)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = observe(model, {"wide": [wide], "narrow": [narrow, narrow]}, percentile=99.0)
    assert found["x"] == observe(model, {"wide": [wide]}, percentile=99.0)["x"]
    assert found["y"].low == 0.0
    assert found["x"].peak == float(np.abs(wide).max())


def test_a_histogram_of_growing_values_is_that_of_all_at_once() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 10.0**i, (1, 1000)).astype(np.float32) for i in range(-3, 3)]
    streamed, whole = Histogram(), Histogram()
    for part in parts:
        streamed.add(part)
    whole.add(np.concatenate(parts, axis=1))
    assert streamed.span == whole.span
    assert streamed.counts.sum() == whole.counts.sum() == 6000
    # a value on the edge of a bin of the smaller span may have been rounded to its other side
    assert np.abs(np.cumsum(streamed.counts - whole.counts)).max() <= 2


def test_values_that_are_not_finite_and_empty_strata_are_named(network: ModelProto) -> None:
    model = prepare(network)
    with pytest.raises(ModelError, match="'x' holds NaN or infinity on stratum 'dark'"):
        observe(model, {"dark": [np.full((1, 3, 16, 16), np.nan, np.float32)]})
    with pytest.raises(InputError, match="stratum 'masked' is empty"):
        observe(model, {"clean": [pictures(1, 1)], "masked": []})
    with pytest.raises(InputError, match=r"percentile is 100\.1"):
        observe(model, batches(1), percentile=100.1)


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_tensorrt_parses_and_builds_what_is_written_for_it(
    level: ModelProto,
    ranges: dict[str, Range],
    precision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    monkeypatch.setenv("EDGE_FR_CACHE", str(tmp_path / "cache"))
    model = to_int8(level, ranges, target="tensorrt") if precision == "int8" else to_fp16(level, ranges)
    helper.set_model_props(model, {CARD_KEY: card(precision=precision, embedding_size=16).to_json()})
    onnx.save(model, tmp_path / "small.onnx")
    built = build(tmp_path / "small.onnx", tmp_path / "small.engine", library="tensorrt_rtx", unproven=True)
    assert built.passport.card.precision == precision


def test_tensorrt_refuses_what_is_written_for_the_cpu(
    level: ModelProto, ranges: dict[str, Range], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    monkeypatch.setenv("EDGE_FR_CACHE", str(tmp_path / "cache"))
    model = to_int8(level, ranges, target="cpu")
    helper.set_model_props(model, {CARD_KEY: card(precision="int8", embedding_size=16).to_json()})
    onnx.save(model, tmp_path / "small.onnx")
    with pytest.raises(EngineError, match="does not take"):
        build(tmp_path / "small.onnx", tmp_path / "small.engine", library="tensorrt_rtx", unproven=True)
