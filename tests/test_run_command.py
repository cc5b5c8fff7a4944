"""What a signal does to a run, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import threading

from edge_fr.run_command import stop_on_signals


def test_the_first_signal_asks_for_an_end_and_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    stop, told = threading.Event(), []
    with stop_on_signals(stop, lambda: told.append("stopping")) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(60)
        assert signals == [signal.SIGTERM]
        assert told == ["stopping"]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # a second one ends at once
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_that_was_ignored_before_stays_ignored() -> None:
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = threading.Event()
        with stop_on_signals(stop) as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.wait(60)
            assert signals == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
