"""Which codecs the installed av and ffmpeg have, of those that reading and writing rely on."""

import re
import subprocess

import av
from av.codec.codec import UnknownCodecError

from diff_v2m.media.encoding import ENCODER

DECODERS = {
    "H.264": ("h264",),
    "HEVC": ("hevc",),
    "VP9": ("vp9", "libvpx-vp9"),
    "AV1": ("libdav1d", "libaom-av1", "av1"),
    "MPEG-4": ("mpeg4",),
    "AAC": ("aac",),
}
FFMPEG_ENCODERS = (ENCODER, "aac")


def missing_codecs() -> tuple[list[str], list[str]]:
    """(formats that av does not read, encoders that the ffmpeg binary lacks).

    Raises OSError or CalledProcessError if ffmpeg does not run.
    """
    import imageio_ffmpeg

    unread = [name for name, codecs in DECODERS.items() if not any(map(_reads, codecs))]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-encoders"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    encoders = set(re.findall(r"^ [A-Z.]{6} (\S+)", listed, re.MULTILINE))
    return unread, [name for name in FFMPEG_ENCODERS if name not in encoders]


def _reads(codec: str) -> bool:
    try:
        av.Codec(codec, "r")
    except UnknownCodecError:
        return False
    return True
