"""Distances between sets of embeddings and of logits, against closed forms and against their definitions."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.neighbors import NearestNeighbors

from inference import bootstrap, density_coverage, fad, imagebind_score, kl
from inference.metric import NotComputed


def rows_with(mean, covariance, n=400, seed=0):
    """(n, d) rows whose sample mean and covariance are exactly these."""
    rows = np.random.default_rng(seed).standard_normal((n, len(mean)))
    rows -= rows.mean(axis=0)
    whitened = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def covariance(d, seed):
    a = np.random.default_rng(seed).standard_normal((d, 2 * d))
    return a @ a.T / d


# ----------------------------------------------------------------------------------------------------- Fréchet


def test_fad_of_gaussians_is_the_closed_form():
    a, b = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.25])
    mean = np.array([1.0, -2.0, 0.5])
    expected = mean @ mean + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert fad.fad(rows_with(mean, np.diag(a)), rows_with(np.zeros(3), np.diag(b), seed=1)) == pytest.approx(expected)


def test_fad_agrees_with_the_matrix_root_where_covariances_do_not_commute():
    a, b = covariance(6, 1), covariance(6, 2)
    expected = np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert fad.fad(rows_with(np.zeros(6), a), rows_with(np.zeros(6), b, seed=1)) == pytest.approx(expected)


def test_fad_of_fewer_rows_than_dimensions_is_real_and_not_negative():
    rng = np.random.default_rng(0)
    few, other = rng.standard_normal((5, 64)), rng.standard_normal((7, 64))
    covariances = np.cov(few.T), np.cov(other.T)
    expected = np.square(few.mean(0) - other.mean(0)).sum() + sum(map(np.trace, covariances))
    expected -= 2 * np.sqrt(np.abs(np.linalg.eigvals(covariances[0] @ covariances[1]))).sum()
    assert fad.fad(few, other) == pytest.approx(expected, rel=1e-5)
    assert fad.fad(few, few) == pytest.approx(0, abs=1e-9)
    assert fad.fad(np.ones((3, 4)), np.ones((9, 4))) == 0
    assert fad.fad(1e6 + few * 1e-3, 1e6 + few * 1e-3) >= 0


def test_fad_infinity_takes_away_what_a_small_sample_adds():
    rng = np.random.default_rng(3)
    d = 16
    reference = rows_with(np.zeros(d), np.eye(d), n=4000)
    small = rng.standard_normal((120, d)) + 0.2
    truth = d * 0.2**2
    plain, limit = fad.fad(small, reference), fad.fad_infinity(small, reference, seed=0)
    assert abs(limit - truth) < abs(plain - truth) / 2
    with pytest.raises(NotComputed, match="at least 64"):
        fad.fad_infinity(small[:60], reference)


def test_one_embedding_has_no_covariance():
    with pytest.raises(NotComputed, match="at least 2"):
        fad.fad(np.zeros((1, 4)), np.zeros((9, 4)))


def test_the_real_floor_does_not_know_the_order_of_files_beyond_the_seed():
    clips = list(np.random.default_rng(0).standard_normal((8, 10, 3)))
    assert fad.real_floor(clips, seed=0) == fad.real_floor(clips, seed=0)
    assert fad.real_floor(clips[:3], seed=0) is None


# --------------------------------------------------------------------------------------------------------- KL


def test_kl_of_known_softmaxes():
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25])
    expected = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    assert kl.kl_softmax(np.log(p) + 7, np.log(q) - 3) == pytest.approx(expected)  # a softmax forgets constants
    assert kl.kl_softmax(np.log(p), np.log(p)) == pytest.approx(0)
    assert np.isfinite(kl.kl_softmax(np.array([800.0, 0.0]), np.array([0.0, 800.0])))


def test_kl_of_known_sigmoids_counts_both_sides_of_a_class():
    p, q = np.array([0.9, 0.5]), np.array([0.5, 0.5])
    logit = lambda x: np.log(x / (1 - x))  # noqa: E731
    expected = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    assert kl.kl_sigmoid(logit(p), logit(q)) == pytest.approx(expected)
    assert kl.kl_sigmoid(logit(q), logit(p)) > 0  # without the second half of each class: negative


def test_inception_score_runs_from_one_to_the_number_of_classes():
    assert kl.inception_score(np.zeros((5, 4))) == pytest.approx(1)
    assert kl.inception_score(100 * np.eye(4)) == pytest.approx(4)


# ------------------------------------------------------------------------------------------- density, coverage


def test_density_coverage_precision_recall_are_their_definitions():
    rng = np.random.default_rng(0)
    real, made, k = rng.standard_normal((40, 3)), rng.standard_normal((30, 3)) * 0.7 + 0.5, 5
    found = density_coverage.manifolds(made, real, k)

    def radius(rows):  # scikit-learn counts a row as its own first neighbour when it is asked about itself
        return NearestNeighbors(n_neighbors=k + 1).fit(rows).kneighbors(rows)[0][:, -1]

    distance = np.linalg.norm(made[:, None] - real[None], axis=-1)
    inside = distance < radius(real)
    assert found.precision.mean() == pytest.approx(inside.any(axis=1).mean())
    assert found.density.mean() == pytest.approx(inside.sum() / (k * len(made)))
    assert found.coverage.mean() == pytest.approx(inside.any(axis=0).mean())
    assert found.recall.mean() == pytest.approx((distance < radius(made)[:, None]).any(axis=0).mean())


def test_comparing_in_blocks_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    real, made = rng.standard_normal((2, 20, 3))
    whole = density_coverage.manifolds(made, real)
    monkeypatch.setattr(density_coverage, "BLOCK", 7)
    for one, other in zip(vars(whole).values(), vars(density_coverage.manifolds(made, real)).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_set_is_covered_and_a_far_one_is_not():
    real = np.random.default_rng(0).standard_normal((20, 3))
    assert density_coverage.manifolds(real + 1e-9, real).coverage.mean() == 1
    far = density_coverage.manifolds(real + 100, real)
    assert not any(values.any() for values in vars(far).values())
    with pytest.raises(NotComputed, match="5 neighbours need more"):
        density_coverage.manifolds(real[:5], real)


# ------------------------------------------------------------------------------------------- cosine, intervals


def test_cosine_of_pairs_and_of_wrong_pairs():
    video, audio = np.array([[1.0, 0], [0, 2]]), np.array([[3.0, 0], [1, 1]])
    np.testing.assert_allclose(imagebind_score.cosine(video, audio), [1, np.sqrt(0.5)])
    assert imagebind_score.wrong_pairs(video, audio) == pytest.approx(np.sqrt(0.5) / 2)
    assert imagebind_score.wrong_pairs(video[:1], audio[:1]) is None
    variations = imagebind_score.wrong_pairs(video[[0, 0, 1]], audio[[0, 0, 1]])
    assert variations == pytest.approx(np.sqrt(0.5) / 2), "a variation's own video is no wrong pair"


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide():
    values = np.random.default_rng(0).standard_normal(400)
    low, high = bootstrap.mean_interval(values, 2000, seed=0)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert bootstrap.mean_interval(values, 2000, seed=0) == (low, high)
    assert bootstrap.mean_interval(values[:1], 2000, seed=0) is None
    assert bootstrap.mean_interval(values, 0, seed=0) is None


def test_the_interval_of_a_share_is_between_none_and_all():
    for values in ([0.0, 1.0], [1.0, 1.0, 0.0], [0.0] * 9 + [1.0]):
        low, high = bootstrap.mean_interval(values, 50, seed=0)
        assert 0 <= low <= np.mean(values) <= high <= 1


def test_an_interval_lies_around_its_value_even_where_draws_are_biased():
    rows = np.random.default_rng(0).standard_normal((30, 8))
    reference = np.random.default_rng(1).standard_normal((500, 8))
    value = fad.fad(rows, reference)
    low, high = bootstrap.interval(lambda index: fad.fad(rows[index], reference), [30], value, 100, seed=0)
    assert low < value < high
