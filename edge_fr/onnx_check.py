"""Refuses a damaged or hostile ONNX file before a parser sees it.

Parsers of ONNX are written for files of good will: they allocate what a shape says and open what a path
names. Here the file is only walked over, without the package onnx: nothing is allocated that is not in
the file, and no other file is opened but weights that lie in the model's own folder.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from edge_fr._protobuf import fields, integers
from edge_fr.errors import ModelError, ModelNotFoundError

OPSETS = range(11, 25)  # what the runtimes read; quantised weights by channel and other needs come with 13
MAX_BYTES = (1 << 31) - 1  # protobuf's own limit for a file; no weights or activation come near
_MAX_DEPTH = 8  # graphs within graphs; an exporter makes one or two

# Field numbers of onnx.proto.
_IR_VERSION, _GRAPH, _OPSET, _FUNCTIONS = 1, 7, 8, 25  # ModelProto
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO, _SPARSE = 1, 5, 11, 12, 13, 15  # GraphProto
_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_DIMS, _DATA_TYPE, _FLOATS, _INT32S, _STRINGS, _INT64S = 1, 2, 4, 5, 6, 7  # TensorProto
_TENSOR_NAME, _RAW, _DOUBLES, _UINT64S, _EXTERNAL, _LOCATION = 8, 9, 10, 11, 13, 14
_VALUE_NAME, _TYPE, _TENSOR_TYPE, _ELEMENT, _SHAPE, _DIM, _DIM_VALUE = 1, 2, 1, 1, 2, 1, 1

# Bits of an element by TensorProto.DataType; strings and complex numbers (8, 14, 15) are in no network.
_BITS = dict(
    zip((1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13), (32, 8, 8, 16, 16, 32, 64, 8, 16, 64, 32, 64), strict=True)
)
_BITS |= {16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}
_MAKES_ITS_INPUT_S_SHAPE = {"ConstantOfShape": 0, "Expand": 1}  # by the position of the shape


@dataclass(frozen=True)
class OnnxFile:
    """A file that was checked: its bytes, the files of its external weights, and sha256 over them all."""

    content: bytes
    external: tuple[Path, ...]
    digest: str


def check_onnx(path: Path) -> OnnxFile:
    """Reads an ONNX file and refuses what no parser should see.

    ModelError for a file that is empty, cut off or damaged, has another opset than 11 to 24, weights
    that are missing or lie outside of its folder, tensors of 2 GiB and more, a network deeper than
    eight graphs within graphs or with functions, or nodes that use what nothing makes. The check is no
    proof that a runtime takes the file.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"no model file at {path}")
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise ModelError(f"{path} has {size} bytes, expected at least 1 and at most {MAX_BYTES}")
    content = path.read_bytes()
    walk = _Walk(path.parent)
    try:
        walk.model(memoryview(content))
    except ValueError as error:
        raise ModelError(
            f"{path} is damaged, hostile or not an ONNX file: {error}; get or export it again, "
            f"and compare its sha256 with where it came from"
        ) from error
    sha256 = hashlib.sha256(content)
    for weights in walk.external:
        with weights.open("rb") as file:
            while block := file.read(1 << 20):
                sha256.update(block)
    return OnnxFile(content, tuple(walk.external), f"sha256:{sha256.hexdigest()}")


