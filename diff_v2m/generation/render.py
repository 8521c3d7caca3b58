"""`python -m diff_v2m render NAME.mid --video VIDEO`: play a score, edited or not, under the picture."""

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.mix.flags import add_mix_flags, mix_settings

log = logging.getLogger("diff_v2m.render")

SUMMARY = "play a MIDI file under a video, as an edited score of infer.py"
DESCRIPTION = (
    "Play a MIDI file with the instruments of the bundled model and put it under the picture of a video, as infer.py "
    "does with the music that it generates. Parts go to voices by the names of their tracks: melody, harmony, bass, "
    "figure, pad, drums."
)
LONGER = 0.5  # seconds that a score may be longer than its video without a warning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("score", type=Path, metavar="NAME.mid", help="Standard MIDI file")
    parser.add_argument("--video", type=Path, required=True, help="video whose picture the result has")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.mp4", help="result (default: NAME_rendered.mp4 beside the MIDI file)"
    )
    parser.add_argument(
        "--normalize", choices=("none", "peak", "lufs"), default="lufs", help="loudness (default: %(default)s)"
    )
    parser.add_argument("--stems", action="store_true", help="write a wav of each voice too")
    parser.add_argument("--overwrite", action="store_true", help="replace files of these names")
    add_mix_flags(parser)


def run(options: argparse.Namespace) -> None:
    """All files or none: they are written into a hidden folder and moved into place. Raises InputError."""
    from diff_v2m import media

    target = options.output or options.score.with_name(f"{options.score.stem}_rendered.mp4")
    if target.suffix.lower() != ".mp4":
        raise InputError(f"--output {target}: expected a name that ends in .mp4")
    mix_settings(options)
    duration = media.probe(options.video).duration
    _check_free([target, target.with_suffix(".wav")], options)
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = tempfile.TemporaryDirectory(dir=target.parent, prefix=".diff-v2m-render-")
    with unfinished as folder:
        _write(options, Path(folder), target.stem, duration)
        made = sorted(path for path in Path(folder).iterdir() if path.is_file())
        _check_free([target.parent / path.name for path in made], options)
        with _writing(target):
            for path in made:
                os.replace(path, target.parent / path.name)
    log.info("→ %s", target)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """InputError instead of an error of the file system."""
    try:
        yield
    except OSError as error:
        raise InputError(f"--output {target}: cannot be written ({error.strerror}); choose another --output") from None


def _write(options: argparse.Namespace, folder: Path, name: str, duration: float) -> None:
    """The files of the result, of `duration` seconds, in a folder of their own."""
    from diff_v2m import media
    from diff_v2m.common.scratch import Scratch
    from diff_v2m.generation.extras import summing
    from diff_v2m.media import loudness
    from diff_v2m.mix.publishing import mix_video
    from diff_v2m.score import synth
    from diff_v2m.score.midi import read_midi

    whole = read_midi(options.score).duration
    if whole > duration + LONGER:
        log.warning("%s lasts %.1f s, the video %.1f s: the rest is cut off", options.score, whole, duration)
    score = read_midi(options.score, duration)
    log.info("%s: %d notes, %s, %.0f BPM", options.score, score.note_count, score.key, score.grid.tempo)
    rendering = synth.render(score, scratch=Scratch(folder))
    audio, _ = loudness.level(rendering.mix, synth.SAMPLE_RATE, options.normalize)
    wav = folder / f"{name}.wav"
    media.write_wav(wav, audio, synth.SAMPLE_RATE)
    if options.stems:
        for voice, stem in summing(rendering.stems, audio).items():
            media.write_wav(folder / f"{name}.{voice}.wav", stem, synth.SAMPLE_RATE)
    settings = mix_settings(options)
    if settings is None:
        media.mux(options.video, wav, folder / f"{name}.mp4", duration=duration)
    else:
        mix_video(options.video, rendering.mix, synth.SAMPLE_RATE, settings, folder, name, duration)


def _check_free(paths: list[Path], options: argparse.Namespace) -> None:
    """InputError if a result would replace an input, or another file without --overwrite."""
    inputs = {options.video.resolve(), options.score.resolve()}
    for path in paths:
        if path.resolve() in inputs:
            raise InputError(f"{path} is an input; choose another --output")
        if os.path.exists(path) and not options.overwrite:
            raise InputError(f"{path} exists; choose another --output, or replace it with --overwrite")
