"""Metrics against closed forms and against independent libraries on the same signals."""

import numpy as np
import pytest
from mir_eval import separation
from scipy import optimize, stats
from skimage import metrics as image_metrics

from vae_bss_tf import metrics
from vae_bss_tf.errors import DataError


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    sources = rng.uniform(0, 0.5, (6, 2, 28, 28))
    return np.clip(sources + 0.1 * rng.normal(size=sources.shape), 0, 1), sources


@pytest.fixture(scope="module")
def waves() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    sources = rng.normal(size=(3, 2, 4000))
    leak = np.array([[1.0, 0.2], [0.1, 0.7]])
    return np.einsum("ij,bjt->bit", leak, sources) + 0.05 * rng.normal(size=sources.shape), sources


def test_psnr_of_a_constant_error_and_of_halved_sources() -> None:
    sources = np.full((1, 1, 4, 4), 0.5)
    estimates = sources - 0.05
    np.testing.assert_allclose(metrics.psnr(estimates, sources, peak=0.5), 20.0)
    np.testing.assert_allclose(metrics.psnr(estimates, sources, peak=1.0), 20.0 + 20 * np.log10(2))


def test_psnr_and_ssim_equal_scikit_image(images: tuple[np.ndarray, np.ndarray]) -> None:
    estimates, sources = images
    for scale in (0.5, 1.0):
        psnr = metrics.psnr(estimates, sources, peak=scale)
        ssim = metrics.ssim(estimates, sources, data_range=scale)
        for index in np.ndindex(2, 2):
            pair = sources[index], estimates[index]
            expected = image_metrics.peak_signal_noise_ratio(*pair, data_range=scale)
            assert psnr[index] == pytest.approx(expected, abs=1e-4)
            expected = image_metrics.structural_similarity(*pair, data_range=scale)
            assert ssim[index] == pytest.approx(expected, abs=1e-6)


def test_full_scale_scores_do_not_depend_on_the_gain(images: tuple[np.ndarray, np.ndarray]) -> None:
    estimates, sources = images
    np.testing.assert_allclose(metrics.psnr(estimates, sources, 0.5), metrics.psnr(2 * estimates, 2 * sources))
    np.testing.assert_allclose(metrics.ssim(estimates, sources, 0.5), metrics.ssim(2 * estimates, 2 * sources))


def test_ssim_at_several_ranges_is_that_at_each(images: tuple[np.ndarray, np.ndarray]) -> None:
    ranges = (1.0, 0.5)
    for found, data_range in zip(metrics.ssim(*images, ranges), ranges, strict=True):
        np.testing.assert_array_equal(found, metrics.ssim(*images, data_range))


def test_ssim_of_small_images_and_of_silence() -> None:
    zeros = np.zeros((1, 2, 8, 8))
    np.testing.assert_array_equal(metrics.ssim(zeros, zeros), 1.0)


def test_si_scores_equal_mir_eval_with_one_tap(waves: tuple[np.ndarray, np.ndarray]) -> None:
    estimates, sources = waves
    scores = metrics.pairwise_si_bss_eval(estimates, sources)
    for batch, k, m in np.ndindex(3, 2, 2):
        parts = separation._bss_decomp_mtifilt(sources[batch], estimates[batch, k], m, 1)
        expected = separation._bss_source_crit(*parts)
        found = [values[batch, k, m] for values in scores]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_si_scores_of_a_hand_made_case() -> None:
    """Orthogonal unit sources a, b and a vector c outside their span: e = 10 a + b + 2 c."""
    sources = np.eye(4)[None, :2]
    estimates = np.array([[[10.0, 1.0, 2.0, 0.0]]])
    scores = metrics.pairwise_si_bss_eval(estimates, sources)
    assert scores.sdr[0, 0, 0] == pytest.approx(10 * np.log10(100 / 5))
    assert scores.sir[0, 0, 0] == pytest.approx(20.0)
    assert scores.sar[0, 0, 0] == pytest.approx(10 * np.log10(101 / 4))
    scaled = metrics.pairwise_si_bss_eval(0.01 * estimates, 7 * sources)
    np.testing.assert_allclose(scaled, scores)


