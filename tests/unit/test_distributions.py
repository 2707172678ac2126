import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from vae_bss_tf.errors import ConfigError
from vae_bss_tf.objectives import distributions

MEAN = np.array([[[0.0, 0.3, -1.2], [2.0, -3.0, 0.01]]], np.float32)
LOG_VARIANCE = np.array([[[0.0, -2.0, 1.0], [-4.0, 0.5, -9.0]]], np.float32)


@pytest.mark.parametrize("prior_name", ["normal", "laplace"])
def test_kl_equals_monte_carlo(prior_name):
    posterior = distributions.latent_posterior(tf.constant(MEAN), tf.constant(LOG_VARIANCE))
    prior = distributions.latent_prior(prior_name, 2, 3)
    samples = posterior.sample(400_000, seed=(1, 2))
    estimates = (posterior.log_prob(samples) - prior.log_prob(samples)).numpy()[:, 0]
    error = estimates.std() / np.sqrt(len(estimates))
    kl = distributions.kl_divergence(tf.constant(MEAN), tf.constant(LOG_VARIANCE), prior_name)
    assert abs(kl.numpy()[0] - estimates.mean()) < 5 * error
    assert error < 0.01


def test_kl_to_the_normal_prior_is_the_textbook_formula():
    expected = 0.5 * np.sum(MEAN**2 + np.exp(LOG_VARIANCE) - 1 - LOG_VARIANCE)
    kl = distributions.kl_divergence(tf.constant(MEAN), tf.constant(LOG_VARIANCE), "normal")
    np.testing.assert_allclose(kl.numpy(), [expected], rtol=1e-5)


@pytest.mark.parametrize("name", ["normal", "laplace"])
def test_priors_have_zero_mean_and_unit_variance(name):
    prior = distributions.latent_prior(name, 3, 5).distribution
    np.testing.assert_allclose(prior.mean(), np.zeros((3, 5)))
    np.testing.assert_allclose(prior.variance(), np.ones((3, 5)), rtol=1e-6)


def test_kl_to_laplace_has_finite_gradients_at_extreme_posteriors():
    mean, log_variance = tf.Variable([[[0.0, 30.0]]]), tf.Variable([[[-20.0, 10.0]]])
    with tf.GradientTape() as tape:
        kl = distributions.kl_divergence(mean, log_variance, "laplace")
    assert all(np.isfinite(g).all() for g in tape.gradient(kl, [mean, log_variance]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("laplace", lambda x, m, b: -np.abs(x - m) / b - np.log(2 * b)),
        ("normal", lambda x, m, b: -0.5 * ((x - m) / b) ** 2 - np.log(b) - 0.5 * np.log(2 * np.pi)),
        ("bernoulli", lambda x, m, b: x * np.log(m) + (1 - x) * np.log1p(-m)),
    ],
)
def test_likelihoods_are_summed_over_pixels(name, expected):
    rng = np.random.default_rng(0)
    x, estimate = rng.uniform(0.05, 0.95, (2, 4, 5, 6)).astype(np.float32)
    log_prob = distributions.mixture_likelihood(name, tf.constant(estimate), 0.7).log_prob(x)
    np.testing.assert_allclose(log_prob, expected(x, estimate, 0.7).sum(axis=(1, 2)), rtol=1e-4)


def test_bernoulli_takes_sums_of_sources_beyond_one():
    likelihood = distributions.mixture_likelihood("bernoulli", tf.constant([[[0.0, 1.7]]]), 1.0)
    assert np.isfinite(likelihood.log_prob([[[1.0, 0.5]]])).all()


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="prior"):
        distributions.latent_prior("cauchy", 1, 1)
    with pytest.raises(ConfigError, match="likelihood"):
        distributions.mixture_likelihood("poisson", tf.zeros([1, 2, 2]), 1.0)


def test_the_distributions_are_tfps():
    assert isinstance(distributions.latent_prior("normal", 1, 1), tfp.distributions.Independent)
