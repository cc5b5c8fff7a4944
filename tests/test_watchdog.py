"""A real systemd restarts the service when it stands still: the shipped unit, in a manager of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_for

from edge_fr._files import cache_folder

UNIT = Path(__file__).resolve().parents[1] / "samples" / "edge-fr.service"
SYSTEMD = next((p for p in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if Path(p).exists()), None)
LIMIT_S = 300.0  # for what takes ten seconds or twenty on a machine that does nothing else
# What only a system's manager may do: another user, and all that needs a namespace.
SYSTEM_ONLY = (
    r"^(User|StateDirectory\w*|CapabilityBoundingSet|PrivateTmp|Protect\w+|Restrict\w+|System\w+)=.*\n"
)
# systemd starts only where /run says that it has booted the machine; nobody else sees this /run.
IN_A_RUN_OF_ITS_OWN = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec $0 --user"


class Manager:
    """A user's systemd, with its sockets and units in a folder."""

    def __init__(self, folder: Path) -> None:
        assert SYSTEMD is not None
        self.folder = folder
        self.environment = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
        self.environment.pop("XDG_CONFIG_HOME", None)
        self.units = folder / ".config" / "systemd" / "user"
        self.units.mkdir(parents=True)
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", IN_A_RUN_OF_ITS_OWN, SYSTEMD]
        self.process = subprocess.Popen(
            enter, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def is_there(self) -> bool:
        return (self.folder / "systemd" / "private").exists() and self.process.poll() is None

    def ask(self, *arguments: str) -> str:
        command = ["systemctl", "--user", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def show(self) -> dict[str, str]:
        names = "MainPID,ActiveState,NRestarts,Result"
        return dict(line.split("=", 1) for line in self.ask("show", "edge-fr", "-p", names).splitlines())

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate()


@pytest.fixture
def manager() -> Iterator[Manager]:
    missing = [name for name in ("unshare", "systemctl") if shutil.which(name) is None]
    if SYSTEMD is None or missing:
        pytest.skip(f"not on this machine: {', '.join(missing) or 'systemd'}")
    if os.geteuid() != 0:
        pytest.skip("only root may give a process a /run of its own")
    folder = Path(tempfile.mkdtemp(prefix="sd-"))  # the address of a socket in it has at most 107 bytes
    it = Manager(folder)
    try:
        give_up = time.monotonic() + 30
        while not it.is_there():
            if it.process.poll() is not None or time.monotonic() > give_up:
                it.process.kill()
                pytest.skip(f"no systemd can be started here: {it.process.communicate()[1].strip()}")
            time.sleep(0.02)
        yield it
    finally:
        it.close()
        shutil.rmtree(folder)


def test_a_service_that_stands_still_is_aborted_and_started_again(manager: Manager, tmp_path: Path) -> None:
    events, errors = tmp_path / "events.jsonl", tmp_path / "errors.txt"
    (tmp_path / "site.yaml").write_text(
        "models: {threads: 1}\ncameras: {door: {source: 'test://?width=160&height=120', fps: 5}}\n"
        f"events: {{jsonl: {events}}}\n"
    )
    unit = re.sub(SYSTEM_ONLY, "", UNIT.read_text(), flags=re.MULTILINE)
    command = f"{sys.executable} -m edge_fr.cli run --config {tmp_path / 'site.yaml'}"
    for before, after in (
        (r"(?<=^ExecStart=).*$", command),
        (r"(?<=^WatchdogSec=).*$", "30"),  # a minute would be long for a test
        (r"(?<=^Environment=EDGE_FR_CACHE=).*$", str(cache_folder())),
        (r"^UMask=.*$", f"StandardError=append:{errors}"),
    ):
        unit, found = re.subn(before, after, unit, flags=re.MULTILINE)
        assert found == 1, before
    (manager.units / "edge-fr.service").write_text(unit)

    manager.ask("start", "edge-fr")  # returns when it has said that it is ready
    first = manager.show()
    assert (first["ActiveState"], first["NRestarts"]) == ("active", "0")
    os.kill(int(first["MainPID"]), signal.SIGSTOP)
    # Not by its Result, which is "watchdog" only until the second one begins: by the count, which stays.
    wait_for(lambda: manager.show()["NRestarts"] != "0", "systemd notices", patience_s=LIMIT_S)
    wait_for(lambda: manager.show()["ActiveState"] == "active", "the second one is ready", patience_s=LIMIT_S)
    second = manager.show()
    assert (second["NRestarts"], second["Result"]) == ("1", "success")
    assert second["MainPID"] != first["MainPID"]
    # The first one's last words are its stacks, and it left no core file behind.
    assert "Fatal Python error: Aborted" in errors.read_text()
    manager.ask("stop", "edge-fr")
    assert manager.show()["Result"] == "success"
    assert [json.loads(line) for line in events.read_text().splitlines()] == []  # nobody was there
