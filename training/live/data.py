"""Mixtures to train a live separator on: stems of different recordings, added afresh in each step."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from training.live.stems import SECONDS, Stems
from vae_bss_tf.live.config import LiveConfig

if TYPE_CHECKING:
    import tensorflow as tf

Float32 = npt.NDArray[np.float32]

GAIN_RANGE_DB = 4.0
LEVEL_RANGE_DB = 20.0
AS_SEPARATED = 0.25  # share of the mixtures that are a recording's own
_UNSURE = 2.0  # semitones: sources that are nearer than this have no order of pitch
_SOON = 0.25  # s: where one begins later, nothing tells at first whether the other is the lower one
_TOGETHER = 0.03  # s: after silence, sources that begin further apart than this have the order in which they begin
_SILENCE = 0.02  # s: where nothing sounds for so long at first, the excerpt begins with an onset, not within a note
_AUDIBLE = 0.01  # of the mixture's peak
_BEGUN = 0.1  # of a source's peak: what its teacher left in it of another source is quieter


def batches(stems: Stems, config: LiveConfig, batch_size: int, seed: int, start_step: int = 0) -> "tf.data.Dataset":
    """Endless batches of known sources in the order that the outputs have.

    After silence the source that begins first comes first; sources that begin together, or sound from the first sample
    on, are in the order of their pitch.

    Three quarters of the mixtures hold stems of different recordings, each with a gain of its own; the others are a
    recording's own excerpt. All have a random level. Batch `i` depends on the seed and `i` alone.

    Args:
        stems: What is mixed.
        config: The model's settings.
        batch_size: Mixtures a batch; at least 1.
        seed: Seed of the draw; 0 or more.
        start_step: Index of the first batch.

    Returns:
        A `tf.data.Dataset` of sources, float32 `[batch_size, num_sources, samples]`, whose sum is the mixture; and
        whether their order is sure, bool `[batch_size]`. The samples are whole blocks.
    """
    import tensorflow as tf

    shape = (batch_size, config.num_sources, stems.shape[1] // config.hop_length * config.hop_length)

    def draw(step: npt.NDArray[np.int64]) -> tuple[Float32, npt.NDArray[np.bool_]]:
        rng = np.random.default_rng([seed, int(step)])
        drawn = [_mixture(stems, shape[1:], config, rng) for _ in range(batch_size)]
        return np.stack([sources for sources, _ in drawn]), np.asarray([sure for _, sure in drawn])

    def batch(step: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        sources, sure = tf.numpy_function(draw, [step], (tf.float32, tf.bool))
        return tf.ensure_shape(sources, shape), tf.ensure_shape(sure, shape[:1])

    dataset = tf.data.Dataset.counter(start_step).map(batch, num_parallel_calls=2, deterministic=True).prefetch(4)
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def own_mixtures(stems: Stems, config: LiveConfig, most: int) -> tuple[Float32, npt.NDArray[np.bool_]]:
    """Excerpts as they were separated, in the order that the outputs have, to validate on.

    Args:
        stems: The stems.
        config: The model's settings.
        most: Excerpts at most; they are spread over the recordings.

    Returns:
        As a batch of `batches`.
    """
    samples = stems.shape[1] // config.hop_length * config.hop_length
    chosen = np.linspace(0, len(stems) - 1, min(most, len(stems))).astype(int)
    drawn = [_ordered(stems.excerpt(i)[:, :samples], stems.pitches[i], config) for i in chosen]
    return np.stack([sources for sources, _ in drawn]), np.asarray([sure for _, sure in drawn])


def _mixture(
    stems: Stems, shape: tuple[int, ...], config: LiveConfig, rng: np.random.Generator
) -> tuple[Float32, bool]:
    count, samples = shape
    drawn = rng.integers(len(stems), size=count)
    places = rng.integers(stems.shape[0], size=count)
    if rng.uniform() < AS_SEPARATED:
        drawn[:], places = drawn[0], np.arange(count)
        gains = np.zeros(count)
    else:
        for k in range(1, count):
            while stems.recordings[drawn[k]] in stems.recordings[drawn[:k]]:
                drawn[k] = rng.integers(len(stems))
        gains = rng.uniform(-GAIN_RANGE_DB, GAIN_RANGE_DB, size=count)
    excerpts = [stems.excerpt(i)[k, :samples] for i, k in zip(drawn, places, strict=True)]
    sources = np.stack(excerpts) * (10 ** (gains[:, None] / 20)).astype(np.float32)
    peak = max(float(np.abs(sources.sum(axis=0)).max()), 1e-3)
    sources *= np.float32(10 ** (-rng.uniform(0, LEVEL_RANGE_DB) / 20) / peak)
    return _ordered(sources, stems.pitches[drawn, places], config)


def _ordered(sources: Float32, pitches: npt.NDArray[np.float64], config: LiveConfig) -> tuple[Float32, bool]:
    """Sources in the order that the outputs have, and whether it can be told from the beginning on."""
    level, heard = np.abs(sources), np.abs(sources.sum(axis=0))
    begins = (level > _BEGUN * level.max(axis=1, keepdims=True)).argmax(axis=1) / config.sample_rate
    begins = np.where(np.isnan(pitches), 10 * SECONDS, begins)  # silent ones never begin
    in_time = np.argsort(begins)
    after_silence = (heard > _AUDIBLE * heard.max()).argmax() >= _SILENCE * config.sample_rate
    if after_silence and np.all(np.diff(begins[in_time]) > _TOGETHER):
        return sources[in_time], True
    order = np.argsort(pitches)  # silent ones, NaN, last
    together = np.ptp(begins) <= _TOGETHER if after_silence else begins.max() <= _SOON
    return sources[order], bool(together and np.all(np.diff(pitches[order]) >= _UNSURE))
