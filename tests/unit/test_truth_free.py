"""What is known of a separation without true sources, and how its ranking of models is measured."""

import numpy as np
import pytest

from benchmarks import truth_free as benchmark
from training import truth_free
from vae_bss_tf import MultiSourceVAE, evaluation_mixtures, load_bank
from vae_bss_tf.config import Preset
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.objectives import Elbo


@pytest.fixture(scope="module")
def model(tiny_preset: Preset) -> MultiSourceVAE:
    return MultiSourceVAE(tiny_preset.model)


@pytest.fixture(scope="module")
def mixed() -> EvaluationSet:
    return evaluation_mixtures(load_bank("digits", "test"), num_mixed=(1, 2), num_mixtures=30)


def test_the_fit_is_that_of_the_objective(model: MultiSourceVAE, mixed: EvaluationSet) -> None:
    outputs = model.predict({"mixture": mixed.mixtures}, verbose=0)
    fit = truth_free.mixture_fit(model, outputs, mixed, kl_weight=0.3)
    expected = Elbo(final_beta=0.3).validate(model, mixed.mixtures)
    assert fit is not None
    assert fit.elbo == pytest.approx(float(np.mean(expected["elbo"])), rel=1e-5)
    assert sum(fit.kl) == pytest.approx(float(np.mean(expected["kl"])), rel=1e-5)
    sums = outputs["estimates"].sum(axis=1).reshape(30, -1)
    cosines = np.sum(sums * mixed.mixtures.reshape(30, -1), axis=1) ** 2
    cosines /= np.sum(sums**2, axis=1) * np.sum(mixed.mixtures.reshape(30, -1) ** 2, axis=1)
    assert fit.sum_si_sdr == pytest.approx(float(np.mean(10 * np.log10(cosines / (1 - cosines)))), rel=1e-4)


def test_an_autoencoder_has_no_elbo(tiny_preset: Preset, mixed: EvaluationSet) -> None:
    model = MultiSourceVAE(tiny_preset.model.replace(variational=False))
    outputs = model.predict({"mixture": mixed.mixtures}, verbose=0)
    assert truth_free.mixture_fit(model, outputs, mixed, 1.0) is None


def test_shares_and_lines(model: MultiSourceVAE, mixed: EvaluationSet) -> None:
    outputs = np.stack([0.75 * mixed.mixtures, 0.25 * mixed.mixtures], axis=1)
    found = truth_free.known("vaem", model.separate, outputs, mixed, 2)
    assert found is not None
    assert found.shares == pytest.approx((0.9, 0.1))
    assert len(found.remix_si_sdri) == np.count_nonzero(mixed.counts == 2) // 2
    lines = truth_free.described({**found.values(), "remix_si_sdri": 7.251, "shared_out": 0.5})
    assert "SI-SDRi 7.25 dB (nothing separated: 0), 50 % of the mixtures shared out" in lines[0]
    assert lines[1] == "shares of the energy, largest first: 90 %, 10 %"
    one = evaluation_mixtures(load_bank("digits", "test"), num_mixed=(2,), num_mixtures=1)
    assert truth_free.known("vaem", model.separate, one.sources, one, 2) is None
    assert truth_free.described({}) == []


@pytest.mark.parametrize(("has_truth", "expected"), [(True, 2), (False, 3)])
def test_nobody_knows_how_many_sources_a_real_mixture_holds(
    tiny_preset: Preset, has_truth: bool, expected: int
) -> None:
    preset = tiny_preset.replace(model=tiny_preset.model.replace(num_sources=3))
    assert truth_free.sources_of(preset, has_truth=has_truth) == expected


def test_a_ranking_is_compared_with_that_of_the_truth(tmp_path, capsys: pytest.CaptureFixture) -> None:
    rows = [
        {"si_sdr": t, "remix_si_sdri": s, "shared_out": 1 - t, "elbo": 1.0}
        for t, s in ((0.1, 3), (0.2, 9), (0.3, 7), (0.4, 8))
    ]
    found = benchmark.ranked(rows)
    assert found["remix_si_sdri"] == pytest.approx({"spearman": 0.4, "lost_db": 0.2})
    assert found["shared_out"] == pytest.approx({"spearman": -1, "lost_db": 0.3})
    assert set(found) == {"remix_si_sdri", "shared_out"}
    assert benchmark.main(["a", "b", "--output", str(tmp_path / "out.json")]) == 2
    assert "2 models cannot be ranked" in capsys.readouterr().err
