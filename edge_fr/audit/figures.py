"""The figures of an audit: everything the page and its sentences rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_fr.audit.tallies import Histogram, PictureMap
from edge_fr.quality import QualityPolicy

EYES_M = 0.063  # between the pupils of an adult, on average; nine in ten have 57 to 69 mm

SIZE = frozenset({"head_size", "inter_eye_distance"})
"""Refusals for which only a larger face helps."""
LIGHT = frozenset({"under_exposure", "dynamic_range"})
TURNED = frozenset({"head_pose_yaw", "head_pose_pitch", "head_pose_roll"})
ASIDE = TURNED | {"crop_of_the_face_image"}
"""Refusals that have nothing to do with how large or how good the picture of the face is."""

_FALLING = np.geomspace(1, 1.1**60, 61)  # steps of a tenth


@dataclass(frozen=True, slots=True)
class Measure:
    """Something measured at every look: its name on the page, its unit, its bins and the gate's bounds.

    `bounds` is called with the policy that the gate goes by.
    """

    title: str
    unit: str
    edges: NDArray[np.float64]
    bounds: Callable[[QualityPolicy], tuple[float, ...]] = lambda policy: ()
    digits: int = 0


MEASURES = {
    "eyes_px": Measure(
        "Between the eyes",
        "px",
        np.array([0, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 256], np.float64),
        lambda policy: (policy.min_inter_eye_px,),
        digits=1,
    ),
    "sharpness": Measure(
        "Sharpness", "", np.arange(0, 0.51, 0.02), lambda policy: (policy.min_sharpness,), digits=2
    ),
    "brightness": Measure("Brightness of the face", "grey levels", np.arange(0, 257, 16.0)),
    "yaw_deg": Measure(
        "Turned to the side",
        "degrees",
        np.arange(-90, 91, 10.0),
        lambda policy: (-policy.max_yaw_deg, policy.max_yaw_deg),
    ),
    "ri": Measure(
        "Recognizability", "", np.linspace(0, 1, 21), lambda policy: (policy.min_recognizability,), digits=2
    ),
}


@dataclass
class Figures:
    """What was counted. A look is one face in one frame; a person is one track.

    A look is accepted when the quality gate has nothing against it; a person became recognizable with
    the first accepted look.
    """

    frames: int = 0
    frame_size: tuple[int, int] | None = None
    """(height, width) of the last frame."""
    seconds: float = 0.0
    """Of the stream, without the gaps in which no frame came."""
    followed: int = 0
    """Frames that came in those seconds, each counted from the one before it."""
    delivered: int = 0
    """Frames that the source gave in them; more where some were dropped."""
    dropped: int = 0
    late: int = 0
    unfollowed: int = 0
    damaged: int = 0
    live: bool = False
    latency_ms: Histogram = field(default_factory=lambda: Histogram(_FALLING))
    outages: int = 0
    outage_reason: str = ""
    """Of the last one."""
    trouble: str = ""
    """Why the audit ended before its time."""

    looks: int = 0
    accepted: int = 0
    measured: dict[str, Histogram] = field(
        default_factory=lambda: {name: Histogram(m.edges) for name, m in MEASURES.items()}
    )
    maps: dict[str, PictureMap] = field(default_factory=lambda: {name: PictureMap() for name in MEASURES})
    """Of the measures without their sign: of faces that turn left and right the mean would tell nothing."""
    accepted_map: PictureMap = field(default_factory=PictureMap)
    """1 for an accepted look, 0 for another: the means are shares."""
    refused: Counter[str] = field(default_factory=Counter)
    """Looks by what was against them; one look may count for several."""
    turns: Counter[int] = field(default_factory=Counter)
    """Frames by the turn, in degrees clockwise, after which their faces are recognizable; see `upright`."""
    large: int = 0
    """Looks that were not refused for their size."""
    large_refused: Counter[str] = field(default_factory=Counter)
    moving: Counter[bool] = field(default_factory=Counter)
    """Large looks by whether the face moved across the picture, and the blurred ones among them."""
    moving_blurred: Counter[bool] = field(default_factory=Counter)
    facing_eyes_px: Histogram = field(default_factory=lambda: Histogram(_FALLING))
    """Of looks with nothing against them that has to do with where the face looks or is cut off."""
    facing_accepted_px: Histogram = field(default_factory=lambda: Histogram(_FALLING))
    """Of the accepted ones among them."""
    facing_coarse_px: Histogram = field(default_factory=lambda: Histogram(_FALLING))
    """Of those among them that were refused for nothing but their recognizability."""
    px_per_m: Histogram = field(default_factory=lambda: Histogram(10 * np.geomspace(1, 1.1**60, 61)))
    """At the faces that were turned by less than 40 degrees, from the distance between their eyes."""

    people: int = 0
    recognizable: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """People who never became recognizable, by what was against their best look."""
    lost_px: Histogram = field(default_factory=lambda: Histogram(_FALLING))
    """The largest distance between their eyes."""
    wait_s: Histogram = field(default_factory=lambda: Histogram([0, *0.04 * np.geomspace(1, 1.1**80, 81)]))
    """From the first look at a person to the first accepted one."""
    in_view_s: Histogram = field(default_factory=lambda: Histogram([0, *0.04 * np.geomspace(1, 1.1**80, 81)]))

    @property
    def fps(self) -> float:
        """Frames a second that were looked at."""
        return self.followed / self.seconds if self.seconds else 0.0

    @property
    def source_fps(self) -> float:
        """Frames a second that the source gave."""
        return self.delivered / self.seconds if self.seconds else 0.0
