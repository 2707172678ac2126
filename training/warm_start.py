"""Weights to begin with: those of a finished run, or of the phase before."""

import math
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from training import systems
from training.run import Run
from vae_bss_tf.config import AudioConfig, ModelConfig
from vae_bss_tf.errors import CheckpointError, ConfigError
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.nn.blocks import FRAME_KERNEL_SIZE


def source_of(init: Path, system: str, audio: AudioConfig | None) -> MultiSourceVAE:
    """Loads the model of a run to begin with.

    Args:
        init: The run folder.
        system: What is to be trained.
        audio: The settings of its spectrograms; None for pictures.

    Returns:
        Its model.

    Raises:
        CheckpointError: The run is missing, damaged or not finished.
        ConfigError: One of both is a baseline, or the run's bins are of another width than those of more.
    """
    run = Run.load(init)
    if not run.metrics:
        raise CheckpointError(f"{init} is not finished; finish it with --resume, or begin with another run.")
    if systems.is_baseline(system) or systems.is_baseline(run.system):
        raise ConfigError(f"--init is for vae and ae; {init} holds {run.system}, {system} is to be trained.")
    theirs = run.preset.audio
    if audio is not None and theirs is not None and audio.num_bins > theirs.num_bins:
        widths = [one.sample_rate / one.n_fft for one in (audio, theirs)]
        if not math.isclose(*widths, rel_tol=1e-3):
            raise ConfigError(
                f"bins are {widths[0]:.2f} Hz wide, and {widths[1]:.2f} Hz in {init}; begin with it at twice or four "
                f"times its sample rate of {theirs.sample_rate:g} Hz."
            )
    model = run.model()
    assert isinstance(model, MultiSourceVAE)
    return model


def begin_from(model: MultiSourceVAE, source: MultiSourceVAE) -> None:
    """Gives a model the weights of another.

    Args:
        model: The model. It may have more sources than the other: the heads of the encoder for the added ones stay as
            they are. Or, of spectrograms, more bins of the same width, as at twice the sample rate: it begins deaf to
            what lies above the other's, and draws there what the other draws in its last bin. What one of both lacks,
            such as a mask network, stays as it is.
        source: The other model.

    Raises:
        CheckpointError: A part differs in shape.
    """
    for part in ("encoder", "decoder", "mask_network"):
        ours, theirs = getattr(model, part), getattr(source, part)
        if ours is None or theirs is None:
            continue
        values = theirs.get_weights()
        if part != "mask_network" and _can_widen(source.config, model.config):
            values = [_widened(own, value) for own, value in zip(ours.weights, values, strict=True)]
        if part == "encoder" and _can_grow(source.config, model.config):
            values = [
                _grown(own, value, source.config) if any(own is weight for weight in ours.head.weights) else value
                for own, value in zip(ours.weights, values, strict=True)
            ]
        if [weight.shape for weight in ours.weights] != [value.shape for value in values]:
            raise CheckpointError(
                f"the run of --init has another {part}; begin from one with the same model settings, and as many "
                "sources or fewer, or at a half or a quarter of the sample rate."
            )
        ours.set_weights(values)


def _can_grow(source: ModelConfig, ours: ModelConfig) -> bool:
    """Whether an encoder of `ours` is one of `source` but for sources that it has more."""
    return source.num_sources < ours.num_sources and _is_alike(source, ours, "input_shape")


def _can_widen(source: ModelConfig, ours: ModelConfig) -> bool:
    """Whether `ours` is `source` but for bins that its spectrograms have more."""
    (frames, bins), (our_frames, our_bins) = source.input_shape[:2], ours.input_shape[:2]
    wider = frames == our_frames and our_bins > bins and ours.network == "spectrogram"
    return wider and _is_alike(source, ours, "num_sources")


def _is_alike(source: ModelConfig, ours: ModelConfig, further: str) -> bool:
    names = ("latent_dim", "hidden_units", "convolutions", "encoder_units", "upsampling", "network", further)
    return all(getattr(source, name) == getattr(ours, name) for name in names)


def _widened(own: keras.Variable, value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A weight with more bins, which lie in its first axis where an encoder sees them, or in its last."""
    if own.shape == value.shape:
        return value
    if own.shape[-1] == value.shape[-1]:
        seen = value.reshape(FRAME_KERNEL_SIZE, -1, value.shape[-1])
        added = own.shape[0] // FRAME_KERNEL_SIZE - seen.shape[1]
        return np.pad(seen, ((0, 0), (0, added), (0, 0))).reshape(own.shape)
    drawn = value.reshape(*value.shape[:-1], 2, -1)
    added = own.shape[-1] // 2 - drawn.shape[-1]
    return np.pad(drawn, ((0, 0),) * (drawn.ndim - 1) + ((0, added),), mode="edge").reshape(own.shape)


def _grown(own: keras.Variable, value: npt.NDArray[np.float32], source: ModelConfig) -> npt.NDArray[np.float32]:
    """A weight of the head of `source` with more sources; the added ones are as in `own`."""
    by_source = (*own.shape[:-1], 2, -1, source.latent_dim)
    grown = own.numpy().copy().reshape(by_source)
    grown[..., : source.num_sources, :] = value.reshape(by_source)
    return grown.reshape(own.shape)
