"""The commands where little is there: no home folder, nothing to write to, no UTF-8, no stdout."""

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

from samples.standoff_people import HOPPER, portrait

ROOT = Path(__file__).resolve().parents[1]
EDGE_FR = (sys.executable, "-m", "edge_fr.cli")
COMMANDS = (
    ["doctor"],
    ["models", "list"],
    ["models", "verify"],
    ["enroll", "Zoë", "zoé.png", "--gallery", "p.db", "--force"],
    ["gallery", "list", "--gallery", "p.db"],
    ["run", "zoé.png", "--gallery", "p.db"],
    ["bench", "test://?frames=2"],
    ["audit", "zoé.png", "-o", "a.html"],
)
# Reads what only root may (the interpreter may lie in root's home), writes what everybody may.
NAMELESS = (
    *("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)


@pytest.fixture
def place(tmp_path: Path, pulled: Callable[[str], Path]) -> Path:
    """A folder that anybody may write to, with a portrait and a cache."""
    shutil.copytree(pulled("yunet").parent, tmp_path / "cache/models")
    (tmp_path / "zoé.png").write_bytes(cv2.imencode(".png", portrait(HOPPER))[1].tobytes())
    tmp_path.chmod(0o777)
    return tmp_path


def run(
    place: Path, command: Sequence[str], *, prefix: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH",)}
    return subprocess.run(
        [*prefix, *EDGE_FR, *command],
        cwd=place,
        env={**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def as_root(program: str) -> None:
    if os.geteuid() != 0 or shutil.which(program) is None:
        pytest.skip(f"needs root and {program}")


def test_every_command_runs_for_a_user_without_name_and_home(place: Path) -> None:
    as_root("setpriv")
    for command in COMMANDS:
        done = run(place, command, prefix=NAMELESS, EDGE_FR_CACHE=str(place / "cache"))
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


def test_without_a_home_folder_the_cache_is_the_systems_and_errors_name_it(place: Path) -> None:
    as_root("setpriv")
    if Path("/var/cache/edge-fr").exists():
        pytest.skip("this machine has a cache of its own there")
    for command in (c for c in COMMANDS if c[0] != "gallery"):
        done = run(place, command, prefix=NAMELESS)
        assert "Traceback" not in done.stderr
        if done.returncode:
            assert "/var/cache/edge-fr/models/yunet.onnx is not there" in done.stderr
    assert "missing  model yunet" in run(place, ["doctor"], prefix=NAMELESS).stdout
    assert "not here: edge-fr models pull yunet" in run(place, ["models", "list"], prefix=NAMELESS).stdout


READ_ONLY = """
mount -t tmpfs edge-fr /mnt && cp -r "$PLACE/." /mnt && mount -o remount,ro /mnt || exit 77
for folder in /tmp /var/tmp; do mount --bind /mnt "$folder" || exit 77; done
cd /mnt && exec "$@"
"""


def test_a_system_that_nothing_can_be_written_to_runs_what_writes_nothing(place: Path) -> None:
    as_root("unshare")
    assert run(place, COMMANDS[3], EDGE_FR_CACHE=str(place / "cache")).returncode == 0
    prefix = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh"]
    said = {}
    for command in (
        *(c for c in COMMANDS if c[0] not in ("enroll", "audit")),
        ["enroll", "Ada", "zoé.png", "--gallery", "new.db"],
        ["run", "zoé.png", "--events", "e.jsonl"],
        ["run", "zoé.png", "--annotate", "a.mp4"],
        ["audit", "zoé.png"],
    ):
        done = run(place, command, prefix=prefix, EDGE_FR_CACHE="/mnt/cache", PLACE=str(place), HOME="/mnt")
        if done.returncode == 77:
            pytest.skip("this machine mounts nothing")
        assert "Traceback" not in done.stderr, done.stderr
        said[" ".join(command)] = (done.returncode, done.stderr)
    codes = {words: code for words, (code, _) in said.items()}
    assert {words for words, code in codes.items() if code} == {
        "enroll Ada zoé.png --gallery new.db",
        "run zoé.png --events e.jsonl",
        "run zoé.png --annotate a.mp4",
        "audit zoé.png",
    }
    assert "cannot write a.mp4: Read-only file system" in said["run zoé.png --annotate a.mp4"][1]


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_names_with_accents_are_taken_and_printed_where_python_knows_only_ascii(
    place: Path, environment: dict[str, str]
) -> None:
    environment = {**environment, "EDGE_FR_CACHE": str(place / "cache")}
    for command in COMMANDS:
        done = run(place, command, **environment)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert run(place, COMMANDS[4], **environment).stdout.startswith("Zo\\u00eb  ")
    (person,) = json.loads(run(place, [*COMMANDS[4], "--json"], **environment).stdout)
    assert person["identity"] == "Zoë"
    events = run(place, [*COMMANDS[5], "--json"], **environment).stdout.splitlines()
    assert {json.loads(event)["identity"] for event in events} == {"Zoë"}
    assert run(place, COMMANDS[4]).stdout.startswith("Zoë  ")


def test_without_a_stdout_the_commands_do_what_they_are_for(place: Path) -> None:
    """And no file of theirs gets its number, which a library that prints would write into."""
    for command in COMMANDS:
        closed = ["sh", "-c", 'exec "$@" <&- >&-', "sh"]
        done = run(place, command, prefix=closed, EDGE_FR_CACHE=str(place / "cache"))
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert run(place, COMMANDS[4]).stdout.startswith("Zoë  1 templates")


def test_no_file_gets_the_number_of_a_standard_stream_that_is_closed() -> None:
    code = (
        "import os; from edge_fr.standard_streams import prepare\n"
        "prepare(); print('lost'); os.write(9, b'%d' % os.open('/dev/null', os.O_RDONLY))"
    )
    shell = 'exec 9>&1; exec "$@" <&- >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False
    )
    assert int(done.stdout) > 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_stdout_on_a_full_disk_is_an_error_that_is_explained(place: Path) -> None:
    for command in (["models", "list"], ["run", "zoé.png"]):
        full = ["sh", "-c", 'exec "$@" >/dev/full', "sh"]
        done = run(place, command, prefix=full, EDGE_FR_CACHE=str(place / "cache"))
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].endswith("to stdout: No space left on device")
        assert "Exception ignored" not in done.stderr


FORBIDDEN = """
import os, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from edge_fr.cli import main
def said(*words):
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as errors:
        status = main(words)
    return f"{status} {errors.getvalue().strip()}"
# What it takes is loaded while it may be read.
said("enroll", "Ada", "zoé.png"), said("models", "verify"), said("audit", "zoé.png")
os.setgroups([]), os.setgid(12345), os.setuid(12345)
for words in (
    ["run", "closed/x.mp4"],
    ["run", "zoé.png", "--events", "closed/x.jsonl"],
    ["audit", "zoé.png", "-o", "closed/x"],
    ["run", "zoé.png", "--detector", "closed/x.onnx"],
    ["models", "show", "closed/x.onnx"],
    ["gallery", "list", "--gallery", "closed/x.db"],
):
    print(said(*words))
os.environ["EDGE_FR_CACHE"] = "closed"
print(said("models", "list"))
print(said("models", "verify", "yunet"))
"""


def test_a_folder_that_this_user_may_not_enter_is_named(place: Path) -> None:
    as_root("setpriv")
    (place / "closed").mkdir(mode=0o700)
    for folder in place.parents[:2]:  # pytest's own, which are for their owner alone
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EDGE_FR_CACHE": str(place / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *denied, listed, verified = done.stdout.splitlines()[:8]
    assert all(line.startswith("1 edge-fr: ") and "Permission denied" in line for line in denied), denied
    assert len([line for line in denied if "closed/x" in line]) == 6
    assert listed == "0 "
    assert verified.startswith("1 edge-fr: models are not usable:")
