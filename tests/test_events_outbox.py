"""The outbox: what was stored is lost by count or not at all; sinks get events in order, each for itself."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from numbered_events import number_of, numbered
from waiting import wait_for

from edge_fr.errors import DeliveryError, EventError, InputError, RefusedError
from edge_fr.events import Letter, Outbox, RetryPolicy
from edge_fr.events.ledger import MIN_BYTES, REMEMBERED
from edge_fr.structures import Candidate, Decision

PATIENCE_S = 60.0  # far more than anything here takes, on a machine with other work
AT_ONCE = RetryPolicy(first_delay_s=0.001, max_delay_s=0.002)


class Inbox:
    """A receiver in this process: takes each event, or raises what `answer` says of its number."""

    def __init__(
        self, name: str = "inbox", answer: Callable[[int], Exception | None] = lambda n: None
    ) -> None:
        self.name = name
        self.answer = answer
        self.tried: list[int] = []
        self.taken: list[int] = []
        self.closed = 0
        self.retry_now: Callable[[], None] = lambda: None
        self._change = threading.Condition()

    def start(self, retry_now: Callable[[], None]) -> None:
        self.retry_now = retry_now

    def deliver(self, letter: Letter) -> None:
        number = number_of(letter.body)
        error = self.answer(number)
        with self._change:
            self.tried.append(number)
            if error is None:
                self.taken.append(number)
            self._change.notify_all()
        if error is not None:
            raise error

    def close(self) -> None:
        self.closed += 1

    def wait_for(self, there: Callable[[Inbox], bool]) -> None:
        with self._change:
            if not self._change.wait_for(lambda: there(self), PATIENCE_S):
                raise TimeoutError(f"tried {self.tried[-5:]}, took {self.taken[-5:]}")


def away(number: int) -> DeliveryError:
    return DeliveryError("it cannot be reached")


def busy(number: int) -> DeliveryError:
    return DeliveryError("it answered 503", answered=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def test_each_sink_gets_every_event_in_order(path: Path) -> None:
    first, second = Inbox("first"), Inbox("second")
    with Outbox(path, [first, second], drain_s=PATIENCE_S) as outbox:
        for number in range(20):
            outbox.write(numbered(number))
    assert first.taken == second.taken == list(range(20))
    assert first.closed == second.closed == 1


def test_people_below_the_threshold_are_not_sent_unless_asked_for(tmp_path: Path) -> None:
    class Reader(Inbox):
        def deliver(self, letter: Letter) -> None:
            told.append([c["identity"] for c in json.loads(letter.body)["candidates"]])
            super().deliver(letter)

    told: list[list[str]] = []
    decision = Decision("unknown", None, (Candidate("Ada", 0.3, None),), 0.4, 4)
    for candidates in (False, True):
        with Outbox(
            tmp_path / f"{candidates}.db", [Reader()], candidates=candidates, drain_s=PATIENCE_S
        ) as outbox:
            outbox.write(replace(numbered(1), decision=decision))
    assert told == [[], ["Ada"]]


def test_a_new_file_is_for_its_owner_alone_and_another_keeps_its_rights(path: Path, tmp_path: Path) -> None:
    with Outbox(path, [Inbox()]) as outbox:
        outbox.write(numbered(1))
        assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("events.db*")} == {0o600}
    path.chmod(0o640)
    with Outbox(path, [Inbox()]):
        pass
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_event_is_in_the_file_when_write_returns(path: Path) -> None:
    with Outbox(path, [Inbox(answer=away)]) as outbox:
        outbox.write(numbered(7))
        with sqlite3.connect(path) as other:
            ((body,),) = other.execute("SELECT body FROM events").fetchall()
        other.close()
    assert number_of(body) == 7


def test_a_failing_receiver_is_tried_again_until_it_takes_the_event(path: Path) -> None:
    inbox = Inbox(answer=away)
    with Outbox(path, [inbox], retry=AT_ONCE, drain_s=PATIENCE_S) as outbox:
        for number in range(3):
            outbox.write(numbered(number))
        inbox.wait_for(lambda it: len(it.tried) > 5)
        assert outbox.status()["inbox"].waiting == 3
        assert outbox.status()["inbox"].trouble == "it cannot be reached"
        inbox.answer = lambda n: None
        inbox.wait_for(lambda it: len(it.taken) == 3)
        outbox.write(numbered(3))
    assert inbox.taken == [0, 1, 2, 3]
    assert set(inbox.tried[:5]) == {0}


def test_a_sink_that_hangs_holds_up_neither_the_other_nor_the_writer(path: Path) -> None:
    release = threading.Event()

    def hang(number: int) -> None:
        release.wait(PATIENCE_S)

    stuck, quick = Inbox("stuck", hang), Inbox("quick")
    with Outbox(path, [stuck, quick]) as outbox:
        for number in range(10):
            outbox.write(numbered(number))
        quick.wait_for(lambda it: len(it.taken) == 10)
        assert outbox.status()["stuck"].waiting == 10
        release.set()
        stuck.wait_for(lambda it: len(it.taken) == 10)


def test_what_waits_is_delivered_by_the_next_run_and_what_was_delivered_is_not(path: Path) -> None:
    quick, slow = Inbox("quick"), Inbox("slow", away)
    with Outbox(path, [quick, slow], drain_s=PATIENCE_S) as outbox:
        for number in range(5):
            outbox.write(numbered(number))
        quick.wait_for(lambda it: len(it.taken) == 5)
    quick, slow = Inbox("quick"), Inbox("slow")
    with Outbox(path, [quick, slow], drain_s=PATIENCE_S) as outbox:
        outbox.write(numbered(5))
        slow.wait_for(lambda it: len(it.taken) == 6)
        quick.wait_for(lambda it: len(it.taken) == 1)
    assert slow.taken == [0, 1, 2, 3, 4, 5]
    assert quick.taken == [5]


def test_a_receiver_that_says_it_is_back_is_tried_at_once(path: Path) -> None:
    inbox = Inbox(answer=away)
    patient = RetryPolicy(first_delay_s=3600, max_delay_s=3600)
    with Outbox(path, [inbox], retry=patient) as outbox:
        outbox.write(numbered(1))
        inbox.wait_for(lambda it: it.tried == [1])
        outbox.write(numbered(2))
        threading.Event().wait(0.1)
        assert inbox.tried == [1]  # a new event does not shorten the pause
        inbox.answer = lambda n: None
        while not inbox.taken:  # said before the pause has begun, it is not heard
            inbox.retry_now()
        inbox.wait_for(lambda it: it.taken == [1, 2])
    assert inbox.tried == [1, 1, 2]


def test_a_pause_that_the_receiver_asks_for_is_kept(path: Path) -> None:
    inbox = Inbox(answer=lambda n: DeliveryError("not so fast", retry_after_s=3600, answered=True))
    with Outbox(path, [inbox], retry=AT_ONCE) as outbox:
        outbox.write(numbered(1))
        inbox.wait_for(lambda it: it.tried == [1])
        while outbox.status()["inbox"].trouble is None:
            threading.Event().wait(0.001)
        threading.Event().wait(0.1)  # fifty pauses of AT_ONCE
        assert inbox.tried == [1]


def test_the_same_dedupe_key_is_the_same_event(path: Path) -> None:
    inbox = Inbox()
    with Outbox(path, [inbox], drain_s=PATIENCE_S) as outbox:
        outbox.write(numbered(1))
        outbox.write(numbered(1))
        inbox.wait_for(lambda it: it.taken == [1])
        assert outbox.repeated == 1
    with Outbox(path, [inbox], drain_s=PATIENCE_S) as outbox:  # delivered since, and still known
        outbox.write(numbered(1))
        outbox.write(numbered(2))
    assert inbox.taken == [1, 2]


def test_what_was_delivered_leaves_no_name_in_the_file_and_little_else(path: Path) -> None:
    inbox = Inbox()
    with Outbox(path, [inbox], drain_s=PATIENCE_S) as outbox:
        outbox.write(numbered(1, camera="Grace Hopper"))
        inbox.wait_for(lambda it: it.taken == [1])
    assert b"Grace" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_only_so_many_delivered_events_are_remembered(path: Path) -> None:
    Outbox(path, [Inbox()]).close()
    with sqlite3.connect(path) as db:  # as if they had been delivered
        rows = ((number, number.to_bytes(16, "big")) for number in range(1, REMEMBERED + 51))
        db.executemany("INSERT INTO events (seq, key) VALUES (?, ?)", rows)
        db.execute("UPDATE sinks SET position = ?", (REMEMBERED + 50,))
    db.close()
    with Outbox(path, [Inbox()], drain_s=PATIENCE_S) as outbox:
        outbox.write(numbered(1))
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (REMEMBERED,)
    db.close()


def test_a_refused_event_is_set_aside_and_the_next_one_goes_on(path: Path) -> None:
    inbox = Inbox(answer=lambda n: RefusedError("it answered 422") if n == 1 else None)
    with Outbox(path, [inbox], drain_s=PATIENCE_S) as outbox:
        for number in range(3):
            outbox.write(numbered(number))
        inbox.wait_for(lambda it: it.taken == [0, 2])
    assert inbox.tried == [0, 1, 2]
    with Outbox(path, [Inbox()]) as outbox:
        ((body, reason, _),) = outbox.refused("inbox")
        status = outbox.status()["inbox"]
    assert number_of(body) == 1
    assert reason == "it answered 422"
    assert (status.waiting, status.delivered, status.refused, status.lost) == (0, 2, 1, 0)


def test_an_event_that_gets_a_no_for_too_long_is_set_aside(path: Path) -> None:
    inbox = Inbox(answer=lambda n: busy(n) if n == 1 else None)
    retry = RetryPolicy(first_delay_s=0.001, max_delay_s=0.002, give_up_s=0.05)
    with Outbox(path, [inbox], retry=retry, drain_s=PATIENCE_S) as outbox:
        outbox.write(numbered(1))
        outbox.write(numbered(2))
        inbox.wait_for(lambda it: it.taken == [2])
        assert outbox.refused("inbox")[0].reason == "not taken for 0.05 s: it answered 503"


def test_a_receiver_out_of_reach_is_never_given_up(path: Path) -> None:
    def now_and_then_an_answer(number: int) -> DeliveryError:
        return busy(number) if len(inbox.tried) % 10 == 0 else away(number)

    inbox = Inbox(answer=now_and_then_an_answer)
    retry = RetryPolicy(first_delay_s=0.001, max_delay_s=0.002, give_up_s=0.001)
    with Outbox(path, [inbox], retry=retry) as outbox:
        outbox.write(numbered(1))
        inbox.wait_for(lambda it: len(it.tried) > 50)
        assert outbox.status()["inbox"].refused == 0


def test_a_mistake_in_a_delivery_is_logged_and_ends_neither_sink(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = Inbox("broken", lambda n: KeyError("oops")), Inbox("sound")
    with Outbox(path, [broken, sound], retry=AT_ONCE) as outbox:
        outbox.write(numbered(1))
        broken.wait_for(lambda it: len(it.tried) > 2)
        sound.wait_for(lambda it: it.taken == [1])
        broken.answer = lambda n: None
        broken.wait_for(lambda it: it.taken == [1])
    (first, *_) = [record for record in caplog.records if record.exc_info]
    assert first.getMessage() == "sink broken: delivering failed in an unexpected way"


def test_a_long_outage_is_said_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox(answer=away)
    with caplog.at_level(logging.INFO), Outbox(path, [inbox], retry=AT_ONCE, drain_s=PATIENCE_S) as outbox:
        outbox.write(numbered(1))
        inbox.wait_for(lambda it: len(it.tried) > 20)
        inbox.answer = lambda n: None
        inbox.wait_for(lambda it: it.taken == [1])
        while outbox.status()["inbox"].trouble is not None:
            threading.Event().wait(0.001)
    first, second = [record.getMessage() for record in caplog.records]
    assert first == "sink inbox: it cannot be reached. Events are kept and sent again"
    assert re.fullmatch(r"sink inbox: delivers again after \d+ failures", second)


def size_bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in path.parent.iterdir() if p.name.startswith(path.name))


def test_a_year_without_a_network_costs_the_oldest_events_by_count_and_no_more_disk(path: Path) -> None:
    inbox, largest = Inbox(answer=away), 0
    with Outbox(path, [inbox], max_bytes=MIN_BYTES) as outbox:
        for number in range(300):  # three times what fits
            outbox.write(numbered(number, padding=80_000))
            largest = max(largest, size_bytes(path))
        status = outbox.status()["inbox"]
    assert largest < MIN_BYTES
    assert largest > MIN_BYTES / 2  # the room is used
    assert status.waiting + status.lost == 300
    assert 50 < status.waiting < 100
    with sqlite3.connect(path) as db:  # as the documentation says
        assert db.execute("SELECT lost FROM sinks").fetchone() == (status.lost,)
    db.close()
    inbox = Inbox()
    with Outbox(path, [inbox], max_bytes=MIN_BYTES, drain_s=PATIENCE_S):
        inbox.wait_for(lambda it: len(it.taken) == status.waiting)
    assert inbox.taken == list(range(status.lost, 300))


def test_only_the_sink_that_is_behind_loses_events(path: Path) -> None:
    quick, gone = Inbox("quick"), Inbox("gone", away)
    with Outbox(path, [quick, gone], max_bytes=MIN_BYTES, drain_s=PATIENCE_S) as outbox:
        for number in range(120):
            outbox.write(numbered(number, padding=80_000))
            quick.wait_for(lambda it, n=number: it.taken[-1:] == [n])  # type: ignore[misc]
        status = outbox.status()
    assert status["quick"].lost == 0
    assert status["gone"].lost > 20
    assert quick.taken == list(range(120))


def test_what_was_refused_makes_room_before_what_waits(path: Path) -> None:
    inbox = Inbox(answer=lambda n: RefusedError("no") if n < 60 else away(n))
    with Outbox(path, [inbox], max_bytes=MIN_BYTES) as outbox:
        for number in range(120):
            outbox.write(numbered(number, padding=80_000))
            if number == 59:
                wait_for(lambda: outbox.status()["inbox"].refused == 60)  # noted after the receiver knows
        status, kept = outbox.status()["inbox"], outbox.refused("inbox")
    assert status.lost == 0
    assert status.refused == 60
    assert 0 < len(kept) < 60
    assert number_of(kept[-1].body) == 59


def test_a_smaller_bound_is_kept_from_the_next_opening_on(path: Path) -> None:
    with Outbox(path, [Inbox(answer=away)], max_bytes=3 * MIN_BYTES) as outbox:
        for number in range(200):
            outbox.write(numbered(number, padding=80_000))
    inbox = Inbox()
    with Outbox(path, [inbox], max_bytes=MIN_BYTES, drain_s=PATIENCE_S) as outbox:
        inbox.wait_for(lambda it: it.taken[-1:] == [199])
        assert outbox.status()["inbox"].lost == 200 - len(inbox.taken) > 100
    assert inbox.taken == list(range(200 - len(inbox.taken), 200))


def test_an_event_that_was_given_up_while_it_was_under_way_counts_as_delivered(path: Path) -> None:
    under_way, release = threading.Event(), threading.Event()

    def hang(number: int) -> None:
        under_way.set()
        release.wait(10 * PATIENCE_S)

    inbox = Inbox(answer=hang)
    with Outbox(path, [inbox], max_bytes=MIN_BYTES, drain_s=PATIENCE_S) as outbox:
        for number in range(120):
            outbox.write(numbered(number, padding=80_000))
            assert under_way.wait(PATIENCE_S)  # the first one, before there is no more room for it
        assert outbox.status()["inbox"].lost > 20
        release.set()
        inbox.wait_for(lambda it: it.taken[-1:] == [119])
    assert inbox.taken[0] == 0
    with Outbox(path, [Inbox()]) as outbox:
        status = outbox.status()["inbox"]
    assert status.delivered == len(inbox.taken)
    assert status.lost == 120 - len(inbox.taken)


def test_a_new_sink_gets_what_is_written_from_then_on_and_one_that_is_gone_is_counted(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Outbox(path, [Inbox("old", away)]) as outbox:
        outbox.write(numbered(1))
        outbox.write(numbered(2))
    new = Inbox("new")
    with Outbox(path, [new], drain_s=PATIENCE_S) as outbox:
        outbox.write(numbered(3))
        new.wait_for(lambda it: it.taken == [3])
    assert f"outbox {path}: sink old is not used any more; 2 events were lost" in caplog.messages
    old = Inbox("old")
    with Outbox(path, [new, old], drain_s=PATIENCE_S) as outbox:
        outbox.write(numbered(4))
        old.wait_for(lambda it: it.taken == [4])
        wait_for(lambda: outbox.status()["old"].waiting == 0)  # noted after the receiver knows
        status = outbox.status()["old"]
    assert (status.lost, status.waiting) == (2, 0)
    assert new.taken == [3, 4]


def test_closing_delivers_what_waits_but_does_not_wait_for_a_receiver_that_fails(path: Path) -> None:
    def slowly(number: int) -> None:
        threading.Event().wait(0.01)

    gone, slow = Inbox("gone", away), Inbox("slow", slowly)
    outbox = Outbox(path, [gone, slow], drain_s=PATIENCE_S)
    for number in range(20):
        outbox.write(numbered(number))
    outbox.close()
    outbox.close()
    assert slow.taken == list(range(20))
    assert gone.taken == []
    with pytest.raises(EventError, match=r'is closed\. Not stored: {"event_id"'):
        outbox.write(numbered(20))


FILL_THE_DISK = """
import os, resource, sys
sys.path.insert(0, sys.argv[2])
from edge_fr.errors import EventError
from edge_fr.events import Outbox
from test_events_outbox import AT_ONCE, Inbox, away
from numbered_events import numbered
inbox = Inbox(answer=away)
outbox = Outbox(sys.argv[1], [inbox], retry=AT_ONCE)
ballast = sys.argv[1] + ".ballast"
stored = 0
fill()
try:
    while stored < 100_000:
        outbox.write(numbered(stored, padding=2_000))
        stored += 1
