"""`python -m diff_v2m render NAME.mid --video VIDEO`: play a score, edited or not, under the picture."""

import argparse
import logging
from pathlib import Path

from diff_v2m.common.errors import InputError

log = logging.getLogger("diff_v2m.render")

SUMMARY = "play a MIDI file under a video, as an edited score of infer.py"
DESCRIPTION = (
    "Play a MIDI file with the instruments of the bundled model and put it under the picture of a video, as infer.py "
    "does with the music that it generates. Parts go to voices by the names of their tracks: melody, harmony, bass, "
    "figure, pad, drums."
)
SHORTER = 0.5  # seconds that a score may be longer than its video without a warning


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


def run(options: argparse.Namespace) -> None:
    from diff_v2m import media
    from diff_v2m.generation.extras import summing
    from diff_v2m.media import loudness
    from diff_v2m.score import synth
    from diff_v2m.score.midi import read_midi

    target = options.output or options.score.with_name(f"{options.score.stem}_rendered.mp4")
    if target.suffix.lower() != ".mp4":
        raise InputError(f"--output {target}: expected a name that ends in .mp4")
    wav = target.with_suffix(".wav")
    duration = media.probe(options.video).duration
    score = read_midi(options.score)
    if score.duration > duration + SHORTER:
        log.warning("%s lasts %.1f s, the video %.1f s: the rest is cut off", options.score, score.duration, duration)
    score = read_midi(options.score, duration)
    stems = [target.with_name(f"{target.stem}.{voice.name}.wav") for voice in score.voices if options.stems]
    _check_free([target, wav, *stems], options)

    rendering = synth.render(score)
    audio, report = loudness.level(rendering.mix, synth.SAMPLE_RATE, options.normalize)
    target.parent.mkdir(parents=True, exist_ok=True)
    media.write_wav(wav, audio, synth.SAMPLE_RATE)
    if stems:
        gain = audio.gain(0, audio.shape[1])
        parts = summing(rendering.stems, audio[:, :], gain)
        for path, voice in zip(stems, score.voices, strict=True):
            media.write_wav(path, parts[voice.name], synth.SAMPLE_RATE)
    media.mux(options.video, wav, target, duration=duration)
    log.info("%s: %d notes, %s, %.0f BPM → %s", options.score, score.note_count, score.key, score.grid.tempo, target)


def _check_free(paths: list[Path], options: argparse.Namespace) -> None:
    """InputError if a result would replace an input, or another file without --overwrite."""
    inputs = {options.video.resolve(), options.score.resolve()}
    for path in paths:
        if path.resolve() in inputs:
            raise InputError(f"{path} is an input; choose another --output")
        if path.exists() and not options.overwrite:
            raise InputError(f"{path} exists; choose another --output, or replace it with --overwrite")
