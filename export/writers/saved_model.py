"""A model as a SavedModel: named signatures, each weight stored once, no class of ours needed to load it."""

import json
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from vae_bss_tf.audio import spectrogram
from vae_bss_tf.config import AudioConfig, Preset
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.runtime import INPUT, SETTINGS, SIGNATURE


def write(model: MultiSourceVAE, path: Path, batch_size: int | None = None, preset: Preset | None = None) -> None:
    """Writes a SavedModel of named signatures, and `serving_default`, which is `separate`.

    They take and give float32 by name; the latents are the posterior mean, nothing is sampled.

    - `separate`: `mixture` to `sources`, `estimates`, `latent_mean`, `latent_log_variance`;
    - `encode`: `mixture` to `latent_mean`, `latent_log_variance`;
    - `decode`: `latents` `[batch, num_sources, latent_dim]` to `estimates`;
    - `settings`, where a preset is given: `request` `[batch]`, any strings, to `settings` `[batch]`, strings of JSON
      that hold the `preset` and its `config_hash`. A client of a model server needs nothing else to use the model.

    Args:
        model: The trained model.
        path: The folder to make.
        batch_size: Mixtures a call; None takes any number.
        preset: The model's settings; None leaves `settings` out.
    """
    config = model.config
    mixture = tf.TensorSpec((batch_size, *config.input_shape), tf.float32, name=INPUT)
    latents = tf.TensorSpec((batch_size, config.num_sources, config.latent_dim), tf.float32, name="latents")

    @tf.function(input_signature=[mixture])
    def separate(mixture: tf.Tensor) -> dict[str, tf.Tensor]:
        return model({INPUT: mixture}, training=False)

    @tf.function(input_signature=[mixture])
    def encode(mixture: tf.Tensor) -> dict[str, tf.Tensor]:
        mean, log_variance = model.encode(mixture, training=False)
        return {"latent_mean": mean, "latent_log_variance": log_variance}

    @tf.function(input_signature=[latents])
    def decode(latents: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"estimates": model.decode(latents, training=False)}

    signatures = {
        SIGNATURE: separate.get_concrete_function(),
        "encode": encode.get_concrete_function(),
        "decode": decode.get_concrete_function(),
    }
    if preset is not None:
        signatures[SETTINGS] = _settings(preset, batch_size)
    _save(model, path, signatures)


def write_waveform(model: MultiSourceVAE, audio: AudioConfig, path: Path, batch_size: int | None = None) -> None:
    """Writes a SavedModel that takes and gives waveforms, with the transform and its inverse inside.

    One signature, `separate`, and `serving_default`, the same: `mixture` `[batch, num_samples]` in [-1, 1] to
    `sources` `[batch, num_sources, num_samples]`, which sum to it.

    Args:
        model: The trained model.
        audio: Its audio settings.
        path: The folder to make.
        batch_size: Mixtures a call; None takes any number.
    """

    @tf.function(input_signature=[tf.TensorSpec((batch_size, audio.num_samples), tf.float32, name=INPUT)])
    def separate(mixture: tf.Tensor) -> dict[str, tf.Tensor]:
        def sources_of(features: tf.Tensor) -> tf.Tensor:
            return model({INPUT: features}, training=False)["sources"]

        return {"sources": spectrogram.separate_waveforms(mixture, sources_of, audio, keras.ops, fft=False)}

    _save(model, path, {SIGNATURE: separate.get_concrete_function()})


def _settings(preset: Preset, batch_size: int | None) -> Any:
    text = json.dumps({"preset": preset.to_dict(), "config_hash": preset.config_hash()})

    @tf.function(input_signature=[tf.TensorSpec((batch_size,), tf.string, name="request")])
    def settings(request: tf.Tensor) -> dict[str, tf.Tensor]:
        return {SETTINGS: tf.fill(tf.shape(request), text)}

    return settings.get_concrete_function()


def _save(model: MultiSourceVAE, path: Path, signatures: dict[str, Any]) -> None:
    # A bare module holds the variables: Keras' own export archives store each weight twice.
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    signatures["serving_default"] = signatures[SIGNATURE]
    tf.saved_model.save(module, str(path), signatures=signatures)
