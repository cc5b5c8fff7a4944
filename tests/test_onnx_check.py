"""What no parser of ONNX should see is refused, by a walk that allocates nothing and opens nothing else."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes import card
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx_files import block_quantised, doubling, save, tensor

from edge_fr.errors import EdgeFrError, ModelError, ModelNotFoundError
from edge_fr.models import resolve
from edge_fr.onnx_check import check_onnx


def network(path: Path, *, weights: TensorProto | None = None, nodes: list[NodeProto] | None = None) -> Path:
    """y = x + w, with the given tensor as w."""
    weights = weights or numpy_helper.from_array(np.ones(4, np.float32), "w")
    graph = helper.make_graph(
        nodes or [helper.make_node("Add", ["x", "w"], ["y"])],
        "test",
        [tensor("x", "batch", 4)],
        [tensor("y", "batch", 4)],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_onnx(path)


@pytest.mark.parametrize("name", ["yunet", "sface"])
def test_the_models_in_use_pass_and_are_read_whole(name: str) -> None:
    path = resolve(name)
    checked = check_onnx(path)
    assert checked.content == path.read_bytes()
    assert checked.external == ()


def test_every_kind_of_weight_passes(tmp_path: Path) -> None:
    (tmp_path / "q.onnx").write_bytes(block_quantised())
    check_onnx(tmp_path / "q.onnx")
    for i, kind in enumerate(("float32", "float64", "float16", "int64", "int32", "uint64", "uint8", "bool")):
        values = np.array([0, 1, 1, 1], kind)
        loose = helper.make_tensor("w", helper.np_dtype_to_tensor_dtype(values.dtype), [4], values.tolist())
        for weights in (numpy_helper.from_array(values, "w"), loose):
            check_onnx(network(tmp_path / f"{i}.onnx", weights=weights))
    negative = helper.make_tensor("w", TensorProto.INT64, [3], [-1, 1 << 62, -(1 << 62)])
    check_onnx(network(tmp_path / "negative.onnx", weights=negative))
    empty = helper.make_tensor("w", TensorProto.FLOAT, [0], [])  # as a Resize's region is
    check_onnx(network(tmp_path / "empty.onnx", weights=empty))


def test_the_check_needs_no_onnx(tmp_path: Path) -> None:
    path = doubling(tmp_path / "m.onnx", card())
    code = (
        "import sys; from pathlib import Path; from edge_fr.onnx_check import check_onnx; "
        "print(check_onnx(Path(sys.argv[1])).digest, 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "False"


def test_a_file_that_is_not_there_or_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model file at .*absent\.onnx"):
        check_onnx(tmp_path / "absent.onnx")
    (tmp_path / "m.onnx").touch()
    refused(tmp_path / "m.onnx", "has 0 bytes")


def test_a_file_larger_than_protobuf_allows_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(3 << 30)  # a hole: it takes no room on the disk
    refused(tmp_path / "m.onnx", "has 3221225472 bytes")


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = network(tmp_path / "m.onnx").read_bytes()
    for size in range(1, len(whole)):
        (tmp_path / "cut.onnx").write_bytes(whole[:size])
        with pytest.raises(ModelError):
            check_onnx(tmp_path / "cut.onnx")


WHOLE = block_quantised()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    flips=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
    size=st.integers(1, len(WHOLE)) | st.just(len(WHOLE)),
)
def test_flipped_bytes_and_cuts_are_taken_or_refused_and_nothing_worse(
    flips: list[tuple[int, int]], size: int, tmp_path: Path
) -> None:
    content = bytearray(WHOLE)
    for at, value in flips:
        content[at] = value
    path = tmp_path / "m.onnx"
    path.write_bytes(content[:size])
    try:
        check_onnx(path)
    except EdgeFrError as error:
        assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("opset", [None, 0, 10, 25, 1 << 40])
def test_another_opset_is_refused_with_those_that_work(tmp_path: Path, opset: int | None) -> None:
    model = onnx.load(network(tmp_path / "m.onnx"))
    del model.opset_import[:]
    if opset is not None:
        model.opset_import.append(helper.make_opsetid("", opset))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "m.onnx", rf"its opset is {opset}, expected 11 to 24")


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([1 << 20, 1 << 20, 1 << 20], "takes more than 2147483647 bytes"),
        ([1 << 62] * 60, "takes more than"),
        ([1] * 65, r"has the shape \[1, 1, 1"),
        ([-4], r"has the shape \[-4\], expected sizes of 0 and more"),
        ([5], "does not hold 20 bytes"),
        ([], "does not hold 4 bytes"),
    ],
)
def test_weights_whose_shape_is_not_what_is_there_are_refused_unallocated(
    tmp_path: Path, dims: list[int], message: str
) -> None:
    weights = numpy_helper.from_array(np.ones(4, np.float32), "w")
    del weights.dims[:]
    weights.dims.extend(dims)
    path = network(tmp_path / "m.onnx", weights=weights)
    tracemalloc.start()
    refused(path, message)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20  # tens of kilobytes here; what the shape says would be gigabytes


@pytest.mark.parametrize("values", [[1.0] * 3, [1.0] * 5])
def test_loose_values_of_another_number_are_refused(tmp_path: Path, values: list[float]) -> None:
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], float_data=values)
    refused(network(tmp_path / "m.onnx", weights=weights), f"holds {len(values)} values, expected 4")


@pytest.mark.parametrize("kind", [0, TensorProto.STRING, TensorProto.COMPLEX64, 99])
def test_weights_of_a_kind_that_no_network_has_are_refused(tmp_path: Path, kind: int) -> None:
    weights = TensorProto(name="w", data_type=kind, dims=[1], raw_data=b"12345678")
    refused(network(tmp_path / "m.onnx", weights=weights), f"has the data type {kind}")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (["batch", 0, 112, 112], "holds nothing"),
        (["batch", 1 << 40, 112, 112], "takes more than"),
        (["batch", -3, 112, 112], "expected sizes of 0 and more"),
    ],
)
def test_an_input_that_is_empty_or_gigantic_is_refused(
    tmp_path: Path, shape: list[int | str], message: str
) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    refused(save(tmp_path / "m.onnx", [node], [tensor("x", *shape)], [tensor("y", *shape)]), message)


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand"])
def test_a_constant_that_unfolds_to_something_gigantic_is_refused(tmp_path: Path, kind: str) -> None:
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "w")
    inputs = ["w"] if kind == "ConstantOfShape" else ["x", "w"]
    node = helper.make_node(kind, inputs, ["y"])
    path = network(tmp_path / "m.onnx", weights=shape, nodes=[node])
    refused(path, f"the result of a {kind} of shape .* takes more than")


def test_a_node_that_uses_what_nothing_makes_is_refused_and_so_is_a_circle(tmp_path: Path) -> None:
    lost = [helper.make_node("Add", ["x", "nowhere"], ["y"])]
    refused(network(tmp_path / "a.onnx", nodes=lost), "Add uses 'nowhere', which nothing before it")
    circle = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    circle.append(helper.make_node("Relu", ["b"], ["y"]))
    refused(network(tmp_path / "b.onnx", nodes=circle), "Add uses 'b', which nothing before it")
    twice = [helper.make_node("Relu", ["x"], ["y"])] * 2
    refused(network(tmp_path / "c.onnx", nodes=twice), "'y' is made twice")
    none = [helper.make_node("Relu", ["x"], ["z"])]
    refused(network(tmp_path / "d.onnx", nodes=none), "nothing makes its output 'y'")


def nested(depth: int) -> NodeProto:
    """Branches within branches; each uses the `x` of the graph around it all."""
    inner = helper.make_node("Relu", ["x"], [f"o{depth}"]) if depth == 0 else nested(depth - 1)
    branch = helper.make_graph([inner], "branch", [], [tensor(inner.output[0], 4)])
    flag = helper.make_tensor("t", TensorProto.BOOL, [], [True])
    condition = helper.make_node("Constant", [], [f"c{depth}"], value=flag)
    branch.node.insert(0, condition)
    name = "y" if depth == 5 else f"n{depth}"
    return helper.make_node("If", ["w"], [name], then_branch=branch, else_branch=branch)


def test_graphs_within_graphs_are_walked_and_bounded(tmp_path: Path) -> None:
    flag = helper.make_tensor("w", TensorProto.BOOL, [], [True])
    check_onnx(network(tmp_path / "a.onnx", weights=flag, nodes=[nested(5)]))
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["o"])], "0", [], [tensor("o", 4)])
    for depth in range(20):
        node = helper.make_node("If", ["w"], ["o"], then_branch=inner)
        inner = helper.make_graph([node], str(depth), [], [tensor("o", 4)])
    deep = helper.make_node("If", ["w"], ["y"], then_branch=inner)
    refused(network(tmp_path / "b.onnx", weights=flag, nodes=[deep]), "more than 8 deep")


def test_functions_of_its_own_are_refused(tmp_path: Path) -> None:
    model = onnx.load(network(tmp_path / "m.onnx"))
    node = helper.make_node("again", ["a"], ["b"], domain="own")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "again", ["a"], ["b"], [node], opsets))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "m.onnx", "defines functions of its own; onnxsim writes them")


def external(location: str, **entries: str) -> TensorProto:
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=1)
    for key, value in {"location": location, **entries}.items():
        weights.external_data.add(key=key, value=value)
    return weights


def test_external_weights_in_the_folder_pass_and_count_for_the_digest(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", weights=external("w.bin", offset="4", length="16"))
    (tmp_path / "w.bin").write_bytes(bytes(20))
    before = check_onnx(path)
    assert before.external == ((tmp_path / "w.bin").resolve(),)
    (tmp_path / "w.bin").write_bytes(bytes(19) + b"1")
    assert check_onnx(path).digest != before.digest


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret", "leaves the model's own folder"),
        ("a/../../secret", "leaves the model's own folder"),
        ("/etc/passwd", "leaves the model's own folder"),
        ("C:\\secret", "leaves the model's own folder"),
        ("a\\..\\..\\secret", "leaves the model's own folder"),
        ("", "leaves the model's own folder"),
        ("link", "a link out of the model's own folder"),
        ("circle", "circle"),
        (".", "are missing"),
        ("absent.bin", r"are missing: no file .*absent\.bin; copy it beside the model"),
        ("a" * 5000, "aaaa"),
        ("nul\0.bin", "null"),
    ],
)
def test_external_weights_elsewhere_or_missing_are_refused_unopened(
    tmp_path: Path, location: str, message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "circle").symlink_to(folder / "circle")
    refused(network(folder / "m.onnx", weights=external(location)), message)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "8"}, r"are 16 bytes from 8 of .*, which has 20"),
        ({"offset": "-4"}, "from -4"),
        ({"length": "12"}, "are 12 bytes .* expected 16"),
        ({"length": str(1 << 50)}, "expected 16"),
        ({"offset": "four"}, "invalid literal"),
    ],
)
def test_external_weights_that_do_not_fit_their_file_are_refused(
    tmp_path: Path, entries: dict[str, str], message: str
) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(20))
    refused(network(tmp_path / "m.onnx", weights=external("w.bin", **entries)), message)
