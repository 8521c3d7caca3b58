"""The files of a mix: stems and mix as wav, and an mp4 with the picture."""

from __future__ import annotations

import tempfile
from pathlib import Path

from diff_v2m import media
from diff_v2m.media.metering import Waveform
from diff_v2m.media.multitrack import COPYABLE
from diff_v2m.mix.mixing import Mix, finish, prepare
from diff_v2m.mix.settings import MixSettings

NO_WORDS = "zxx"  # ISO 639-2: no linguistic content


def mix_video(
    video: Path, music: Waveform, sample_rate: int, settings: MixSettings, folder: Path, name: str, duration: float
) -> tuple[Mix, list[str]]:
    """Mix music (channels, n) with the sound of a video and write the files into `folder`, see `write`.

    duration: seconds, at most those of the picture. Raises InputError.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.") as scratch:
        clip = prepare(media.open_sound(video), music, sample_rate, duration, settings, Path(scratch))
        (mix,) = finish([clip], settings)
        return mix, write(mix, video, folder, name, duration)


def write(mix: Mix, video: Path, folder: Path, name: str, duration: float) -> list[str]:
    """Write <name>.music.wav, .original.wav, .mix.wav and <name>.mp4. Returns the names of the wavs.

    With `settings.tracks` the mp4 has the mix, the video's own sound and the music as tracks. The video's own sound is
    copied as it is, if mp4 can hold it, else encoded at its level in the mix.
    """
    wavs = {part: folder / f"{name}.{part}.wav" for part in mix.parts}
    for part, path in wavs.items():
        media.write_wav(path, mix.parts[part], mix.sample_rate)
    sound = media.open_sound(video)
    language = sound.language if sound else NO_WORDS
    tracks = [media.AudioTrack(wavs["mix"], "Mix", language, mix.channels)]
    if mix.settings.tracks and sound is not None:
        if sound.is_one_stream and sound.codec in COPYABLE:
            lead = media.probe(video).lead
            tracks.append(media.AudioTrack(video, "Original", language, (), sound.tracks.streams[0], lead))
        else:
            tracks.append(media.AudioTrack(wavs["original"], "Original", language, mix.channels))
    if mix.settings.tracks:
        tracks.append(media.AudioTrack(wavs["music"], "Music", NO_WORDS, mix.channels))
    media.mux(video, wavs["mix"], folder / f"{name}.mp4", duration, tracks=tracks)
    return [path.name for path in wavs.values()]
