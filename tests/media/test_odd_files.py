"""media: files that are unusual in one way. The right value of each is known from how it is made."""

import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.videos import ffmpeg, numbered, numbers, read_frames, write_video

from diff_v2m import media
from diff_v2m.common.errors import InputError

FPS, COUNT, RATE = 25, 50, 48000
SOUND = ["-f", "lavfi", "-i", f"sine=frequency=440:sample_rate={RATE}:duration=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """plain.mp4: frames 0 to 49, 2 s."""
    folder = tmp_path_factory.mktemp("odd")
    write_video(folder / "plain.mp4", numbered(COUNT), FPS)
    return folder


def made(path: Path, *options, sound=SOUND) -> Path:
    """plain.mp4 beside `path`, and sound, with these ffmpeg options."""
    ffmpeg("-i", path.parent / "plain.mp4", *sound, *options, path)
    return path


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def own_sound(path: Path) -> tuple[np.ndarray, media.SoundStream]:
    """The whole sound at its own rate, and its stream."""
    sound = media.open_sound(path)
    return np.concatenate(list(sound.blocks(sound.sample_rate)), axis=1), sound


def loud_spans(audio: np.ndarray, rate: int) -> list[bool]:
    """Whether each quarter of a second sounds, on any channel."""
    loudest = np.abs(audio).max(axis=0)
    return [bool(loudest[at : at + rate // 4].max() > 0.02) for at in range(0, len(loudest) - rate // 4 + 1, rate // 4)]


# -------------------------------------------------------------------------------------- a clock that jumps

JOINED = {
    "transport stream": ("ts", ["-c:v", "copy", "-c:a", "aac"], ["-c:v", "copy", "-c:a", "aac"]),
    "program stream": ("vob", ["-c:v", "mpeg2video", "-q:v", 1, "-qmin", 1, "-bf", 2, "-c:a", "mp2"], None),
    "skips 300 s ahead": ("ts", ["-c:v", "copy", "-c:a", "aac"], ["-output_ts_offset", 300]),
    "goes back by 300 s": ("ts", ["-output_ts_offset", 300, "-c:v", "copy", "-c:a", "aac"], []),
    "stereo, then 5.1": ("ts", ["-c:v", "libx264", "-c:a", "ac3", "-ac", 2], ["-ac", 6, "-output_ts_offset", 2]),
    "5.1, then stereo": ("ts", ["-c:v", "libx264", "-c:a", "ac3", "-ac", 6], ["-ac", 2, "-output_ts_offset", 2]),
    "48, then 32 kHz": ("ts", ["-c:v", "libx264", "-c:a", "ac3"], ["-ar", 32000, "-output_ts_offset", 2]),
    "mono, then stereo": ("ts", ["-c:v", "libx264", "-c:a", "aac", "-ac", 1], ["-ac", 2, "-output_ts_offset", 2]),
}


@pytest.mark.parametrize("name", JOINED)
def test_a_joined_recording_is_as_long_as_its_parts(folder, name):
    suffix, first, second = JOINED[name]
    a = made(folder / f"a.{suffix}", *first)
    more = [] if second is None else second
    base = [option for option in first if option not in ("-output_ts_offset", 300)]
    b = made(folder / f"b.{suffix}", *base, *more)
    path = joined(folder / f"joined.{suffix}", a, b)
    times, frames = read_frames(path, None)
    assert numbers(frames) == [*range(COUNT)] * 2
    assert times == pytest.approx(np.arange(2 * COUNT) / FPS, abs=2e-3)
    assert media.probe(path).duration == pytest.approx(4, abs=2e-3)
    audio, sound = own_sound(path)
    assert audio.shape[1] == pytest.approx(4 * sound.sample_rate, abs=0.07 * sound.sample_rate)
    assert all(loud_spans(audio, sound.sample_rate)), "both parts sound, without a gap"
    assert media.read_audio(path, 16000, 1).shape[1] == pytest.approx(4 * 16000, abs=1100)
    media.mux(path, _silence(folder), folder / "joined out.mp4")
    copied_times, frames = read_frames(folder / "joined out.mp4", None)
    assert numbers(frames) == [*range(COUNT)] * 2 and copied_times == pytest.approx(times, abs=0.02)
    tail = media.read_audio(path, 16000, 1, start=3, duration=0.5)
    assert tail.shape == (1, 8000) and np.abs(tail).max() > 0.02


def test_a_picture_that_changes_its_size(folder):
    a, b = made(folder / "large.ts", "-c:v", "libx264", "-c:a", "aac"), folder / "small.ts"
    made(b, "-vf", "scale=64:48", "-c:v", "libx264", "-c:a", "aac", "-output_ts_offset", 2)
    path = joined(folder / "sizes.ts", a, b)
    times, frames = read_frames(path, None)
    assert numbers(frames) == pytest.approx([*range(COUNT)] * 2, abs=1)
    assert frames.shape == (2 * COUNT, 96, 128, 3)


# -------------------------------------------------------------------------------------- truncated or whole


def cut(path: Path, share: float) -> Path:
    target = path.with_name(f"cut {path.name}")
    target.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return target


def longer_than_the_picture(folder: Path) -> list[Path]:
    """Whole files in which another track outlives the picture of 2 s."""
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, 96, 128, 3), dtype=np.uint8)
    write_video(folder / "noise.mp4", noise)
    subtitle = folder / "title.srt"
    subtitle.write_text("1\n00:00:00,000 --> 00:00:30,000\nhello\n")
    picture = ["-i", folder / "noise.mp4"]
    long = ["-f", "lavfi", "-i", "sine=d=6"]
    ffmpeg(*picture, "-c", "copy", "-timecode", "01:00:00:00", "-movflags", "+faststart", folder / "code.mp4")
    ffmpeg(*picture, "-i", subtitle, "-c:v", "copy", "-c:s", "srt", folder / "title.mkv")
    ffmpeg(*picture, "-i", subtitle, "-c:v", "copy", "-c:s", "mov_text", folder / "title.mp4")
    ffmpeg(*picture, *long, "-c:v", "copy", "-movflags", "+faststart", folder / "long.mp4")
    ffmpeg(*picture, *long, "-c:v", "mpeg4", "-q:v", 2, "-c:a", "mp3", folder / "long.avi")
    return [folder / name for name in ("code.mp4", "title.mkv", "title.mp4", "long.mp4", "long.avi")]


def test_no_other_track_hides_a_truncation(folder):
    for path in longer_than_the_picture(folder):
        assert media.probe(path).duration == pytest.approx(2, abs=0.05), "whole"
        for share in (0.5, 0.95):
            with pytest.raises(InputError, match=r"truncated|not a video or audio file"):
                media.probe(cut(path, share))


def test_recordings_without_an_end_are_whole(folder):
    """A fragmented mp4 and a live Matroska declare no length."""
    fragmented = made(folder / "fragments.mp4", "-c:v", "copy", "-movflags", "+frag_keyframe+empty_moov")
    live = made(folder / "live.mkv", "-c:v", "copy", "-live", 1)
    for path in (fragmented, live):
        assert numbers(read_frames(path, None)[1]) == list(range(COUNT))
    assert 0 < media.probe(cut(live, 0.6)).duration < 2


def test_a_file_that_grows_while_it_is_read_is_reported(folder, monkeypatch):
    path = shutil.copy(folder / "plain.mp4", folder / "growing.mp4")
    original = media.video.read_packets

    def grow(container):
        with open(path, "ab") as file:
            file.write(bytes(100))
        return original(container)

    monkeypatch.setattr(media.video, "read_packets", grow)
    with pytest.raises(InputError, match=r"growing\.mp4: grows while it is read"):
        media.probe(path)


# -------------------------------------------------------------------------------- which track, which channel

LEFT_ONLY = ["-f", "lavfi", "-i", f"aevalsrc=0.5*sin(2*PI*440*t)|0|0|0|0|0:c=5.1:d=2:s={RATE}"]
SILENCE = ["-f", "lavfi", "-i", f"anullsrc=r={RATE}:d=2"]
SILENT_MONO = ["-f", "lavfi", "-i", f"anullsrc=r={RATE}:cl=mono:d=2"]
ALL = ["-map", 0, "-map", 1, "-map", 2, "-c:v", "copy"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_default_track_is_meant(folder, suffix):
    flags = ["-disposition:a:0", 0, "-disposition:a:1", "default", "-c:a", "aac"]
    path = made(folder / f"second.{suffix}", *ALL, *flags, sound=[*SILENCE, *SOUND])
    assert np.abs(media.read_audio(path, RATE, 2)).max() > 0.1
    path = made(folder / f"first.{suffix}", *ALL, "-c:a", "aac", sound=[*SOUND, *SILENCE])
    assert np.abs(media.read_audio(path, RATE, 2)).max() > 0.1


def test_a_commentary_is_not_meant(folder):
    flags = ["-disposition:a:0", "comment", "-disposition:a:1", 0]
    path = made(folder / "comment.mkv", *ALL, *flags, sound=[*SILENCE, *SOUND])
    assert np.abs(media.read_audio(path, RATE, 2)).max() > 0.1


@pytest.mark.parametrize("suffix", ["mov", "mxf", "mp4"])
def test_two_mono_tracks_are_left_and_right(folder, suffix):
    codec = ["-c:a", "aac"] if suffix == "mp4" else ["-c:a", "pcm_s16le"]
    video = ["-c:v", "mpeg2video"] if suffix == "mxf" else []
    path = made(folder / f"sides.{suffix}", *ALL, *video, *codec, sound=[*SOUND, *SILENT_MONO])
    own, sound = own_sound(path)
    for audio in (own, media.read_audio(path, RATE, 2)):
        assert audio.shape[0] == 2 and np.abs(audio[0]).max() > 0.1 and not audio[1].any()
    assert sound.channels == ("FL", "FR")
    assert media.audio_format(path) == (RATE, 2)


def test_mono_tracks_of_two_languages_are_not_left_and_right(folder):
    languages = ["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra"]
    path = made(folder / "languages.mkv", *ALL, *languages, sound=[*SOUND, *SILENT_MONO])
    audio = media.read_audio(path, RATE, 2)
    assert np.array_equal(audio[0], audio[1]) and audio.any()


def test_the_same_downmix_from_every_file(folder):
    """0.5 on the left of 5.1: 0.5 / (1 + 2 · √½) = 0.207 on the left of stereo."""
    peaks = {}
    for suffix in ("wav", "flac", "m4a", "mkv"):
        path = folder / f"surround.{suffix}"
        ffmpeg(
            *LEFT_ONLY, *(["-b:a", "400k"] if suffix == "m4a" else ["-c:a", "flac"] if suffix == "mkv" else []), path
        )
        audio = media.read_audio(path, RATE, 2, start=0.5, duration=1)
        peaks[suffix] = np.abs(audio).max(axis=1)
        mono = media.read_audio(path, RATE, 1, start=0.5, duration=1)
        assert np.abs(mono).max() == pytest.approx(0.1036, abs=0.003), suffix
    for suffix, (left, right) in peaks.items():
        assert left == pytest.approx(0.2071, abs=0.005) and right < 0.002, suffix
    path = folder / "quad.wav"
    ffmpeg("-f", "lavfi", "-i", f"aevalsrc=0|0|0|0.5*sin(2*PI*440*t):c=quad:d=2:s={RATE}", path)
    left, right = np.abs(media.read_audio(path, RATE, 2)).max(axis=1)
    assert left == 0 and right == pytest.approx(0.2071, abs=1e-3)


def test_sound_has_the_file_s_own_channels(folder):
    path = made(folder / "surround.mp4", "-map", 0, "-map", 1, "-c:v", "copy", "-b:a", "400k", sound=LEFT_ONLY)
    audio, sound = own_sound(path)
    assert (sound.sample_rate, sound.channels) == (RATE, ("FL", "FR", "FC", "LFE", "BL", "BR"))
    assert len(audio) == 6
    assert np.abs(audio).max(axis=1) == pytest.approx([0.5, 0, 0, 0, 0, 0], abs=0.01)


@pytest.mark.parametrize("delay", [0.5, -0.5])
def test_sound_is_exact_to_the_sample_on_the_clock_of_the_picture(folder, delay):
    clicks = np.zeros((1, 2 * RATE))
    clicks[:, RATE] = 0.9
    media.write_wav(folder / "clicks.wav", clicks, RATE)
    late = ["-itsoffset", delay, "-i", folder / "clicks.wav"]
    path = made(folder / "delayed.mkv", "-map", 0, "-map", 1, "-c:v", "copy", "-c:a", "pcm_s16le", sound=late)
    audio, _ = own_sound(path)
    assert np.flatnonzero(audio[0] > 0.5).tolist() == [round((1 + delay) * RATE)]
    part = media.read_audio(path, RATE, 1, start=0.25, duration=1)
    assert np.array_equal(part, audio[:, RATE // 4 : RATE // 4 + RATE])


PREVIEW = ["-f", "lavfi", "-i", "color=red:s=160x120:r=25:d=0.04"]


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mov", ["-c:v:0", "mjpeg"]),
        ("mp4", ["-c:v:0", "mjpeg", "-disposition:v:0", "attached_pic"]),
        ("mkv", ["-c:v:0", "libx264"]),
        ("mov", ["-c:v:0", "libx264", "-disposition:v:0", "still_image"]),
    ],
)
def test_a_preview_is_not_the_picture(folder, suffix, options):
    path = folder / f"preview.{suffix}"
    ffmpeg(*PREVIEW, "-i", folder / "plain.mp4", "-map", 0, "-map", 1, "-c:v:1", "copy", *options, path)
    assert numbers(read_frames(path, None)[1]) == list(range(COUNT))
    media.mux(path, _silence(folder), folder / "preview out.mp4")
    assert numbers(read_frames(folder / "preview out.mp4", None)[1]) == list(range(COUNT))


def _silence(folder: Path) -> Path:
    path = folder / "silence.wav"
    media.write_wav(path, np.zeros((1, 32000)), 16000)
    return path


# ------------------------------------------------------------------------------- colours and geometry as displayed

TEST_PICTURE = ["-f", "lavfi", "-i", "testsrc2=s=256x192:r=25:d=0.4,format=rgb24"]
FROM_BT709 = "scale=out_color_matrix=bt709,format=yuv444p10le,zscale=pin=bt709:tin=bt709:min=bt709:p=bt2020:m=bt2020nc"


def coded(path: Path, transfer: str | None = None, number: str | None = None) -> np.ndarray:
    """The first frame of the test picture, coded in BT.709 or converted to BT.2020 with this transfer function."""
    if transfer is None:
        ffmpeg(*TEST_PICTURE, "-vf", "scale=out_color_matrix=bt709,format=yuv444p10le", "-colorspace", "bt709", path)
    else:
        tags = ["-color_primaries", "bt2020", "-color_trc", number or transfer, "-colorspace", "bt2020nc"]
        filters = f"{FROM_BT709}:t={transfer},format=yuv420p10le"
        ffmpeg(*TEST_PICTURE, "-vf", filters, *tags, "-c:v", "libx265", "-preset", "ultrafast", "-crf", 8, path)
    return read_frames(path, 1)[1][0].astype(float)


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67", "2020_10"])
def test_other_colour_volumes_look_like_bt709(folder, transfer):
    """PQ, HLG, and standard dynamic range in BT.2020."""
    number = "bt2020-10" if transfer == "2020_10" else None
    plain, other = coded(folder / "bt709.mkv"), coded(folder / f"{transfer}.mkv", transfer, number)
    assert other.std() == pytest.approx(plain.std(), rel=0.1), "contrast"
    assert other.mean((0, 1)) == pytest.approx(plain.mean((0, 1)), abs=10), "colour"
    assert np.median(np.abs(other - plain)) < 8


def test_highlights_are_rolled_off_not_clipped(folder):
    """A ramp to 1000 nits: no two of its levels become equal, and 100 nits is brighter than two thirds."""
    ramp = "geq=r='X':g='X':b='X',format=gbrp10le,zscale=pin=bt2020:tin=bt709:min=gbr:rin=full"
    filters = f"{ramp}:p=bt2020:t=smpte2084:m=bt2020nc:r=limited:npl=1000,format=yuv420p10le"
    path = folder / "ramp.mkv"
    tags = ["-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc"]
    source = ["-f", "lavfi", "-i", "color=black:s=256x64:r=25:d=0.2,format=gbrp"]
    ffmpeg(*source, "-vf", filters, *tags, "-c:v", "libx265", "-crf", 4, path)
    row = read_frames(path, 1)[1][0].mean((0, 2))
    assert row[::16].tolist() == sorted(row[::16]) and row[-8] - row[-80] > 5
    assert row[-1] > 240


def test_pixels_are_square(folder):
    for suffix in ("mp4", "mkv"):
        path = folder / f"anamorphic.{suffix}"
        ffmpeg("-i", folder / "plain.mp4", "-vf", "setsar=4/3", "-c:v", "libx264", path)
        info = media.probe(path)
        assert (info.width, info.height) == (171, 96)
        assert read_frames(path, 1)[1].shape[1:3] == (96, 171)
        assert read_frames(path, 1, size=64)[1].shape[1:3] == (36, 64)


def test_a_mirrored_picture_is_shown_mirrored(folder):
    picture = np.zeros((3, 96, 128, 3), np.uint8)
    picture[:, :48, :64], picture[:, 48:, 64:] = (250, 0, 0), (0, 250, 0)
    flat = write_video(folder / "flat.mp4", picture)
    for options in (["-display_hflip"], ["-display_rotation", 90, "-display_hflip"], ["-display_vflip"]):
        path = folder / "turned.mp4"
        ffmpeg(*options, "-i", flat, "-c", "copy", path)
        ffmpeg("-i", path, "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "rgb24", folder / "truth.raw")
        info = media.probe(path)
        truth = np.fromfile(folder / "truth.raw", np.uint8).reshape(info.height, info.width, 3)
        assert np.abs(read_frames(path, 1)[1][0].astype(int) - truth).mean() < 3, options
        assert np.array_equal(media.sample_frames(path, np.zeros(1)), read_frames(path, 1)[1][:1])


def with_clean_aperture(path: Path, *numbers: int) -> Path:
    """plain.mp4 with a `clap` box: width, height, and by how much the centre is moved right and down."""
    data = (path.parent / "plain.mp4").read_bytes()
    assert data.index(b"mdat") < data.index(b"moov"), "no offset changes"
    box = struct.pack(">I4s8i", 40, b"clap", *(part for number in numbers for part in (number, 1)))
    place = data.index(b"avcC") - 4
    content, at = bytearray(data[:place] + box + data[place:]), 0
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        at = content.index(name, at) - 4
        content[at : at + 4] = struct.pack(">I", int.from_bytes(content[at : at + 4], "big") + len(box))
    path.write_bytes(content)
    return path


def test_a_container_may_crop_the_picture(folder):
    """As ffmpeg shows it, in mp4 and Matroska, copied and encoded again."""
    picture = np.random.default_rng(0).integers(0, 255, (1, 12, 16, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    place = folder / "crop"
    place.mkdir()
    write_video(place / "plain.mp4", picture.repeat(10, 0))
    cropped = with_clean_aperture(place / "clap.mp4", 100, 60, -10, 8)
    ffmpeg("-i", cropped, "-c", "copy", place / "crop.mkv")
    media.mux(cropped, _silence(folder), place / "copied.mp4")
    media.cut_clip(place / "crop.mkv", 0.1, 0.3, place / "encoded.mp4")
    ffmpeg("-i", cropped, "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "rgb24", place / "truth.raw")
    truth = np.fromfile(place / "truth.raw", np.uint8).reshape(60, 100, 3).astype(int)
    for name in ("clap.mp4", "crop.mkv", "copied.mp4", "encoded.mp4"):
        info = media.probe(place / name)
        assert (info.width, info.height, info.random_access) == (100, 60, name == "encoded.mp4"), name
        assert np.abs(read_frames(place / name, 1)[1][0] - truth).mean() < 5, name
        assert np.abs(media.sample_frames(place / name, np.zeros(1))[0] - truth).mean() < 5, name
    for aperture in ((0, 0, 0, 0), (500, 60, 0, 0), (100, 60, 90, 0)):  # nothing left, larger than the picture, outside
        assert media.probe(with_clean_aperture(place / "bad.mp4", *aperture)).width == 128


BARS = "nullsrc=s=128x96:r=50:d=1,geq=lum='if(lt(mod(X+4*N,32),16),200,40)':cb=128:cr=128,tinterlace=interleave_top"


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "libx264 -x264opts tff=1 -qp 1"), ("avi", "mpeg4 -q:v 1"), ("ts", "mpeg2video -q:v 1")],
)
def test_interlaced_pictures_have_no_combs(folder, suffix, codec):
    """Vertical bars that move: every line of a frame is equal, of a copy as of a picture that is encoded again."""
    path = folder / f"interlaced.{suffix}"
    ffmpeg("-f", "lavfi", "-i", BARS, "-pix_fmt", "yuv420p", "-flags", "+ildct+ilme", "-c:v", *codec.split(), path)
    media.cut_clip(path, 0.2, 0.8, folder / "progressive.mp4")
    for name, count in ((path, 25), (folder / "progressive.mp4", 15)):
        frames = read_frames(name, None)[1].astype(int)
        assert len(frames) == len(media.probe(name).times) == count
        assert np.abs(np.diff(frames, axis=1)).mean() < 1 and np.abs(np.diff(frames, axis=2)).mean() > 10
        assert np.abs(np.diff(frames, axis=0)).mean() > 10, "the bars move"


@pytest.mark.parametrize("codec", [["qtrle"], ["png"]])
def test_what_is_transparent_is_black(folder, codec):
    path = folder / "alpha.mov"
    ffmpeg("-f", "lavfi", "-i", "color=white@0.5:s=64x48:r=25:d=0.2,format=rgba", "-c:v", *codec, path)
    assert read_frames(path, 1)[1].mean() == pytest.approx(127, abs=2)


# ------------------------------------------------------------------------------------- times, frame by frame

REORDERED = {
    "h264.avi": ["-c:v", "libx264", "-bf", 2, "-x264-params", "b-adapt=0"],
    "mpeg4.avi": ["-c:v", "mpeg4", "-q:v", 2, "-bf", 2],
    "xvid.mkv": ["-c:v", "mpeg4", "-q:v", 2, "-bf", 2, "-vtag", "xvid"],
    "program.mpg": ["-c:v", "mpeg2video", "-q:v", 1, "-qmin", 1, "-bf", 2, "-f", "vob"],
    "flash.flv": ["-c:v", "libx264", "-bf", 2],
    "stream.h264": ["-c:v", "libx264", "-bf", 2, "-f", "h264"],
}


@pytest.mark.parametrize("name", REORDERED)
def test_reordered_frames_have_the_times_at_which_they_are_shown(folder, name):
    ffmpeg("-i", folder / "plain.mp4", "-an", *REORDERED[name], folder / name)
    times, frames = read_frames(folder / name, None)
    assert numbers(frames) == list(range(COUNT))
    assert times == pytest.approx(np.arange(COUNT) / FPS, abs=2e-3)
    assert media.probe(folder / name).duration == pytest.approx(2, abs=2e-3)
    media.mux(folder / name, _silence(folder), folder / "reordered out.mp4")
    times, frames = read_frames(folder / "reordered out.mp4", None)
    assert numbers(frames) == list(range(COUNT))
    assert times == pytest.approx(np.arange(COUNT) / FPS, abs=2e-3)


def test_seeking_in_a_file_without_presentation_times(folder):
    path = write_video(folder / "long.avi", numbered(64), 8, "-g", 16, "-bf", 2, codec=("-c:v", "libx264"))
    for time in np.arange(2.5, 8, 0.5):
        (found,) = media.iter_views(path, [media.View(np.array([time]))])
        assert numbers(found[2]) == [time * 8]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_thousand_frames_a_second(folder, suffix):
    path = write_video(folder / f"fast.{suffix}", numbered(60), 1000)
    assert media.probe(path).duration == pytest.approx(0.06, abs=1e-6)
    assert numbers(read_frames(path, None)[1]) == list(range(60))


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_hevc_in_mp4_is_playable_by_apple(folder, suffix):
    path = folder / f"hevc.{suffix}"
    ffmpeg("-i", folder / "plain.mp4", "-c:v", "libx265", "-preset", "ultrafast", "-crf", 10, path)
    media.mux(path, _silence(folder), folder / "hevc.mp4")
    data = (folder / "hevc.mp4").read_bytes()
    assert b"hvc1" in data and b"hev1" not in data
    assert numbers(read_frames(folder / "hevc.mp4", None)[1]) == list(range(COUNT))


def test_a_picture_that_is_encoded_again_keeps_turn_aspect_and_colours(folder):
    path = folder / "turned.webm"
    options = ["-vf", "setsar=4/3", "-c:v", "libvpx", "-deadline", "realtime", "-b:v", "2M"]
    ffmpeg("-i", folder / "plain.mp4", *options, path)
    media.mux(path, _silence(folder), folder / "webm.mp4")
    before, after = media.probe(path), media.probe(folder / "webm.mp4")
    assert (after.width, after.height) == (before.width, before.height) == (171, 96)
    ffmpeg("-display_rotation", 90, "-display_hflip", "-i", folder / "plain.mp4", "-c", "copy", folder / "turned.mp4")
    media.cut_clip(folder / "turned.mp4", 0.4, 1.2, folder / "cut.mp4")
    info = media.probe(folder / "cut.mp4")
    assert (info.rotation, info.mirrored, info.width, info.height) == (90, True, 96, 128)
    assert numbers(read_frames(folder / "cut.mp4", None)[1]) == list(range(10, 30))


# ------------------------------------------------------------------------------------------ what is no video

SCRIPTS = {
    "ffconcat": "ffconcat version 1.0\nfile plain.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nplain.mp4\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
    "avisynth": 'DirectShowSource("plain.mp4")\n',
}


@pytest.mark.parametrize("suffix", ["mp4", "txt", "m3u8"])
@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_script_is_not_followed(folder, kind, suffix):
    path = folder / f"{kind}.{suffix}"
    path.write_text(SCRIPTS[kind])
    for use in (media.probe, lambda path: media.read_audio(path, RATE, 2)):
        with pytest.raises(InputError, match="not a video or audio file"):
            use(path)
    with pytest.raises(InputError):
        media.mux(path, _silence(folder), folder / "out.mp4")


def test_a_pipe_is_refused_instead_of_waited_for(folder):
    os.mkfifo(folder / "pipe.mp4")
    with pytest.raises(InputError, match=r"pipe\.mp4: not a regular file"):
        media.probe(folder / "pipe.mp4")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp"])
def test_a_picture_says_how_to_make_a_video_of_it(folder, suffix):
    ffmpeg("-i", folder / "plain.mp4", "-frames:v", 1, "-update", 1, folder / f"still.{suffix}")
    with pytest.raises(InputError, match="a still picture, not a video; make a video of pictures first"):
        media.probe(folder / f"still.{suffix}")


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", b"\xff\xfe.mp4", "日本 'a\nb.mp4".encode()])
def test_names_are_bytes(folder, name):
    path = Path(os.fsdecode(name) if isinstance(name, bytes) else name)
    path = folder / path
    shutil.copy(folder / "plain.mp4", path)
    assert media.probe(path).duration == pytest.approx(2)
    media.mux(path, _silence(folder), folder / os.fsdecode(b"out\xe9.mp4"))
    assert numbers(read_frames(folder / os.fsdecode(b"out\xe9.mp4"), None)[1]) == list(range(COUNT))
    sound = path.with_suffix(".wav")
    media.write_wav(sound, np.full((2, 800), 0.5), 16000)
    assert media.audio_format(sound) == (16000, 2) and media.audio_duration(sound) == 0.05
    np.testing.assert_allclose(media.read_audio(sound, 16000, 2), 0.5, atol=1e-6)
