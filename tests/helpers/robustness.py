"""Campaigns against generation: damaged files, kills, shared folders, full disks, many and long videos.

    PYTHONPATH=.:tests python -m helpers.robustness damaged --count 200 --seed 1 --output results/robustness.md

Each campaign starts infer.py with a toy model, `long` with the bundled one, checks what is left, and adds its figures
to a document. The exit status is 1 if something is wrong. The test suite runs them small (test_robustness.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from helpers import toys
from helpers.videos import ffmpeg

from diff_v2m.common.files import TEACHER

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
LAST_BIT = 2.5e-7  # two steps of 24 bits
log = logging.getLogger("robustness")
TONE = ["-f", "lavfi", "-i", "sine=440:d=1"]
PICTURE = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=12:d=1"]
KINDS = {  # ten containers and as many codecs
    "h264.mp4": ["-c:v", "libx264", "-c:a", "aac"],
    "fragments.mp4": ["-c:v", "libx264", "-c:a", "aac", "-movflags", "+frag_keyframe+empty_moov"],
    "hevc.mkv": ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", "-c:a", "flac"],
    "vp8.webm": ["-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libvorbis"],
    "mpeg4.avi": ["-c:v", "mpeg4", "-bf", "2", "-c:a", "libmp3lame"],
    "mpeg2.mpg": ["-c:v", "mpeg2video", "-r", "25", "-c:a", "mp2", "-f", "vob"],
    "stream.ts": ["-c:v", "libx264", "-c:a", "ac3"],
    "prores.mov": ["-c:v", "prores_ks", "-c:a", "pcm_s16le"],
    "flash.flv": ["-c:v", "flv", "-c:a", "libmp3lame", "-ar", "44100"],
    "windows.wmv": ["-c:v", "wmv2", "-c:a", "wmav2"],
    "camera.mxf": ["-c:v", "mpeg2video", "-r", "25", "-c:a", "pcm_s16le", "-ar", "48000"],
    "picture.gif": ["-an"],
}


@dataclass
class Run:
    """A finished infer.py."""

    status: int  # negative: ended by a signal
    text: str  # what it printed
    peak: float  # MiB of memory
    seconds: float
    memory: list[tuple[float, float]] = field(default_factory=list)  # (seconds, MiB) while it ran


@dataclass(frozen=True)
class Place:
    """A folder with the toy model, in which infer.py runs."""

    folder: Path

    def command(self, inputs: Sequence[Path], output: Path, *flags: str) -> list[str]:
        weights = self.folder / "toy.safetensors"
        if not weights.exists():
            toys.save_toy_model(weights)
        command = [sys.executable, str(ROOT / "infer.py"), *map(str, inputs), "--output_dir", str(output)]
        return [*command, "--ckpt_path", str(weights), "--steps", "2", "--feature_cache", "none", *flags]

    def start(self, inputs: Sequence[Path], output: Path, *flags: str) -> subprocess.Popen:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "MPLBACKEND": "Agg"}
        return subprocess.Popen(
            self.command(inputs, output, *flags),
            stdin=subprocess.DEVNULL,
            stdout=open(self.folder / "log", "ab"),  # noqa: SIM115
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def run(self, inputs: Sequence[Path], output: Path, *flags: str, limit: float = 7200, every: float = 0.5) -> Run:
        """To its end. One that takes longer than `limit` seconds is killed, and its status is −9."""
        (self.folder / "log").write_bytes(b"")
        begin, process, memory = time.monotonic(), self.start(inputs, output, *flags), []
        while process.poll() is None:
            time.sleep(every)
            used = resident(process.pid)
            memory += [(time.monotonic() - begin, used)] if used else []
            if time.monotonic() - begin > limit:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        text = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
        peak = max((used for _, used in memory), default=0.0)
        return Run(process.returncode, text, peak, time.monotonic() - begin, memory)


def resident(pid: int) -> float:
    """MiB of a process in memory, without pages of files, which the system takes back as it needs; 0: it has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) / 1024
    return 0.0


