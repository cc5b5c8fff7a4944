"""The rules of who may import what hold, and the checks that guard them can fail."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edge_fr

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "cv2",
    "cuda",
    "gi",
    "onnx",
    "onnxruntime",
    "paho",
    "pycuda",
    "rich",
    "tensorrt",
    "tensorrt_rtx",
    "torch",
}
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "cuda": "cuda-bindings",
    "gi": "pygobject",
    "paho": "paho-mqtt",
    "pynvml": "nvidia-ml-py",
    "skimage": "scikit-image",
    "tensorrt_rtx": "tensorrt-rtx-cu13",
    "yaml": "pyyaml",
}


NOT_BY_PIP_ALONE = {"pycuda", "tensorrt"}  # with JetPack, or from the vendor's index


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources, to do damage to."""
    for name in ("edge_fr", "export", "calibration"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("track.py", "from edge_fr import decide", "edge_fr.track is not allowed to import edge_fr.decide"),
        (
            "errors.py",
            "import edge_fr.structures",
            "edge_fr.errors is not allowed to import edge_fr.structures",
        ),
        (
            "events/event.py",
            "import edge_fr.pipeline",
            "edge_fr.events is not allowed to import edge_fr.pipeline",
        ),
        ("image.py", "import torch", "edge_fr is not allowed to import torch"),
        ("image.py", "import export.networks", "edge_fr is not allowed to import export"),
        ("detect.py", "import onnxruntime", "edge_fr is not allowed to import onnxruntime"),
        ("stream/opencv.py", "import gi", "edge_fr is not allowed to import gi"),
        ("quality.py", "import calibration.metrics", "edge_fr is not allowed to import calibration"),
        ("helpers.py", "", "The following modules are not listed as layers"),
    ],
)
def test_the_import_rules_refuse(module: str, line: str, complaint: str, checkout: Path) -> None:
    with (checkout / "edge_fr" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint_imports(checkout)
    assert complaint in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1


def test_importing_the_package_loads_no_optional_library() -> None:
    code = "import sys, edge_fr; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "edge_fr" in loaded.split()
    assert not HEAVY & set(loaded.split())


def test_no_command_asks_a_package_index_for_this_package() -> None:
    """It is on none, where somebody else could take its name."""
    texts = {
        path: path.read_text(encoding="utf-8")
        for name in (
            "edge_fr",
            "export",
            "calibration",
            "samples",
            "README.md",
            "CONTRIBUTING.md",
            "Makefile",
        )
        for path in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*.*"))
        if path.suffix in (".py", ".md", ".service", ".yaml", "")
    }
    asking = re.compile(r"pip install [^\n]*\bedge[-_]fr\b(?!-)(?<!of edge_fr)|edge-fr\[")
    assert len(texts) > 100
    assert [str(path) for path, text in texts.items() if asking.search(text)] == []
    assert asking.search("pip install 'edge-fr[cpu]'")
    assert asking.search("pip install --upgrade edge-fr")


def test_the_public_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse(Path(edge_fr.__file__).read_text())
    (for_type_checkers,) = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {
        alias.asname: node.module
        for node in for_type_checkers.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(homes) == list(edge_fr.__all__)
    for name, home in homes.items():
        assert getattr(edge_fr, name) is getattr(importlib.import_module(str(home)), name)


def test_a_name_that_the_package_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edge_fr' has no attribute 'Recogniser'"):
        _ = edge_fr.Recogniser


def requirements(*extras: str) -> set[str]:
    """Names of the distributions that an installation with these extras brings."""
    text = (ROOT / "pyproject.toml").read_text()
    blocks = [text.partition(f"\n{key} = [")[2].partition("\n]")[0] for key in ("dependencies", *extras)]
    return {name.lower() for block in blocks for name in re.findall(r'^ *"([\w-]+)', block, re.MULTILINE)}


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("edge_fr", ("cpu", "gpu", "mqtt", "rtx", "site", "streams")),
        ("export", ("export",)),
        ("calibration", ("calibration",)),
        ("samples", ("cpu", "dev")),
    ],
)
def test_what_is_imported_is_declared(package: str, extras: tuple[str, ...]) -> None:
    imported = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    ours = {"calibration", "edge_fr", "export", "samples"}  # who of them may import whom is import-linter's
    third_party = imported - sys.stdlib_module_names - ours - NOT_BY_PIP_ALONE
    assert "numpy" in third_party
    assert {DISTRIBUTIONS.get(name, name) for name in third_party} <= requirements(*extras)
