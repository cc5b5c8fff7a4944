"""Renders a short surveillance clip of two people who walk up to a camera, without any private photograph.

The two faces are public-domain portraits that installed packages carry: NASA's portrait of Eileen
Collins (scikit-image's `astronaut`) and the US Navy's of Grace Hopper (matplotlib's sample data).
Each is cut out by hand, set on a drawn body and shrunk by area averaging, so that a face of 14 pixels
holds what a camera would have seen of it, no more. Everything else is drawn. The same seed gives the
same clip; `render` returns where each face really is.

One thing the clip cannot show is a person who looks different from the enrolled photograph: every
frame of a walker comes from one portrait. It shows what size, blur and codec do, not what age or pose do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import EventError
from samples.standoff_people import FACE_WIDTH_M, WALKERS, Floats, Walker, figure

FPS = 12.5
SECONDS = 10.0
HEIGHT, WIDTH = 720, 1280
FOCAL_PX = 1100.0  # 60 degrees across
HORIZON_PX = 330.0
CAMERA_HEIGHT_M = 1.70
SEED = 7


@dataclass(frozen=True)
class Truth:
    """Where a face is in one frame of the clip: xyxy pixels."""

    frame: int
    person: str
    box: tuple[float, float, float, float]
    blurred: bool

    @property
    def width_px(self) -> float:
        return self.box[2] - self.box[0]


# --- the place ---


def corridor() -> Floats:
    """The empty corridor, (HEIGHT, WIDTH, 3) BGR 0..255, one ray a half pixel."""
    v, u = np.mgrid[0 : 2 * HEIGHT, 0 : 2 * WIDTH].astype(np.float32)
    across = (u / 2 - WIDTH / 2) / FOCAL_PX
    up = (HORIZON_PX - v / 2) / FOCAL_PX
    direct = _walls(CAMERA_HEIGHT_M, across, up)
    floor_m = np.where(up < 0, CAMERA_HEIGHT_M / np.maximum(-up, 1e-4), 1e6).astype(np.float32)
    on_floor = (floor_m < _LENGTH_M) & (np.abs(across * floor_m) < _HALF_WIDTH_M)
    x, z = (across * floor_m)[on_floor], floor_m[on_floor]
    tiles = np.where((np.floor(x / 0.6) + np.floor(z / 0.6)) % 2 == 0, 1.0, 0.965)
    joint = np.minimum(np.abs(x / 0.6 - np.round(x / 0.6)), np.abs(z / 0.6 - np.round(z / 0.6))) < 0.012
    tone = np.where(joint, 0.86, tiles) * _lamp(z) * _corner(_HALF_WIDTH_M - np.abs(x))
    floor = np.array([150, 152, 154], np.float32) * tone[:, None].astype(np.float32)
    # A polished floor mirrors more at a grazing look.
    mirrored = _walls(-CAMERA_HEIGHT_M, across[on_floor], -up[on_floor])
    share = (0.06 + 0.40 * np.exp(-9 * -up[on_floor]))[:, None].astype(np.float32)
    direct[on_floor] = floor * (1 - share) + mirrored * share
    return cv2.resize(direct, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


_HALF_WIDTH_M, _CEILING_M, _LENGTH_M = 1.75, 2.75, 18.0


def _lamp(z: Floats) -> Floats:
    """How much light falls at depth z: a lamp every three metres."""
    return (0.83 + 0.17 * np.cos((z - 1.8) * 2 * np.pi / 3)).astype(np.float32)


def _corner(distance_m: Floats) -> Floats:
    """Darker where two surfaces meet."""
    return (1 - 0.38 * np.exp(-distance_m / 0.16)).astype(np.float32)


def _walls(eye_m: float, across: Floats, up: Floats) -> Floats:
    """What rays from height `eye_m` see of side walls, ceiling and end wall."""
    with np.errstate(divide="ignore"):
        to_side = _HALF_WIDTH_M / np.abs(across)
        to_ceiling = np.where(up > 0, (_CEILING_M - eye_m) / up, np.inf)
    z = np.minimum(np.minimum(to_side, to_ceiling), _LENGTH_M).astype(np.float32)
    x, y = across * z, eye_m + up * z
    colour = np.empty((*z.shape, 3), np.float32)

    side = (z == to_side.astype(np.float32)) & (z < _LENGTH_M)
    colour[side] = _side_wall(y[side], z[side], x[side] < 0)
    above = (z == to_ceiling.astype(np.float32)) & ~side & (z < _LENGTH_M)
    seam = np.minimum(np.abs(x / 0.6 - np.round(x / 0.6)), np.abs(z / 0.6 - np.round(z / 0.6)))[above] < 0.02
    shade = np.where(seam, 0.90, 1.0) * _lamp(z[above]) * _corner(_HALF_WIDTH_M - np.abs(x[above]))
    colour[above] = np.array([222, 224, 224], np.float32) * (0.9 * shade)[:, None].astype(np.float32)
    lit = above & (np.abs(x) < 0.6) & (np.abs((z - 1.8) / 3 - np.round((z - 1.8) / 3)) < 0.1)
    colour[lit] = (250, 253, 255)

    end = z >= _LENGTH_M
    ex, ey = np.abs(x[end]), y[end]
    shade = _corner(_HALF_WIDTH_M - ex) * _corner(_CEILING_M - ey) * 0.80
    wall = np.array([205, 210, 212], np.float32) * shade[:, None]
    wall[(ex < 1.02) & (ey < 2.25)] = (88, 84, 80)
    glass = (ex < 0.94) & (ex > 0.04) & (ey < 2.15) & (ey > 0.12)
    wall[glass] = (np.array([238, 226, 206]) * (0.66 + 0.16 * ey[glass])[:, None]).clip(0, 255)
    wall[(ex < 0.22) & (ey > 2.36) & (ey < 2.5)] = (96, 168, 62)
    colour[end] = wall
    return colour


def _side_wall(y: Floats, z: Floats, left: NDArray[np.bool_]) -> Floats:
    wall = np.empty((len(y), 3), np.float32)
    wall[:] = (206, 214, 217)
    wall[y < 0.95] = (164, 156, 138)
    wall[(y >= 0.95) & (y < 1.01)] = (120, 116, 108)
    nearest = np.round((z - 2.9) / 3.3) * 3.3 + 2.9 + np.where(left, 0, 0.9)
    beside = np.abs(z - nearest)
    board = (np.abs(z - nearest - 1.65) < 0.42) & (np.abs(y - 1.58) < 0.3) & ~left
    wall[board] = (150, 176, 190)
    wall[(beside < 0.56) & (y < 2.14)] = (104, 100, 94)
    door = (beside < 0.48) & (y < 2.06)
    wall[door & left] = (128, 112, 74)
    wall[door & ~left] = (92, 128, 160)
    wall[door & (np.abs(z - nearest - 0.18) < 0.10) & (np.abs(y - 1.5) < 0.34)] = (190, 188, 180)
    wall[door & (np.abs(z - nearest + 0.38) < 0.05) & (np.abs(y - 1.02) < 0.03)] = (206, 206, 206)
    wall[(y < 0.11) & ~door] = (84, 82, 80)
    shade = _lamp(z) * _corner(y) * _corner(_CEILING_M - y)
    wall *= shade[:, None]
    return wall


# --- the walk ---


@dataclass(frozen=True)
class _Pose:
    """Where a person is at a moment: the map from portrait pixels to picture pixels, and the stride."""

    affine: NDArray[np.float64]  # (2, 3)
    scale: float
    distance_m: float
    stride: float
    feet: tuple[float, float]


def _pose(walker: Walker, seconds: float) -> _Pose:
    way = min(seconds / (SECONDS - 1.4), 1.0)  # everybody stands still at the end
    far, near = walker.distance_m
    distance = far + (near - far) * way
    stride = (far - distance) / 1.3  # metres a double step
    walking = float(np.clip((1 - way) * 12, 0, 1))
    lateral = walker.lateral_m[0] + (walker.lateral_m[1] - walker.lateral_m[0]) * way
    lateral += 0.035 * walking * np.sin(2 * np.pi * stride)
    bob = 0.018 * walking * np.cos(4 * np.pi * stride)
    roll = np.radians(2.2 * walking * np.sin(2 * np.pi * stride + 0.6) + 1.2 * np.sin(1.7 * seconds))
    per_m = FOCAL_PX / distance
    scale = per_m / walker.px_per_m
    u = WIDTH / 2 + per_m * lateral
    v = HORIZON_PX + per_m * (CAMERA_HEIGHT_M - walker.eye_height_m - bob)
    anchor = np.array([(walker.face_px[0] + walker.face_px[2]) / 2, walker.eyes_y_px])
    turn = scale * np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    affine = np.column_stack([turn, np.array([u, v]) - turn @ anchor])
    feet = (u, HORIZON_PX + per_m * CAMERA_HEIGHT_M)
    return _Pose(affine, scale, distance, stride * walking, feet)


def _is_blurred(walker: Walker, seconds: float) -> bool:
    return any(begin <= seconds < end for begin, end in walker.blurred_s)


def truth(frame: int) -> tuple[Truth, ...]:
    """Where everybody's face is in that frame of the clip."""
    rows = []
    for walker in WALKERS:
        pose = _pose(walker, frame / FPS)
        x1, y1, x2, y2 = walker.face_px
        x, y = pose.affine @ ((x1 + x2) / 2, (y1 + y2) / 2, 1)
        half_w, half_h = pose.scale * (x2 - x1) / 2, pose.scale * (y2 - y1) / 2
        box = (float(x - half_w), float(y - half_h), float(x + half_w), float(y + half_h))
        rows.append(Truth(frame, walker.name, box, _is_blurred(walker, frame / FPS)))
    return tuple(rows)