def test_silence_missing_and_identical_sources_are_defined() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 1000))
    zeros = np.zeros_like(a)
    cases = {
        "silent estimate": ([zeros, b], [a, b]),
        "missing source": ([a, b], [a, zeros]),
        "both silent": ([a, zeros], [a, zeros]),
        "identical sources": ([a + 0.1 * b, a], [a, a]),
        "perfect": ([a, b], [a, b]),
    }
    estimates, sources = (np.array([case[i] for case in cases.values()]) for i in range(2))
    scores = dict(zip(cases, np.moveaxis(np.array(metrics.si_bss_eval(estimates, sources)), 1, 0), strict=True))
    assert all(np.isfinite(values).all() for values in scores.values())
    np.testing.assert_array_equal(scores["silent estimate"][:, 0], metrics.FLOOR_DB)
    np.testing.assert_array_equal(scores["missing source"][:, 1], metrics.FLOOR_DB)
    np.testing.assert_array_equal(scores["both silent"][:, 1], metrics.CEILING_DB)
    assert scores["perfect"].min() > 80
    # One direction: nothing of the other source is left over, so the SIR is high and SDR equals SAR.
    assert scores["identical sources"][1].min() > 60
    np.testing.assert_allclose(scores["identical sources"][0, 0], scores["identical sources"][2, 0], atol=1e-3)


def test_matching_finds_a_permutation_and_drops_the_spare_output() -> None:
    rng = np.random.default_rng(3)
    sources = rng.uniform(size=(20, 2, 5, 5))
    spare = 0.1 * rng.uniform(size=(20, 1, 5, 5))
    order = np.array([2, 0, 1])
    estimates = np.concatenate([sources, spare], axis=1)[:, order]
    assignment = metrics.match_sources(-metrics.pairwise_mse(estimates, sources))
    np.testing.assert_array_equal(assignment, np.tile([1, 2], (20, 1)))
    np.testing.assert_array_equal(metrics.take_matched(estimates, assignment), sources)
    energy = np.sum(estimates**2, axis=(2, 3))
    np.testing.assert_allclose(metrics.dropped_energy(estimates, assignment), energy[:, 0] / energy.sum(axis=1))


def test_matching_is_optimal_where_greedy_is_not() -> None:
    scores = np.array([[[10.0, 9.0], [9.0, 0.0]]])
    np.testing.assert_array_equal(metrics.match_sources(scores), [[1, 0]])


def test_matching_leaves_absent_sources_out() -> None:
    scores = np.zeros((2, 3, 3))
    scores[:, 2, 0] = 1
    assignment = metrics.match_sources(scores, np.array([1, 3]))
    np.testing.assert_array_equal(assignment[0], [2, -1, -1])
    assert sorted(assignment[1]) == [0, 1, 2]
    matched = metrics.take_matched(np.ones((2, 3, 4)), assignment)
    np.testing.assert_array_equal(matched.sum(axis=(1, 2)), [4, 12])


def test_activity_threshold_and_count() -> None:
    rng = np.random.default_rng(4)
    counts = rng.integers(1, 5, 200)
    active = np.arange(4) < counts[:, None]
    estimates = np.where(active, 0.3, 0.01)[..., None] * rng.uniform(0.5, 1, (200, 4, 50))
    threshold = metrics.fit_activity_threshold(metrics.activity_levels(estimates))
    found = metrics.count_active(estimates, threshold)
    np.testing.assert_array_equal(found, counts)
    confusion = metrics.count_confusion(counts, found, 4)
    np.testing.assert_array_equal(np.diag(confusion), np.bincount(counts, minlength=5))
    assert confusion.sum() == 200


def test_activity_threshold_parts_classes_of_different_width_where_an_error_is_least() -> None:
    """Two Normals, one wide: least errors are where their weighted densities cross (the upper root of a quadratic)."""
    rng = np.random.default_rng(9)
    levels = np.concatenate([rng.normal(-55, 12, 40_000), rng.normal(-20, 1.5, 60_000)])
    crossing = optimize.brentq(
        lambda level: 0.4 * stats.norm.pdf(level, -55, 12) - 0.6 * stats.norm.pdf(level, -20, 1.5), -40, -21
    )
    assert metrics.fit_activity_threshold(levels) == pytest.approx(crossing, abs=0.3)
    floored = np.maximum(levels, -60)  # a third of the silent ones at one level
    assert metrics.fit_activity_threshold(floored) == pytest.approx(crossing, abs=1.0)


def test_bad_input_is_refused() -> None:
    one = np.ones((1, 2, 4, 4))
    with pytest.raises(DataError, match="match them first"):
        metrics.psnr(one, one[:, :1])
    with pytest.raises(DataError, match="NaN"):
        metrics.psnr(one * np.nan, one)
    with pytest.raises(DataError, match="larger K"):
        metrics.match_sources(np.zeros((1, 2, 3)))
    with pytest.raises(DataError, match="two different"):
        metrics.fit_activity_threshold(np.ones(5))
    with pytest.raises(DataError, match="SSIM needs"):
        metrics.ssim(np.ones((1, 2, 16)), np.ones((1, 2, 16)))
