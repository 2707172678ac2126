"""Mixtures of a bank's waveforms: random onsets, gains and noise, mixed on the fly; models see spectrograms."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vae_bss_tf.audio import spectrogram
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.datasets.image_mixtures import EvaluationSet, check_counts, draw_sources

if TYPE_CHECKING:
    import tensorflow as tf

Array = npt.NDArray[np.float32]

_CHUNK = 64  # mixtures transformed at once


def training_mixtures(
    bank: SourceBank,
    audio: AudioConfig,
    *,
    num_mixed: Sequence[int],
    batch_size: int,
    seed: int,
    start_step: int = 0,
) -> "tf.data.Dataset":
    """Endless batches of the spectrograms of fresh mixtures, and of nothing else.

    Each mixture draws its count M from `num_mixed`, then M sources, an onset and a gain for each, all uniformly,
    and is their sum over `max(num_mixed)`, with background noise where the settings ask for it. Batch `i` depends
    on the seed and `i` alone.

    Args:
        bank: Waveforms of the sources, or of the mixtures themselves where it has no truth.
        audio: How they are mixed, and the spectrogram.
        num_mixed: The counts M to draw from, each at least 1.
        batch_size: Mixtures a batch; at least 1.
        seed: Seed of the draw; 0 or more.
        start_step: Index of the first batch.

    Returns:
        A `tf.data.Dataset` of `{"mixture": float32 [batch_size, *audio.feature_shape]}` in [0, 1].

    Raises:
        ConfigError: `num_mixed` is empty, holds a count below 1, or is not (1,) for recordings of mixtures.
    """
    import keras
    import tensorflow as tf

    counts = check_counts(num_mixed, bank)

    def waveforms(step: npt.NDArray[np.int64]) -> Array:
        rng = np.random.default_rng([seed, int(step)])
        drawn = rng.integers(len(bank), size=(batch_size, max(counts)))
        count = rng.choice(np.asarray(counts), size=batch_size)
        return mix(bank, drawn, count, audio, rng)[0]

    def batch(step: tf.Tensor) -> dict[str, tf.Tensor]:
        mixture = tf.ensure_shape(tf.numpy_function(waveforms, [step], tf.float32), [batch_size, audio.num_samples])
        real, imaginary = spectrogram.stft(mixture, audio, keras.ops)
        return {"mixture": spectrogram.features(real, imaginary, audio, keras.ops)}

    dataset = tf.data.Dataset.counter(start_step).map(batch, num_parallel_calls=2, deterministic=True).prefetch(8)
    options = tf.data.Options()
    options.autotune.enabled = False  # with it on, fit can stall for seconds when training ends
    return dataset.with_options(options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioEvaluationSet(EvaluationSet):
    """Fixed mixtures of waveforms; `mixtures` and `sources` are their spectrograms, as models see them.

    Attributes:
        waveforms: float32 `[num_mixtures, num_samples]`.
        source_waveforms: float32 `[num_mixtures, max(num_mixed), num_samples]`, as they stand in the mixture.
        audio: The spectrogram's settings.
    """

    waveforms: Array
    source_waveforms: Array
    audio: AudioConfig

    def masked_waveforms(self, sources: Array) -> Array:
        """Turns a model's sources into waveforms: ratio masks on the mixtures' complex STFT (VAEM).

        Args:
            sources: float32 `[num_mixtures, num_sources, *audio.feature_shape]`.

        Returns:
            float32 `[num_mixtures, num_sources, num_samples]`; they sum to the mixtures.
        """

        def masked(waveforms: Array, sources: Array) -> Array:
            real, imaginary = spectrogram.stft(waveforms, self.audio)
            masks = spectrogram.source_masks(sources, self.audio)
            return spectrogram.apply_masks(real, imaginary, masks, self.audio)

        return _in_chunks(masked, self.waveforms, sources)

    def oracle_waveforms(self, mask: Callable[[Array, Array], Array]) -> Array:
        """Applies a mask that knows the true sources to the mixtures' complex STFT, on all its frames and bins.

        Args:
            mask: `baselines.oracle.ideal_binary_mask` or `ideal_ratio_mask`.

        Returns:
            float32 `[num_mixtures, max(num_mixed), num_samples]`; they sum to the mixtures.
        """

        def masked(waveforms: Array, source_waveforms: Array) -> Array:
            real, imaginary = spectrogram.stft(waveforms, self.audio)
            parts = [spectrogram.stft(source, self.audio) for source in source_waveforms.swapaxes(0, 1)]
            sources = mask(real + 1j * imaginary, np.stack([part[0] + 1j * part[1] for part in parts], axis=1))
            flat = (-1, *sources.shape[2:])
            separated = spectrogram.istft(sources.real.reshape(flat), sources.imag.reshape(flat), self.audio)
            return separated.reshape(source_waveforms.shape)

        return _in_chunks(masked, self.waveforms, self.source_waveforms)

    def decoded_waveforms(self, estimates: Array) -> Array:
        """Turns a decoder's outputs into waveforms: their magnitudes as they are, the mixture's phase (VAE).

        Args:
            estimates: float32 `[num_mixtures, num_sources, *audio.feature_shape]`.

        Returns:
            float32 `[num_mixtures, num_sources, num_samples]`.
        """

        def decoded(waveforms: Array, estimates: Array) -> Array:
            return spectrogram.decode_waveforms(waveforms, estimates, self.audio)

        return _in_chunks(decoded, self.waveforms, estimates)


def evaluation_mixtures(
    bank: SourceBank, audio: AudioConfig, *, num_mixed: Sequence[int], num_mixtures: int, seed: int = 0
) -> AudioEvaluationSet:
    """Draws a fixed set of mixtures: the same for the same bank, settings, number and seed.

    No mixture holds one source twice. Mixed as in `training_mixtures`.

    Args:
        bank: As in `training_mixtures`, of at least `max(num_mixed)` items.
        audio: As in `training_mixtures`.
        num_mixed: The counts M to draw from, each at least 1.
        num_mixtures: How many; at least 1.
        seed: Seed of the draw; 0 or more.

    Returns:
        The mixtures and their sources, as waveforms and as spectrograms.

    Raises:
        ConfigError: As `training_mixtures`; or there are no mixtures to draw, or the bank is too small.
    """
    rng = np.random.default_rng(seed)
    drawn, count = draw_sources(bank, check_counts(num_mixed, bank), num_mixtures, rng)
    waveforms, sources = mix(bank, drawn, count, audio, rng)

    def features(waveforms: Array, sources: Array) -> Array:
        real, imaginary = spectrogram.stft(waveforms, audio)
        scale = spectrogram.largest_magnitude(real, imaginary, audio)
        spectra = [(real, imaginary), *(spectrogram.stft(source, audio) for source in sources.swapaxes(0, 1))]
        return np.stack([spectrogram.features(*spectrum, audio, scale=scale) for spectrum in spectra], axis=1)

    mixture_and_sources = _in_chunks(features, waveforms, sources)
    present = np.arange(sources.shape[1]) < count[:, np.newaxis]
    return AudioEvaluationSet(
        mixtures=mixture_and_sources[:, 0],
        sources=mixture_and_sources[:, 1:],
        counts=count,
        labels=np.where(present, bank.labels[drawn], -1),
        gain=1 / sources.shape[1],
        waveforms=waveforms,
        source_waveforms=sources,
        audio=audio,
        class_names=bank.class_names,
    )


def mix(
    bank: SourceBank,
    drawn: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    audio: AudioConfig,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Places sources in a window, each at a random onset with a random gain.

    Args:
        bank: Waveforms of the sources.
        drawn: int64 `[num_mixtures, max_mixed]`, which sources.
        counts: int64 `[num_mixtures]`, how many of them are present.
        audio: Ranges of onset and gain, and the level of the noise.
        rng: Source of all randomness.

    Returns:
        The mixtures, float32 `[num_mixtures, num_samples]`: the sum of the sources and the noise; and the sources,
        float32 `[num_mixtures, max_mixed, num_samples]`, each over `max_mixed`, absent ones zero.
    """
    num_mixtures, largest = drawn.shape
    onsets = rng.integers(int(audio.max_onset * audio.num_samples) + 1, size=drawn.shape)
    gains = 10 ** (rng.uniform(-audio.gain_range_db, audio.gain_range_db, size=drawn.shape) / 20)
    scale = (gains / (largest * bank.full_scale)).astype(np.float32)
    sources = np.zeros((num_mixtures, largest, audio.num_samples), np.float32)
    for i in range(num_mixtures):
        for m in range(counts[i]):
            onset = onsets[i, m]
            sources[i, m, onset:] = scale[i, m] * bank.items[drawn[i, m], : audio.num_samples - onset]
    mixtures = sources.sum(axis=1)
    if audio.noise_db is not None:
        level = mixtures.std(axis=1, keepdims=True) * np.float32(10 ** (audio.noise_db / 20))
        mixtures = mixtures + level * rng.standard_normal(mixtures.shape, np.float32)
    return mixtures, sources


def _in_chunks(function: Callable[[Array, Array], Array], one: Array, other: Array) -> Array:
    # The STFT of a set of thousands would not fit in memory.
    starts = range(0, len(one), _CHUNK)
    return np.concatenate([function(one[i : i + _CHUNK], other[i : i + _CHUNK]) for i in starts])
