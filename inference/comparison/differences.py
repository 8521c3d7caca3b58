"""Several systems on the same clips: the difference of each to the first system, and its significance.

Systems are compared clip by clip, because clips differ more than systems do. For a metric that is a mean over clips:
the mean of the clips' differences, its bootstrap interval, and Wilcoxon's signed-rank test. For a metric of whole sets
(FAD, inception score, coverage, …): the interval of the difference when the same clips are resampled for both systems,
and no p. All p of a report are corrected together (Holm).

    report.json of a comparison
      format, generator, settings, versions    as in report/building.py
      systems       name → folder of its own report, inputs, figures, left_out
      differences   list of `Difference`
      left_out      skipped clip → reason; it is in none of the systems' reports
      clips         name → system → the clip's entry in the system's report, with paths relative to this report
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from inference.bootstrap import interval, mean_interval
from inference.metric import MetricResult, rounded

SIGNIFICANT = 0.05
LABELS = {"better": "better", "worse": "worse", "differs": "differs", "": "–"}
NOTE = (
    "Difference: the system minus the first one, over the clips of both, with its 95 % bootstrap interval. "
    "p: Wilcoxon's signed-rank test on the clips' differences, two-sided, corrected for all tests of this report "
    "(Holm). Metrics of whole sets and metrics without a better direction have no p. "
    "Better and worse: corrected p below 0.05; where there is no p, an uncorrected interval without zero."
)


@dataclass(frozen=True)
class Difference:
    """Difference of one metric between a system and the first. None: not available, as `reason` says, or not tested."""

    id: str
    system: str
    value: float | None = None  # the system minus the first, on the clips of both
    interval: tuple[float, float] | None = None
    n: int = 0  # clips
    p: float | None = None
    p_holm: float | None = None
    verdict: Literal["better", "worse", "differs", ""] = ""
    reason: str = ""


def differences(systems: Mapping[str, Sequence[MetricResult]], draws: int, seed: int) -> list[Difference]:
    """Compare each metric of every other system with the first system's."""
    first, *others = systems
    base = {result.id: result for result in systems[first]}
    found = [
        difference(base[result.id], result, name, draws, seed)
        for name in others
        for result in systems[name]
        if result.id in base
    ]
    better = {result.id: result.better for result in systems[first]}
    corrected = iter(holm([d.p for d in found if d.p is not None]))
    found = [d if d.p is None else replace(d, p_holm=next(corrected)) for d in found]
    return [replace(d, verdict=_verdict(d, better[d.id])) for d in found]


def difference(first: MetricResult, other: MetricResult, system: str, draws: int, seed: int) -> Difference:
    """Compare one metric; p is not corrected yet."""
    missing = first.not_computed or other.not_computed
    if missing:
        return Difference(first.id, system, reason=f"not computed: {missing}")
    if first.statistic and other.statistic:
        return _of_sets(first, other, system, draws, seed)
    values = [
        (a, b) for clip, a in first.per_clip.items() if a is not None and (b := other.per_clip.get(clip)) is not None
    ]
    if not values:
        single = not first.per_clip
        reason = "a single value without values of clips" if single else "no clip has a value in both"
        return Difference(first.id, system, other.value - first.value if single else None, reason=reason)
    apart = np.diff(np.array(values, dtype=float), axis=1)[:, 0]
    p = _signed_rank(apart) if first.better and apart.any() else None
    return Difference(first.id, system, float(apart.mean()), mean_interval(apart, draws, seed), len(apart), p)


def _of_sets(first: MetricResult, other: MetricResult, system: str, draws: int, seed: int) -> Difference:
    a, b = first.statistic, other.statistic
    positions = [{clip: i for i, clip in enumerate(statistic.clips)} for statistic in (a, b)]
    common = [clip for clip in a.clips if clip in positions[1]]
    if len(common) < 2 or a.reference_size != b.reference_size:
        reason = "the real music that could be read differs" if len(common) > 1 else "fewer than two clips in both"
        return Difference(first.id, system, reason=reason)
    index = [np.array([position[clip] for clip in common]) for position in positions]

    def apart(resampled: np.ndarray, *reference: np.ndarray) -> float:
        return b.compute(index[1][resampled], *reference) - a.compute(index[0][resampled], *reference)

    sizes = [len(common), *([a.reference_size] if a.reference_size else [])]
    value = apart(*(np.arange(size) for size in sizes))
    spread = interval(apart, sizes, value, draws, seed, label=f"{system}: {first.name}")
    return Difference(first.id, system, value, spread, len(common))


