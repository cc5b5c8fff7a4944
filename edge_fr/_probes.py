"""What the doctor asks, each question in a process of its own.

A library that crashes when it is imported, hangs, or prints to the terminal ends its process and not ours.
The scripts name their libraries as text: nothing is imported here.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

_PATIENCE_S = 60  # TensorRT's first import on a small device takes tens of seconds


class Outcome(NamedTuple):
    """How a command ended: exit status as a shell counts it (127: no such command), and its output."""

    status: int
    stdout: str
    stderr: str


Run = Callable[[Sequence[str]], Outcome]


def run_command(command: Sequence[str]) -> Outcome:
    """Runs a command without input; one that hangs is ended after a minute, with status 124."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S, check=False
        )
    except OSError as error:
        return Outcome(127, "", str(error))
    except subprocess.TimeoutExpired:
        return Outcome(124, "", f"no answer within {_PATIENCE_S} s")
    return Outcome(
        done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


# libcuda says the same on a Jetson and on a desktop, and is there exactly when a driver is.
DRIVER = """
import ctypes, sys
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError:
    sys.exit(44)
number, name, text = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_char_p()
def check(status):
    if status:
        cuda.cuGetErrorString(status, ctypes.byref(text))
        sys.exit(f"the driver answers error {status}: {(text.value or b'unknown').decode()}")
def attribute(key, device):
    check(cuda.cuDeviceGetAttribute(ctypes.byref(number), key, device))
    return number.value
check(cuda.cuInit(0))
check(cuda.cuDriverGetVersion(ctypes.byref(number)))
parts = [f"CUDA {number.value // 1000}.{number.value % 1000 // 10}"]
check(cuda.cuDeviceGetCount(ctypes.byref(number)))
for index in range(number.value):
    device, size = ctypes.c_int(), ctypes.c_size_t()
    check(cuda.cuDeviceGet(ctypes.byref(device), index))
    check(cuda.cuDeviceGetName(name, 256, device))
    check(cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device))
    capability = f"{attribute(75, device)}.{attribute(76, device)}"
    parts.append(f"{name.value.decode()} (compute {capability}, {size.value / 2**30:.1f} GiB)")
print(", ".join(parts))
"""

# Prints the version and the providers, then the distributions that own the package.
ONNXRUNTIME = """
from importlib.metadata import packages_distributions
print(onnxruntime.__version__, *onnxruntime.get_available_providers())
print(*sorted(set(packages_distributions().get("onnxruntime", []))))
"""
# The smallest model, one Identity node: that a provider is listed does not mean that its libraries load.
CUDA_PROVIDER = """
import base64
if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
    print("not built in")
    sys.exit()
onnxruntime.set_default_logger_severity(3)
identity = "CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0="
session = onnxruntime.InferenceSession(base64.b64decode(identity), providers=["CUDAExecutionProvider"])
used = session.get_providers()[0]
if used != "CUDAExecutionProvider":
    sys.exit(f"CUDAExecutionProvider is listed but does not load: the session ran on {used}")
print(used)
"""

# Prints the version, then the elements that are there.
GSTREAMER = """
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
print("{}.{}.{}".format(*Gst.version()[:3]))
print(*(name for name in {names} if Gst.ElementFactory.find(name)))
"""
