"""The layers for spectrograms against Keras' own convolution and against their formula."""

import keras
import numpy as np
import pytest

from vae_bss_tf.config import ModelConfig
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.nn.blocks import FrameConvolutionBlock
from vae_bss_tf.nn.spectrograms import SpectrogramDecoder


@pytest.mark.parametrize(("frames", "stride"), [(8, 1), (8, 2), (7, 2), (7, 3), (1, 2)])
def test_frame_convolution_is_a_convolution(frames: int, stride: int) -> None:
    inputs = np.random.default_rng(0).normal(size=(3, frames, 5)).astype(np.float32)
    block = FrameConvolutionBlock(6, stride=stride)
    outputs = np.asarray(block(inputs))
    convolution = keras.layers.Conv1D(6, 3, strides=stride)
    padded = np.pad(inputs, [(0, 0), (1, stride), (0, 0)])
    convolution.build(padded.shape)
    convolution.set_weights([block.dense.kernel.numpy().reshape(3, 5, 6), block.dense.bias.numpy()])
    expected = np.asarray(convolution(padded))[:, : -(-frames // stride)]
    # A block that is not training divides by the square root of 1 + epsilon.
    assert outputs.shape == expected.shape
    assert np.abs(outputs - np.maximum(expected / np.sqrt(1 + 1e-5), 0)).max() < 1e-5


def test_decoder_gives_one_spectrum_that_changes() -> None:
    decoder = SpectrogramDecoder((12, 9), (8,))
    latents = np.random.default_rng(1).normal(size=(4, 3, 5)).astype(np.float32)
    estimates = np.asarray(decoder(latents), np.float64)
    assert estimates.shape == (4, 3, 12, 9)
    assert 0 < estimates.min() < estimates.max() < 1
    logits = np.log(estimates / (1 - estimates)).reshape(-1, 12, 9)
    changing = logits - logits.mean(axis=1, keepdims=True)
    singular = np.linalg.svd(changing, compute_uv=False)
    assert (singular[:, 0] > 1e-3).all()
    assert (singular[:, 1] < 1e-3 * singular[:, 0]).all()
    alone = np.asarray(decoder(latents[:, 1:2]))
    assert np.abs(alone[:, 0] - estimates[:, 1]).max() < 1e-6


def test_the_network_for_spectrograms_takes_the_place_of_the_one_for_images() -> None:
    config = ModelConfig((16, 24), num_sources=3, latent_dim=4, network="spectrogram", hidden_units=(10, 12, 8))
    model = MultiSourceVAE(config)
    mixtures = np.random.default_rng(2).uniform(size=(5, 16, 24)).astype(np.float32)
    sources = model.separate(mixtures)
    assert sources.shape == (5, 3, 16, 24)
    assert np.abs(sources.sum(axis=1) - mixtures).max() < 1e-5
    assert model.decoder.hidden_units == (8, 12)


@pytest.mark.parametrize("name", ["tones", "notes"])
def test_the_presets_for_sound_are_compact(name: str) -> None:
    model = MultiSourceVAE.from_preset(name)
    assert model.num_parameters <= 3_000_000
