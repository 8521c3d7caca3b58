"""Scene → frames: a texture that drifts so that the picture changes as much as the scene moves.

Mood sets the hue, and each shot has its own look. The families draw different textures, but no classifier recognises
them: `imitation.py` gives the semantic features.
"""

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from diff_v2m.features.imagenet import FAMILIES
from experiments.film_music.scene import ScenePlan

WIDTH, HEIGHT, FPS = 160, 90, 25
HUES = {  # in turns: red and blue differ most in warm and cool colours, and hardly in green and magenta
    "major": ((0.97, 1.12),),
    "minor": ((0.54, 0.69),),
    "modal": ((0.315, 0.352), (0.815, 0.852)),
}
BUSIEST = 130.0  # grey levels a second by which the busiest picture changes
GRADIENT = 1.1  # grey levels a pixel along the direction of motion, before rounding and clipping
_BRIGHT, _DARK = (
    (175.0, 195.0),
    (65.0, 85.0),
)  # mean of the largest channel; neighbouring shots alternate, so that every cut shows
_STEP = 1 / 200  # s, of the integral of the motion curve


@dataclass(frozen=True)
class Picture:
    """The frames of a scene, at any time and in any order."""

    scene: ScenePlan

    @cached_property
    def shots(self) -> tuple["Shot", ...]:
        rng = np.random.default_rng([self.scene.seed, 3])
        bright = bool(rng.integers(2))
        return tuple(draw_shot(self.scene, bright ^ bool(number % 2), rng) for number in range(len(self.cuts) + 1))

    @cached_property
    def cuts(self) -> np.ndarray:
        """The scene's cuts at the frame nearest to each."""
        return np.round(np.array(self.scene.cuts) * FPS) / FPS

    @property
    def frame_count(self) -> int:
        return round(self.scene.duration * FPS)

    def frame(self, seconds: float) -> np.ndarray:
        """(HEIGHT, WIDTH, 3) uint8 RGB."""
        shot = self.shots[int(np.searchsorted(self.cuts, seconds + 1e-6, side="right"))]
        travelled = float(np.interp(seconds, self._path[0], self._path[1]))
        return shot.frame(travelled)

    def frames(self) -> Iterator[np.ndarray]:
        """All frames, FPS a second."""
        return (self.frame(number / FPS) for number in range(self.frame_count))

    @cached_property
    def _path(self) -> tuple[np.ndarray, np.ndarray]:
        """Seconds, and the pixels travelled until then."""
        seconds = np.arange(0.0, self.scene.duration + _STEP, _STEP)
        paces = np.array([shot.pace for shot in self.shots])[np.searchsorted(self.cuts, seconds, side="right")]
        speed = BUSIEST * paces * np.clip(self.scene.motion_at(seconds), 0, 1)
        return seconds, np.concatenate([[0.0], np.cumsum(speed[:-1] + speed[1:]) * _STEP / 2])


@dataclass(frozen=True)
class Shot:
    """A texture (HEIGHT, WIDTH, 3) uint8 that joins itself at its left and right edge."""

    texture: np.ndarray
    backwards: bool

    @cached_property
    def pace(self) -> float:
        """Pixels of drift that change the picture by one grey level, so that equal motion looks alike in all shots.

        In the fastest shots a little less: beyond a few pixels, the change no longer grows with the drift.
        """
        changes = np.diff(self.texture.astype(float), axis=1, append=self.texture[:, :1])
        return float(1 / np.abs(changes).mean())

    def frame(self, travelled: float) -> np.ndarray:
        width = self.texture.shape[1]
        shift = (-travelled if self.backwards else travelled) % width
        move = np.array([[1, 0, -shift], [0, 1, 0]], np.float64)
        return cv2.warpAffine(self.texture, move, (width, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def draw_shot(scene: ScenePlan, bright: bool, rng: np.random.Generator) -> Shot:
    """The look of one shot of a scene."""
    ranges = HUES[scene.mood]
    hue = rng.uniform(*ranges[scene.seed % len(ranges)]) % 1.0
    pattern = _pattern(scene.family, rng)
    slope = np.abs(np.diff(pattern, axis=1, append=pattern[:, :1])).mean()
    ink = np.array(colorsys.hsv_to_rgb(hue, 1.0, 1.0))
    saturation = np.interp(_pattern(scene.family, rng), (-2, 2), np.sort(rng.uniform(0.3, 0.8, 2)))[..., None]
    inks = 1 - saturation * (1 - ink)  # (HEIGHT, WIDTH, 3)
    contrast = GRADIENT / (slope * inks.mean())
    level = rng.uniform(*(_BRIGHT if bright else _DARK)) + contrast * (pattern - pattern.mean())
    texture = np.clip(level[..., None] * inks, 0, 255).round().astype(np.uint8)
    return Shot(texture, bool(rng.integers(2)))


def _pattern(family: str, rng: np.random.Generator) -> np.ndarray:
    """(HEIGHT, WIDTH) float: smooth waves, in a direction, number and shape that differ between families."""
    number = FAMILIES.index(family)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    turns_x, turns_y = x / WIDTH, y / HEIGHT
    pattern = np.zeros(x.shape)
    for _ in range(3):
        across = int(rng.integers(2, 4))
        down = (number % 4) * rng.choice((-1, 1)) * rng.uniform(0.3, 0.8)
        pattern += rng.uniform(0.5, 1) * np.sin(2 * np.pi * (across * turns_x + down * turns_y + rng.random()))
    match number // 4:
        case 0:
            pattern += 1.5 * (turns_y - 0.5)  # a horizon
        case 1:
            pattern = np.tanh(2 * pattern)  # blocks
        case _:
            pattern *= 0.4 + np.sin(np.pi * turns_y)  # a bright middle
    return pattern
