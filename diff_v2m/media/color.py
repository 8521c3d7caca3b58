"""Decoded frame → RGB as a screen of standard dynamic range shows it: BT.709 primaries, 8 bit, on black.

High dynamic range (PQ, HLG) is tone-mapped and wide gamuts (BT.2020, P3) are converted. Other frames go through
swscale alone.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

WHITE = 100.0  # nits of the screen's white, BT.1886
GAMMA = 2.4
HLG_PEAK = 1000.0  # nits, BT.2100
KNEE = 0.3  # of the screen's white: light up to here is never compressed
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)  # of BT.709's primaries
STRIP = 1 << 20  # pixels converted at once, which bounds memory
TO_BT709 = {  # linear RGB of these primaries → of BT.709; all have the white D65
    int(ColorPrimaries.BT2020): [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    int(ColorPrimaries.SMPTE432): [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]],
}


@dataclass(frozen=True)
class ColorVolume:
    """Transfer function and primaries of a video, by their numbers in H.273, and the light of its brightest parts."""

    transfer: int
    primaries: int
    peak: float = WHITE  # nits; up to half above white it is taken for overshoot, and clipped

    @property
    def is_hdr(self) -> bool:
        return self.transfer in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)

    @cached_property
    def nits(self) -> np.ndarray:
        """(65536,) float32: the light of each 16-bit value.

        HLG's system gamma acts on each channel, as in zimg; in BT.2100 it acts on luminance.
        """
        value = np.linspace(0, 1, 1 << 16)
        if self.transfer == ColorTrc.SMPTE2084:
            m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
            root = value ** (1 / m2)
            light = 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
        elif self.transfer == ColorTrc.ARIB_STD_B67:
            a, b, c = 0.17883277, 0.28466892, 0.55991073
            light = HLG_PEAK * np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12) ** 1.2
        else:
            light = WHITE * value**GAMMA
        return light.astype(np.float32)

    def light(self, pixels: np.ndarray) -> np.ndarray:
        """(…, 3) uint16 RGB → float32 linear light of the BT.709 primaries, in nits."""
        light = self.nits[pixels]
        return light @ np.array(TO_BT709[self.primaries], np.float32).T if self.primaries in TO_BT709 else light

    def shown(self, pixels: np.ndarray) -> np.ndarray:
        """(…, 3) uint16 RGB → uint8 RGB of a standard screen."""
        light = self.light(pixels) / WHITE
        highest = np.maximum(light.max(axis=-1, keepdims=True), 1e-9)
        light *= _compressed(highest, self.peak / WHITE) / highest
        return _encoded()[np.clip(np.rint(light * 65535), 0, 65535).astype(np.uint16)]


def _compressed(light: np.ndarray, peak: float) -> np.ndarray:
    """Tone curve: linear up to a knee, then bending so that `peak` becomes 1 (Möbius, as in ffmpeg's tonemap)."""
    if peak < 1.5:
        return light
    knee = max(KNEE, 1.5 - peak / 2)  # little is compressed if little exceeds white
    a = -(knee**2) * (peak - 1) / (knee**2 - 2 * knee + peak)
    b = (knee**2 - 2 * knee * peak + peak) / (peak - 1)
    curve = (b**2 + 2 * b * knee + knee**2) / (b - a) * (light + a) / (light + b)
    return np.where(light <= knee, light, curve)


@lru_cache(maxsize=1)
def _encoded() -> np.ndarray:
    """(65536,) uint8: the value of each linear light in 65535ths of white."""
    return np.rint(255 * np.linspace(0, 1, 1 << 16) ** (1 / GAMMA)).astype(np.uint8)


def volume_of(frame) -> ColorVolume | None:
    """The colour volume of a frame; None: that of a standard screen."""
    volume = ColorVolume(int(frame.color_trc), int(frame.color_primaries))
    return volume if volume.is_hdr or volume.primaries in TO_BT709 else None


def brightest(frame, volume: ColorVolume) -> float:
    """Luminance in nits of the brightest parts of a frame, averaged over a 32nd of its longer side."""
    scale = min(1.0, 32 / max(frame.width, frame.height))
    size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    pixels = VideoReformatter().reformat(frame, *size, "rgb48le", interpolation="AREA").to_ndarray()
    return float(np.quantile(volume.light(pixels) @ LUMINANCE, 0.98))


@lru_cache
def has_alpha(format) -> bool:
    """Whether a pixel format holds transparency."""
    return any(component.is_alpha for component in format.components)


def rgb(frame, width: int, height: int, scaler: VideoReformatter, volume: ColorVolume | None) -> np.ndarray:
    """The frame in this size: (height, width, 3) uint8 RGB. What is transparent is black."""
    if volume is not None:
        pixels = scaler.reformat(frame, width, height, "rgb48le", interpolation="BICUBIC").to_ndarray()
        rows = max(1, STRIP // width)
        return np.concatenate([volume.shown(pixels[top : top + rows]) for top in range(0, height, rows)])
    if has_alpha(frame.format):
        pixels = scaler.reformat(frame, width, height, "rgba", interpolation="BICUBIC").to_ndarray()
        opacity = pixels[..., 3:].astype(np.uint16)
        return ((pixels[..., :3] * opacity + 127) // 255).astype(np.uint8)
    return scaler.reformat(frame, width, height, "rgb24", interpolation="BICUBIC").to_ndarray()
