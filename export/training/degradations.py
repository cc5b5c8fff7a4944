"""What a camera does to a face: small, blurred, noisy, compressed, dark, partly covered, or beyond hope.

Every function takes and returns an aligned crop 112 x 112 x 3 uint8 BGR and draws what it needs from a
numpy Generator, so that a seed fixes the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from export.training.masks import MaskRenderer, occlude

Image = NDArray[np.uint8]

DOWN = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)
DOWN_SHARES = (0.6, 0.2, 0.15, 0.05)
UP = (cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_LANCZOS4, cv2.INTER_NEAREST)
UP_SHARES = (0.5, 0.3, 0.12, 0.08)


class Recipe(BaseModel):
    """How often each thing happens to a training crop. Shares and chances are 0..1, sides are pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clean: float = 0.25  # share of crops left as they are (they may still wear a mask)
    hopeless: float = 0.04  # share made unrecognisable on purpose
    mask: float = 0.3
    occluder: float = 0.05
    low_resolution: float = 0.75
    side_px: tuple[float, float] = (6.0, 64.0)  # drawn log-uniformly
    jitter: float = 0.3
    blur: float = 0.15
    motion: float = 0.1
    noise: float = 0.15
    jpeg: float = 0.2
    dark: float = 0.12


@dataclass(frozen=True)
class View:
    """One training view of a face: the picture, what covers it, and whether it can still be recognised."""

    image: Image
    cover: Image  # 112 x 112, 255 where a mask or another occluder hides the face
    masked: bool
    hopeless: bool
    side_px: float = np.nan  # of the smallest version it went through; NaN if something else took detail, too


def low_resolution(image: Image, side_px: int, rng: Generator, *, quality: int | None = None) -> Image:
    """Down to side_px and back to 112 with drawn interpolations, through JPEG while small if asked."""
    small = cv2.resize(image, (side_px, side_px), interpolation=int(rng.choice(DOWN, p=DOWN_SHARES)))
    if quality is not None:
        small = _jpeg(np.asarray(small, np.uint8), quality)
    return np.asarray(cv2.resize(small, (112, 112), interpolation=int(rng.choice(UP, p=UP_SHARES))), np.uint8)


def blur(image: Image, sigma_px: float) -> Image:
    """Gaussian blur: a lens out of focus."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.uint8)


def motion(image: Image, length_px: float, angle_rad: float) -> Image:
    """Blur along a line: a moving head or camera."""
    size = int(np.ceil(length_px)) | 1
    kernel = np.zeros((size, size), np.float32)
    centre = size // 2
    reach = np.array([np.cos(angle_rad), np.sin(angle_rad)]) * centre
    start, end = np.round(centre - reach).astype(int), np.round(centre + reach).astype(int)
    cv2.line(kernel, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def noise(image: Image, sigma: float, rng: Generator) -> Image:
    """Sensor noise: a signal-dependent and a constant part, sigma in grey levels at full brightness."""
    level = image.astype(np.float32)
    scale = sigma * (0.4 + 0.6 * np.sqrt(level / 255.0))
    grain = rng.standard_normal(level.shape, dtype=np.float32)
    return np.asarray(np.clip(level + scale * grain, 0, 255), np.uint8)


def _jpeg(image: Image, quality: int) -> Image:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def dark(image: Image, gain: float, gamma: float) -> Image:
    """Too little light: values fall by `gain` after a gamma curve, and stay quantised."""
    table = np.clip(255.0 * gain * (np.arange(256) / 255.0) ** gamma, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), np.uint8)


def jitter(image: Image, cover: Image, rng: Generator) -> tuple[Image, Image]:
    """Moves picture and cover alike as an inexact landmark detector would: a few pixels and degrees."""
    scale, angle = rng.uniform(0.95, 1.05), rng.uniform(-4, 4)
    warp = np.asarray(cv2.getRotationMatrix2D((56, 60), angle, scale), np.float64)
    warp[:, 2] += rng.uniform(-2, 2, 2)
    moved = cv2.warpAffine(image, warp, (112, 112), borderMode=cv2.BORDER_REPLICATE)
    covered = cv2.warpAffine(cover, warp, (112, 112), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8), np.asarray(covered, np.uint8)


def _ruin(image: Image, rng: Generator) -> Image:
    """A crop that nobody can recognise: a few pixels, fog, noise, or no face at all."""
    kind = rng.integers(4)
    if kind == 0:
        return low_resolution(image, int(rng.integers(2, 5)), rng)
    if kind == 1:
        return blur(image, rng.uniform(9, 16))
    if kind == 2:
        return noise(dark(image, rng.uniform(0.02, 0.1), 1.0), rng.uniform(60, 120), rng)
    side = int(rng.integers(12, 28))
    x = int(rng.choice([0, 112 - side]))
    y = int(rng.integers(0, 112 - side))
    patch = image[y : y + side, x : x + side]  # from the left or right edge: hair and background
    return np.asarray(cv2.resize(patch, (112, 112), interpolation=cv2.INTER_CUBIC), np.uint8)


def view(image: Image, recipe: Recipe, masks: MaskRenderer, rng: Generator) -> View:
    """One drawn view of a clean crop."""
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
    cover = np.zeros((112, 112), np.uint8)
    if rng.random() < recipe.hopeless:
        return View(_ruin(image, rng), cover, masked=False, hopeless=True)
    masked = bool(rng.random() < recipe.mask)
    if masked:
        image, cover = masks(image, rng)
    if rng.random() < recipe.occluder:
        image, more = occlude(image, rng)
        cover = np.maximum(cover, more)
    if rng.random() < recipe.clean:
        return View(image, cover, masked, hopeless=False, side_px=112)
    if rng.random() < recipe.jitter:
        image, cover = jitter(image, cover, rng)
    if rng.random() < recipe.dark:
        image = dark(image, rng.uniform(0.15, 0.7), rng.uniform(1.0, 1.6))
    side_px = 112.0
    if rng.random() < recipe.motion:
        side_px = np.nan
        image = motion(image, rng.uniform(3, 11), rng.uniform(0, np.pi))
    if rng.random() < recipe.blur:
        side_px = np.nan
        image = blur(image, rng.uniform(0.6, 3.0))
    if rng.random() < recipe.noise:
        image = noise(image, rng.uniform(3, 25), rng)
    quality = int(rng.integers(20, 91)) if rng.random() < recipe.jpeg else None
    if rng.random() < recipe.low_resolution:
        low, high = np.log(recipe.side_px)
        side = round(float(np.exp(rng.uniform(low, high))))
        image = low_resolution(image, side, rng, quality=quality if side >= 16 else None)
        side_px *= side / 112
    elif quality is not None:
        image = _jpeg(image, quality)
    return View(image, cover, masked, hopeless=False, side_px=side_px)
