"""KL divergence between the classes that a tagger finds in the real soundtrack of a video and in the generated one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_expit, log_softmax

from inference.bootstrap import interval
from inference.metric import MetricResult, NotComputed, SetStatistic, not_computed

if TYPE_CHECKING:
    from inference.workspace import Workspace

TAGGER = "panns"


def kl_softmax(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Logits (..., c) → KL(reference ‖ generated) in nats of the distributions over classes, (...), ≥ 0."""
    p, q = log_softmax(reference, axis=-1), log_softmax(generated, axis=-1)
    return (np.exp(p) * (p - q)).sum(axis=-1)


def kl_sigmoid(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Logits (..., c) → the sum over classes of KL in nats between "has it" and "has it not", (...), ≥ 0.

    Corrected: the common tool omits the second term of each class, which gives negative divergences.
    """
    has = np.exp(log_expit(reference)) * (log_expit(reference) - log_expit(generated))
    lacks = np.exp(log_expit(-reference)) * (log_expit(-reference) - log_expit(-generated))
    return (has + lacks).sum(axis=-1)


def inception_score(logits: np.ndarray) -> float:
    """Logits (n, c) → exp of the mean KL between a clip's class distribution and the average one; from 1 to c, high
    where clips are unambiguous and differ from each other (Salimans et al. 2016, one split).
    """
    p = log_softmax(logits, axis=-1)
    average = np.log(np.exp(p).mean(axis=0))
    return float(np.exp((np.exp(p) * (p - average)).sum(axis=-1).mean()))


# --------------------------------------------------------------------------------------------------- results


def compute(workspace: Workspace) -> list[MetricResult]:
    """KL over pairs of generated and real music, with all wrong pairs as chance; inception score of the generated."""
    measures = (
        ("kl_softmax", "KL (PANNs CNN14, softmax)", TAGGER, kl_softmax),
        ("kl_sigmoid", "KL (PANNs CNN14, sigmoid)", TAGGER, kl_sigmoid),
        ("kl_passt", "KL (PaSST, softmax)", "passt", kl_softmax),
    )
    found = []
    for id, name, tagger, measure in measures:
        try:
            pairs = workspace.embedded_pairs(tagger)
            generated, reference = (np.stack([pair[side].logits for pair in pairs.values()]) for side in (0, 1))
        except NotComputed as error:
            found.append(not_computed(id, name, error))
            continue
        scores = dict(zip(pairs, measure(reference, generated).tolist(), strict=True))
        shifts = [_wrong_pairs(measure, reference, generated, shift) for shift in range(1, len(pairs))]
        found.append(
            workspace.mean_result(
                id,
                name,
                scores,
                unit="nats",
                better="lower",
                chance=_mean([values.mean() for values in shifts if len(values)]),
                chance_is="the same music against the other clips' soundtracks",
            )
        )
    return [*found, _inception(workspace)]


def _wrong_pairs(
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray], reference: np.ndarray, generated: np.ndarray, shift: int
) -> np.ndarray:
    """The measure against the soundtrack `shift` clips away, where that is another one: variations share theirs."""
    shifted = np.roll(reference, shift, axis=0)
    wrong = (shifted != reference).any(axis=-1)
    return measure(shifted[wrong], generated[wrong])


def _inception(workspace: Workspace) -> MetricResult:
    id, name = "inception_score", "Inception score (PANNs CNN14)"
    try:
        clips = workspace.embeddings(TAGGER, workspace.generated)
    except NotComputed as error:
        return not_computed(id, name, error)
    logits = np.stack([e.logits for e in clips.values()])

    def resampled(index: np.ndarray) -> float:
        return inception_score(logits[index])

    value = inception_score(logits)
    spread = interval(resampled, [len(logits)], value, workspace.draws, workspace.seed)
    real = [e.logits for e in workspace.reference_embeddings(TAGGER).values()]
    return MetricResult(
        id,
        name,
        value,
        better="higher",
        n=len(logits),
        interval=spread,
        real=inception_score(np.stack(real)) if real else None,
        real_is="the reference",
        statistic=SetStatistic(list(clips), resampled),
    )


def _mean(values: list) -> float | None:
    return float(np.mean(values)) if values else None


if __name__ == "__main__":
    from inference.evaluate import main

    sys.exit(main(metric="kl"))
