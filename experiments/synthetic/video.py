"""Scene → frames: shapes on a coloured ground that move, pulse and flash by the segment's motion level."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator

import cv2
import numpy as np

from experiments.synthetic.scene import BEAT, Scene, Segment

WIDTH, HEIGHT, FPS = 160, 90, 25
WARM, COOL = (0.0, 0.12), (0.53, 0.70)  # ranges of hue, in turns
SHAPES_BY_LEVEL = (1, 2, 4, 7)
SPEED_BY_LEVEL = (0.02, 0.15, 0.3, 0.5)  # swings a beat
FLASH_BY_LEVEL = (0.0, 0.04, 0.08, 0.12)  # how much the picture brightens on a beat
TRAIL = 3  # ghosts behind a moving shape


def render(scene: Scene) -> Iterator[np.ndarray]:
    """Frames (HEIGHT, WIDTH, 3) uint8 RGB at FPS, duration · FPS of them."""
    rng = np.random.default_rng([scene.seed, 3])
    bright = bool(rng.integers(2))
    for segment in scene.segments:
        bright = not bright  # so that every cut is visible
        shot = _Shot(scene, segment, bright, rng)
        for frame in range((segment.stop - segment.start) * FPS):
            yield shot.frame(frame / FPS)


class _Shot:
    """One segment between two cuts: its colours, shapes and paths."""

    def __init__(self, scene: Scene, segment: Segment, bright: bool, rng: np.random.Generator):
        self.scene, self.level = scene, segment.level
        hue = rng.uniform(*(COOL if scene.minor else WARM))
        self.ground = _rgb(hue, rng.uniform(0.45, 0.8), rng.uniform(0.75, 0.9) if bright else rng.uniform(0.25, 0.4))
        shape_hue = rng.uniform(*(COOL if scene.minor else WARM))
        self.ink = _rgb(shape_hue, rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.2) if bright else rng.uniform(0.85, 1.0))
        count = SHAPES_BY_LEVEL[segment.level]
        self.centres = rng.uniform((0.15, 0.2), (0.85, 0.8), size=(count, 2)) * (WIDTH, HEIGHT)
        self.sizes = rng.uniform(9, 16, size=count) if count > 1 else np.array([20.0])
        self.phases = rng.uniform(0, 2 * np.pi, size=(count, 2))
        self.draw = (_circle, _triangle, _stripe, _cross)[scene.instrument]

    def frame(self, t: float) -> np.ndarray:
        """The frame t seconds after the cut."""
        on_beat = np.exp(-5.0 * (t / BEAT % 1.0))  # 1 on the beat, decays before the next
        image = np.empty((HEIGHT, WIDTH, 3), np.float32)
        image[:] = self.ground
        speed = SPEED_BY_LEVEL[self.level] / BEAT
        for ghost in range(TRAIL, -1, -1):
            opacity = 1.0 if ghost == 0 else 0.45 * (1 - ghost / (TRAIL + 1))
            ink = self.ground + opacity * (self.ink - self.ground)
            swing = np.sin(2 * np.pi * speed * (t - 0.05 * ghost) + self.phases)
            reach = 0.06 + 0.1 * self.level
            for centre, size, offset in zip(self.centres, self.sizes, swing * reach * HEIGHT, strict=True):
                self.draw(image, centre + offset, size * (1 + 0.15 * self.level * on_beat), ink.tolist())
        return np.clip(image * (1 + FLASH_BY_LEVEL[self.level] * on_beat), 0, 255).astype(np.uint8)


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32)


def _circle(image, centre, size, ink) -> None:
    cv2.circle(image, _point(centre), round(size), ink, -1)


def _triangle(image, centre, size, ink) -> None:
    corners = np.array([(0, -1.2), (1.1, 0.8), (-1.1, 0.8)]) * size + centre
    cv2.fillPoly(image, [corners.round().astype(np.int32)], ink)


def _stripe(image, centre, size, ink) -> None:
    top = round(centre[1] - size / 5)
    cv2.rectangle(image, (0, top), (WIDTH, top + max(round(size / 2.5), 3)), ink, -1)


def _cross(image, centre, size, ink) -> None:
    for dx, dy in ((size, size), (size, -size)):
        cv2.line(image, _point(centre - (dx, dy)), _point(centre + (dx, dy)), ink, max(round(size / 3), 3))


def _point(place) -> tuple[int, int]:
    return round(float(place[0])), round(float(place[1]))