@dataclass
class _Walk:
    """One pass over a file whose weights may lie in `folder`; every refusal is a ValueError."""

    folder: Path
    external: dict[Path, None] = field(default_factory=dict)  # in the order they came
    weight_bytes: int = 0

    def model(self, data: memoryview) -> None:
        parts = _parts(data)
        if len(parts[_GRAPH]) != 1 or len(parts[_IR_VERSION]) != 1:
            raise ValueError("it holds no network, or several")
        if parts[_FUNCTIONS]:
            raise ValueError("it defines functions of its own; onnxsim writes them into the network")
        versions = {}
        for opset in map(_message, parts[_OPSET]):
            entry = _parts(opset)
            versions[_text(entry[_OPSET_DOMAIN])] = _number(entry[_OPSET_VERSION])
        version = versions.get("", versions.get("ai.onnx"))
        if version not in OPSETS:
            raise ValueError(f"its opset is {version}, expected {OPSETS.start} to {OPSETS.stop - 1}")
        self.graph(_message(parts[_GRAPH][0]), {}, depth=1)

    def graph(self, data: memoryview, outer: dict[str, memoryview | None], depth: int) -> None:
        """Names in `outer` are known from the graphs around this one, with their tensor if constant."""
        if depth > _MAX_DEPTH:
            raise ValueError(f"its graphs lie more than {_MAX_DEPTH} deep in each other")
        parts = _parts(data)
        if parts[_SPARSE]:
            raise ValueError("it has sparse weights, which the runtimes do not take")
        known = dict(outer)
        for tensor in map(_message, parts[_INITIALIZER]):
            known[self.tensor(tensor)] = tensor
        for value in map(_message, parts[_INPUT]):
            known.setdefault(_check_value(value, is_input=depth == 1), None)
        for value in map(_message, [*parts[_VALUE_INFO], *parts[_OUTPUT]]):
            _check_value(value, is_input=False)
        made: set[str] = set()
        for node in map(_message, parts[_NODE]):
            for name in self.node(node, known, depth):
                if name in made:
                    raise ValueError(f"{name!r} is made twice")
                made.add(name)
                known[name] = None
        for value in map(_message, parts[_OUTPUT]):
            name = _text(_parts(value)[_VALUE_NAME])
            if name not in known:
                raise ValueError(f"nothing makes its output {name!r}")

    def node(self, data: memoryview, known: dict[str, memoryview | None], depth: int) -> list[str]:
        """The names that a node makes."""
        parts = _parts(data)
        kind = _text(parts[_OP_TYPE])
        inputs = list(map(_decode, parts[_NODE_INPUT]))
        for name in inputs:
            if name and name not in known:
                raise ValueError(f"the node {kind} uses {name!r}, which nothing before it makes")
        position = _MAKES_ITS_INPUT_S_SHAPE.get(kind)
        if position is not None and position < len(inputs):
            shape = known.get(inputs[position])
            if shape is not None:
                _check_size(_int64s(shape), 8, f"the result of a {kind}")
        for attribute in map(_message, parts[_ATTRIBUTE]):
            values = _parts(attribute)
            if any(values[number] for number in _ATTRIBUTE_SPARSE):
                raise ValueError(f"the node {kind} has sparse weights, which the runtimes do not take")
            for number in _ATTRIBUTE_TENSORS:
                for tensor in map(_message, values[number]):
                    self.tensor(tensor)
            for number in _ATTRIBUTE_GRAPHS:
                for graph in map(_message, values[number]):
                    self.graph(graph, known, depth + 1)
        return [name for name in map(_decode, parts[_NODE_OUTPUT]) if name]

    def tensor(self, data: memoryview) -> str:
        """Checks that a tensor holds as many values as its shape says, and gives its name."""
        parts = _parts(data)
        name = _text(parts[_TENSOR_NAME])
        kind = _number(parts[_DATA_TYPE])
        if kind not in _BITS:
            raise ValueError(f"tensor {name!r} has the data type {kind}, which no network here uses")
        dims = [size for value in parts[_DIMS] for size in integers(value)]
        size = _check_size(dims, _BITS[kind], f"tensor {name!r}")
        self.weight_bytes += size
        if self.weight_bytes > MAX_BYTES:
            raise ValueError(f"its weights take more than {MAX_BYTES} bytes")
        if parts[_EXTERNAL] or any(_number([value]) for value in parts[_LOCATION]):
            self.external_data(name, size, dict(map(_pair, parts[_EXTERNAL])))
        elif parts[_RAW]:
            if len(parts[_RAW]) > 1 or len(_message(parts[_RAW][0])) != size:
                raise ValueError(f"tensor {name!r} of shape {dims} does not hold {size} bytes")
        else:
            count = size if _BITS[kind] < 8 else math.prod(dims)
            got = sum(_count(number, value) for number in _COUNTED for value in parts[number])
            if got != count:
                raise ValueError(f"tensor {name!r} of shape {dims} holds {got} values, expected {count}")
        return name

    def external_data(self, name: str, size: int, entries: dict[str, str]) -> None:
        """Adds the file of a tensor's weights, which must be a plain file inside the folder."""
        location = entries.get("location", "")
        windows, posix = PureWindowsPath(location), PurePosixPath(location)
        if not location or windows.anchor or posix.anchor or ".." in windows.parts:
            raise ValueError(
                f"the weights of {name!r} lie at {location!r}, which leaves the model's own folder"
            )
        try:
            folder = self.folder.resolve()
            path = (folder / location).resolve()
            is_file = path.is_file()
        except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
            raise ValueError(f"the weights of {name!r} lie at {location[:99]!r}: {error}") from error
        if not path.is_relative_to(folder):
            raise ValueError(f"the weights of {name!r} lie at {path}, a link out of the model's own folder")
        if not is_file:
            raise ValueError(f"the weights of {name!r} are missing: no file {path}; copy it beside the model")
        start, length = int(entries.get("offset", "0")), int(entries.get("length", str(size)))
        if length != size or start < 0 or start + length > path.stat().st_size:
            raise ValueError(
                f"the weights of {name!r} are {length} bytes from {start} of {path}, which has "
                f"{path.stat().st_size}; expected {size} bytes"
            )
        self.external[path] = None


