"""Several systems on the same clips: how far each lies from the first, and whether that may be chance.

Two systems meet clip by clip, because clips differ more than systems do. A figure that is the mean of one value a clip
is compared by the clips' differences: their mean, its bootstrap interval, and Wilcoxon's signed-rank test. A figure of
whole sets (FAD, inception score, coverage, …) has no such values: the same clips are drawn again for both systems and
the interval is that of the difference; there is no p. All p of a report are corrected together (Holm).

    report.json of a comparison
      format, generator, settings, versions    as in report.py
      systems       name → folder of its own report, inputs, figures' value, interval, n, real, chance, left_out
      differences   a list of `Difference`
      left_out      clip → why it is in none of the systems' reports
      clips         name → system → what its own report knows of the clip, paths made relative to this one
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from inference.bootstrap import interval, mean_interval
from inference.metric import Figure, rounded

SIGNIFICANT = 0.05
LABELS = {"better": "better", "worse": "worse", "differs": "differs", "": "–"}
NOTE = (
    "Difference: the system less the first one, over the clips that both have, with its 95 % bootstrap interval. "
    "p: Wilcoxon's signed-rank test on the clips' differences, two-sided, corrected for all tests of this report "
    "together (Holm). A figure of whole sets has an interval only, and so has one of which more is neither better nor "
    "worse. Better and worse: a corrected p under 0.05; where there is none, an interval without zero, uncorrected."
)


@dataclass(frozen=True)
class Difference:
    """Of one figure between a system and the first. None: cannot be had, as `reason` says, or is not tested."""

    id: str
    system: str
    value: float | None = None  # the system's less the first one's, on the clips of both
    interval: tuple[float, float] | None = None
    n: int = 0  # clips
    p: float | None = None
    p_holm: float | None = None
    verdict: Literal["better", "worse", "differs", ""] = ""
    reason: str = ""


def differences(systems: Mapping[str, Sequence[Figure]], draws: int, seed: int) -> list[Difference]:
    """Each figure of every system but the first against the first's, in their order."""
    first, *others = systems
    base = {figure.id: figure for figure in systems[first]}
    found = [
        difference(base[figure.id], figure, name, draws, seed)
        for name in others
        for figure in systems[name]
        if figure.id in base
    ]
    better = {figure.id: figure.better for figure in systems[first]}
    corrected = iter(holm([d.p for d in found if d.p is not None]))
    found = [d if d.p is None else replace(d, p_holm=next(corrected)) for d in found]
    return [replace(d, verdict=_verdict(d, better[d.id])) for d in found]


def difference(first: Figure, other: Figure, system: str, draws: int, seed: int) -> Difference:
    """Before p is corrected for there being many."""
    missing = first.not_computed or other.not_computed
    if missing:
        return Difference(first.id, system, reason=f"not computed: {missing}")
    if first.sample and other.sample:
        return _of_sets(first, other, system, draws, seed)
    values = [
        (a, b) for clip, a in first.per_clip.items() if a is not None and (b := other.per_clip.get(clip)) is not None
    ]
    if not values:
        single = not first.per_clip
        reason = "a single number without values of clips" if single else "no clip has a value in both"
        return Difference(first.id, system, other.value - first.value if single else None, reason=reason)
    apart = np.diff(np.array(values, dtype=float), axis=1)[:, 0]
    p = signed_rank(apart) if first.better and apart.any() else None
    return Difference(first.id, system, float(apart.mean()), mean_interval(apart, draws, seed), len(apart), p)


def _of_sets(first: Figure, other: Figure, system: str, draws: int, seed: int) -> Difference:
    a, b = first.sample, other.sample
    places = [{clip: i for i, clip in enumerate(sample.clips)} for sample in (a, b)]
    common = [clip for clip in a.clips if clip in places[1]]
    if len(common) < 2 or a.others != b.others:
        reason = "the real music that could be read differs" if len(common) > 1 else "fewer than two clips in both"
        return Difference(first.id, system, reason=reason)
    index = [np.array([place[clip] for clip in common]) for place in places]

    def apart(drawn: np.ndarray, *others: np.ndarray) -> float:
        return b.statistic(index[1][drawn], *others) - a.statistic(index[0][drawn], *others)

    sizes = [len(common), *([a.others] if a.others else [])]
    value = apart(*(np.arange(size) for size in sizes))
    spread = interval(apart, sizes, value, draws, seed, about=f"{system}: {first.name}")
    return Difference(first.id, system, value, spread, len(common))


def signed_rank(apart: np.ndarray) -> float:
    """Differences (n,), not all 0 → p of Wilcoxon's signed-rank test, two-sided; clips without a difference, which
    speak for neither, do not count."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(apart[apart != 0]).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """p of several tests → corrected so that any false claim among them stays as improbable as one (Holm 1979);
    however the tests depend on each other."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected.tolist()


