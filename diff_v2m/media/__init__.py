"""Video and audio files: reads frames and waveforms, writes wav and mp4. No other package uses a codec.

Time is in seconds and starts at the first frame shown, whatever timestamps the container carries; audio of the same
file uses the same time. A frame is shown from its own timestamp until the next one's, so variable frame rates need no
special case. A bad file raises an `InputError` of one line that names it.

codecs.py says what is installed, container.py opens files, structure.py tells truncated ones, timeline.py gives every
packet a time, tracks.py chooses picture and sound, cropping.py reads which part of the picture is displayed,
displaying.py crops and deinterlaces, color.py converts to the colours of a standard screen, video.py reads frames in
order, sampling.py single ones and thumbnails.py small ones, soundtrack.py decodes the sound of a video, audio.py reads
parts of any sound and sound_stream.py a whole one in blocks, writing.py writes wav and mp4, encoding.py encodes
pictures, multitrack.py names the audio tracks of an mp4, metering.py measures a waveform, loudness.py normalises it.
isolation.py keeps decoders in processes of their own, decord_worker.py is the one with decord.
"""

from diff_v2m.media.audio import SLICEABLE, audio_duration, audio_format, decode_audio, read_audio
from diff_v2m.media.codecs import missing_codecs
from diff_v2m.media.container import AUDIO_SUFFIXES, SAME_TIME, VIDEO_SUFFIXES, holds_pictures
from diff_v2m.media.multitrack import AudioTrack
from diff_v2m.media.sampling import sample_frames
from diff_v2m.media.sound_stream import SoundStream, is_audible, open_sound
from diff_v2m.media.thumbnails import Thumbnails, read_thumbnails, thumbnail_view
from diff_v2m.media.video import VideoInfo, View, iter_views, probe
from diff_v2m.media.writing import cut_clip, mux, write_wav

__all__ = [
    "AUDIO_SUFFIXES",
    "SAME_TIME",
    "SLICEABLE",
    "VIDEO_SUFFIXES",
    "AudioTrack",
    "SoundStream",
    "Thumbnails",
    "VideoInfo",
    "View",
    "audio_duration",
    "audio_format",
    "cut_clip",
    "decode_audio",
    "holds_pictures",
    "is_audible",
    "iter_views",
    "missing_codecs",
    "mux",
    "open_sound",
    "probe",
    "read_audio",
    "read_thumbnails",
    "sample_frames",
    "thumbnail_view",
    "write_wav",
]
