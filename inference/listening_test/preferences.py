"""Preferences of the listeners: shares with intervals, for each question and each pair of systems.

A share counts the answers that chose a side. Its exact interval and p (binomial, against one half) assume independent
answers. Answers of one listener or about one clip are not independent, so the bootstrap interval over listeners and
clips is the one to report. All p are corrected together (Holm).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.common.errors import InputError
from inference.comparison.differences import holm
from inference.listening_test.building import FORMAT
from inference.metric import rounded
from inference.report.building import between, number

SAME = "same"  # the answer that chooses no side
NOTE = (
    "Share: of the answers that chose a side, those for the first system. Exact: binomial interval, which assumes "
    "independent answers. Bootstrap: listeners and clips resampled. Both intervals are 95 %. p: exact binomial test "
    "against one half, corrected for all lines (Holm). Agreement: share of equal answers of two listeners on the same "
    "pair and question, and Cohen's κ, which is corrected for chance; means over all pairs of listeners."
)


@dataclass(frozen=True)
class Vote:
    """One answer; `winner` is a system, or None where no side was chosen."""

    listener: str
    clip: str
    question: str
    pair: tuple[str, str]  # systems, in the key's order
    winner: str | None


def analyse(answers: Sequence[Path], key: Path, draws: int, seed: int) -> dict[str, Any]:
    """Answer files and the key → preferences as plain values. Raises InputError as `read_votes`."""
    secret = _read(key, "the key of a listening test", {"test": str, "systems": dict, "media": dict, "questions": dict})
    votes = read_votes(answers, secret, key)
    if not votes:
        raise InputError(f"{answers[0]}: no answer in any of {len(answers)} files")
    lines = []
    for question in secret["questions"]:
        for pair in combinations(secret["systems"], 2):
            mine = [vote for vote in votes if (vote.question, vote.pair) == (question, pair)]
            if mine:
                lines.append(
                    {
                        "question": question,
                        "pair": list(pair),
                        **preference(mine, pair[0], draws, seed),
                        **agreement(mine),
                    }
                )
    corrected = iter(holm([line["p"] for line in lines if line["p"] is not None]))
    for line in lines:
        line["p_holm"] = None if line["p"] is None else next(corrected)
    listeners = {vote.listener for vote in votes}
    trials = sum(len(t) * (len(t) - 1) // 2 for t in _by_clip(secret["media"]).values())
    return rounded(
        {
            "format": FORMAT,
            "test": secret["test"],
            "listeners": len(listeners),
            "trials": trials,
            "answers": len(votes),
            "questions": secret["questions"],
            "preferences": lines,
            "settings": {"bootstrap": draws, "seed": seed},
        }
    )


def preference(votes: Sequence[Vote], system: str, draws: int, seed: int) -> dict[str, Any]:
    """Votes on one question and pair → share of `system` among the votes that chose a side, with intervals."""
    from scipy.stats import binomtest

    decided = [vote for vote in votes if vote.winner is not None]
    won = sum(vote.winner == system for vote in decided)
    found = {
        "chosen": [won, len(decided) - won],
        "undecided": len(votes) - len(decided),
        "share": None,
        "exact": None,
        "bootstrap": None,
        "p": None,
    }
    if not decided:
        return found
    test = binomtest(won, len(decided))
    exact = test.proportion_ci(method="exact")
    return {
        **found,
        "share": won / len(decided),
        "exact": [exact.low, exact.high],
        "p": float(test.pvalue),
        "bootstrap": _bootstrap(decided, system, draws, seed),
    }


def _bootstrap(votes: Sequence[Vote], system: str, draws: int, seed: int) -> list[float] | None:
    """95 % interval of the share over resamples of listeners and clips; None for one listener and one clip."""
    listeners, clips = (sorted({getattr(vote, kind) for vote in votes}) for kind in ("listener", "clip"))
    if draws < 2 or max(len(listeners), len(clips)) < 2:
        return None
    rng = np.random.default_rng(seed)
    who = np.array([listeners.index(vote.listener) for vote in votes])
    what = np.array([clips.index(vote.clip) for vote in votes])
    won = np.array([vote.winner == system for vote in votes], dtype=float)
    times = [rng.multinomial(len(kind), np.full(len(kind), 1 / len(kind)), draws) for kind in (listeners, clips)]
    weight = times[0][:, who] * times[1][:, what]  # (draws, votes)
    drawn = weight.sum(axis=1) > 0
    shares = (weight * won).sum(axis=1)[drawn] / weight.sum(axis=1)[drawn]
    return np.quantile(shares, [0.025, 0.975]).tolist() if len(shares) else None


def agreement(votes: Sequence[Vote]) -> dict[str, float | None]:
    """Votes on one question and pair → share of equal answers and Cohen's κ, as means over all pairs of listeners.

    Both are None where no two listeners share a clip; κ also where all answers are equal.
    """
    from sklearn.metrics import cohen_kappa_score

    answers: dict[str, dict[str, str]] = {}
    for vote in votes:
        answers.setdefault(vote.listener, {})[vote.clip] = vote.winner or ""
    equal, kappas = [], []
    for one, other in combinations(answers.values(), 2):
        common = sorted(one.keys() & other.keys())
        if not common:
            continue
        a, b = ([given[clip] for clip in common] for given in (one, other))
        equal.append(float(np.mean(np.array(a) == np.array(b))))
        if len({*a, *b}) > 1:
            kappas.append(float(cohen_kappa_score(a, b)))
    return {"agreement": float(np.mean(equal)) if equal else None, "kappa": float(np.mean(kappas)) if kappas else None}


# ------------------------------------------------------------------------------------------------------- files


def read_votes(answers: Sequence[Path], secret: Mapping[str, Any], key: Path) -> list[Vote]:
    """Raises InputError: unreadable, of another test, a listener twice, an answer that the test does not offer."""
    votes: list[Vote] = []
    seen: dict[str, Path] = {}
    order = list(secret["systems"])
    for path in answers:
        found = _read(path, "answers that the page saved", {"test": str, "listener": str, "trials": list})
        if found["test"] != secret["test"]:
            raise InputError(f"{path}: answers to test {found['test']}, but {key} is the key of {secret['test']}")
        listener = found["listener"]
        if listener in seen:
            raise InputError(f"{path}: listener {listener!r} is in {seen[listener]} too; give one of the two files")
        seen[listener] = path
        for trial in found["trials"]:
            try:
                media, given = trial["media"], trial["answers"]
                known = [secret["media"][str(number)] for number in media]
                clips, systems = {k["clip"] for k in known}, {k["system"] for k in known}
                wrong = [a for q, a in given.items() if q not in secret["questions"] or a not in (*media, SAME)]
            except (KeyError, TypeError, AttributeError):
                raise InputError(f"{path}: a trial that test {secret['test']} does not have; save it again") from None
            if wrong or len(clips) != 1 or len(systems) != 2:
                raise InputError(f"{path}: trial {media} has an answer that the test does not offer; save it again")
            pair = tuple(sorted(systems, key=order.index))
            votes += [
                Vote(listener, *clips, q, pair, None if a == SAME else secret["media"][a]["system"])
                for q, a in given.items()
            ]
    return votes


def markdown(found: Mapping[str, Any]) -> str:
    """The preferences as a table."""
    lines = [
        "# Preferences",
        "",
        f"- {found['listeners']} listeners, {found['answers']} answers, "
        f"{found['trials']} pairs in the test {found['test']}",
    ]
    lines += [f"- {name}: {words}" for name, words in found["questions"].items()]
    lines += [
        "",
        "| question | first – second | share | exact | bootstrap | chosen | undecided | p | p, corrected | "
        "agreement | κ |",
        f"{'|---' * 11}|",
    ]
    for line in found["preferences"]:
        cells = [
            line["question"],
            " – ".join(line["pair"]),
            number(line["share"]),
            between(line["exact"]),
            between(line["bootstrap"]),
            " : ".join(map(str, line["chosen"])),
            line["undecided"],
            *(number(line[key]) for key in ("p", "p_holm", "agreement", "kappa")),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", NOTE])


def _read(path: Path, what: str, keys: Mapping[str, type]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {what}") from None
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({error}); expected {what}".splitlines()[0]) from None
    if not isinstance(found, dict) or not all(isinstance(found.get(key), kind) for key, kind in keys.items()):
        raise InputError(f"{path}: expected {what}, with {', '.join(keys)}")
    if found.get("format") != FORMAT:
        raise InputError(f"{path}: format {found.get('format')}, this code reads {FORMAT}; make both with one version")
    return found


def _by_clip(media: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for known in media.values():
        found.setdefault(known["clip"], []).append(known["system"])
    return found