def _verdict(found: Difference, better: str) -> Literal["better", "worse", "differs", ""]:
    if found.value is None or found.interval is None:
        return ""
    low, high = found.interval
    if not (found.p_holm < SIGNIFICANT if found.p_holm is not None else low > 0 or high < 0):
        return ""
    if not better:
        return "differs"
    return "better" if (found.value < 0) == (better == "lower") else "worse"


# ----------------------------------------------------------------------------------------------------- report


def build(
    reports: Mapping[str, Mapping[str, Any]],
    folders: Mapping[str, str],
    found: Sequence[Difference],
    settings: Mapping[str, Any],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """Everything as plain values. reports: each system's own, as report.py builds it; folders: where it lies, relative
    to this one; left_out: clips that are not in all systems, and why."""
    first = next(iter(reports.values()))
    clips: dict[str, dict[str, Any]] = {}
    for name, report in reports.items():
        for clip, known in report["clips"].items():
            clips.setdefault(clip, {})[name] = _moved(known, folders[name])
    return rounded(
        {
            "format": first["format"],
            "generator": first["generator"],
            "settings": {**settings, "systems": list(reports)},
            "systems": {
                name: {
                    "folder": folders[name],
                    "inputs": report["inputs"],
                    "left_out": report["left_out"],
                    "figures": report["figures"],
                }
                for name, report in reports.items()
            },
            "differences": [asdict(d) for d in found],
            "left_out": dict(left_out),
            "clips": clips,
            "versions": first["versions"],
            "embedders": first["embedders"],
        }
    )


def _moved(known: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """What a report in `folder` knows of a clip, its paths as seen from above."""

    def moved(paths: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
        return {**paths, **{kind: posixpath.normpath(f"{folder}/{paths[kind]}") for kind in kinds if paths[kind]}}

    page = moved(known["page"], ("audio", "reference", "video", "mel", "palette"))
    return moved({**known, "page": page}, ("audio", "reference", "video"))


def rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row of the table for every figure that any system has: figure, by system its own figure and its difference."""
    systems = {name: {f["id"]: f for f in known["figures"]} for name, known in report["systems"].items()}
    apart = {(d["id"], d["system"]): d for d in report["differences"]}
    found = []
    for id, figure in next(iter(systems.values())).items():
        figures = {name: known[id] for name, known in systems.items() if id in known}
        if any(f["not_computed"] == "" for f in figures.values()):
            found.append(
                {
                    "figure": figure,
                    "systems": figures,
                    "differences": {name: d for name in systems if (d := apart.get((id, name)))},
                }
            )
    return found


def markdown(report: Mapping[str, Any]) -> str:
    """The comparison as tables."""
    from inference.report.building import ARROWS, between, made_with, not_computed, number

    first, *others = report["systems"]
    lines = ["# Comparison", "", f"Held against {first}: {', '.join(others)}.", ""]
    lines += [
        f"- {name}: {known['inputs']['generated']['clips']} clips, {known['folder']}/report.md"
        for name, known in report["systems"].items()
    ]
    lines += ["", f"| | {' | '.join([first, *others])} | real music | chance |", f"|---{'|---' * (len(others) + 3)}|"]
    for row in rows(report):
        figure = row["figure"]
        values = [number(row["systems"][name]["value"]) if name in row["systems"] else "–" for name in (first, *others)]
        unit = f", {figure['unit']}" if figure["unit"] else ""
        lines.append(
            f"| {figure['name']}{ARROWS[figure['better']]}{unit} | {' | '.join(values)} | "
            f"{number(figure['real'])} | {number(figure['chance'])} |"
        )
    for name in others:
        lines += [
            "",
            f"## {name} less {first}",
            "",
            "| | difference | 95 % interval | n | p | p, corrected | |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows(report):
            if d := row["differences"].get(name):
                figure = row["figure"]
                lines.append(
                    f"| {figure['name']}{ARROWS[figure['better']]} | {number(d['value'])} | "
                    f"{between(d['interval'])} | {d['n']} | {number(d['p'])} | {number(d['p_holm'])} | "
                    f"{d['reason'] or LABELS[d['verdict']]} |"
                )
    lines += ["", NOTE]
    lines += not_computed(f for known in report["systems"].values() for f in known["figures"])
    left = [f"- {clip}: {reason}" for clip, reason in report["left_out"].items()]
    left += [
        f"- {name}: {clip}: {reason}"
        for name, known in report["systems"].items()
        for clip, reasons in known["left_out"].items()
        for reason in reasons
    ]
    lines += ["", "## Left out", "", *left] if left else []
    return "\n".join([*lines, *made_with(report)])
