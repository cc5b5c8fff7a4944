"""The doctor names what is there, what is missing and what is broken, and survives what it asks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import pytest

from edge_fr._probes import CUDA_PROVIDER, DRIVER, Outcome, run_command
from edge_fr.doctor import Finding, diagnose

Answer = Callable[[str], Outcome | None]


def found(findings: list[Finding], name: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.name == name]
    return finding


def machine_where(answer: Answer) -> Callable[[Sequence[str]], Outcome]:
    """A machine without any optional library but what `answer` says of a command's last word."""

    def run(command: Sequence[str]) -> Outcome:
        module = command[-1].partition("; import ")[2].split("\n")[0]
        absent = Outcome(1, "", f"Traceback ...\nModuleNotFoundError: No module named {module!r}\n")
        return answer(command[-1]) or (absent if module else Outcome(44, "", ""))

    return run


def test_this_machine_is_described_with_a_remedy_for_whatever_is_not_ok() -> None:
    findings = diagnose()
    assert found(findings, "python").detail.endswith(sys.executable)
    # The distribution's version has one part more than the library's.
    assert found(findings, "opencv").detail == f"{cv2.__version__} with FFmpeg and V4L2"
    assert all(bool(f.remedy) == (f.state != "ok") for f in findings), findings
    assert len({f.name for f in findings}) == len(findings)
    assert json.loads(json.dumps([f._asdict() for f in findings]))[0]["name"] == "python"


