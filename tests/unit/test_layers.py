import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_bss_tf.config import ModelConfig
from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.nn.blocks import DenseBlock, FrameConvolutionBlock, ImageConvolutionBlock, ImageUpsamplingBlock
from vae_bss_tf.nn.images import ImageDecoder, ImageEncoder, SourceMask, UpsamplingDecoder
from vae_bss_tf.nn.sampling import sample_latents
from vae_bss_tf.nn.spectrograms import SpectrogramDecoder, SpectrogramEncoder
from vae_bss_tf.objectives import Noise

BATCH, SOURCES, LATENT, SHAPE = 5, 3, 4, (6, 7)

LAYERS = [
    (DenseBlock(9), [(BATCH, 11)]),
    (ImageEncoder(SOURCES, LATENT, (12, 10)), [(BATCH, *SHAPE)]),
    (ImageConvolutionBlock(4), [(BATCH, *SHAPE, 2)]),
    (ImageEncoder(SOURCES, LATENT, (10,), convolutions=(3, 5), name="convolutional"), [(BATCH, *SHAPE)]),
    (ImageDecoder(SHAPE, (10, 12)), [(BATCH, SOURCES, LATENT)]),
    (ImageUpsamplingBlock(4), [(BATCH, *SHAPE, 2)]),
    (UpsamplingDecoder(SHAPE, (10,), (5, 3)), [(BATCH, SOURCES, LATENT)]),
    (UpsamplingDecoder((*SHAPE, 3), (10,), (5,), name="colour"), [(BATCH, SOURCES, LATENT)]),
    (FrameConvolutionBlock(9, stride=2), [(BATCH, 7, 11)]),
    (SpectrogramEncoder(SOURCES, LATENT, (12, 10, 8)), [(BATCH, *SHAPE)]),
    (SpectrogramDecoder(SHAPE, (10, 12)), [(BATCH, SOURCES, LATENT)]),
    (SourceMask(2.0), [(BATCH, SOURCES, *SHAPE), (BATCH, *SHAPE)]),
]


