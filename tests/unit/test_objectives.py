"""What each objective minimises, against its formula."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_bss_tf import MultiSourceVAE
from vae_bss_tf.config import AudioConfig, ModelConfig
from vae_bss_tf.domains import Images, Sound, sound_remixing
from vae_bss_tf.domains.image import MASKED_SCALE
from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.nn.sampling import sample_latents
from vae_bss_tf.objectives import Elbo, MaskedRemix, Noise, RemixedElbo, distributions, remixing

CONFIG = ModelConfig((8, 8), num_sources=2, latent_dim=4, hidden_units=(24, 16))
MASKED = CONFIG.replace(mask_channels=(3, 4))
AUDIO = AudioConfig(sample_rate=4_000.0, n_fft=16, hop_length=4, num_frames=32, num_bins=8, frame_pooling=4, power=0.5)
SOUND = CONFIG.replace(
    network="spectrogram", hidden_units=(8, 12, 10), likelihood="normal", likelihood_scale=0.1, mask_exponent=2.0
)
NOISE = Noise(seed=3, first_step=5)
STEP = tf.constant(2)


@pytest.fixture(scope="module")
def mixtures() -> np.ndarray:
    return np.random.default_rng(1).uniform(size=(6, 8, 8)).astype(np.float32)


def built(config: ModelConfig, seed: int = 0) -> MultiSourceVAE:
    """A model whose encoder does not say the same of every source, and whose mask network changes masks."""
    keras.utils.set_random_seed(seed)
    model = MultiSourceVAE(config)
    model.encoder.head.bias.assign(np.random.default_rng(seed).normal(size=model.encoder.head.bias.shape))
    if model.mask_network is not None:
        head = model.mask_network.head
        head.kernel.assign(np.random.default_rng(seed).normal(size=head.kernel.shape))
    return model


def kl_of(model: MultiSourceVAE, mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    return distributions.kl_divergence(mean, log_variance, model.config.prior)


@pytest.mark.parametrize("likelihood", ["laplace", "normal", "bernoulli"])
@pytest.mark.parametrize("prior", ["normal", "laplace"])
def test_the_loss_is_the_negative_elbo(mixtures: np.ndarray, likelihood: str, prior: str) -> None:
    model = built(CONFIG.replace(likelihood=likelihood, prior=prior))
    scale = CONFIG.likelihood_scale
    elbo = Elbo(lambda step: 0.1 * tf.cast(step, tf.float32), final_beta=0.7, noise=NOISE)

    def check(values: dict[str, tf.Tensor], training: bool) -> tuple[np.ndarray, np.ndarray]:
        mean, log_variance = model.encode(mixtures, training=training)
        latents = sample_latents(mean, log_variance, NOISE.latents(STEP)) if training else mean
        total = model.decode(latents, training=training).numpy().sum(axis=1)
        clipped = np.clip(total, 1e-6, 1 - 1e-6)
        log_prob = {
            "laplace": -np.abs(mixtures - total) / scale - np.log(2 * scale),
            "normal": -0.5 * ((mixtures - total) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi)),
            "bernoulli": mixtures * np.log(clipped) + (1 - mixtures) * np.log1p(-clipped),
        }[likelihood].sum(axis=(1, 2))
        kl = kl_of(model, mean, log_variance).numpy()
        np.testing.assert_allclose(values["log_likelihood"], log_prob, rtol=1e-4)
        np.testing.assert_allclose(values["kl"], kl, rtol=1e-4)
        np.testing.assert_allclose(values["elbo"], log_prob - 0.7 * kl, rtol=1e-4)
        return log_prob, kl

    check(elbo.validate(model, mixtures), training=False)
    loss, values = elbo(model, mixtures, STEP)
    log_prob, kl = check(values, training=True)
    np.testing.assert_allclose(loss, np.mean(0.2 * kl - log_prob), rtol=1e-4)


def test_an_autoencoder_has_no_kl_and_no_noise(mixtures: np.ndarray) -> None:
    model = built(CONFIG.replace(variational=False))
    losses = [Elbo(noise=Noise(seed))(model, mixtures, STEP) for seed in (0, 1)]
    assert not np.any(losses[0][1]["kl"])
    assert float(losses[0][0]) == float(losses[1][0])
    sampled = [float(Elbo(noise=Noise(seed))(built(CONFIG), mixtures, STEP)[0]) for seed in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("by_network", [False, True])
@pytest.mark.parametrize("kind", ["images", "sound"])
def test_remixing_adds_the_loss_of_the_remixed_mixtures(
    mixtures: np.ndarray, kind: str, by_network: bool, masked: bool
) -> None:
    """Whether or not a trained mask network sharpens what is remixed."""
    domain, config = (Images(), CONFIG) if kind == "images" else (Sound(AUDIO), SOUND)
    config = config.replace(mask_channels=(3, 4) if by_network else ())
    model = built(config.replace(variational=False), 1)
    elbo = Elbo(lambda step: tf.constant(0.5), 0.3, NOISE)
    objective = RemixedElbo(elbo, domain, weight=0.25, silence=0.05, masked=masked, by_mask_network=by_network)
    loss, values = objective(model, mixtures, STEP)

    teacher = built(config.replace(variational=False), 1)
    by_values = ratio_mask(teacher.decode(teacher.encode(mixtures)[0]), mixtures)
    separated = teacher(mixtures)["sources"] if by_network else by_values
    assert by_network == (np.abs(separated - by_values).max() > 1e-3)
    mixed = remixing.remixed(domain, separated, tf.constant(mixtures), NOISE.remix(STEP), silence=0.05)
    both = np.stack([mixtures, mixed.mixture], axis=1).reshape(12, 8, 8)
    estimates = teacher.decode(teacher.encode(both, training=True)[0], training=True)
    plain = elbo.values(teacher, mixtures, estimates[::2], tf.zeros([6]))
    fits = remixing.log_likelihood(config.likelihood, config.likelihood_scale, estimates[1::2], mixed.sources)
    if masked:
        fits += domain.masked_log_likelihood(estimates[1::2] + remixing.MASK_FLOOR, mixed)
    expected = -np.mean(plain["log_likelihood"]) - 0.25 * np.mean(remixing.best_order(fits))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    for name in elbo.metrics:  # of the real mixtures alone
        np.testing.assert_allclose(values[name], plain[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("exponent", [1.0, 2.0])
@pytest.mark.parametrize("taught", [False, True])
def test_masks_are_scored_by_the_squared_error_of_the_masked_sources(
    mixtures: np.ndarray, exponent: float, taught: bool
) -> None:
    """Whether or not the teacher has a mask network of its own."""
    model = built(MASKED.replace(mask_exponent=exponent))
    teacher = built(MASKED.replace(mask_exponent=exponent), 7).copy(mask_network=taught)
    loss, values = MaskedRemix(teacher, Images(), silence=0.05, noise=NOISE)(model, mixtures, STEP)
    estimates = teacher.decode(teacher.encode(mixtures)[0])
    separated = teacher(mixtures)["sources"] if taught else ratio_mask(estimates, mixtures)
    mixed = remixing.remixed(Images(), separated, tf.constant(mixtures), NOISE.remix(STEP), silence=0.05)
    outputs = model(mixed.mixture)
    masked, raw, known = outputs["sources"].numpy(), outputs["estimates"].numpy(), mixed.sources.numpy()

    def fit(estimate: np.ndarray, source: np.ndarray, masked: np.ndarray) -> np.ndarray:
        laplace = -np.abs(source - estimate) / CONFIG.likelihood_scale - np.log(2 * CONFIG.likelihood_scale)
        normal = -0.5 * ((source - masked) / MASKED_SCALE) ** 2 - np.log(MASKED_SCALE * np.sqrt(2 * np.pi))
        return (laplace + normal).sum(axis=(1, 2))

    orders = [
        sum(fit(raw[:, k], known[:, order[k]], masked[:, k]) for k in range(2))
        for order in itertools.permutations(range(2))
    ]
    np.testing.assert_allclose(values["score"], np.maximum(*orders), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(loss, -np.mean(values["score"]), rtol=1e-5)


def test_masks_of_sound_are_scored_by_the_ratio_of_signal_to_distortion(mixtures: np.ndarray) -> None:
    model, teacher = built(SOUND.replace(mask_channels=(3, 4))), built(SOUND, 7)
    objective = MaskedRemix(teacher, Sound(AUDIO), noise=NOISE)
    _, values = objective(model, mixtures, STEP)
    separated = ratio_mask(teacher.decode(teacher.encode(mixtures)[0]), mixtures)  # by values, not by powers
    mixed = remixing.remixed(Sound(AUDIO), separated, tf.constant(mixtures), NOISE.remix(STEP), silence=0.0)
    masked = model(mixed.mixture)["sources"]
    ratios = sound_remixing.masked_sound_sdr(masked, mixed, AUDIO)
    np.testing.assert_allclose(values["score"], remixing.best_order(ratios), atol=0.05)


@pytest.mark.parametrize("config", [CONFIG, MASKED, SOUND])
def test_validation_draws_nothing_at_random(mixtures: np.ndarray, config: ModelConfig) -> None:
    model, domain = built(config), Sound(AUDIO) if config is SOUND else Images()
    for make in (
        lambda noise: Elbo(noise=noise),
        lambda noise: RemixedElbo(Elbo(noise=noise), domain),
        lambda noise: MaskedRemix(model.copy(), domain, noise=noise),
    ):
        objective = make(Noise(1))
        if isinstance(objective, MaskedRemix) and model.mask_network is None:
            continue
        first, second = (objective.validate(model, mixtures) for _ in range(2))
        assert set(first) == set(objective.metrics)
        assert objective.monitor in first
        for name, value in first.items():
            assert value.shape == (6,)
            np.testing.assert_array_equal(value, second[name])


def test_small_factors_of_a_mask_network_have_gradients(mixtures: np.ndarray) -> None:
    """Powers of what a network makes small in all sources alike would underflow."""
    model = built(SOUND.replace(mask_channels=(3, 4)))
    objective = MaskedRemix(built(SOUND, 7), Sound(AUDIO))
    head = model.mask_network.head

    @tf.function(jit_compile=True)
    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss, _ = objective(model, tf.constant(mixtures), STEP)
        return tape.gradient(loss, [head.kernel.value, head.bias.value])

    head.kernel.assign(0.01 * head.kernel)
    for logit in (0.0, -10.0, -30.0):
        head.bias.assign([logit])
        of_kernel, of_bias = gradients()
        assert np.all(np.isfinite(of_kernel))
        assert np.any(of_kernel)
        assert np.all(np.isfinite(of_bias))
