"""`python -m diff_v2m doctor`: whether this machine has what generation needs, and what to do about what is missing."""

import argparse
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import BUNDLED, ROOT, content_hash, user_cache

SUMMARY = "check this machine: Python, packages, GPU, codecs, disk, memory, weights, a run of one second"
DESCRIPTION = (
    "Check what generation needs, one line each: ok, or what to do. Downloads nothing. Exit status 1 if there is "
    "something to do."
)
LEAST_DISK = 1e9  # bytes free where results and downloads go
WORKING = 1e9  # bytes of memory beside the weights: Python, torch, one window
EXTRA = 0.2  # and this share of the weights, for what is computed from them


@dataclass(frozen=True)
class Finding:
    name: str
    ok: bool
    text: str  # what was found; if not ok, what to do


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ckpt-path",
        default=str(BUNDLED),
        metavar="PATH",
        help="model to check for: a path or a name (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("output"),
        metavar="PATH",
        help="where results go (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(options: argparse.Namespace) -> int:
    findings = []
    for name, check in CHECKS.items():
        with _only_errors_logged():
            findings.append(_finding(name, check, options))
        if not options.json:
            sys.stdout.write(f"{'ok ' if findings[-1].ok else 'FIX'} {name}: {findings[-1].text}\n")
            sys.stdout.flush()
    if options.json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False) + "\n")
    return 0 if all(finding.ok for finding in findings) else 1


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    """What the checks log is no finding."""
    log = logging.getLogger("diff_v2m")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _finding(name: str, check: Callable[[argparse.Namespace], str], options: argparse.Namespace) -> Finding:
    try:
        return Finding(name, True, check(options))
    except InputError as error:
        return Finding(name, False, str(error))
    except Exception as error:  # a broken package may raise anything, and the other checks still help
        reason = str(error).strip().partition("\n")[0]
        return Finding(name, False, f"{type(error).__name__}: {reason}; install the packages again with bash setup.sh")


def check_python(options: argparse.Namespace) -> str:
    if sys.version_info[:2] != (3, 11):
        raise InputError(f"Python {platform.python_version()}; expected 3.11: PYTHON=/path/to/python3.11 bash setup.sh")
    return f"{platform.python_version()} at {sys.executable}"


def check_packages(options: argparse.Namespace) -> str:
    from packaging.requirements import Requirement

    lists = [ROOT / name for name in ("requirements.txt", "requirements-sat.txt")]
    lines = [
        line.partition("#")[0].strip() for path in lists if path.is_file() for line in path.read_text().splitlines()
    ]
    wanted = [Requirement(line) for line in lines or metadata.requires("diff-v2m") or [] if line]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    missing, others = [], []
    for one in wanted:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            missing.append(one.name)
            continue
        if not one.specifier.contains(version, prereleases=True):
            others.append(f"{one.name} {version} ({one.specifier})")
    if missing:
        raise InputError(f"missing: {', '.join(missing)}; install with bash setup.sh")
    return f"{len(wanted)} are there" + (f"; of untested versions: {', '.join(others)}" if others else "")


def check_device(options: argparse.Namespace) -> str:
    import torch

    from diff_v2m.common.devices import pick_device

    driver = Path("/proc/driver/nvidia/version")
    if driver.exists() and not torch.cuda.is_available() and options.device == "auto":
        line = driver.read_text().partition("\n")[0].strip()
        raise InputError(
            f"torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use the GPU ({line}); update its driver, or "
            "check CUDA_VISIBLE_DEVICES; --device cpu works without it"
        )
    device = pick_device(options.device)
    if device.startswith("cuda"):
        place = torch.device(device)
        capability = ".".join(map(str, torch.cuda.get_device_capability(place)))
        about = f"{torch.cuda.get_device_name(place)}, compute capability {capability}, CUDA {torch.version.cuda}"
    else:
        about = f"{torch.get_num_threads()} threads" + (", no GPU is used" if device == "cpu" else "")
    return f"torch {torch.__version__} on {device}: {about}"


def check_codecs(options: argparse.Namespace) -> str:
    from diff_v2m import media

    decoders, encoders = media.missing_codecs()
    if decoders or encoders:
        raise InputError(
            f"av and ffmpeg lack {', '.join([*decoders, *encoders])}; install av and imageio-ffmpeg again with bash "
            "setup.sh"
        )
    return "H.264, HEVC, VP9, AV1 and MPEG-4 are read; H.264 and AAC are written"


def check_disk(options: argparse.Namespace) -> str:
    from diff_v2m.weights import hub

    texts = []
    for what, folder in (("results", options.output_dir), ("downloads", hub.cache_folder())):
        free = shutil.disk_usage(_existing(folder)).free
        texts.append(f"{hub.size_text(free)} free for {what} in {folder}")
        if free < LEAST_DISK:
            advice = "choose another --output_dir" if what == "results" else "set HF_HOME to another folder"
            raise InputError(f"{texts[-1]}; make room, or {advice}")
    return ", ".join(texts)