def wrong_in(folder: Path) -> list[str]:
    """What an output folder must not hold: hidden files, results that are not whole."""
    found = [f"left over: {path.name}" for path in folder.glob(".*") if not path.name.endswith(".steps")]
    for path in folder.glob("*.json"):
        names = json.loads(path.read_text(encoding="utf-8"))["outputs"]
        found += [f"{path.name} without {name}" for name in names if not (folder / name).is_file()]
    return found


class Music(dict[str, np.ndarray]):
    """Name → samples of every wav of a folder. Equal: the same clips, no sample further apart than LAST_BIT.

    The other clips of a batch change the last bit of a float32.
    """

    def __init__(self, folder: Path):
        super().__init__({path.name: soundfile.read(path)[0] for path in sorted(folder.glob("*.wav"))})

    def differing(self, reference: Music) -> list[str]:
        """Clips that are not as in the reference, which may have more."""
        return [name for name in self if not _same(self[name], reference[name])]

    def equals(self, reference: Music) -> bool:
        return self.keys() == reference.keys() and not self.differing(reference)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and float(np.abs(one - other).max(initial=0)) <= LAST_BIT


def crashed(run: Run) -> list[str]:
    bad = [line for line in run.text.splitlines() if "Traceback" in line or "unexpected" in line]
    return bad + ([] if run.status in (0, 1) else [f"exit status {run.status}"])


# ------------------------------------------------------------------------------------------------ damaged files


