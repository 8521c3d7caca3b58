"""Semantic features of a family of scenes without footage.

A frame's features are near the vector that the classifier's last layer holds for the frame's class, plus much that no
class explains. So mixed class vectors plus noise, put through the same last layer, give rows like those of real
frames. On photographs of known content, features minus their mean have a cosine of 0.35 with the vector of the right
class, a norm of 11 to 14, and 1.7 to 2.1 times that vector in them.
"""

from collections.abc import Sequence

import numpy as np

from diff_v2m.features.imagenet import (
    FAMILIES,
    SMOOTHING,
    class_families,
    class_vectors,
    family_of,
    moving_average,
    rows_of,
)

_STRENGTH = (0.6, 2.0)  # of the class vectors, from a vague to a clear picture
_SECOND = (0.0, 1.0)  # share of a second family, which real clips show too
_ONE_PLACE = 0.5  # of clips; in the others each shot shows something else
_NOISE = (9.0, 12.5)  # norm of what no class explains
_STEADY = 0.95  # share of its variance that stays through a shot
_DIGITS = 4  # decimals kept, so that rounding in a matrix product does not show


def imitate(family: str, rng: np.random.Generator, seconds: int, cuts: tuple[float, ...] = ()) -> np.ndarray:
    """(seconds, 512) float32 rows as `ImageNetEncoder` gives them for a clip of a family. Shots differ in class.

    The clip as a whole shows the family: `family_of` the rows is `family`.
    """
    strength, share = rng.uniform(*_STRENGTH), rng.uniform(*_SECOND)
    second = FAMILIES[rng.integers(len(FAMILIES))]
    while True:
        rows = rows_of(_logits((family, second), (1.0, share), rng, cuts, strength, seconds))
        rows = np.round(moving_average(rows, SMOOTHING), _DIGITS).astype(np.float32)
        if family_of(rows) == family:
            return rows
        strength *= 1.1


def _logits(
    families: Sequence[str],
    shares: Sequence[float],
    rng: np.random.Generator,
    cuts: tuple[float, ...],
    strength: float,
    seconds: int,
) -> np.ndarray:
    """(seconds, 1000): of the frame at the start of each second."""
    weight, bias = class_vectors()
    members = [np.flatnonzero(class_families() == FAMILIES.index(family)) for family in families]
    shot_of = np.searchsorted(np.array(cuts), np.arange(seconds), side="right")
    features = np.empty((seconds, weight.shape[1]))
    one_place = rng.random() < _ONE_PLACE
    picture = None
    for shot in np.unique(shot_of):
        inside = np.flatnonzero(shot_of == shot)
        if picture is None or not one_place:
            picture = rng.uniform(0, 0.5, 2) @ weight[rng.integers(1000, size=2)]  # what belongs to no family
            for classes_of, share in zip(members, shares, strict=True):
                classes = rng.choice(classes_of, size=int(rng.integers(1, 5)))
                picture = picture + share * np.sqrt(rng.dirichlet(np.ones(len(classes)))) @ weight[classes]
        level = strength * np.exp(0.1 * rng.standard_normal((len(inside), 1)))
        steady = rng.standard_normal(weight.shape[1])
        moving = rng.standard_normal((len(inside), weight.shape[1]))
        noise = np.sqrt(_STEADY) * steady + np.sqrt(1 - _STEADY) * moving
        features[inside] = level * picture + noise * rng.uniform(*_NOISE) / np.sqrt(weight.shape[1])
    return features.astype(np.float32) @ weight.T + bias