def arrays(shapes):
    rng = np.random.default_rng(0)
    return [rng.uniform(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(("layer", "shapes"), LAYERS, ids=lambda value: getattr(value, "name", ""))
class TestEveryLayer:
    def test_static_shapes_are_the_real_ones(self, layer, shapes):
        outputs = keras.tree.flatten(layer(*arrays(shapes)))
        static = keras.tree.flatten(layer(*[keras.Input(shape[1:]) for shape in shapes]))
        assert [tuple(o.shape)[1:] for o in outputs] == [tuple(s.shape)[1:] for s in static]
        assert all(s.shape[0] is None for s in static)

    def test_config_and_file_round_trip_give_the_same_outputs(self, layer, shapes, tmp_path):
        inputs = [keras.Input(shape[1:]) for shape in shapes]
        model = keras.Model(inputs, layer(*inputs))
        model.save(tmp_path / "m.keras")
        loaded = keras.models.load_model(tmp_path / "m.keras")
        assert loaded.layers[-1].get_config() == layer.get_config()
        for a, b in zip(
            keras.tree.flatten(model(arrays(shapes))), keras.tree.flatten(loaded(arrays(shapes))), strict=True
        ):
            np.testing.assert_array_equal(a, b)

    def test_float16_policy_computes_in_float16_and_stores_in_float32(self, layer, shapes):
        half = type(layer).from_config({**layer.get_config(), "dtype": "mixed_float16", "name": "half"})
        outputs = keras.tree.flatten(half(*[tf.cast(a, tf.float16) for a in arrays(shapes)]))
        assert all(np.isfinite(o).all() for o in outputs)
        assert all(variable.dtype in ("float32", "int32") for variable in half.weights)


@pytest.mark.parametrize("network", ["image", "spectrogram"])
def test_layers_inside_a_model_of_mixed_precision_tell_their_settings(network):
    config = ModelConfig((8, 8), hidden_units=(6, 5), network=network, mask_channels=(2, 4))
    config = config.replace(convolutions=(3,) if network == "image" else ())
    model = MultiSourceVAE(config, dtype="mixed_bfloat16")
    convolutions = model.encoder.convolution_blocks if network == "image" else model.encoder.convolutions
    for layer in (model.encoder, model.decoder, model.mask_network, model.mask, model.decoder.blocks[0], *convolutions):
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert again.dtype_policy == layer.dtype_policy


def test_block_is_dense_normalised_rectified():
    block = DenseBlock(8)
    inputs = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    outputs = block(inputs, training=True).numpy()
    linear = inputs @ block.dense.kernel.numpy() + block.dense.bias.numpy()
    normalised = (linear - linear.mean(0)) / np.sqrt(linear.var(0) + 1e-5)
    np.testing.assert_allclose(outputs, np.maximum(normalised, 0), atol=1e-5)


def test_kernels_and_biases_start_uniform_within_one_over_root_fan_in():
    block = DenseBlock(400)
    block.build((None, 256))
    for values in (block.dense.kernel.numpy(), block.dense.bias.numpy()):
        assert np.abs(values).max() <= 1 / 16
        assert values.std() == pytest.approx(1 / 16 / np.sqrt(3), rel=0.1)


@pytest.mark.parametrize(("kind", "pixels"), [(ImageConvolutionBlock, 16), (ImageUpsamplingBlock, 4)])
def test_kernels_and_biases_of_convolutions_start_so_too(kind, pixels):
    block = kind(48)
    block.build((None, 8, 8, 24))
    for values in (block.convolution.kernel.numpy(), block.convolution.bias.numpy()):
        assert np.abs(values).max() <= 1 / np.sqrt(pixels * 24)
        assert values.std() == pytest.approx(1 / np.sqrt(3 * pixels * 24), rel=0.25)


def test_what_an_upsampling_decoder_draws_moves_with_its_coarse_picture():
    decoder = UpsamplingDecoder((32, 32), (), (4, 3))
    decoder.build((None, SOURCES, LATENT))
    coarse = np.zeros((2, 8, 8, 4), np.float32)
    coarse[0, 2, 3] = coarse[1, 4, 4] = 1.0  # two lower, one further right

    def drawn(values):
        for block in decoder.upsampling_blocks:
            values = block(values)
        return decoder.head(values).numpy()

    at_first, moved = drawn(coarse)
    away = np.roll(at_first, (8, 4), axis=(0, 1))
    np.testing.assert_allclose(moved[12:28, 8:28], away[12:28, 8:28], atol=1e-6)
    assert np.ptp(at_first) > 1e-4


def test_one_decoder_serves_all_sources():
    decoder = ImageDecoder(SHAPE, (10,))
    latents = arrays([(2, SOURCES, LATENT)])[0]
    together = decoder(latents).numpy()
    for k in range(SOURCES):
        np.testing.assert_allclose(decoder(latents[:, k : k + 1]).numpy()[:, 0], together[:, k], atol=1e-6)
    assert together.min() > 0
    assert together.max() < 1


def test_samples_follow_the_posterior_and_differ_from_step_to_step():
    mean, log_variance = np.full((40_000, 1, 2), 3.0, np.float32), np.full((40_000, 1, 2), np.log(4.0), np.float32)
    first, second = (sample_latents(mean, log_variance, Noise(1).latents(step)).numpy() for step in (0, 1))
    assert first.mean() == pytest.approx(3.0, abs=0.05)
    assert first.std() == pytest.approx(2.0, rel=0.02)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


def test_noise_depends_on_seed_and_step_alone():
    """A phase that begins after seven steps goes on with the noise of the eighth; remixing draws other noise."""
    mean = log_variance = np.zeros((4, 2, 3), np.float32)

    def sample(seed):
        return sample_latents(mean, log_variance, seed).numpy()

    np.testing.assert_array_equal(sample(Noise(1).latents(9)), sample(Noise(1, first_step=7).latents(2)))
    others = [Noise(2).latents(9), Noise(1).latents(8), Noise(1).remix(9)]
    assert not any(np.allclose(sample(Noise(1).latents(9)), sample(other)) for other in others)


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_mask_sums_to_the_mixture_even_where_all_is_silent(exponent):
    estimates = np.random.default_rng(2).uniform(size=(4, 3, 5, 5)).astype(np.float32)
    mixture = np.random.default_rng(3).uniform(size=(4, 5, 5)).astype(np.float32)
    estimates[0] = 0.0
    estimates[1] = 1e-38
    mixture[2] = 0.0
    estimates[3, :, 0, 0] = 0.0
    sources = ratio_mask(estimates, mixture, exponent).numpy()
    np.testing.assert_allclose(sources.sum(axis=1), mixture, atol=2e-7)
    assert np.isfinite(sources).all()
    np.testing.assert_array_equal(sources[2], 0.0)


def test_mask_is_the_papers_ratio_or_that_of_powers():
    estimates, mixture = arrays([(2, 3, 4, 4), (2, 4, 4)])
    for layer, shares in ((SourceMask(), estimates), (SourceMask(2.0), np.square(estimates))):
        expected = shares / shares.sum(axis=1, keepdims=True) * mixture[:, np.newaxis]
        np.testing.assert_allclose(layer(estimates, mixture), expected, rtol=1e-5)
