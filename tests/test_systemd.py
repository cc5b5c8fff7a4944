"""What systemd hears of the service, on a real datagram socket, and the unit that starts it."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from service_manager import ServiceManager

from edge_fr.errors import InputError
from edge_fr.systemd import Service

UNIT = Path(__file__).resolve().parents[1] / "samples" / "edge-fr.service"
SECOND = 1_000_000_000


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@edge-fr-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[ServiceManager]:
    with ServiceManager(address) as it:
        yield it


def test_the_first_sign_of_life_says_ready_and_the_rest_keep_the_watchdog_quiet(
    manager: ServiceManager, address: str
) -> None:
    clock = [0]
    service = Service({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"}, now_ns=lambda: clock[0])
    assert not service.is_ready
    service.alive()
    assert service.is_ready
    assert manager.heard() == ["READY=1", "WATCHDOG=1"]
    for clock[0] in range(0, 61 * SECOND, SECOND // 4):
        service.alive()
    assert manager.heard() == ["WATCHDOG=1"] * 3  # at 20, 40 and 60 s of a WatchdogSec of 60
    service.stopping()
    assert manager.heard() == ["STOPPING=1"]


def test_without_a_watchdog_it_says_ready_once(manager: ServiceManager, address: str) -> None:
    service = Service({"NOTIFY_SOCKET": address})
    service.alive()
    service.alive()
    assert manager.heard() == ["READY=1"]


def test_the_watchdog_of_another_process_is_left_to_it(manager: ServiceManager, address: str) -> None:
    service = Service({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    service.alive()
    assert manager.heard() == ["READY=1"]


def test_where_systemd_did_not_start_it_nothing_happens() -> None:
    service = Service({})
    service.alive()
    service.stopping()
    assert service.is_ready


def test_a_queue_that_is_full_is_tried_again_and_waited_for_by_nobody(
    manager: ServiceManager, address: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
        flood.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                flood.sendto(b"x", address.replace("@", "\0", 1))
    service = Service({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"})
    service.alive()
    assert not service.is_ready
    assert set(manager.heard()) == {"x"}
    service.alive()
    assert manager.heard() == ["READY=1", "WATCHDOG=1"]


def test_a_socket_that_is_gone_is_logged_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with caplog.at_level(logging.WARNING):
        service.alive()
    assert "systemd could not be told READY=1: [Errno 2] No such file or directory" in caplog.text


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"NOTIFY_SOCKET": "vsock:2:1"}, r"NOTIFY_SOCKET is 'vsock:2:1', expected a path or an abstract"),
        ({"WATCHDOG_USEC": "1.5"}, r"WATCHDOG_USEC is '1\.5', expected a whole number of microseconds"),
    ],
)
def test_an_environment_that_means_nothing_is_refused(environment: dict[str, str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Service(environment)


def test_the_unit_waits_for_the_notification_and_watches() -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    assert (settings["Type"], settings["Restart"], settings["StandardOutput"]) == ("notify", "always", "null")
    # a stuck loop is told by /healthz first, and a drain is not cut short
    assert int(settings["WatchdogSec"]) > 30
    assert int(settings["TimeoutStopSec"]) > 30


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not on this machine")
    unit = tmp_path / UNIT.name
    command = Path(sys.executable).with_name("edge-fr")
    unit.write_text(UNIT.read_text().replace("/opt/edge-fr/bin/edge-fr", str(command)))
    verify = [tool, "verify", "--recursive-errors=no", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
