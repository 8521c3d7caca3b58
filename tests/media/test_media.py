"""media: real codecs and containers; the pixels of every video say which frame is shown."""

import os

import av
import numpy as np
import pytest
import soundfile
from helpers.videos import ffmpeg, numbered, numbers, read_frames, tone, write_video

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic
from diff_v2m.media import video as video_module

FPS, COUNT = 25, 50  # 2 s
EVERY = list(range(COUNT))


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Name → (path, the times at which frame 0, 1, … is first shown)."""
    folder = tmp_path_factory.mktemp("videos")
    plain = write_video(folder / "plain.mp4", numbered(COUNT), FPS)
    steady = np.arange(COUNT) / FPS
    found = {"plain": (plain, steady)}

    def copy(name, *options, times=steady):
        ffmpeg(*options[:-1], folder / options[-1])
        found[name] = (folder / options[-1], times)

    late = ["-itsoffset", 0.5, "-i", plain, *tone(3), "-c:v", "copy", "-map", "0:v", "-map", "1:a"]
    copy("mkv, sound first", *late, "late.mkv")
    copy("mp4, sound first", *late, "late.mp4")
    copy("transport stream", "-i", plain, "-c", "copy", "-output_ts_offset", 1.5, "plain.ts")
    copy("rotated", "-display_rotation", 90, "-i", plain, "-c", "copy", "rotated.mp4")
    copy("webm", "-i", plain, "-c:v", "libvpx", "-deadline", "realtime", "-b:v", "1M", "plain.webm")
    copy("av1", "-i", plain, "-c:v", "libaom-av1", "-cpu-used", 8, "-crf", 20, "av1.mp4")
    copy("avi", "-i", plain, "-c:v", "mpeg4", "-q:v", 2, "plain.avi")
    copy("raw stream", "-i", plain, "-c", "copy", "-bsf:v", "h264_mp4toannexb", "plain.h264")
    write_video(folder / "tiny.mp4", numbered(COUNT, 48, 26), FPS)
    found["tiny"] = (folder / "tiny.mp4", steady)
    write_video(folder / "tall.mp4", numbered(COUNT, 54, 128), FPS)
    found["tall"] = (folder / "tall.mp4", steady)
    write_video(folder / "odd.mp4", numbered(COUNT, 129, 97), FPS, "-pix_fmt", "yuv444p")
    found["odd"] = (folder / "odd.mp4", steady)
    # Frames come at 25 a second up to 0.4 s, then one every 0.2 s.
    pause = "setpts=round(if(lt(N\\,10)\\,N\\,10+(N-10)*5)/25/TB)"
    write_video(folder / "vfr.mp4", numbered(COUNT), FPS, "-vf", pause, "-fps_mode", "vfr")
    found["vfr"] = (folder / "vfr.mp4", np.concatenate([np.arange(10), np.arange(10, 210, 5)]) / FPS)
    return found


VIDEOS = [
    "plain",
    "mkv, sound first",
    "mp4, sound first",
    "transport stream",
    "rotated",
    "webm",
    "av1",
    "avi",
    "raw stream",
    "tiny",
    "tall",
    "odd",
    "vfr",
]


# ----------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("name", VIDEOS)
def test_the_frame_shown_at_each_time(videos, name):
    path, shown = videos[name]
    for fps in (1, 7, 40):
        times, frames = read_frames(path, fps)
        assert numbers(frames) == (np.searchsorted(shown, times + 1e-3, side="right") - 1).tolist(), f"{fps} a second"


@pytest.mark.parametrize("name", VIDEOS)
def test_every_frame_at_its_own_time(videos, name):
    path, shown = videos[name]
    times, frames = read_frames(path, None)
    assert numbers(frames) == EVERY
    assert times == pytest.approx(shown, abs=2e-3)
    info = media.probe(path)
    assert info.duration == pytest.approx(shown[-1] + 1 / FPS, abs=0.2 if name == "vfr" else 2e-3)
    assert info.fps == pytest.approx(COUNT / info.duration)
    assert frames.shape[1:3] == (info.height, info.width)


@pytest.mark.parametrize("name", ["plain", "rotated", "vfr", "tiny"])
def test_several_views_of_one_reading_are_what_each_alone_is(videos, name):
    path, _ = videos[name]
    seconds, small = media.View(np.arange(2.0) + 0.4, chunk=1), media.View(size=64, chunk=7)
    found = {seconds: [], small: []}
    for view, times, frames in media.iter_views(path, (seconds, small), start=0.4, stop=1.5):
        assert len(times) == len(frames) <= view.chunk
        found[view].append((times, frames))
    span = {"start": 0.4, "stop": 1.5}
    for view, alone in ((seconds, read_frames(path, 1, **span)), (small, read_frames(path, None, size=64, **span))):
        times, frames = (np.concatenate(parts) for parts in zip(*found[view], strict=True))
        assert np.array_equal(times, alone[0]) and np.array_equal(frames, alone[1])
    assert list(media.iter_views(path, (small,), start=99)) == []


def test_frames_hidden_by_an_edit_list_are_not_shown(videos, tmp_path):
    ffmpeg("-ss", 0.6, "-i", videos["plain"][0], "-c", "copy", tmp_path / "cut.mp4")
    times, frames = read_frames(tmp_path / "cut.mp4", None)
    assert numbers(frames) == list(range(15, COUNT))
    assert times[0] == 0


def test_rotation_is_applied(videos, tmp_path):
    """A quarter turn counter-clockwise, as ffmpeg itself turns the picture when it decodes."""
    picture = np.zeros((8, 96, 128, 3), np.uint8)
    picture[:, :48, :64] = (250, 0, 0)
    picture[:, :48, 64:] = (0, 250, 0)
    write_video(tmp_path / "flat.mp4", picture)
    for angle in (90, 180, 270):
        turned = tmp_path / f"{angle}.mp4"
        ffmpeg("-display_rotation", angle, "-i", tmp_path / "flat.mp4", "-c", "copy", turned)
        ffmpeg("-i", turned, "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "rgb24", tmp_path / "truth.raw")
        info = media.probe(turned)
        truth = np.fromfile(tmp_path / "truth.raw", np.uint8).reshape(info.height, info.width, 3)
        assert (info.rotation, info.width < info.height) == (angle, angle != 180)
        _, frames = read_frames(turned, 1)
        assert np.abs(frames[0].astype(int) - truth).mean() < 3


def test_size_bounds_the_longer_side_and_never_enlarges(videos):
    assert read_frames(videos["tall"][0], 1, size=64)[1].shape[1:3] == (64, 27)
    assert read_frames(videos["plain"][0], 1, size=64)[1].shape[1:3] == (48, 64)
    assert read_frames(videos["plain"][0], 1, size=1000)[1].shape[1:3] == (96, 128)


def test_start_and_stop(videos):
    path = videos["plain"][0]
    times, frames = read_frames(path, None, start=0.4, stop=1.2)
    assert numbers(frames) == list(range(10, 30))
    times, frames = read_frames(path, 2, start=0.5)
    assert times.tolist() == [0.5, 1.0, 1.5]
    assert numbers(frames) == [12, 25, 37]


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_seeking_far_into_a_file(tmp_path, suffix):
    """Also where it lands on a later key frame, or behind the last one, as in MPEG-TS."""
    path = write_video(tmp_path / f"long.{suffix}", numbered(64), 8, "-g", "16")  # 8 s
    for time in np.arange(2.5, 8, 0.5):
        (found,) = media.iter_views(path, [media.View(np.array([time]))])
        assert numbers(found[2]) == [time * 8]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_very_short_videos(tmp_path, count):
    path = write_video(tmp_path / "short.mp4", numbered(count), FPS)
    assert media.probe(path).duration == pytest.approx(count / FPS)
    assert numbers(read_frames(path, 1)[1]) == [0]
    assert numbers(read_frames(path, None)[1]) == list(range(count))


def test_chunks_are_bounded_in_bytes(videos, monkeypatch):
    monkeypatch.setattr(video_module, "CHUNK_BYTES", 5 * 96 * 128 * 3)
    view = media.View(np.arange(12) / 6)
    assert [len(times) for _, times, _ in media.iter_views(videos["plain"][0], [view])] == [5, 5, 2]


def test_damaged_packets_do_not_end_a_video(videos, tmp_path):
    noisy = np.random.default_rng(0).integers(0, 256, (COUNT, 96, 128, 3), dtype=np.uint8)
    path = write_video(tmp_path / "noisy.mp4", noisy)
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 20000)
    data[middle] = bytes(255 - byte for byte in data[middle])
    (tmp_path / "damaged.mp4").write_bytes(data)
    assert len(read_frames(tmp_path / "damaged.mp4", 25)[0]) == COUNT


# -------------------------------------------------------------------------------------------------- bad files


def bad_files(videos, folder):
    plain = videos["plain"][0]
    ffmpeg("-i", plain, "-c", "copy", "-movflags", "+faststart", folder / "index first.mp4")
    noise = np.random.default_rng(0).integers(0, 256, (100, 96, 128, 3), dtype=np.uint8)
    write_video(folder / "noise.mp4", noise, 25, "-movflags", "+faststart")
    write_video(folder / "noise.mkv", noise, 25)
    for name in ("noise.mp4", "noise.mkv"):
        data = (folder / name).read_bytes()
        (folder / f"half {name}").write_bytes(data[: len(data) // 2])
    (folder / "no index.mp4").write_bytes(plain.read_bytes()[:-2000])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 50)
    (folder / "notes.txt").write_text("not a video\n" * 50)
    ffmpeg("-i", plain, "-frames:v", 1, folder / "still.png")
    ffmpeg(*tone(1), folder / "sound.wav")
    cover = ["-i", folder / "still.png", "-map", 0, "-map", 1, "-disposition:v", "attached_pic"]
    ffmpeg(*tone(1), *cover, folder / "song.mp3")


BAD = {
    "half noise.mp4": "truncated",
    "half noise.mkv": "truncated",
    "no index.mp4": "not a video or audio file",
    "empty.mp4": "zero bytes",
    "text.mp4": "not a video or audio file",
    "notes.txt": "text",
    "still.png": "still picture",
    "sound.wav": "no video stream",
    "song.mp3": "no video stream",
    "missing.mp4": "No such file",
    ".": "folder",
}


@pytest.fixture(scope="session")
def bad_folder(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    bad_files(videos, folder)
    return folder


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_video_is_named_in_one_line(bad_folder, name):
    path = bad_folder / name
    for use in (lambda: media.probe(path), lambda: media.sample_frames(path, np.zeros(1))):
        with pytest.raises(InputError) as error:
            use()
        message = str(error.value)
        assert str(path.resolve()) in message and BAD[name] in message and "\n" not in message


def test_sound_that_nothing_decodes_is_an_error_that_names_it(tmp_path):
    ffmpeg(*tone(1), "-c:a", "flac", tmp_path / "sound.mkv")
    path = tmp_path / "unheard.mkv"
    path.write_bytes((tmp_path / "sound.mkv").read_bytes().replace(b"A_FLAC", b"A_NONE"))
    for use in (media.audio_format, media.audio_duration):
        with pytest.raises(InputError, match=r"unheard\.mkv: .*Decoder not found"):
            use(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(videos, tmp_path):
    path = tmp_path / "locked.mp4"
    path.write_bytes(videos["plain"][0].read_bytes())
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        media.probe(path)


def test_permission_denied_is_an_input_error(videos, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=r"plain\.mp4.*Permission denied"):
        media.probe(videos["plain"][0])


# ------------------------------------------------------------------------------------------------------ audio


def wave(seconds: float, rate: int, channels: int = 2) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * (220 + 110 * channel) * time) for channel in range(channels)])


@pytest.mark.parametrize("suffix", ["wav", "flac", "m4a"])
def test_read_audio_whole_and_in_slices(tmp_path, suffix):
    rate, audio = 44100, wave(4, 44100)
    media.write_wav(tmp_path / "a.wav", audio, rate)
    path = tmp_path / f"a.{suffix}"
    if suffix != "wav":
        ffmpeg("-i", tmp_path / "a.wav", "-b:a", "256k", path)
    whole = media.read_audio(path, rate, 2)
    assert whole.dtype == np.float32 and whole.shape[0] == 2 and whole.shape[1] >= 4 * rate
    close = 0.02 if suffix == "m4a" else 1e-4
    middle = slice(rate, 3 * rate)  # AAC needs a moment to settle
    assert np.abs(whole[:, middle] - audio[:, middle]).max() < close
    part = media.read_audio(path, rate, 2, start=2.5, duration=0.75)
    assert part.shape == (2, round(0.75 * rate))
    assert np.abs(part - audio[:, round(2.5 * rate) :][:, : part.shape[1]]).max() < close
    assert media.audio_duration(path) == pytest.approx(4, abs=0.05)
    assert media.read_audio(path, rate, 2, start=3.9, duration=1).shape[1] < 0.2 * rate
    assert media.read_audio(path, rate, 2, start=9, duration=1).shape == (2, 0)


def test_read_audio_resamples_and_mixes(tmp_path):
    media.write_wav(tmp_path / "a.wav", wave(2, 48000), 48000)
    mono = media.read_audio(tmp_path / "a.wav", 16000, 1, start=0.5, duration=1)
    assert mono.shape == (1, 16000)
    expected = wave(2, 16000).mean(axis=0)[8000:24000]
    assert np.abs(mono[0, 200:-200] - expected[200:-200]).max() < 1e-3
    media.write_wav(tmp_path / "mono.wav", wave(1, 8000, 1), 8000)
    stereo = media.read_audio(tmp_path / "mono.wav", 8000, 2)
    assert np.array_equal(stereo[0], stereo[1])


def test_surround_sound_is_folded_without_clipping(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "aevalsrc=0.9|0.9|0.9|0|0.9|0.9:c=5.1:d=1:s=48000", "-b:a", "400k", tmp_path / "s.m4a")
    audio = media.read_audio(tmp_path / "s.m4a", 48000, 2)[:, 5000:40000]
    assert 0.7 < np.abs(audio).mean() <= 1.0


def test_sound_of_a_video_is_on_the_clock_of_its_picture(tmp_path):
    """Sound from 0, picture from 0.5 s of the container's time: second 0 is where the picture starts."""
    clicks = np.zeros((1, 44100 * 3))
    clicks[:, 44100] = clicks[:, 2 * 44100] = 0.9
    media.write_wav(tmp_path / "clicks.wav", clicks, 44100)
    write_video(tmp_path / "video.mp4", numbered(COUNT))
    picture, sound = ("-i", tmp_path / "video.mp4"), ("-i", tmp_path / "clicks.wav")
    copy = ("-map", 0, "-map", 1, "-c:v", "copy", "-c:a", "pcm_s16le")
    ffmpeg("-itsoffset", 0.5, *picture, *sound, *copy, tmp_path / "late.mkv")
    audio = media.read_audio(tmp_path / "late.mkv", 44100, 1)[0]
    assert np.flatnonzero(audio > 0.5).tolist() == [22050, 66150]
    ffmpeg(*picture, "-itsoffset", 0.5, *sound, *copy, tmp_path / "later.mkv")
    audio = media.read_audio(tmp_path / "later.mkv", 44100, 1)[0]
    assert np.flatnonzero(audio > 0.5).tolist() == [66150, 110250]
    assert not audio[:22000].any()


