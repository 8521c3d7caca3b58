"""report.json, from which page.py builds its page without the sound files being read again, and report.md for people.

report.json
  format        1; raised when a key changes its meaning
  settings      what was asked for: metrics, seed, bootstrap draws, device
  inputs        folder, number of clips and a hash of each side
  embedders     what listened: identity with the hash of its weights, or why it is missing
  versions      of Python and the packages that matter
  figures       a list of `Figure`: value, interval, n, real, chance, per_clip, settings, or not_computed
  clips         by name: audio, reference and video paths relative to the report, then everything found out about
                the clip (beats, cuts, pseudo_beats in seconds; achieved_, predicted_, reference_rhythm a second;
                page: what stills.py drew and where the page finds the media; …)
  left_out      clip or file → reasons
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diff_v2m import __version__
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic, content_hash
from diff_v2m.common.versions import installed_versions
from inference.metric import Figure, rounded

if TYPE_CHECKING:
    from inference.pairing import Clip
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


def build(workspace: Workspace, figures: Sequence[Figure], settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Everything as plain values, ready for JSON. `folder`: where the report will lie, for relative paths."""
    sides = {
        "generated": workspace.generated,
        "reference": workspace.reference,
        "videos": workspace.videos,
        "training": workspace.training,
    }
    return rounded(
        {
            "format": FORMAT,
            "generator": f"diff-v2m evaluation {__version__}",
            "settings": dict(settings),
            "inputs": {side: _described(clips) for side, clips in sides.items()},
            "embedders": {
                name: getattr(found, "identity", f"missing: {found}")
                for name, found in sorted(workspace.embedders.items())
            },
            "versions": installed_versions(PACKAGES),
            "figures": [figure.as_json() for figure in figures],
            "clips": _clips(workspace, folder),
            "left_out": dict(sorted(workspace.failures.items())),
        }
    )


def write(report: Mapping[str, Any], text: str, folder: Path) -> None:
    """report.json and report.md (`text`), each whole or not at all. Raises InputError where the folder cannot be
    written."""
    texts = {"report.json": json.dumps(report, indent=1, ensure_ascii=False), "report.md": text}
    for name, text in texts.items():
        with atomic(folder / name) as part:
            part.write_text(text + "\n", encoding="utf-8")


def markdown(report: Mapping[str, Any]) -> str:
    """The report as tables."""
    computed = [figure for figure in report["figures"] if not figure["not_computed"]]
    lines = [
        "# Evaluation",
        "",
        *(f"- {side}: {known['clips']} clips" for side, known in report["inputs"].items() if known["clips"]),
    ]
    lines += ["", "| | value | 95 % interval | n | real music | chance |", "|---|---|---|---|---|---|"]
    for figure in computed:
        unit = f" {figure['unit']}" if figure["unit"] else ""
        lines.append(
            f"| {figure['name']}{ARROWS[figure['better']]} | {number(figure['value'])}{unit} | "
            f"{between(figure['interval'])} | "
            f"{figure['n']} | {number(figure['real'])} | {number(figure['chance'])} |"
        )
    lines += not_computed(report["figures"])
    if report["left_out"]:
        lines += ["", "## Left out", ""]
        lines += [f"- {clip}: {reason}" for clip, reasons in report["left_out"].items() for reason in reasons]
    return "\n".join([*lines, *made_with(report)])


def missing(figures: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Reason → names of the figures that are not computed for it."""
    reasons: dict[str, list[str]] = {}
    for figure in figures:
        names = reasons.setdefault(figure["not_computed"], [])
        if figure["name"] not in names:
            names.append(figure["name"])
    return {why: names for why, names in reasons.items() if why}


def not_computed(figures: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines of a section, none where everything is there."""
    reasons = missing(figures)
    lines = [f"- {', '.join(names)}: {why}" for why, names in reasons.items()]
    return ["", "## Not computed", "", *lines] if lines else []


def made_with(report: Mapping[str, Any]) -> list[str]:
    """Lines of the last section."""
    lines = ["", "## Made with", "", *(f"- {key}: {_plain(value)}" for key, value in report["settings"].items())]
    lines += [f"- {name}: {identity}" for name, identity in report["embedders"].items()]
    return [*lines, "- " + ", ".join(f"{name} {version}" for name, version in report["versions"].items())]


def _plain(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def number(value: float | None) -> str:
    """Three significant digits for a table; – for none."""
    return "–" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def between(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else " … ".join(map(number, interval))


def _described(clips: Sequence[Clip]) -> dict[str, Any]:
    """How many there are and one hash over names and contents: the same hash, the same set."""
    digest = hashlib.sha256()
    for clip in clips:
        try:
            digest.update(f"{clip.name} {content_hash(clip.path)}\n".encode())
        except InputError:
            digest.update(f"{clip.name} unreadable\n".encode())  # listed where it was needed
    return {"clips": len(clips), "sha256": digest.hexdigest() if clips else None}


def _clips(workspace: Workspace, folder: Path) -> dict[str, dict[str, Any]]:
    partners = {made: real for made, real in workspace.pairs.pairs}
    films = {made: film for made, film in workspace.films.pairs}

    def path(clip: Clip | None) -> str | None:
        return None if clip is None else Path(os.path.relpath(clip.path, folder)).as_posix()

    return {
        clip.name: {
            "audio": path(clip),
            "reference": path(partners.get(clip)),
            "video": path(films.get(clip)),
            **workspace.notes.get(clip.name, {}),
        }
        for clip in workspace.generated
    }
