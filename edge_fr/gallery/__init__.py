"""The people database: who is enrolled, and which of them a probe resembles most."""

from __future__ import annotations

from edge_fr.gallery.cohort import Cohort
from edge_fr.gallery.names import NameThreshold, belonging, genuine_bound
from edge_fr.gallery.people import Person, Provenance, normalized_identity
from edge_fr.gallery.store import Gallery
from edge_fr.gallery.thresholds import Threshold, score_threshold

__all__ = [
    "Cohort",
    "Gallery",
    "NameThreshold",
    "Person",
    "Provenance",
    "Threshold",
    "belonging",
    "genuine_bound",
    "normalized_identity",
    "score_threshold",
]