def _signed_rank(apart: np.ndarray) -> float:
    """Differences (n,), not all 0 → two-sided p of Wilcoxon's signed-rank test. Zeros are dropped beforehand: where
    scipy drops them itself, it uses the normal approximation even for few clips.
    """
    from scipy.stats import wilcoxon

    return float(wilcoxon(apart[apart != 0]).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Correct the p of several tests to bound the family-wise error rate (Holm 1979), which scipy does not offer."""
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
    skipped: Mapping[str, str],
) -> dict[str, Any]:
    """Return the report as plain values.

    reports: system → its own report, from building.py. folders: system → its folder, relative to this report.
    skipped: clip that is not in all systems → reason.
    """
    first = next(iter(reports.values()))
    clips: dict[str, dict[str, Any]] = {}
    for name, report in reports.items():
        for clip, known in report["clips"].items():
            clips.setdefault(clip, {})[name] = _relocated(known, folders[name])
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
            "left_out": dict(skipped),
            "clips": clips,
            "versions": first["versions"],
            "embedders": first["embedders"],
        }
    )


def _relocated(known: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """A clip's entry in the report in `folder`, with paths relative to the parent of `folder`."""

    def relocated(paths: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
        return {**paths, **{kind: posixpath.normpath(f"{folder}/{paths[kind]}") for kind in kinds if paths[kind]}}

    page = relocated(known["page"], ("audio", "reference", "video", "mel", "palette"))
    return relocated({**known, "page": page}, ("audio", "reference", "video"))


def rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Table rows, one for every metric that any system has: the metric, and system → result, system → difference."""
    systems = {name: {result["id"]: result for result in known["figures"]} for name, known in report["systems"].items()}
    apart = {(d["id"], d["system"]): d for d in report["differences"]}
    found = []
    for id in dict.fromkeys(id for known in systems.values() for id in known):  # in the order of first appearance
        results = {name: known[id] for name, known in systems.items() if id in known}
        computed = [result for result in results.values() if not result["not_computed"]]
        if computed:
            found.append(
                {
                    "metric": computed[0],
                    "systems": results,
                    "differences": {name: d for name in systems if (d := apart.get((id, name)))},
                }
            )
    return found


def markdown(report: Mapping[str, Any]) -> str:
    """The comparison as tables."""
    from inference.report.building import ARROWS, between, not_computed, number, provenance

    first, *others = report["systems"]
    lines = ["# Comparison", "", f"Compared with {first}: {', '.join(others)}.", ""]
    lines += [
        f"- {name}: {known['inputs']['generated']['clips']} clips, {known['folder']}/report.md"
        for name, known in report["systems"].items()
    ]
    lines += ["", f"| | {' | '.join([first, *others])} | real music | chance |", f"|---{'|---' * (len(others) + 3)}|"]
    for row in rows(report):
        metric = row["metric"]
        values = [number(row["systems"][name]["value"]) if name in row["systems"] else "–" for name in (first, *others)]
        unit = f", {metric['unit']}" if metric["unit"] else ""
        lines.append(
            f"| {metric['name']}{ARROWS[metric['better']]}{unit} | {' | '.join(values)} | "
            f"{number(metric['real'])} | {number(metric['chance'])} |"
        )
    for name in others:
        lines += [
            "",
            f"## {name} minus {first}",
            "",
            "| | difference | 95 % interval | n | p | p, corrected | |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows(report):
            if d := row["differences"].get(name):
                metric = row["metric"]
                lines.append(
                    f"| {metric['name']}{ARROWS[metric['better']]} | {number(d['value'])} | "
                    f"{between(d['interval'])} | {d['n']} | {number(d['p'])} | {number(d['p_holm'])} | "
                    f"{d['reason'] or LABELS[d['verdict']]} |"
                )
    lines += ["", NOTE]
    lines += not_computed(result for known in report["systems"].values() for result in known["figures"])
    skipped = [f"- {clip}: {reason}" for clip, reason in report["left_out"].items()]
    skipped += [
        f"- {name}: {clip}: {reason}"
        for name, known in report["systems"].items()
        for clip, reasons in known["left_out"].items()
        for reason in reasons
    ]
    lines += ["", "## Skipped", "", *skipped] if skipped else []
    return "\n".join([*lines, *provenance(report)])