@pytest.mark.parametrize("suffix", ["mpg", "wmv", "mp4"])
def test_sound_that_ends_before_the_picture(tmp_path, suffix):
    picture, path = ("-f", "lavfi", "-i", "color=gray:s=64x64:r=25:d=45"), tmp_path / f"a.{suffix}"
    ffmpeg(*picture, *tone(8), *(["-c:v", "mpeg2video", "-c:a", "mp2"] if suffix == "mpg" else []), path)
    assert media.read_audio(path, 44100, 2, 30, 10).shape == (2, 0)
    tail = media.read_audio(path, 44100, 2, 5, 10)
    assert tail.shape[1] == pytest.approx(3 * 44100, abs=0.1 * 44100) and np.abs(tail).max() > 0.05


def test_no_sound_or_no_audio_file(videos, bad_folder, tmp_path):
    with pytest.raises(InputError, match=r"plain\.mp4: has no audio stream"):
        media.read_audio(videos["plain"][0], 44100, 2)
    (tmp_path / "text.wav").write_text("no sound" * 100)
    for path in (tmp_path / "text.wav", bad_folder / "empty.mp4", tmp_path / "missing.wav"):
        for use in (lambda path: media.read_audio(path, 44100, 2), media.audio_duration):
            with pytest.raises(InputError, match=path.name):
                use(path)


