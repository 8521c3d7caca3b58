"""Which streams of a file are meant: the picture that a player shows, and the sound that it plays."""

from pathlib import Path

import av
import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.media.container import NO_PICTURE, Disposition, decodable
from diff_v2m.media.timeline import Packets

NOT_MAIN = Disposition.comment | Disposition.visual_impaired | Disposition.descriptions | Disposition.clean_effects
PREVIEW_CODECS = ("mjpeg", "png", "bmp", "gif", "webp")
SURROUND = ("FL", "FR", "FC", "LFE", "BL", "BR")  # 5.1 in the order of six mono tracks


def moving_pictures(container) -> list:
    """The video streams without cover art and thumbnails."""
    return [stream for stream in container.streams.video if not stream.disposition & NO_PICTURE]


def picture(path: Path, container, packets: dict[int, Packets]):
    """The video stream that a player shows. Raises InputError if there is none that can be decoded.

    A stream much shorter than another or of still-picture codec is a preview of it. Among the others the one flagged
    as default is meant, then the largest, then the first.
    """
    if not (streams := moving_pictures(container)):
        raise InputError(f"{path}: has no video stream; give a file with moving pictures")
    longest = max(len(packets[stream.index].dts) for stream in streams)

    def rank(stream) -> tuple:
        context = stream.codec_context
        return (
            len(packets[stream.index].dts) * 2 >= longest,
            context is not None and context.name not in PREVIEW_CODECS,
            bool(stream.disposition & Disposition.default),
            0 if context is None else context.width * context.height,
        )

    return decodable(path, max(streams, key=rank))


def sounds(path: Path, container) -> list:
    """The audio streams that make the sound: one, or mono streams that are its channels. Raises InputError.

    The stream flagged as default is meant, else the first, without commentary and descriptions. Cameras write left and
    right as two mono streams, and 5.1 as six.
    """
    if not container.streams.audio:
        raise InputError(f"{path}: has no audio stream; give a file with sound")
    streams = [stream for stream in container.streams.audio if not stream.disposition & NOT_MAIN]
    streams = [stream for stream in streams or container.streams.audio if stream.codec_context is not None]
    if not streams:
        decodable(path, container.streams.audio[0])
    meant = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
    if meant is not streams[0]:
        return [meant]
    alike = [stream for stream in streams if _kind(stream) == _kind(meant)]
    if meant.channels != 1 or len(alike) < 2:
        return [meant]
    return alike[:6] if len(alike) == len(SURROUND) else sorted(alike[:2], key=_is_right)


def _kind(stream) -> tuple:
    return stream.channels, stream.rate, stream.codec_context.name, stream.language


def _is_right(stream) -> bool:
    return stream.layout.channels[0].name == "FR"


def channel_names(count: int) -> tuple[str, ...]:
    """Names of the channels of a stream that does not say them, as ffmpeg assumes them."""
    layouts = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
    if count not in layouts:
        return tuple(f"{n + 1}" for n in range(count))
    return tuple(channel.name for channel in av.AudioLayout(layouts[count]).channels)


def downmix_matrix(names: tuple[str, ...]) -> np.ndarray:
    """(2, channels) gains to stereo by ITU-R BS.775: centre and surround at −3 dB, no LFE, no sum above full scale."""
    gains = np.array([_gains(name) for name in names], np.float32).T
    return gains / max(1.0, float(np.abs(gains).sum(axis=1).max()))


def _gains(name: str) -> tuple[float, float]:
    half = 0.5**0.5
    if name in ("FL", "DL"):
        return 1.0, 0.0
    if name in ("FR", "DR"):
        return 0.0, 1.0
    if name.startswith("LFE"):
        return 0.0, 0.0
    if "L" in name:  # FLC, BL, SL, TFL, …
        return half, 0.0
    if "R" in name:
        return 0.0, half
    return (0.5, 0.5) if name == "BC" else (half, half)  # FC, TC, and channels without a name
