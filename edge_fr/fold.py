"""Block-quantised ONNX to plain fp32 ONNX that every runtime takes.

The public int8 files of YuNet and SFace store their weights as blocks with a scale each and undo
that inside the graph, which neither onnxruntime nor OpenCV runs. Here those constant parts are
computed once and stored; the rest of the graph stays as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from edge_fr.engine import CARD_KEY, ModelCard
from edge_fr.errors import MissingDependencyError, ModelError, install_command

try:
    import onnx
    from onnx import ModelProto, NodeProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"preparing a model needs the package onnx ({error}); install it with: {install_command('cpu')}"
    ) from error

# What the folded graphs use has kept its meaning since opset 15; 17 and IR 8 are what TensorRT 8.6,
# OpenCV 4.10 and onnxruntime 1.12 read.
OPSET, IR_VERSION = 17, 8
_UNPACKING = {"DequantizeLinear", "Reshape", "Slice", "Transpose", "Constant"}
_INERT = {"Dropout", "Identity"}

Shape = tuple[int | str, ...]


def fold(source: bytes, *, card: ModelCard, shapes: Mapping[str, Shape]) -> bytes:
    """The file `source` with fp32 weights, the given tensor shapes, and `card` in its metadata.

    `shapes` names every input and output of the network; a dimension given as a name varies.
    ModelError if the weights come out other than `card.weights_digest` says.
    """
    model = onnx.load_from_string(source)
    _fold_constants(model)
    _drop_inert(model)
    _set_shapes(model, shapes)
    digest = weights_digest(model)
    if digest != card.weights_digest:
        raise ModelError(
            f"{card.name}: folding with onnx {onnx.__version__} gave weights {digest}, "
            f"expected {card.weights_digest}; nothing was kept, please report this"
        )
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    model.metadata_props.add(key=CARD_KEY, value=card.to_json())
    onnx.checker.check_model(model, full_check=True)
    folded: bytes = model.SerializeToString(deterministic=True)
    return folded


def weights_digest(model: ModelProto) -> str:
    """sha256 over the name, shape and bytes of every floating-point initialiser, sorted by name."""
    sha256 = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda t: t.name):
        values = numpy_helper.to_array(tensor)
        if np.issubdtype(values.dtype, np.floating):
            sha256.update(f"{tensor.name} {values.dtype} {values.shape}\n".encode())
            sha256.update(values.tobytes())
    return f"sha256:{sha256.hexdigest()}"


def _fold_constants(model: ModelProto) -> None:
    """Replaces nodes that only unpack constants by their result, and drops what fed them."""
    graph = model.graph
    opsets = {o.domain: o.version for o in model.opset_import}
    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    kept: list[NodeProto] = []
    for node in graph.node:
        if node.op_type in _UNPACKING and all(name in known for name in node.input):
            evaluator = ReferenceEvaluator(node, opsets=opsets)
            (result,) = evaluator.run(None, {name: known[name] for name in node.input})
            known[node.output[0]] = np.ascontiguousarray(result)
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    inputs = [i for i in graph.input if i.name in used and i.name not in known]
    for field in (graph.node, graph.initializer, graph.input, graph.value_info):
        del field[:]
    graph.node.extend(kept)
    constants = sorted(used & known.keys())
    graph.initializer.extend(numpy_helper.from_array(known[name], name) for name in constants)
    graph.input.extend(inputs)


def _drop_inert(model: ModelProto) -> None:
    """Takes out nodes that pass their input on unchanged."""
    outputs = {o.name for o in model.graph.output}
    renamed: dict[str, str] = {}
    kept: list[NodeProto] = []
    for node in model.graph.node:
        inputs = [renamed.get(name, name) for name in node.input]
        if node.op_type in _INERT and node.output[0] not in outputs:
            renamed[node.output[0]] = inputs[0]
        else:
            node.input[:] = inputs
            kept.append(node)
    used = {name for node in kept for name in node.input}
    initializers = [t for t in model.graph.initializer if t.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(initializers)


def _set_shapes(model: ModelProto, shapes: Mapping[str, Shape]) -> None:
    """Declares the tensor shapes, and lets every Reshape keep the batch it is given."""
    tensors = [*model.graph.input, *model.graph.output]
    if {t.name for t in tensors} != shapes.keys():
        raise ModelError(
            f"the file has the tensors {sorted(t.name for t in tensors)}, expected {sorted(shapes)}"
        )
    for tensor in tensors:
        kind = tensor.type.tensor_type.elem_type
        tensor.CopyFrom(helper.make_tensor_value_info(tensor.name, kind, shapes[tensor.name]))
    targets = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for target in (t for t in model.graph.initializer if t.name in targets):
        sizes = numpy_helper.to_array(target).copy()
        if sizes[0] == 1:
            sizes[0] = 0  # in a Reshape, 0 stands for the size that comes in
            target.CopyFrom(numpy_helper.from_array(sizes, target.name))