# ---------------------------------------------------------------------------------------------------- writing


def test_write_wav_is_24_bit_and_clips(tmp_path):
    audio = np.array([[0.1, -0.25, 2.0], [0.3, 1e-6, -2.0]])
    media.write_wav(tmp_path / "new" / "a.wav", audio, 32000)
    back, rate = soundfile.read(tmp_path / "new" / "a.wav", always_2d=True)
    assert (rate, soundfile.info(tmp_path / "new" / "a.wav").subtype) == (32000, "PCM_24")
    assert np.abs(back.T - np.clip(audio, -1, 1)).max() < 2**-22


def test_nothing_is_left_of_a_failed_write(tmp_path):
    target = tmp_path / "a.wav"
    media.write_wav(target, np.zeros((1, 10)), 8000)
    before = target.read_bytes()
    with pytest.raises(ValueError, match="NaN"):
        media.write_wav(target, np.full((1, 10), np.nan), 8000)
    with pytest.raises(KeyError), atomic(target) as part:
        part.write_text("half")
        raise KeyError
    with pytest.raises(InputError, match=r"a\.wav.*No space left"), atomic(target) as part:
        part.write_text("half")
        raise OSError(28, "No space left on device")
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    with pytest.raises(InputError, match="cannot be written"):
        media.write_wav(target / "below a file" / "b.wav", np.zeros((1, 10)), 8000)


def packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


def streams(path) -> list[str]:
    with av.open(str(path)) as container:
        return [f"{stream.type} {stream.codec_context.name}" for stream in container.streams]


def sound_length(path) -> float:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return float(stream.duration * stream.time_base)


@pytest.fixture(scope="session")
def click(tmp_path_factory):
    """3 s at 16 kHz, a click at 1 s."""
    audio = np.zeros((1, 48000))
    audio[:, 16000:16100] = 0.9
    path = tmp_path_factory.mktemp("wav") / "click.wav"
    media.write_wav(path, audio, 16000)
    return path


@pytest.mark.parametrize("name", [name for name in VIDEOS if name not in ("webm", "raw stream", "transport stream")])
def test_mux_copies_the_picture_and_fits_the_sound_to_it(videos, click, tmp_path, name):
    path, _ = videos[name]
    media.mux(path, click, tmp_path / "out.mp4")
    assert packets(tmp_path / "out.mp4") == packets(path)
    assert [kind.split()[0] for kind in streams(tmp_path / "out.mp4")] == ["video", "audio"]
    assert streams(tmp_path / "out.mp4")[1] == "audio aac"
    before, after = media.probe(path), media.probe(tmp_path / "out.mp4")
    assert (after.rotation, after.width, after.height, after.lead) == (before.rotation, before.width, before.height, 0)
    assert after.duration == pytest.approx(before.duration, abs=2e-3)
    assert after.times == pytest.approx(before.times, abs=2e-3)
    assert sound_length(tmp_path / "out.mp4") == pytest.approx(before.duration, abs=1e-3)
    audio = media.read_audio(tmp_path / "out.mp4", 44100, 1)[0]
    assert np.flatnonzero(np.abs(audio) > 0.4)[0] == pytest.approx(44100, abs=100), "the click is at 1 s of the picture"
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.find(b"moov") < data.find(b"mdat"), "+faststart"


