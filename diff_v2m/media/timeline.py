"""Timestamps of a file's packets, on one clock that never jumps.

A recording that was joined or interrupted restarts its timestamps, or skips ahead, in the middle of the file. The parts
then follow each other: a part begins where the picture of the part before ends, and its sound moves with its picture.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from diff_v2m.media.container import demux

SKIP = 10.0  # seconds ahead of the packet before that count as a new part, in formats whose clock may jump
TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT of a format: its clock may jump
CORRECTED = 1.0  # seconds by which the jumps of two streams at one joint may differ


@dataclass
class Packets:
    """The packets of one stream, in file order. Seconds; NaN where the file does not say."""

    dts: array = field(default_factory=lambda: array("d"))
    pts: array = field(default_factory=lambda: array("d"))
    length: array = field(default_factory=lambda: array("d"))
    shown: array = field(default_factory=lambda: array("b"))  # 0: hidden by an edit list
    order: array = field(default_factory=lambda: array("q"))  # number of the packet among those of all streams


def read_packets(container) -> dict[int, Packets]:
    """Packets of every video and audio stream by stream index. Decodes nothing."""
    found = {stream.index: Packets() for stream in (*container.streams.video, *container.streams.audio)}
    for number, packet in enumerate(demux(container)):
        packets = found.get(packet.stream_index)
        if packets is None or not packet.size:  # the empty one that ends a stream
            continue
        over, under = packet.time_base.numerator, packet.time_base.denominator
        packets.dts.append(np.nan if packet.dts is None else packet.dts * over / under)
        packets.pts.append(np.nan if packet.pts is None else packet.pts * over / under)
        packets.length.append((packet.duration or 0) * over / under)
        packets.shown.append(not packet.is_discard)
        packets.order.append(number)
    return found


@dataclass(frozen=True)
class Clock:
    """For each stream whose timestamps jump: (number of its first packet, seconds to add) of each part."""

    parts: dict[int, tuple[tuple[int, float], ...]] = field(default_factory=dict)

    @property
    def jumps(self) -> bool:
        return bool(self.parts)

    def packets(self, container, stream) -> Iterator:
        """The stream's packets from the beginning of the file, their timestamps corrected."""
        parts, number, shift = list(self.parts.get(stream.index, ())), 0, 0
        for packet in demux(container, stream):
            if packet.size:
                while parts and parts[0][0] <= number:
                    shift = round(parts.pop(0)[1] / stream.time_base)
                number += 1
                if shift:
                    packet.pts = packet.pts if packet.pts is None else packet.pts + shift
                    packet.dts = packet.dts if packet.dts is None else packet.dts + shift
            yield packet

    def corrected(self, index: int, times: np.ndarray) -> np.ndarray:
        """Timestamps of a stream's packets in file order → seconds on this clock."""
        shifts = np.zeros(len(times))
        for first, shift in self.parts.get(index, ()):
            shifts[first:] = shift
        return times + shifts


def make_clock(container, streams: dict[int, Packets], lead: int) -> Clock:
    """The clock of a file; stream `lead` decides where a part begins."""
    if "mov" in container.format.name:  # edit lists may repeat a part on purpose
        return Clock()
    may_skip = bool(container.format.flags & TS_DISCONT)
    leading = streams[lead]
    joints = _jumps(leading, may_skip)
    if not joints:
        return Clock()
    shifts = _shifts(leading, [number for number, _ in joints])
    parts = {}
    for index, packets in streams.items():
        own = _jumps(packets, may_skip)
        firsts = [
            number if index == lead else _matching(packets, own, leading.order[number], jump) for number, jump in joints
        ]
        parts[index] = tuple(zip(firsts, shifts, strict=True))
    return Clock(parts)


def _jumps(packets: Packets, may_skip: bool) -> list[tuple[int, float]]:
    """(number of the packet, seconds) where the decoding timestamps go back or skip ahead."""
    stamps = np.array(packets.dts)
    known = np.flatnonzero(np.isfinite(stamps))
    steps = np.diff(stamps[known])
    jumps = (steps < -1e-3) | (may_skip & (steps > SKIP))
    return [(int(known[n + 1]), float(steps[n])) for n in np.flatnonzero(jumps)]


def _shifts(packets: Packets, firsts: list[int]) -> list[float]:
    """Seconds to add to each part, so that it begins where the one before ends."""
    stamps = np.where(np.isfinite(packets.pts), packets.pts, packets.dts)
    ends = stamps + np.array(packets.length)
    edges = [0, *firsts, len(stamps)]
    end, shifts = np.nanmax(ends[: edges[1]]), []
    for begin, stop in zip(edges[1:-1], edges[2:], strict=True):
        shifts.append(float(end - np.nanmin(stamps[begin:stop])))
        end = np.nanmax(ends[begin:stop]) + shifts[-1]
    return shifts


def _matching(packets: Packets, jumps: list[tuple[int, float]], order: int, jump: float) -> int:
    """Number of the stream's first packet after a joint: where it jumps as the leading stream does, else by order."""
    alike = [number for number, own in jumps if abs(own - jump) < max(CORRECTED, 0.1 * abs(jump))]
    if alike:
        return min(alike, key=lambda number: abs(packets.order[number] - order))
    return int(np.searchsorted(np.array(packets.order), order))