_STRIDES = 8  # drawings of one double step


def _paste(picture: Floats, walker: Walker, figures: Sequence[Floats], seconds: float) -> None:
    """Draws the person and the shadow at the feet into the picture."""
    pose = _pose(walker, seconds)
    _shadow(picture, pose)
    drawn = figures[round(pose.stride * _STRIDES) % _STRIDES]
    face_px = FACE_WIDTH_M * FOCAL_PX / pose.distance_m
    blur_px = 0.30 * face_px if _is_blurred(walker, seconds) else 0.0
    # Averaged to twice the size wanted, moved there, averaged again: no pixel of the portrait is skipped.
    shrink = min(2 * pose.scale, 1.0)
    size = round(drawn.shape[1] * shrink), round(drawn.shape[0] * shrink)
    small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    to_portrait = np.array(
        [[drawn.shape[1] / size[0], 0, -walker.margin_px], [0, drawn.shape[0] / size[1], 0]]
    )
    to_portrait[:, 2] += (to_portrait[0, 0] - 1) / 2, (to_portrait[1, 1] - 1) / 2  # pixel centres
    twice = 2 * pose.affine @ np.vstack([to_portrait, (0, 0, 1)])
    twice[:, 2] += 0.5
    corners = twice @ np.array([(0, 0, 1), (size[0], 0, 1), (0, size[1], 1), (*size, 1)], np.float64).T
    reach = blur_px + 4
    left, top = np.maximum(np.floor(corners.min(1) / 2 - reach), 0).astype(int)
    right, bottom = np.minimum(np.ceil(corners.max(1) / 2 + reach), (WIDTH, HEIGHT)).astype(int)
    twice[:, 2] -= 2 * left, 2 * top
    layer = cv2.warpAffine(small, twice, (2 * (right - left), 2 * (bottom - top)), flags=cv2.INTER_LINEAR)
    layer = cv2.resize(layer, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    if blur_px:
        layer = cv2.GaussianBlur(cv2.filter2D(layer, -1, _smear(blur_px)), (0, 0), 0.4 * blur_px)
    light = 0.92 + 0.12 * np.cos((pose.distance_m - 1.8) * 2 * np.pi / 3)
    place = picture[top:bottom, left:right]
    place *= 1 - layer[..., 3:]
    place += 255 * float(light) * layer[..., :3]


def _smear(length_px: float) -> Floats:
    """A motion-blur kernel: a short slanted line."""
    side = 2 * int(np.ceil(length_px / 2)) + 1
    kernel = np.zeros((side, side), np.float32)
    middle = (side - 1) / 2
    reach = np.array([length_px / 2, 0.25 * length_px])
    ends = [np.round((middle + sign * reach) * 16).astype(int).tolist() for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8, shift=4)
    kernel /= kernel.sum()
    return kernel


def _shadow(picture: Floats, pose: _Pose) -> None:
    """Darkens the floor around the feet."""
    half_w = 0.42 * FOCAL_PX / pose.distance_m
    half_h = 0.26 * half_w
    u, v = pose.feet
    left, right = max(int(u - 2 * half_w), 0), min(int(u + 2 * half_w), WIDTH)
    top, bottom = max(int(v - 2 * half_h), 0), min(int(v + 2 * half_h), HEIGHT)
    y, x = np.ogrid[top:bottom, left:right]
    away = ((x - u) / half_w) ** 2 + ((y - v) / half_h) ** 2
    picture[top:bottom, left:right] *= (1 - 0.55 * np.exp(-2.2 * away))[..., None].astype(np.float32)


def render(path: Path) -> list[Truth]:
    """Writes the clip as MPEG-4 and returns where every face is in every frame."""
    rng = np.random.default_rng(SEED)
    empty = corridor()
    figures = {w.name: [figure(w, i / _STRIDES) for i in range(_STRIDES)] for w in WALKERS}
    noise = rng.standard_normal((HEIGHT + 64, WIDTH + 64, 3), np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    if not video.isOpened():
        raise EventError(f"cannot write the clip to {path}: OpenCV opened no MPEG-4 writer there")
    rows: list[Truth] = []
    for frame in range(round(SECONDS * FPS)):
        seconds = frame / FPS
        picture = empty.copy()
        for walker in sorted(WALKERS, key=lambda w: -_pose(w, seconds).distance_m):  # the nearer in front
            _paste(picture, walker, figures[walker.name], seconds)
        picture = cv2.GaussianBlur(picture, (0, 0), 0.55)  # the lens
        # A camera that hunts for its exposure, and gives shot and read noise.
        picture *= 1 + 0.10 * np.sin(0.9 * seconds) - 0.22 * np.exp(-((seconds - 3.4) ** 2) / 0.18)
        top, left = rng.integers(0, 64, 2)
        grain = noise[top : top + HEIGHT, left : left + WIDTH]
        picture += grain * np.sqrt(1.5 + 0.035 * np.clip(picture, 0, 255))
        video.write(picture.clip(0, 255).astype(np.uint8))
        rows += truth(frame)
    video.release()
    return rows
