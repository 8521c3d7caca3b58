"""Encode the picture of a video as H.264, frame by frame at the times that `VideoInfo` gives."""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.filter import Graph
from av.video.reformatter import VideoReformatter

from diff_v2m.common.errors import InputError
from diff_v2m.common.progress import stage
from diff_v2m.media.color import has_alpha, rgb
from diff_v2m.media.container import SAME_TIME, UNREADABLE
from diff_v2m.media.isolation import isolated
from diff_v2m.media.video import VideoInfo, seekable, timed_frames

ENCODER, OPTIONS = "libx264", {"preset": "veryfast", "crf": "18"}
CLOCK = Fraction(1, 90000)  # unit of the timestamps
# 4:2:0 needs even sides: padding keeps every pixel and adds at most one row and one column.
FILTERS = (("pad", "ceil(iw/2)*2:ceil(ih/2)*2"), ("format", "yuv420p"))


def encode_picture(video: Path, info: VideoInfo, start: float, stop: float, output: Path) -> None:
    """Write the frames shown in [start, stop) to an mp4, in a process of its own. Raises InputError.

    Turn, pixel aspect and colours are kept. HDR and transparency become what `iter_views` shows.
    """
    with stage(f"encoding {video.name}", math.ceil(stop - start), "s") as bar:
        for second in isolated(video, lambda: _encode(video, info, start, stop, output)):
            bar.update(second - bar.n)


def _encode(video: Path, info: VideoInfo, start: float, stop: float, output: Path) -> Iterator[int]:
    """Yields the seconds written, whenever there is another one."""
    second = 0
    try:
        with av.open(str(output), "w") as container:
            stream: Any = container.add_stream(ENCODER, rate=max(1, round(info.fps)), options=OPTIONS)
            last = -1
            stream.codec_context.time_base = CLOCK
            stream.set_display_rotation(info.rotation, hflip=info.mirrored)
            for time, picture in _pictures(video, info, start, stop):
                if last < 0:
                    _describe(stream.codec_context, picture, info)
                last = max(last + 1, round((time - start) / CLOCK))
                picture.pts, picture.time_base = last, CLOCK
                container.mux(stream.encode(picture))
                if int(time - start) > second:
                    second = int(time - start)
                    yield second
            container.mux(stream.encode(None))
    except UNREADABLE as error:
        raise InputError(f"{video}: cannot be encoded again ({error})") from error


def _pictures(video: Path, info: VideoInfo, start: float, stop: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """(time, frame for the encoder): all of one size, 4:2:0, with even sides."""
    graph, first, scaler = None, None, VideoReformatter()
    for time, frame in timed_frames(video, info, seekable(video, info, start)):
        if time > stop - SAME_TIME:
            return
        if time < start - SAME_TIME:
            continue
        if info.volume is not None or has_alpha(frame.format):
            pixels = rgb(frame, frame.width, frame.height, scaler, info.volume)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        if graph is None or first is None:
            first, graph = frame, _graph(frame)
        frame = scaler.reformat(frame, first.width, first.height, first.format.name)  # the size may change
        frame.pts, frame.time_base = None, CLOCK
        graph.vpush(frame)
        yield time, graph.vpull()


def _graph(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=CLOCK)
    for name, arguments in FILTERS:
        following = graph.add(name, arguments)
        last.link_to(following)
        last = following
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _describe(codec, picture: av.VideoFrame, info: VideoInfo) -> None:
    """Size, pixel aspect and colours of the encoder, which are those of its first frame."""
    codec.width, codec.height, codec.pix_fmt = picture.width, picture.height, picture.format.name
    codec.sample_aspect_ratio = info.aspect
    codec.colorspace, codec.color_range = picture.colorspace, picture.color_range
    codec.color_trc, codec.color_primaries = picture.color_trc, picture.color_primaries
