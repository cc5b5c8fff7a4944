"""The wire format of protobuf, as far as reading ONNX files without the package onnx needs it."""

from __future__ import annotations

from collections.abc import Iterator

_WIRE_BYTES = {1: 8, 2: 0, 5: 4}  # 0: the length comes first


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field: a number, or a view of the bytes of all else.

    ValueError where the data is cut off or not protobuf; what came before has been given by then.
    """
    at, size = 0, len(data)
    while at < size:
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire_type not in _WIRE_BYTES:
            raise ValueError(f"protobuf wire type {wire_type} at byte {at}")
        length = _WIRE_BYTES[wire_type]
        if wire_type == 2:
            length, at = _varint(data, at)
        if at + length > size:
            raise ValueError(f"field {number} wants {length} bytes, {size - at} are left")
        yield number, data[at : at + length]
        at += length


def integers(value: int | memoryview) -> list[int]:
    """The signed numbers of a repeated integer field, which come one by one or packed."""
    if isinstance(value, int):
        return [_signed(value)]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(_signed(number))
    return numbers


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
