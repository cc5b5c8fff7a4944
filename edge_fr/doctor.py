"""What this machine has, what is missing or broken, and the command that mends it. Changes nothing."""

from __future__ import annotations

import os
import platform
import signal
import sys
from pathlib import Path
from typing import Literal, NamedTuple

from edge_fr._probes import CUDA_PROVIDER, DRIVER, GSTREAMER, ONNXRUNTIME, Run, run_command
from edge_fr.cores import core_count
from edge_fr.errors import ModelError, install_command
from edge_fr.models import SHIPPED, list_models, verify
from edge_fr.stream.pipelines import APT_COMMAND, DECODERS, MAY_BE_INSTALLED, choose_decoder

State = Literal["ok", "missing", "broken"]
_CPU_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")  # INT8 speed
_INSTALL_GPU = f"{install_command('gpu')}; on a Jetson, the wheel of onnxruntime-gpu for your JetPack"


class Finding(NamedTuple):
    """One thing looked at; `remedy` is what to do, empty when there is nothing to mend."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def diagnose(*, run: Run = run_command, root: Path = Path("/")) -> list[Finding]:
    """Looks at the machine: devices, runtimes, cameras and codecs, models, in this order.

    `run` executes commands and `root` is where /proc, /dev and /etc are found. Takes seconds: every
    library is asked in a fresh process.
    """
    driver = _driver(run)
    return [
        Finding("python", "ok", f"{platform.python_version()} at {sys.executable}"),
        _ask(run, "pip", "print(pip.__version__)", "python -m ensurepip, or sudo apt install python3-pip"),
        _cpu(root),
        *_jetson(root),
        driver,
        _cuda_binding(run, driver),
        *_onnxruntime(run),
        _ask(run, "tensorrt", "print(tensorrt.__version__)", _remedy_tensorrt(root)),
        _ask(
            run,
            "tensorrt_rtx",
            "print(tensorrt_rtx.__version__)",
            "pip install tensorrt-rtx-cu13; only engine files need it",
        ),
        _ask(run, "onnx", "print(onnx.__version__)", install_command("cpu")),
        *_cameras(root),
        _opencv(run),
        *_gstreamer(run),
        _ffmpeg(run),
        *(_model(row.name, row.present, row.path) for row in list_models()),
    ]


def _ask(run: Run, module: str, code: str, remedy: str, *, name: str = "") -> Finding:
    """Imports a module in a process of its own and runs `code`, whose output is the detail."""
    # Without the working directory, where a folder of the user's may have the library's name.
    script = f"import sys; sys.path = [p for p in sys.path if p]; import {module}\n{code}"
    outcome = run([sys.executable, "-c", script])
    name = name or module
    if outcome.status == 0:
        return Finding(name, "ok", outcome.stdout.strip())
    lines = outcome.stderr.strip().splitlines()
    last = lines[-1] if lines else ""
    parents = [module.rsplit(".", n)[0] for n in range(module.count(".") + 1)]
    if any(last.startswith(f"ModuleNotFoundError: No module named {parent!r}") for parent in parents):
        return Finding(name, "missing", "not installed", remedy)
    if outcome.status < 0:
        last = f"the process died of signal {-outcome.status} ({signal.strsignal(-outcome.status)})"
    return Finding(name, "broken", last or f"exit status {outcome.status}", remedy)


def _cpu(root: Path) -> Finding:
    def read(name: str) -> dict[str, str]:
        file = root / "proc" / name
        lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
        return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}

    cpu, memory = read("cpuinfo"), read("meminfo")
    parts = [cpu.get("model name", platform.machine()), _cores(root)]
    if "MemTotal" in memory:
        parts.append(f"{int(memory['MemTotal'].split()[0]) / 2**20:.1f} GiB memory")
    present = (cpu.get("flags") or cpu.get("Features") or "").split()
    parts += [flag for flag in _CPU_FLAGS if flag in present]
    return Finding("cpu", "ok", ", ".join(parts))


def _cores(root: Path) -> str:
    all_of_them, ours = os.cpu_count(), core_count(root)
    return (
        f"{all_of_them} cores" if ours == all_of_them else f"{ours} of {all_of_them} cores for this process"
    )


def _jetson(root: Path) -> list[Finding]:
    """One finding on a Jetson, none elsewhere."""
    release = root / "etc/nv_tegra_release"
    if not release.is_file():
        return []
    board = root / "proc/device-tree/model"
    model = board.read_text(errors="replace").strip("\0 \n") if board.is_file() else "a Jetson"
    # "# R36 (release), REVISION: 4.3, GCID: ..."
    fields = release.read_text(errors="replace").lstrip("# ").split(",")
    version = f"{fields[0].split()[0]}.{fields[1].split(':')[-1].strip()}" if len(fields) > 1 else "?"
    return [Finding("jetson", "ok", f"{model}, L4T {version}")]


def _driver(run: Run) -> Finding:
    outcome = run([sys.executable, "-c", DRIVER])
    if outcome.status == 44:
        return Finding(
            "gpu",
            "missing",
            "no NVIDIA driver (libcuda.so.1)",
            "install the NVIDIA driver; only --device cuda needs it",
        )
    if outcome.status != 0:
        detail = outcome.stderr.strip().splitlines()[-1:] or [f"exit status {outcome.status}"]
        return Finding("gpu", "broken", detail[0], "nvidia-smi, then restart or install the driver again")
    return Finding("gpu", "ok", outcome.stdout.strip())


def _cuda_binding(run: Run, driver: Finding) -> Finding:
    code = "from importlib.metadata import version; print('cuda-bindings', version('cuda-bindings'))"
    found = _ask(run, "cuda.bindings.driver", code, install_command("gpu"), name="cuda binding")
    if found.state == "missing":
        older = _ask(
            run, "pycuda.driver", "print('pycuda', pycuda.VERSION_TEXT)", found.remedy, name=found.name
        )
        return found if older.state == "missing" else older
    if found.state == "ok" and driver.state == "ok":
        ours, theirs = found.detail.split()[-1].split(".")[0], driver.detail.split()[1].split(".")[0]
        if int(ours) > int(theirs):
            detail = f"{found.detail} is newer than the driver's CUDA {theirs}"
            return Finding(found.name, "broken", detail, f"pip install 'cuda-bindings=={theirs}.*'")
    return found


def _onnxruntime(run: Run) -> list[Finding]:
    found = _ask(run, "onnxruntime", ONNXRUNTIME, install_command("cpu"))
    if found.state != "ok":
        return [found]
    detail, _, owners = found.detail.partition("\n")
    if len(owners.split()) > 1:
        detail = f"{' and '.join(owners.split())} are installed and overwrite each other's files"
        remedy = f"pip uninstall --yes {owners}, then install the one you want"
        return [Finding("onnxruntime", "broken", detail, remedy)]
    cuda = _ask(run, "onnxruntime", CUDA_PROVIDER, _INSTALL_GPU, name="onnxruntime cuda")
    if cuda.detail == "not built in":
        cuda = Finding(cuda.name, "missing", "this onnxruntime has no CUDAExecutionProvider", _INSTALL_GPU)
    return [Finding("onnxruntime", "ok", detail), cuda]


def _remedy_tensorrt(root: Path) -> str:
    if (root / "etc/nv_tegra_release").is_file():
        return "sudo apt install python3-libnvinfer; make the environment with --system-site-packages"
    return "pip install tensorrt (from the vendor's index); only engine files need it"


def _cameras(root: Path) -> list[Finding]:
    """One finding a video device: there are several to a camera."""
    return [
        Finding(f"camera {device.name}", "ok", f"v4l2://{device}")
        if os.access(device, os.R_OK | os.W_OK)
        else Finding(
            f"camera {device.name}",
            "broken",
            f"this user may not open {device}",
            "sudo usermod --append --groups video $USER, then log in again",
        )
        for device in sorted(root.glob("dev/video[0-9]*"))
    ]


def _opencv(run: Run) -> Finding:
    code = "print(cv2.__version__); print(cv2.getBuildInformation())"
    found = _ask(run, "cv2", code, "pip install opencv-python-headless", name="opencv")
    if found.state != "ok":
        return found
    version, _, build = found.detail.partition("\n")
    rows = [
        (key.strip(), value.split()[:1])
        for key, _, value in (row.partition(":") for row in build.splitlines())
    ]
    uses = {"FFMPEG": "FFmpeg: it opens no video files", "v4l/v4l2": "V4L2: it opens no USB cameras"}
    lacking = [use for key, use in uses.items() if (key, ["YES"]) not in rows]
    if lacking:
        detail = f"{version} was built without {', and without '.join(lacking)}"
        return Finding("opencv", "broken", detail, "pip install --force-reinstall opencv-python-headless")
    return Finding("opencv", "ok", f"{version} with FFmpeg and V4L2")


def _gstreamer(run: Run) -> list[Finding]:
    sources = {"gstreamer rtsp": "rtspsrc", "gstreamer v4l2": "v4l2src"}
    names = sorted({*sources.values(), *MAY_BE_INSTALLED})
    code = GSTREAMER.replace("{names}", repr(names))
    remedy = f"{APT_COMMAND} gir1.2-gstreamer-1.0, then {install_command('streams')}"
    found = _ask(run, "gi", code, remedy, name="gstreamer")
    if found.state != "ok":
        return [found]
    version, _, listed = found.detail.partition("\n")
    here = listed.split()
    findings = [Finding("gstreamer", "ok", version)]
    for name, element in sources.items():
        if element in here:
            findings.append(Finding(name, "ok", element))
        else:
            findings.append(Finding(name, "missing", f"no {element}", APT_COMMAND))
    for codec, decoders in DECODERS.items():
        name, chosen = f"gstreamer {codec.lower()}", choose_decoder(codec, here)
        if chosen is None:
            findings.append(Finding(name, "missing", f"no {' or '.join(decoders)}", APT_COMMAND))
        else:
            others = [element for element in decoders if element in here and element != chosen]
            passed_over = f" (not used: {', '.join(others)})" if others else ""
            findings.append(Finding(name, "ok", f"decoded by {chosen}{passed_over}"))
    return findings


def _ffmpeg(run: Run) -> Finding:
    outcome = run(["ffmpeg", "-hide_banner", "-encoders"])
    if outcome.status == 0 and "libx264" in outcome.stdout:
        return Finding("ffmpeg", "ok", "writes annotated videos as H.264")
    detail = "no ffmpeg command" if outcome.status == 127 else "this ffmpeg has no libx264"
    return Finding("ffmpeg", "missing", f"{detail}: annotated videos are MPEG-4", "sudo apt install ffmpeg")


def _model(name: str, present: bool, path: Path) -> Finding:
    remedy = install_command() if name in SHIPPED else f"edge-fr models pull {name}"
    if not present:
        return Finding(f"model {name}", "missing", f"not at {path}", remedy)
    try:
        verify([name])
    except (ModelError, OSError) as error:
        return Finding(f"model {name}", "broken", " ".join(str(error).split()), remedy)
    return Finding(f"model {name}", "ok", str(path))
