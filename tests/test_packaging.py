"""The wheel holds the runtime and nothing else, and works in an environment that has only numpy."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("edge_fr", "export", "calibration", "samples", "tests")
FILES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: what an earlier build left in the checkout must not get in."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    # Without isolation the build uses the setuptools that is installed here and needs no network.
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder / "dist")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(folder)], check=True)
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def clean_room(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of a fresh environment with the wheel and numpy."""
    folder = tmp_path_factory.mktemp("clean") / "room"
    venv.create(folder, symlinks=True)
    commands = folder / "bin"
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(commands / "python"), *install], check=True)
    # Linked, so that no network is needed: numpy's libraries are found beside the files that links lead to.
    site_packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    for part in Path(sysconfig.get_path("platlib")).glob("numpy*"):
        (Path(site_packages) / part.name).symlink_to(part)
    return commands


def test_the_wheel_holds_the_runtime_and_its_papers_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    papers = "edge_fr-0.1.0.dist-info"
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "edge_fr").rglob("*")
        if path.suffix in (".py", ".onnx", ".sha256") or path.name == "py.typed"
    }
    expected |= {f"{papers}/licenses/LICENSE", f"{papers}/licenses/NOTICE", f"{papers}/METADATA"}
    expected |= {f"{papers}/{name}" for name in ("RECORD", "WHEEL", "entry_points.txt", "top_level.txt")}
    assert names == expected
    assert "edge_fr/py.typed" in names


def test_with_numpy_alone_the_package_can_be_imported(clean_room: Path) -> None:
    code = "import edge_fr; print(edge_fr.__file__, len(edge_fr.Faces.empty()))"
    command = [str(clean_room / "python"), "-I", "-W", "error", "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert Path(printed[0]).is_relative_to(clean_room.parent)
    assert printed[1] == "0"


def test_with_numpy_alone_the_command_explains_itself(clean_room: Path) -> None:
    done = subprocess.run([str(clean_room / "edge-fr"), "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: edge-fr")
    assert "doctor" in done.stdout


def test_with_numpy_alone_the_doctor_names_what_is_missing(clean_room: Path) -> None:
    command = [str(clean_room / "edge-fr"), "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["missing", "onnxruntime"] in [row[:2] for row in rows]
    assert ["missing", "opencv"] in [row[:2] for row in rows]