_COUNTED = (_FLOATS, _INT32S, _STRINGS, _INT64S, _DOUBLES, _UINT64S)


def _count(number: int, value: int | memoryview) -> int:
    """How many values a repeated field holds here: several if packed."""
    if isinstance(value, int) or number == _STRINGS:
        return 1
    if number in (_FLOATS, _DOUBLES):
        return len(value) // (4 if number == _FLOATS else 8)
    return int(np.count_nonzero(np.frombuffer(value, np.uint8) < 0x80))  # the last byte of each number


def _check_value(data: memoryview, *, is_input: bool) -> str:
    """The name of an input, output or value between, whose shape must be of a possible size."""
    parts = _parts(data)
    name = _text(parts[_VALUE_NAME])
    for kind in map(_message, parts[_TYPE]):
        for tensor in map(_message, _parts(kind)[_TENSOR_TYPE]):
            entry = _parts(tensor)
            bits = _BITS.get(_number(entry[_ELEMENT]), 64)
            dims = []
            for shape in map(_message, entry[_SHAPE]):
                for dim in map(_message, _parts(shape)[_DIM]):
                    dims += [size for value in _parts(dim)[_DIM_VALUE] for size in integers(value)]
            _check_size(dims, bits, f"tensor {name!r}")
            if is_input and 0 in dims:
                raise ValueError(f"its input {name!r} of shape {dims} holds nothing")
    return name


def _check_size(dims: list[int], bits: int, what: str) -> int:
    """The bytes of a tensor of that shape."""
    if len(dims) > 64 or any(size < 0 for size in dims):
        raise ValueError(f"{what} has the shape {dims[:9]}, expected sizes of 0 and more")
    size = -(-math.prod(dims) * bits // 8)
    if size > MAX_BYTES:
        raise ValueError(f"{what} of shape {dims} takes more than {MAX_BYTES} bytes")
    return size


def _int64s(tensor: memoryview) -> list[int]:
    """The values of a small constant that holds a shape; empty for one that does not."""
    parts = _parts(tensor)
    raw = b"".join(bytes(_message(value)) for value in parts[_RAW])
    if len(raw) > 512 or len(raw) % 8:
        return []
    loose = [size for value in parts[_INT64S] for size in integers(value)]
    return [max(size, 0) for size in [*np.frombuffer(raw, "<i8").tolist(), *loose[:64]]]


def _parts(data: memoryview) -> defaultdict[int, list[int | memoryview]]:
    """The values of every field of a message, by the field's number."""
    parts: defaultdict[int, list[int | memoryview]] = defaultdict(list)
    for number, value in fields(data):
        parts[number].append(value)
    return parts


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError(f"the number {value} where a message belongs")
    return value


def _pair(value: int | memoryview) -> tuple[str, str]:
    entry = _parts(_message(value))
    return _text(entry[1]), _text(entry[2])


def _text(values: list[int | memoryview]) -> str:
    return _decode(values[-1]) if values else ""


def _decode(value: int | memoryview) -> str:
    return bytes(_message(value)).decode(errors="backslashreplace")


def _number(values: list[int | memoryview]) -> int:
    if not values:
        return 0
    if not isinstance(values[-1], int):
        raise ValueError("bytes where a number belongs")
    return values[-1]
