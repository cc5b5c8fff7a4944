"""kill -9 while events flow to a webhook and a broker that restart: nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("paho.mqtt.client", reason="`pip install '.[mqtt]'`")

import mqtt_broker
from numbered_events import numbered

from edge_fr.events import to_line
from tests.bench.kill_nine import attempt, faults, tally


@pytest.mark.skipif(mqtt_broker.MOSQUITTO is None, reason="no mosquitto: `apt-get install mosquitto`")
def test_every_stored_event_arrives_at_both_receivers(tmp_path: Path) -> None:
    counts = attempt(tmp_path, rounds=3, seed=9, at_least=2)
    assert faults(counts) == []
    assert counts["restarts"] == {"webhook": 1, "mosquitto": 1}  # with this seed
    assert isinstance(counts["stored"], int)
    assert counts["stored"] > 3


def test_the_count_finds_each_fault() -> None:
    one, two, three = (to_line(numbered(number)).encode() for number in (1, 2, 3))
    again = to_line(numbered(1)).encode()  # the same dedupe key, another event id
    counted = tally([two, one, one, again, three], begun={1, 2, 4}, stored={1, 2, 4})
    assert counted.missing == 1
    assert counted.unknown == 1
    assert counted.doubled == 2
    assert counted.renamed == 1
    assert counted.out_of_order == 1
    bad = {"unsigned": 1, "webhook": {}, "mqtt": {}}
    for name in ("webhook", "mqtt"):
        bad[name] = dict.fromkeys(("missing", "unknown", "renamed", "out_of_order"), 1)
    assert len(faults(bad)) == 9