@pytest.mark.parametrize("name, copied", [("transport stream", True), ("webm", False), ("raw stream", True)])
def test_mux_of_pictures_that_mp4_holds_otherwise_or_not_at_all(videos, click, tmp_path, caplog, name, copied):
    path, _ = videos[name]
    media.mux(path, click, tmp_path / "out.mp4")
    times, frames = read_frames(tmp_path / "out.mp4", None)
    assert numbers(frames) == EVERY
    assert times == pytest.approx(videos["plain"][1], abs=2e-3)
    assert sound_length(tmp_path / "out.mp4") == pytest.approx(COUNT / FPS, abs=2e-3)
    assert ("encoding it again" not in caplog.text) == copied


def test_mux_shorter_than_the_video(videos, click, tmp_path):
    media.mux(videos["plain"][0], click, tmp_path / "out.mp4", duration=1.2)
    assert media.probe(tmp_path / "out.mp4").duration == pytest.approx(1.2, abs=0.041)
    assert sound_length(tmp_path / "out.mp4") == pytest.approx(1.2, abs=1e-3)
    media.mux(videos["plain"][0], click, tmp_path / "out.mp4", duration=99)
    assert media.probe(tmp_path / "out.mp4").duration == pytest.approx(2)


def test_mux_refuses_in_one_line_and_leaves_nothing(videos, bad_folder, click, tmp_path):
    plain = videos["plain"][0]
    for video, wav, output in (
        (bad_folder / "text.mp4", click, tmp_path / "o.mp4"),
        (plain, bad_folder / "text.mp4", tmp_path / "o.mp4"),
        (plain, plain, tmp_path / "o.mp4"),
        (plain, click, plain / "o.mp4"),
    ):
        with pytest.raises(InputError) as error:
            media.mux(video, wav, output)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_ffmpeg_s_reason_reaches_the_user(videos, click, tmp_path, monkeypatch):
    monkeypatch.setattr("diff_v2m.media.encoding.ENCODER", "no_such_encoder")
    with pytest.raises(InputError, match=r"plain\.webm: cannot be encoded again .*no_such_encoder"):
        media.mux(videos["webm"][0], click, tmp_path / "o.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["plain", "mkv, sound first", "tiny"])
def test_cut_clip_is_exact_to_the_frame(videos, tmp_path, name):
    media.cut_clip(videos[name][0], 0.4, 1.2, tmp_path / "clip.mp4")
    times, frames = read_frames(tmp_path / "clip.mp4", None)
    assert numbers(frames) == list(range(10, 30))
    assert media.probe(tmp_path / "clip.mp4").duration == pytest.approx(0.8)
    assert not media.probe(tmp_path / "clip.mp4").has_audio
    media.cut_clip(videos[name][0], 0, 5, tmp_path / "whole.mp4")
    assert packets(tmp_path / "whole.mp4") == packets(videos[name][0])


def test_cut_clip_of_odd_sides_keeps_every_pixel(videos, tmp_path):
    media.cut_clip(videos["odd"][0], 0.4, 0.8, tmp_path / "clip.mp4")
    info = media.probe(tmp_path / "clip.mp4")
    assert (info.width, info.height) == (130, 98)


@pytest.mark.parametrize("end", ["exit 255", "kill -9 $$"])
def test_a_stopped_ffmpeg_is_not_retried(videos, tmp_path, monkeypatch, end):
    """^C reaches ffmpeg too: nothing is encoded again, and no file is left."""
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho called >> {tmp_path}/calls\n{end}\n")
    program.chmod(0o755)
    wav = tmp_path / "a.wav"
    media.write_wav(wav, np.zeros((1, 16000), np.float32), 16000)
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: str(program))
    with pytest.raises(InputError, match="ffmpeg was stopped"):
        media.mux(videos["plain"][0], wav, tmp_path / "out" / "a.mp4")
    assert (tmp_path / "calls").read_text().split() == ["called"]
    assert not list((tmp_path / "out").iterdir())
