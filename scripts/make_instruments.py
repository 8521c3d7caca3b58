"""Write saved_model/instruments.sf3 from two free SoundFonts, and measure its programs.

    apt-get download fluidr3mono-gm-soundfont musescore-general-soundfont-small
    for package in *.deb; do dpkg -x "$package" soundfonts; done
    python scripts/make_instruments.py write soundfonts
    python scripts/make_instruments.py measure

`write` is deterministic: the same sources give the same bytes. `measure` prints the gain and advance of each program
for diff_v2m/score/instruments.py.
"""

import argparse
import hashlib
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diff_v2m.common.errors import InputError  # noqa: E402
from diff_v2m.common.files import atomic, content_hash  # noqa: E402
from diff_v2m.media.metering import integrated_loudness  # noqa: E402
from diff_v2m.score import soundfont  # noqa: E402
from diff_v2m.score.instruments import INSTRUMENTS, KITS, SOUNDFONT  # noqa: E402

SOURCES = {  # file name → SHA-256
    "FluidR3Mono_GM.sf3": "cda013d8c370a48ae8dad271e761078d2e77455488dabdedbfbe5fc76a38c682",
    "MuseScore_General_Lite.sf3": "916aaca6b0eb9f9083eb42399614acb2ff4ec72ce28dffff1814592a9696b479",
}
# Recorded in stereo there, or richer; everything else is the same recording with velocity layers in FluidR3Mono.
FROM_MUSESCORE = (38, 42, 48, 49, 52, 81, 89)
# Velocity shortens this attack by a modulator in the source, which the synthesiser does not know: 0.30 s → 0.10 s.
ATTACK, SHORTER = 34, -1900 % 65536  # generator attackVolEnv, timecents
ADDED = {(0, 48): {ATTACK: SHORTER}}
SAMPLE_RATE = 44100
TARGET_LUFS = -23.0  # of a single note at velocity 96, loudest 0.4 s
HEARD_AT = 0.5  # an onset is heard when the envelope reaches this share of its level


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write the SoundFont")
    write.add_argument("sources", type=Path, help="folder that holds both SoundFonts, at any depth")
    write.add_argument("--output", type=Path, default=SOUNDFONT, help="(default: %(default)s)")
    measure = commands.add_parser("measure", help="print gain and advance of each program")
    measure.add_argument("--soundfont", type=Path, default=SOUNDFONT, help="(default: %(default)s)")
    settings = parser.parse_args(arguments)
    if settings.command == "measure":
        measure_programs(settings.soundfont)
    else:
        write_instruments(settings.sources, settings.output)
    return 0


def write_instruments(sources: Path, output: Path) -> None:
    fluid, musescore = (soundfont.read(_find(sources, name)) for name in SOURCES)
    selection = [(musescore if program in FROM_MUSESCORE else fluid, 0, program) for program in INSTRUMENTS]
    selection += [(fluid, soundfont.DRUM_BANK, kit) for kit in KITS]
    comment = "Presets of FluidR3Mono_GM and MuseScore_General_Lite, MIT licence; see instruments.LICENSE"
    content = soundfont.build(selection, "Diff-V2M instruments", comment, ADDED)
    with atomic(output) as part:
        part.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    sys.stdout.write(f"{output}: {len(selection)} presets, {len(content) / 1e6:.2f} MB, sha256 {digest}\n")


def _find(folder: Path, name: str) -> Path:
    path = next(iter(sorted(folder.rglob(name))), None)
    if path is None:
        raise InputError(f"{folder}: holds no {name}; see --help for how to get it")
    if content_hash(path) != SOURCES[name]:
        raise InputError(f"{path}: another version (sha256 {content_hash(path)}); expected {SOURCES[name]}")
    return path


def measure_programs(path: Path) -> None:
    """Print, for each program: gain to TARGET_LUFS (median over the range), its spread, advance in seconds."""
    import tinysoundfont

    source = soundfont.read(path)
    for program, instrument in INSTRUMENTS.items():
        synth = tinysoundfont.Synth(samplerate=SAMPLE_RATE)
        loaded = synth.sfload(soundfont.build([(source, 0, program)], "measure", ""))
        synth.program_select(0, loaded, 0, program)
        loudness, rise = [], []
        for pitch in range(instrument.low, instrument.high + 1, 3):
            synth.sounds_off(0)
            synth.generate(SAMPLE_RATE // 10)
            synth.noteon(0, pitch, 96)
            audio = np.frombuffer(synth.generate(SAMPLE_RATE), np.float32).reshape(-1, 2).T
            synth.noteoff(0, pitch)
            blocks = [audio[:, at : at + 17640] for at in range(0, SAMPLE_RATE - 17640 + 1, 4410)]
            loudness.append(max(integrated_loudness(block, SAMPLE_RATE) for block in blocks))
            envelope = np.sqrt(np.convolve((audio**2).mean(0), np.full(441, 1 / 441), "same"))
            level = np.percentile(envelope[: SAMPLE_RATE // 2], 90)
            rise.append(np.argmax(envelope > HEARD_AT * level) / SAMPLE_RATE)
        loudness = [value for value in loudness if math.isfinite(value)]
        gain, advance = TARGET_LUFS - np.median(loudness), float(np.median(rise))
        spread = np.ptp(np.percentile(loudness, (10, 90)))
        sys.stdout.write(f"{program:4d} {instrument.name:20s} gain {gain:6.1f}  spread {spread:4.1f}  ")
        sys.stdout.write(f"advance {advance:.3f}\n")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        sys.exit(f"make_instruments: {error}")