except EventError as error:
    print(str(error)[:600].replace(chr(10), " "))
print(stored)
inbox.answer = lambda n: None
while "cannot write to outbox" not in str(outbox.status()["inbox"].trouble):
    pass
make_room()
inbox.wait_for(lambda it: len(it.taken) == stored)
outbox.close()
assert inbox.taken == list(range(stored)), "not in order, or not once"
"""


def test_a_failing_disk_is_an_error_that_holds_the_event_and_keeps_the_others(path: Path) -> None:
    # A file that may not grow any more answers like a disk that fails to write.
    limit = (
        "def fill(): resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, -1))\n"
        "def make_room(): resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
    )
    command = [sys.executable, "-c", limit + FILL_THE_DISK, path, Path(__file__).parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    error, stored = done.stdout.splitlines()
    assert re.search(r"cannot write to outbox .*: the disk (failed or )?is full", error)
    assert "the events in it are safe" in error
    assert 'Not stored: {"event_id"' in error
    assert int(stored) > 20


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    ballast = "def fill(): open(ballast, 'wb').write(bytes(1_000_000))\ndef make_room(): os.unlink(ballast)\n"
    script = 'mount -t tmpfs -o size=2m tmpfs $1 && exec $2 -c "$3" $1/events.db $4'
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*private, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a small disk of its own")
    done = subprocess.run(
        [
            *private,
            "sh",
            "-c",
            script,
            "sh",
            tmp_path,
            sys.executable,
            ballast + FILL_THE_DISK,
            Path(__file__).parent,
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    error, stored = done.stdout.splitlines()
    assert "is full" in error
    assert 'Not stored: {"event_id"' in error
    assert int(stored) > 20


def test_a_second_process_is_told_that_the_outbox_is_in_use(path: Path) -> None:
    with Outbox(path, [Inbox()]), pytest.raises(EventError, match="another process uses outbox"):
        Outbox(path, [Inbox()])
    Outbox(path, [Inbox()]).close()


def test_a_damaged_outbox_is_left_as_it_is_and_the_way_out_is_named(path: Path) -> None:
    with Outbox(path, [Inbox(answer=away)]) as outbox:
        for number in range(50):
            outbox.write(numbered(number))
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
    path.write_bytes(content)
    with pytest.raises(EventError, match=rf"is damaged or no outbox .*`mv {path} {path}\.damaged`"):
        Outbox(path, [Inbox()])
    assert path.read_bytes() == content


def test_a_file_of_another_kind_is_left_alone(path: Path) -> None:
    path.write_text("dear diary, " * 1000)
    with pytest.raises(EventError, match="damaged or no outbox"):
        Outbox(path, [Inbox()])
    assert path.read_text() == "dear diary, " * 1000
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE notes (text)")
    db.close()
    with pytest.raises(EventError, match="database of another program"):
        Outbox(path, [Inbox()])


def test_an_event_that_is_damaged_in_the_file_is_set_aside(path: Path) -> None:
    with Outbox(path, [Inbox(answer=away)]) as outbox:
        outbox.write(numbered(1))
        outbox.write(numbered(2))
        outbox.write(numbered(3))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE events SET body = substr(body, 3) WHERE seq = 1")
        db.execute("UPDATE events SET body = '[]' WHERE seq = 2")
    db.close()
    inbox = Inbox()
    with Outbox(path, [inbox], drain_s=PATIENCE_S) as outbox:
        inbox.wait_for(lambda it: it.taken == [3])
        reasons = [refused.reason for refused in outbox.refused("inbox")]
    assert all(reason.startswith("damaged in the outbox: ") for reason in reasons)
    assert len(reasons) == 2


def test_an_outbox_of_a_newer_version_is_refused(path: Path) -> None:
    Outbox(path, [Inbox()]).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(EventError, match="made by a newer edge-fr"):
        Outbox(path, [Inbox()])


def test_a_place_that_cannot_hold_an_outbox_is_named(tmp_path: Path) -> None:
    with pytest.raises(EventError, match="No such file or directory; name a file in a folder that exists"):
        Outbox(tmp_path / "no" / "events.db", [Inbox()])
    with pytest.raises(EventError, match="no regular file"):
        Outbox(tmp_path, [Inbox()])


def test_receivers_need_names_of_their_own_and_the_bound_a_size(path: Path) -> None:
    with pytest.raises(InputError, match=r"different names, got \['inbox', 'inbox'\]"):
        Outbox(path, [Inbox(), Inbox()])
    with pytest.raises(InputError, match=r"different names, got \[\]"):
        Outbox(path, [])
    with pytest.raises(InputError, match="expected 8388608"):
        Outbox(path, [Inbox()], max_bytes=1000)
    assert not path.exists()


def test_a_camera_name_that_is_no_utf8_is_stored_and_delivered(path: Path) -> None:
    inbox = Inbox()
    with Outbox(path, [inbox], drain_s=PATIENCE_S) as outbox:
        outbox.write(numbered(1, camera=os.fsdecode(b"caf\xe9.mp4")))
    assert inbox.taken == [1]


def test_pauses_grow_to_the_longest_and_chance_shortens_them() -> None:
    retry = RetryPolicy(first_delay_s=1, max_delay_s=60, jitter=0.5)
    assert [retry.delay_s(n, 0) for n in (1, 2, 3, 7, 10_000)] == [1, 2, 4, 60, 60]
    assert retry.delay_s(3, 0.5) == 3
    assert retry.delay_s(1, 0, asked_s=100) == 100
    assert retry.delay_s(1, 0, asked_s=1e9) == 3600


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"first_delay_s": 0.0}, "0 < first_delay_s"),
        ({"first_delay_s": 100.0}, "first_delay_s <= max_delay_s"),
        ({"max_delay_s": float("nan")}, "max_delay_s is nan"),
        ({"jitter": 1.0}, "jitter is 1"),
        ({"give_up_s": 0.0}, "give_up_s is 0"),
    ],
)
def test_a_retry_policy_is_checked(values: dict[str, float], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        RetryPolicy(**values)
