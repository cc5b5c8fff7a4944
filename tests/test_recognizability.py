"""The gate's network: what it takes, what it gives, and for which recognizer."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import FakeEngine, Feeds, card, spec
from numpy.typing import NDArray

from edge_fr.engine import ModelCard
from edge_fr.errors import CardError
from edge_fr.recognizability import RecognizabilityNetwork

RECOGNIZER = card(name="face", weights_digest="sha256:face")


def brightness(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
    return {"ri": feeds["x"].mean(axis=(1, 2, 3), keepdims=True)[:, :, 0, 0] / 255}


def engine(gate: ModelCard | None = None, output: str = "ri") -> FakeEngine:
    gate = gate or card(name="gate", task="gate", guards="sha256:face")
    return FakeEngine(brightness, gate, outputs=(spec(output, None, 1),))


def test_every_crop_gets_one_number_in_its_order() -> None:
    gate = engine()
    network = RecognizabilityNetwork(gate, RECOGNIZER, max_batch=2)
    crops = np.stack([np.full((112, 112, 3), grey, np.uint8) for grey in (0, 51, 255)])
    assert network(crops) == pytest.approx([0, 0.2, 1])
    assert [len(feeds["x"]) for feeds in gate.calls] == [2, 1]


def test_no_crop_needs_no_network() -> None:
    gate = engine()
    assert RecognizabilityNetwork(gate, RECOGNIZER)(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0,)
    assert gate.calls == []


def test_the_gate_of_another_recognizer_is_refused() -> None:
    other = card(name="other", weights_digest="sha256:other")
    with pytest.raises(CardError, match="guards the recognizer with sha256:face, but other has sha256:other"):
        RecognizabilityNetwork(engine(), other)


def test_what_is_no_gate_is_refused() -> None:
    with pytest.raises(CardError, match="is a model for 'embed', expected one for 'gate'"):
        RecognizabilityNetwork(engine(card(name="face")), RECOGNIZER)
    with pytest.raises(CardError, match="has outputs quality, expected one named 'ri'"):
        RecognizabilityNetwork(engine(output="quality"), RECOGNIZER)


def test_a_gate_that_guards_nothing_has_no_card() -> None:
    with pytest.raises(CardError, match="a gate needs guards, the weights_digest of its recognizer"):
        card(name="gate", task="gate")
