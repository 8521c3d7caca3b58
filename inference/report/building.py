"""Builds report.json, which holds everything the page shows, and report.md.

report.json
  format        1; raised when a key changes its meaning
  settings      metrics, seed, bootstrap draws, device
  inputs        side → number of clips, and a hash of names and contents
  embedders     encoder → its identity, with the hash of its weights, or why it is missing
  versions      Python and packages
  figures       list of `MetricResult`: value, interval, n, real, chance, per_clip, settings, or not_computed
  clips         name → audio, reference and video (paths relative to the report) and details of the clip: beats, cuts,
                pseudo_beats in seconds; achieved_, predicted_, reference_rhythm, one value a second; page: what
                thumbnails.py drew and where the page finds the media; …
  left_out      skipped clip or file → reasons
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic, content_hash, write_json
from diff_v2m.common.versions import VERSION, installed_versions
from inference.metric import MetricResult, rounded

if TYPE_CHECKING:
    from inference.pairing import MediaFile
    from inference.workspace import Workspace

FORMAT = 1
PACKAGES = (
    "torch",
    "torchaudio",
    "transformers",
    "numpy",
    "scipy",
    "scikit-learn",
    "librosa",
    "mir_eval",
    "pyloudnorm",
    "soundfile",
    "soxr",
    "av",
    "scenedetect",
)
ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}


def build(
    workspace: Workspace, results: Sequence[MetricResult], settings: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Return the report as plain values, ready for JSON. `folder`: where it will be written, for relative paths."""
    sides = {
        "generated": workspace.generated,
        "reference": workspace.reference,
        "videos": workspace.videos,
        "training": workspace.training,
    }
    return rounded(
        {
            "format": FORMAT,
            "generator": f"diff-v2m evaluation {VERSION}",
            "settings": dict(settings),
            "inputs": {side: _summary(files) for side, files in sides.items()},
            "embedders": {
                name: getattr(encoder, "identity", f"missing: {encoder}")
                for name, encoder in sorted(workspace.encoders.items())
            },
            "versions": installed_versions(PACKAGES),
            "figures": [result.as_json() for result in results],
            "clips": _clips(workspace, folder),
            "left_out": dict(sorted(workspace.skipped.items())),
        }
    )


def write(report: Mapping[str, Any], text: str, folder: Path) -> None:
    """Write report.json and report.md (`text`), each atomically. Raises InputError if the folder cannot be written."""
    write_json(folder / "report.json", report)
    with atomic(folder / "report.md") as part:
        part.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def markdown(report: Mapping[str, Any]) -> str:
    """The report as tables."""
    computed = [result for result in report["figures"] if not result["not_computed"]]
    lines = [
        "# Evaluation",
        "",
        *(f"- {side}: {known['clips']} clips" for side, known in report["inputs"].items() if known["clips"]),
    ]
    lines += ["", "| | value | 95 % interval | n | real music | chance |", "|---|---|---|---|---|---|"]
    for result in computed:
        unit = f" {result['unit']}" if result["unit"] else ""
        lines.append(
            f"| {result['name']}{ARROWS[result['better']]} | {number(result['value'])}{unit} | "
            f"{between(result['interval'])} | "
            f"{result['n']} | {number(result['real'])} | {number(result['chance'])} |"
        )
    lines += not_computed(report["figures"])
    if report["left_out"]:
        lines += ["", "## Skipped", ""]
        lines += [f"- {clip}: {reason}" for clip, reasons in report["left_out"].items() for reason in reasons]
    return "\n".join([*lines, *provenance(report)])


def missing(results: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Reason → names of the metrics that are not computed for that reason."""
    reasons: dict[str, list[str]] = {}
    for result in results:
        names = reasons.setdefault(result["not_computed"], [])
        if result["name"] not in names:
            names.append(result["name"])
    return {why: names for why, names in reasons.items() if why}


def not_computed(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Markdown lines of the section "Not computed"; none where every metric is computed."""
    reasons = missing(results)
    lines = [f"- {', '.join(names)}: {why}" for why, names in reasons.items()]
    return ["", "## Not computed", "", *lines] if lines else []


def provenance(report: Mapping[str, Any]) -> list[str]:
    """Markdown lines of the last section: settings, encoders, versions."""
    lines = ["", "## Settings and versions", "", *(f"- {k}: {_plain(v)}" for k, v in report["settings"].items())]
    lines += [f"- {name}: {identity}" for name, identity in report["embedders"].items()]
    return [*lines, "- " + ", ".join(f"{name} {version}" for name, version in report["versions"].items())]


def _plain(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def number(value: float | None) -> str:
    """Three significant digits for a table; – for None."""
    return "–" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def between(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else " … ".join(map(number, interval))


def _summary(files: Sequence[MediaFile]) -> dict[str, Any]:
    """Number of files and one hash over names and contents, which identifies the set."""
    digest = hashlib.sha256()
    for file in files:
        try:
            content = content_hash(file.path)
        except InputError:
            content = "unreadable"  # reported where the file was needed
        digest.update(f"{file.name} {content}\n".encode(errors="surrogateescape"))  # the bytes of the name
    return {"clips": len(files), "sha256": digest.hexdigest() if files else None}


def _clips(workspace: Workspace, folder: Path) -> dict[str, dict[str, Any]]:
    partners, videos = dict(workspace.reference_pairs.pairs), dict(workspace.video_pairs.pairs)

    def path(file: MediaFile | None) -> str | None:
        return None if file is None else Path(os.path.relpath(file.path, folder)).as_posix()

    return {
        clip.name: {
            "audio": path(clip),
            "reference": path(partners.get(clip)),
            "video": path(videos.get(clip)),
            **workspace.notes.get(clip.name, {}),
        }
        for clip in workspace.generated
    }