def damage(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Flip bits, cut the end off, exchange two blocks, zero one or repeat one."""
    kind = chance.choice(["bits", "bits", "end", "exchange", "zeros", "repeat"])
    content = bytearray(data)
    a, b = sorted(chance.sample(range(len(data)), 2))
    block = chance.randrange(1, max(2, len(data) // 8))
    if kind == "bits":
        for _ in range(chance.choice([1, 4, 32, 256])):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif kind == "end":
        del content[a:]
    elif kind == "exchange":
        content = swapped(data, chance)
    elif kind == "zeros":
        content[a : a + block] = bytes(len(content[a : a + block]))
    else:
        content[b:b] = content[a : a + block]
    return kind, bytes(content)


def swapped(data: bytes, chance: random.Random) -> bytearray:
    """Two atoms of an mp4 exchanged, or two blocks of another file."""
    names = [match.start() - 4 for match in re.finditer(rb"moov|mdat|trak|mdia|stbl|stts|stsz|stco|moof|trun", data)]
    edges = sorted({0, len(data), *(at for at in names if at > 0)})
    if len(edges) < 5:
        edges = sorted({0, len(data), *(chance.randrange(len(data)) for _ in range(6))})
    parts = [data[start:stop] for start, stop in zip(edges, edges[1:], strict=False)]
    a, b = chance.sample(range(len(parts)), 2)
    parts[a], parts[b] = parts[b], parts[a]
    return bytearray(b"".join(parts))


def damaged(place: Place, count: int, chance: random.Random) -> tuple[str, list[str]]:
    """Damaged files through features, composing and muxing: a result or one line for each."""
    sources, videos = place.folder / "sources", place.folder / "damaged"
    sources.mkdir()
    videos.mkdir()
    for name, options in KINDS.items():
        ffmpeg(*PICTURE, *TONE, *options, "-t", 1, sources / name)
    kinds: Counter[str] = Counter()
    for n in range(count):
        name = list(KINDS)[n % len(KINDS)]
        kind, data = damage((sources / name).read_bytes(), chance)
        (videos / f"{n:03}_{kind}_{name}").write_bytes(data)
        kinds[kind] += 1
    output = place.folder / "out"
    run = place.run(sorted(videos.iterdir()), output, limit=60 * count)
    errors = {
        Path(line.partition(": ")[2].partition(": ")[0]).name for line in run.text.splitlines() if "error:" in line
    }
    results = {path.stem for path in output.glob("*.mp4")}
    wrong = crashed(run) + wrong_in(output)
    for path in videos.iterdir():
        if path.stem not in results and path.name not in errors:
            wrong.append(f"{path.name}: neither a result nor an error")
    for path in output.glob("*.mp4"):
        done = subprocess.run([sys.executable, "-c", PLAYS, str(path)], capture_output=True, cwd=ROOT)
        wrong += [f"{path.name}: does not play"] if done.returncode else []
    about = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    return (
        f"{count} damaged files ({about}) of {len(KINDS)} kinds: {len(results)} composed, {len(errors)} refused in one "
        f"line; {run.seconds / count:.1f} s a file, peak {run.peak:.0f} MiB"
    ), wrong


PLAYS = "import sys; from diff_v2m import media; list(media.iter_views(sys.argv[1], [media.View(size=32)]))"


# ------------------------------------------------------------------------------------------------- kills, sharing


def clips_in(place: Place, count: int, seconds: float = 2) -> list[Path]:
    folder = place.folder / "clips"
    return [toys.write_video(folder / f"clip{n:04}.mp4", seconds, seed=n) for n in range(count)]


def kills(place: Place, count: int, chance: random.Random) -> tuple[str, list[str]]:
    """kill -9 at random moments of a batch of 10 clips; then a rerun, compared with an undisturbed run."""
    clips = clips_in(place, 10)
    whole, pieces = place.folder / "whole", place.folder / "pieces"
    undisturbed = place.run(clips, whole)
    wrong, reference, finished, moments = crashed(undisturbed), Music(whole), 0, Counter()
    for _ in range(count):
        if len(list(pieces.glob("*.json"))) == len(clips):
            shutil.rmtree(pieces)
            finished += 1
        process = place.start(clips, pieces)
        time.sleep(chance.uniform(0.3, 1.0) * undisturbed.seconds)
        moments["killed" if process.poll() is None else "done before"] += 1
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wrong += [f"{name} differs after a kill" for name in Music(pieces).differing(reference)]
        for path in pieces.glob("*.mp4"):
            wrong += [] if path.read_bytes().find(b"moov") >= 0 else [f"{path.name}: half-written"]
    last = place.run(clips, pieces)
    wrong += crashed(last) + wrong_in(pieces)
    equal = Music(pieces).equals(reference)
    wrong += [] if equal else ["the music differs from that of an undisturbed run"]
    return (
        f"kill -9 at {moments['killed']} random moments of a batch of {len(clips)} clips ({moments['done before']} "
        f"came too late, {finished} batches completed in between): the rerun has {len(Music(pieces))} clips, music "
        f"{'equal to' if equal else 'unlike'} an undisturbed run's"
    ), wrong


def shared(place: Place, count: int, chance: random.Random) -> tuple[str, list[str]]:
    """Two processes with the same inputs and output folder, started up to 3 s apart."""
    clips = clips_in(place, 6)
    alone, wrong = place.folder / "alone", []
    wrong += crashed(place.run(clips, alone))
    for n in range(count):
        output = place.folder / f"shared{n}"
        first = place.start(clips, output)
        time.sleep(chance.uniform(0, 3))
        second = place.start(clips, output)
        statuses = [process.wait() for process in (first, second)]
        wrong += [f"exit statuses {statuses}"] if any(statuses) else []
        wrong += wrong_in(output) + ([] if Music(output).equals(Music(alone)) else [f"pair {n}: the music differs"])
    return f"{count} pairs of processes with the same inputs and output folder: all results whole and equal", wrong


# --------------------------------------------------------------------------------------------------------- disks


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A file system in memory at `folder`. Raises OSError where it cannot be mounted."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def disks(place: Place, count: int, chance: random.Random) -> tuple[str, list[str]]:
    """A disk that is full at random sizes, then has room again; a read-only folder; the cache folder likewise."""
    clips, wrong, disk = clips_in(place, 3), [], place.folder / "disk"
    needed = place.folder / "needed"
    wrong += crashed(place.run(clips, needed))
    reference = Music(needed)
    size = sum(path.stat().st_size for path in needed.iterdir())
    for _ in range(count):
        room = round(chance.uniform(0.02, 1.1) * size)
        with mounted(disk, f"size={max(4096, room)}"):
            run = place.run(clips, disk / "out")
            wrong += crashed(run) + wrong_in(disk / "out")
            found = Music(disk / "out")
            wrong += [f"{name} differs on a full disk" for name in found.differing(reference)]
            if len(found) < len(clips) and not (run.status == 1 and "No space left" in run.text):
                wrong.append(f"{room} bytes: {len(found)} results without a word")
            subprocess.run(["mount", "-o", f"remount,size={4 * size}", str(disk)], check=True)
            again = place.run(clips, disk / "out")
            wrong += crashed(again) + wrong_in(disk / "out")
            wrong += [] if Music(disk / "out").equals(reference) else ["the rerun on a larger disk is not complete"]
    for flags in ([], ["--feature_cache", str(disk / "cache")]):
        with mounted(disk, "ro"):
            run = place.run(clips[:1], place.folder / "beside" if flags else disk / "out", *flags)
            wrong += crashed(run) + ([] if run.status == (0 if flags else 1) else [f"read-only: status {run.status}"])
    return f"{count} disks filled at random sizes, and read-only folders: one line each, nothing half-written", wrong


# --------------------------------------------------------------------------------------------------- many, long


def many(place: Place, count: int, chance: random.Random) -> tuple[str, list[str]]:
    """One-second clips in one call; memory in the second quarter and at the end."""
    clips = clips_in(place, count, seconds=1)
    run = place.run(clips, place.folder / "out", every=2)
    quarters = [used for seconds, used in run.memory if seconds > run.seconds / 4]
    early, late = (max(part) for part in (quarters[: len(quarters) // 3], quarters[-len(quarters) // 3 :]))
    wrong = crashed(run) + wrong_in(place.folder / "out")
    wrong += [] if len(list((place.folder / "out").glob("*.json"))) == count else ["results are missing"]
    wrong += [f"memory grows from {early:.0f} to {late:.0f} MiB"] if late > 1.1 * early + 20 else []
    return (
        f"{count} one-second clips in one call: {run.seconds / count:.2f} s each; peak {early:.0f} MiB in the second "
        f"quarter, {late:.0f} MiB in the last"
    ), wrong


def long(place: Place, count: int, chance: random.Random) -> tuple[str, list[str]]:
    """A video of `count` minutes against one of a twelfth: features, composing in two steps, writing."""
    peaks, times = [], []
    wrong = []
    for minutes in (count / 12, count):
        video = place.folder / f"{minutes:g} minutes.mp4"
        picture = f"testsrc2=s=96x64:r=2:d={60 * minutes}"
        ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-preset", "ultrafast", video)
        output = place.folder / f"out{minutes:g}"
        run = place.run([video], output, "--ckpt_path", str(TEACHER))
        wrong += crashed(run) + wrong_in(output)
        wrong += [] if len(list(output.glob("*.wav"))) == 1 else [f"{minutes:g} minutes: no result"]
        peaks.append(run.peak)
        times.append(run.seconds)
    waveform = 4 * 2 * 44100 * 60 * count * 11 / 12 / MIB
    return (
        f"a video of {count} minutes: peak {peaks[1]:.0f} MiB, {times[1]:.0f} s; of {count / 12:g} minutes: "
        f"{peaks[0]:.0f} MiB, {times[0]:.0f} s. One waveform of the difference is {waveform:.0f} MiB"
    ), wrong + ([f"{peaks[1] - peaks[0]:.0f} MiB more"] if peaks[1] - peaks[0] > waveform / 4 + 100 else [])


CAMPAIGNS = {  # campaign → (function, default count)
    "damaged": (damaged, 200),
    "kills": (kills, 30),
    "shared": (shared, 5),
    "disks": (disks, 12),
    "many": (many, 1000),
    "long": (long, 120),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.robustness", description=__doc__)
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--count", type=int, help="files, kills, pairs, disks, clips or minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="document to which the figures are added")
    options = parser.parse_args(arguments)
    campaign, default = CAMPAIGNS[options.campaign]
    count = options.count or default
    with tempfile.TemporaryDirectory() as folder:
        figures, wrong = campaign(Place(Path(folder)), count, random.Random(options.seed))
    report = f"{figures}. Defects: {len(wrong)}."
    log.warning("%s", "\n".join([report, *wrong[:20]]))
    if options.output:
        from benchmarks.measuring import write_section

        command = f"PYTHONPATH=.:tests python -m helpers.robustness {options.campaign} --count {count} "
        write_section(options.output, options.campaign.capitalize(), f"{command}--seed {options.seed}", report)
    return 1 if wrong else 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
