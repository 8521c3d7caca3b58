"""Decoded frames → frames as they are displayed: cropped as the container says, interlaced ones without combs.

Both are filters of ffmpeg. A deinterlaced video has as many frames as before, at the same times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
from av.filter import Graph

from diff_v2m.media.cropping import Crop

TICK = Fraction(1, 1000)  # filters do not use the times of the frames
DEINTERLACE = ("bwdif", "mode=send_frame:deint=interlaced")


def displayed(frames: Iterable[tuple[float, av.VideoFrame]], crop: Crop) -> Iterator[tuple[float, av.VideoFrame]]:
    """(time, frame) of each frame. The first interlaced frame, and all after it, go through the deinterlacer."""
    chain, interlaced, cropped = None, False, bool(crop)
    for time, frame in frames:
        interlaced = interlaced or frame.interlaced_frame
        if not cropped and not interlaced:
            yield time, frame
            continue
        kind = frame.width, frame.height, frame.format.name, interlaced
        if chain is None or chain.kind != kind:
            yield from chain.rest() if chain else ()
            chain = _Chain(frame, crop, kind)
        yield from chain.filtered(time, frame)
    yield from chain.rest() if chain else ()


class _Chain:
    """The filters for frames of one size and format."""

    def __init__(self, frame: av.VideoFrame, crop: Crop, kind: tuple):
        self.kind, self.times, self.count, self.graph = kind, deque[float](), 0, Graph()
        place = crop.within(frame.width, frame.height)
        width, height = frame.width - place.left - place.right, frame.height - place.top - place.bottom
        filters = [DEINTERLACE] if kind[-1] else []
        filters += [("crop", f"{width}:{height}:{place.left}:{place.top}:exact=1")] if place else []
        last = self.graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=TICK)
        for name, arguments in [*filters, ("buffersink", None)]:
            following = self.graph.add(name, arguments)
            last.link_to(following)
            last = following
        self.graph.configure()

    def filtered(self, time: float, frame: av.VideoFrame) -> Iterator[tuple[float, av.VideoFrame]]:
        self.times.append(time)
        frame.pts, frame.time_base, self.count = self.count, TICK, self.count + 1
        self.graph.vpush(frame)
        yield from self._ready()

    def rest(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """What the filters still hold."""
        self.graph.vpush(None)
        yield from self._ready()

    def _ready(self) -> Iterator[tuple[float, av.VideoFrame]]:
        while self.times:
            try:
                frame = self.graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield self.times.popleft(), frame