def check_cache(options: argparse.Namespace) -> str:
    from diff_v2m.weights import hub

    folder = user_cache("features")
    if folder is None:
        raise InputError("this account has no cache folder; set XDG_CACHE_HOME, or give infer.py --feature_cache DIR")
    for place in (folder, hub.cache_folder()):
        _check_writable(place, "set XDG_CACHE_HOME and HF_HOME to folders that can be written")
    sizes = [path.stat().st_size for path in folder.glob("*") if path.is_file()]
    return f"{len(sizes)} videos, {hub.size_text(sum(sizes))} in {folder}; downloads in {hub.cache_folder()}"


def check_output(options: argparse.Namespace) -> str:
    _check_writable(options.output_dir, "choose another --output_dir")
    return f"{options.output_dir} can be written"


def check_weights(options: argparse.Namespace) -> str:
    from diff_v2m.checkpoints.files import read_weights
    from diff_v2m.checkpoints.loading import config_of
    from diff_v2m.weights import hub
    from diff_v2m.weights.names import parse_name

    path = _weights(options)
    config_of(read_weights(path))
    known = None
    if not os.path.exists(options.ckpt_path) and (name := parse_name(options.ckpt_path)) is not None:
        hub.check(name, path)
        known = hub.expected_sha256(name, path)
    return f"{path}: SHA-256 {content_hash(path)}, {'as published' if known else 'no published one is known'}"


def check_encoder(options: argparse.Namespace) -> str:
    from diff_v2m.checkpoints.files import read_weights
    from diff_v2m.checkpoints.loading import config_of
    from diff_v2m.config import whole_model
    from diff_v2m.features.semantic import encoder_identity

    config = whole_model(config_of(read_weights(path := _weights(options))), path)
    choice = config.model.conditioning["semantic"].config.encoder
    try:
        return encoder_identity(choice, download=False)
    except InputError as error:
        raise InputError(f"{error}; or run: python -m diff_v2m weights get clip") from error


def check_memory(options: argparse.Namespace) -> str:
    import psutil
    import torch

    from diff_v2m.checkpoints.files import read_weights
    from diff_v2m.common.devices import pick_device
    from diff_v2m.weights import hub

    state = read_weights(_weights(options)).state
    weights = sum(4 * tensor.numel() for key, tensor in state.items() if key.startswith("diffusion."))
    needed = WORKING + (1 + EXTRA) * weights
    device = pick_device(options.device)
    if device.startswith("cuda"):
        free, advice = torch.cuda.mem_get_info(torch.device(device))[0], "use --offload or --device cpu"
    else:
        free, advice = psutil.virtual_memory().available, "end other programs, or use a machine with more"
    text = f"about {hub.size_text(needed)} needed on {device}, {hub.size_text(free)} free"
    if free < needed:
        raise InputError(f"{text}; {advice}")
    return text


def check_run(options: argparse.Namespace) -> str:
    """One second of the example, from the video file to the mp4, with the bundled model."""
    from diff_v2m import media

    with tempfile.TemporaryDirectory(prefix="diff_v2m_doctor_") as folder:
        clip, start = Path(folder) / "second.mp4", time.monotonic()
        media.cut_clip(ROOT / "examples" / "earth.mp4", 0, 1, clip)
        command = [sys.executable, ROOT / "infer.py", clip, "--ckpt_path", BUNDLED, "--device", options.device]
        command += ["--feature_cache", "none", "--output_dir", Path(folder) / "out"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=folder)
        if done.returncode:
            last = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            reason = next((line for line in last if line.startswith("error:")), last[-1])
            raise InputError(f"the run failed: {reason}")
        seconds = media.read_audio(Path(folder) / "out" / "second.mp4", 16000, 1).shape[-1] / 16000
    if abs(seconds - 1) > 0.1:
        raise InputError(f"the run made {seconds:.2f} s of sound for a video of 1 s; please report this")
    return f"{seconds:.1f} s of music for a video of 1 s, in {time.monotonic() - start:.0f} s"


CHECKS: dict[str, Callable[[argparse.Namespace], str]] = {
    "python": check_python,
    "packages": check_packages,
    "device": check_device,
    "codecs": check_codecs,
    "disk": check_disk,
    "cache": check_cache,
    "output": check_output,
    "weights": check_weights,
    "encoder": check_encoder,
    "memory": check_memory,
    "run": check_run,
}


def _weights(options: argparse.Namespace) -> Path:
    """The weights file, without downloading it. Raises InputError."""
    from diff_v2m.weights import hub
    from diff_v2m.weights.finding import find_weights
    from diff_v2m.weights.names import parse_name

    given = options.ckpt_path
    name = None if os.path.exists(given) else parse_name(given)
    if name is not None and hub.find(name) is None:
        raise InputError(f"{given}: not on this machine; run: python -m diff_v2m weights get {given}")
    return find_weights(given) if name is None else hub.find(name)[0]


def _existing(folder: Path) -> Path:
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"{there}: is a file, not a folder; choose another")
    return there


def _check_writable(folder: Path, advice: str) -> None:
    there = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(f"{there}: cannot be written ({error.strerror}); {advice}") from error
