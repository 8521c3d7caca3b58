"""The only place that touches a codec: frames and audio in, wav and mp4 out.

Time is in seconds and starts at the first frame that is shown, whatever timestamps the container carries; audio of the
same file is placed on that clock. A frame is shown from its own timestamp until the next one's, so variable frame rates
need no special care. Whatever is wrong with a file is an `InputError` of one line that names it.

container.py opens files, video.py reads frames, audio.py reads sound, writing.py writes wav and mp4.
"""

from diff_v2m.media.audio import SLICEABLE, audio_duration, audio_format, decode_audio, read_audio
from diff_v2m.media.container import AUDIO_SUFFIXES, SAME_TIME, VIDEO_SUFFIXES
from diff_v2m.media.video import VideoInfo, View, iter_frames, iter_views, probe
from diff_v2m.media.writing import cut_clip, mux, write_wav

__all__ = [
    "AUDIO_SUFFIXES",
    "SAME_TIME",
    "SLICEABLE",
    "VIDEO_SUFFIXES",
    "VideoInfo",
    "View",
    "audio_duration",
    "audio_format",
    "cut_clip",
    "decode_audio",
    "iter_frames",
    "iter_views",
    "mux",
    "probe",
    "read_audio",
    "write_wav",
]