def test_the_doctor_loads_no_optional_library_into_its_own_process() -> None:
    code = (
        "import sys; from edge_fr._probes import Outcome; from edge_fr.doctor import diagnose\n"
        "diagnose(run=lambda command: Outcome(127, '', '')); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "edge_fr.doctor" in loaded.split()
    assert not {"cv2", "gi", "onnx", "onnxruntime", "tensorrt", "cuda", "torch"} & set(loaded.split())


def test_on_a_bare_machine_everything_optional_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_FR_CACHE", str(tmp_path))
    findings = diagnose(run=machine_where(lambda command: None), root=tmp_path)
    states = {finding.name: finding.state for finding in findings}
    here = ["python", "cpu", "model recognizer", "model recognizer-gate"]
    assert {states.pop(name) for name in here} == {"ok"}
    assert set(states.values()) == {"missing"}
    assert found(findings, "onnxruntime").remedy == "pip install '.[cpu]' in the checkout of edge_fr"
    assert found(findings, "model yunet").remedy == "edge-fr models pull yunet"


def test_a_library_that_crashes_on_import_is_a_finding() -> None:
    crash = run_command([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"])
    run = machine_where(lambda command: crash if "import tensorrt\n" in command else None)
    finding = found(diagnose(run=run), "tensorrt")
    assert finding.state == "broken"
    assert finding.detail == "the process died of signal 11 (Segmentation fault)"


def test_a_library_whose_own_needs_are_missing_is_broken_and_not_missing() -> None:
    lacking = Outcome(1, "", "Traceback ...\nModuleNotFoundError: No module named 'numpy'\n")
    finding = found(diagnose(run=machine_where(lambda c: lacking if "import cv2\n" in c else None)), "opencv")
    assert finding.state == "broken"
    assert finding.detail == "ModuleNotFoundError: No module named 'numpy'"


def test_a_command_that_is_not_there_has_status_127() -> None:
    assert run_command(["edge-fr-no-such-command"]).status == 127


def test_a_provider_that_is_listed_but_does_not_load_is_broken() -> None:
    def answer(command: str) -> Outcome | None:
        if "InferenceSession" in command:
            return Outcome(
                1, "", "CUDAExecutionProvider is listed but does not load: the session ran on ...\n"
            )
        if "import onnxruntime\n" in command:
            return Outcome(0, "1.31.1 CUDAExecutionProvider CPUExecutionProvider\nonnxruntime-gpu\n", "")
        return None

    findings = diagnose(run=machine_where(answer))
    assert found(findings, "onnxruntime").state == "ok"
    assert found(findings, "onnxruntime cuda").state == "broken"
    assert "listed but does not load" in found(findings, "onnxruntime cuda").detail


def test_the_question_for_a_provider_runs_a_model_on_it() -> None:
    on_cpu = CUDA_PROVIDER.replace("CUDAExecutionProvider", "CPUExecutionProvider")
    outcome = run_command([sys.executable, "-c", f"import sys, onnxruntime\n{on_cpu}"])
    assert outcome == Outcome(0, "CPUExecutionProvider\n", "")


def test_two_builds_of_onnxruntime_in_one_environment_are_broken() -> None:
    both = Outcome(0, "1.31.1 CPUExecutionProvider\nonnxruntime onnxruntime-gpu\n", "")
    run = machine_where(lambda command: both if "import onnxruntime\n" in command else None)
    finding = found(diagnose(run=run), "onnxruntime")
    assert finding.state == "broken"
    assert finding.remedy.startswith("pip uninstall --yes onnxruntime onnxruntime-gpu")


@pytest.mark.parametrize(
    ("binding", "state", "remedy"),
    [("13.5.0", "broken", "pip install 'cuda-bindings==12.*'"), ("12.9.1", "ok", "")],
)
def test_a_cuda_binding_must_not_be_newer_than_the_driver(binding: str, state: str, remedy: str) -> None:
    def answer(command: str) -> Outcome | None:
        if command == DRIVER:
            return Outcome(0, "CUDA 12.6, Orin (compute 8.7, 7.4 GiB)\n", "")
        return Outcome(0, f"cuda-bindings {binding}\n", "") if "cuda.bindings" in command else None

    finding = found(diagnose(run=machine_where(answer)), "cuda binding")
    assert (finding.state, finding.remedy) == (state, remedy)


def test_pycuda_serves_where_cuda_bindings_is_not_installed() -> None:
    there = Outcome(0, "pycuda 2026.1\n", "")
    run = machine_where(lambda command: there if "import pycuda" in command else None)
    assert found(diagnose(run=run), "cuda binding") == Finding("cuda binding", "ok", "pycuda 2026.1")


# The calls that the question makes, with a driver's signatures; REFUSE is what cuInit answers.
FAKE_DRIVER = """
#include <stddef.h>
#include <string.h>
int cuInit(unsigned flags) { return REFUSE; }
int cuGetErrorString(int error, const char **text) { *text = "no CUDA-capable device is detected"; return 0; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 8ul << 30; return 0; }
int cuDeviceGetAttribute(int *value, int key, int device) { *value = key - (key == 75 ? 67 : 69); return 0; }
"""


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (0, Finding("gpu", "ok", "CUDA 12.6, Orin (compute 8.7, 8.0 GiB)")),
        (
            100,
            Finding(
                "gpu",
                "broken",
                "the driver answers error 100: no CUDA-capable device is detected",
                "nvidia-smi, then restart or install the driver again",
            ),
        ),
    ],
)
def test_the_driver_is_asked_for_its_devices(refusal: int, expected: Finding, tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to build a stand-in for the driver")
    source = tmp_path / "driver.c"
    source.write_text(FAKE_DRIVER)
    library = ["-shared", "-fPIC", f"-DREFUSE={refusal}", "-o", str(tmp_path / "libcuda.so.1"), str(source)]
    subprocess.run([compiler, *library], check=True)

    ask = ["env", f"LD_LIBRARY_PATH={tmp_path}", sys.executable, "-c", DRIVER]
    run = machine_where(lambda command: run_command(ask) if command == DRIVER else None)
    assert found(diagnose(run=run), "gpu") == expected


def test_a_jetson_is_named_with_its_release(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    release = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
    (tmp_path / "etc/nv_tegra_release").write_text(release)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    findings = diagnose(run=machine_where(lambda command: None), root=tmp_path)
    assert found(findings, "jetson").detail == "NVIDIA Jetson Orin Nano Developer Kit, L4T R36.4.3"
    assert "--system-site-packages" in found(findings, "tensorrt").remedy


def test_the_processor_is_named_with_what_makes_int8_fast(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp crc32\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:        7864320 kB\nMemFree: 12 kB\n")
    finding = found(diagnose(run=machine_where(lambda command: None), root=tmp_path), "cpu")
    assert finding.detail.endswith(f"{os.cpu_count()} cores, 7.5 GiB memory, asimddp")


def test_a_camera_that_may_not_be_opened_is_broken(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/video0").touch()
    (tmp_path / "dev/video1").symlink_to("nothing")  # refused to root too
    findings = diagnose(run=machine_where(lambda command: None), root=tmp_path)
    assert found(findings, "camera video0") == Finding("camera video0", "ok", f"v4l2://{tmp_path}/dev/video0")
    assert found(findings, "camera video1").state == "broken"
    assert "--groups video" in found(findings, "camera video1").remedy


def test_an_opencv_that_cannot_open_cameras_is_broken() -> None:
    build = Outcome(0, "4.11.0\n  FFMPEG:      YES\n  v4l/v4l2:    NO\n", "")
    finding = found(diagnose(run=machine_where(lambda c: build if "import cv2\n" in c else None)), "opencv")
    assert finding.state == "broken"
    assert finding.detail == "4.11.0 was built without V4L2: it opens no USB cameras"


def test_a_gstreamer_without_a_decoder_is_told_what_to_install() -> None:
    listed = Outcome(0, "1.22.0\nrtspsrc v4l2src avdec_h264\n", "")
    findings = diagnose(run=machine_where(lambda c: listed if "import gi\n" in c else None))
    assert found(findings, "gstreamer").detail == "1.22.0"
    assert found(findings, "gstreamer h264") == Finding("gstreamer h264", "ok", "decoded by avdec_h264")
    assert found(findings, "gstreamer h265").state == "missing"
    assert "gstreamer1.0-libav" in found(findings, "gstreamer h265").remedy


@pytest.mark.parametrize(
    ("elements", "detail"),
    [
        ("nvv4l2decoder nvvidconv avdec_h264", "decoded by nvv4l2decoder (not used: avdec_h264)"),
        ("nvh264dec avdec_h264", "decoded by nvh264dec (not used: avdec_h264)"),
        ("nvv4l2decoder avdec_h264", "decoded by avdec_h264 (not used: nvv4l2decoder)"),
    ],
)
def test_the_decoder_that_a_stream_would_get_is_told(elements: str, detail: str) -> None:
    listed = Outcome(0, f"1.22.0\nrtspsrc v4l2src {elements}\n", "")
    findings = diagnose(run=machine_where(lambda c: listed if "import gi\n" in c else None))
    assert found(findings, "gstreamer h264") == Finding("gstreamer h264", "ok", detail)


def test_a_damaged_model_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_FR_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/yunet.onnx").write_bytes(b"cut off")
    finding = found(diagnose(run=machine_where(lambda command: None)), "model yunet")
    assert finding.state == "broken"
    assert str(tmp_path / "models") in finding.detail
    assert finding.remedy == "edge-fr models pull yunet"
