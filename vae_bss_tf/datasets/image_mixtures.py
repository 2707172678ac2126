"""Mixtures of a bank's sources: endless batches to train on, and a fixed set to be judged on."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from vae_bss_tf.checks import check
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.errors import ConfigError

if TYPE_CHECKING:
    import tensorflow as tf


def training_mixtures(
    bank: SourceBank, *, num_mixed: Sequence[int], batch_size: int, seed: int, start_step: int = 0
) -> "tf.data.Dataset":
    """Endless batches of fresh mixtures, and of nothing else: no source leaves this function.

    Each mixture draws its count M from `num_mixed` with equal chance, then M sources with equal chance, and is
    their sum over `max(num_mixed)` (the paper's (d1 + d2) / 2). Batch `i` depends on the seed and `i` alone, so a
    training that goes on at step `i` sees what it would have seen.

    Args:
        bank: The sources.
        num_mixed: The counts M to draw from, each at least 1.
        batch_size: Mixtures a batch; at least 1.
        seed: Seed of the draw.
        start_step: Index of the first batch.

    Returns:
        A `tf.data.Dataset` of `{"mixture": float32 [batch_size, *bank.shape]}` in [0, 1].

    Raises:
        ConfigError: `num_mixed` is empty or holds a count below 1.

    Example:
        >>> batches = training_mixtures(load_bank("digits", "train"), num_mixed=(2,), batch_size=32, seed=0)
        >>> next(iter(batches))["mixture"].shape
        TensorShape([32, 8, 8])
    """
    import tensorflow as tf

    counts = check_counts(num_mixed, bank)
    largest = max(counts)
    taken = _taken(bank.items)
    scale = 1.0 / (bank.full_scale * largest)

    def draw(step: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        step_seed = tf.stack([tf.constant(seed, tf.int64), step])
        drawn = tf.random.stateless_uniform([batch_size, largest], step_seed, 0, len(bank), tf.int32)
        # One source at a time keeps the working set at one batch.
        sources = [taken(drawn[:, m]) for m in range(largest)]
        if min(counts) < largest:
            which = tf.random.stateless_uniform([batch_size], step_seed + (1 << 32), 0, len(counts), tf.int32)
            count = tf.reshape(tf.gather(tf.constant(counts), which), [-1, *[1] * len(bank.shape)])
            sources = [source * tf.cast(m < count, tf.float32) for m, source in enumerate(sources)]
        return {"mixture": tf.add_n(sources) * scale}

    dataset = tf.data.Dataset.counter(start_step).map(draw, num_parallel_calls=2, deterministic=True).prefetch(8)
    options = tf.data.Options()
    options.autotune.enabled = False  # with it on, fit can stall for seconds when training ends
    return dataset.with_options(options)


def _taken(items: npt.NDArray[np.generic]) -> "Callable[[tf.Tensor], tf.Tensor]":
    """A function from indices, `[n]`, to float32 `[n, *shape]`."""
    import tensorflow as tf

    if not isinstance(items, np.memmap):
        held = tf.constant(items)
        return lambda rows: tf.cast(tf.gather(held, rows), tf.float32)

    def read(rows: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        return np.asarray(items[rows], np.float32)

    def mapped(rows: tf.Tensor) -> tf.Tensor:  # what is on the disk stays there
        return tf.ensure_shape(tf.numpy_function(read, [rows], tf.float32), [*rows.shape, *items.shape[1:]])

    return mapped


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Fixed mixtures with the sources that they were made of.

    Attributes:
        mixtures: float32 `[num_mixtures, *shape]` in [0, 1].
        sources: float32 `[num_mixtures, max(num_mixed), *shape]`, as they stand in the mixture; absent ones zero.
        counts: int64 `[num_mixtures]`, the number of sources in each mixture.
        labels: int64 `[num_mixtures, max(num_mixed)]`, the class of each source; -1 where absent.
        gain: What a source at full scale, peak 1, was multiplied by.
        audio: None: the mixtures are images. Those of sound have the spectrogram's settings.
        class_names: As the bank has them.
    """

    mixtures: npt.NDArray[np.float32]
    sources: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    gain: float
    audio: AudioConfig | None = None
    class_names: tuple[str, ...] = ()

    def first(self, number: int) -> Self:
        """The first of the mixtures, copied, so that the others need not stay in memory.

        Args:
            number: How many; at least 1.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays: dict[str, Any] = {
            name: value[:number].copy() for name, value in values.items() if isinstance(value, np.ndarray)
        }
        return dataclasses.replace(self, **arrays)


def evaluation_mixtures(
    bank: SourceBank, *, num_mixed: Sequence[int], num_mixtures: int, seed: int = 0, gain: float | None = None
) -> EvaluationSet:
    """Draws a fixed set of mixtures: the same for the same bank, counts, number and seed.

    No mixture holds one source twice. Where every mixture is one item of the bank, none comes again before all have
    come.

    Args:
        bank: The sources, at least `max(num_mixed)` of them.
        num_mixed: The counts M to draw from, each at least 1.
        num_mixtures: How many; at least 1.
        seed: Seed of the draw.
        gain: What each source is multiplied by, in (0, 1 / max(num_mixed)], so that mixtures stay in [0, 1]; None for
            the largest, as in `training_mixtures`.

    Returns:
        The mixtures and their sources.

    Raises:
        ConfigError: There are no mixtures to draw, a count is below 1, or the bank is too small.

    Example:
        >>> truth = evaluation_mixtures(load_bank("digits", "test"), num_mixed=(2,), num_mixtures=100)
        >>> truth.mixtures.shape, truth.sources.shape
        ((100, 8, 8), (100, 2, 8, 8))
    """
    counts = check_counts(num_mixed, bank)
    largest = max(counts)
    rng = np.random.default_rng(seed)
    drawn, count = draw_sources(bank, counts, num_mixtures, rng)
    gain = 1 / largest if gain is None else gain
    present = np.arange(largest) < count[:, np.newaxis]
    scales = present * np.float32(gain / bank.full_scale)
    expand = (slice(None), slice(None), *[np.newaxis] * len(bank.shape))
    sources = bank.items[drawn].astype(np.float32) * scales[expand].astype(np.float32)
    labels = np.where(present, bank.labels[drawn], -1)
    return EvaluationSet(sources.sum(axis=1), sources, count, labels, gain, class_names=bank.class_names)


def draw_sources(
    bank: SourceBank, counts: Sequence[int], num_mixtures: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draws which sources stand in each of a fixed set of mixtures; no mixture holds one source twice.

    Where every mixture is one item of the bank, none comes again before all have come.

    Args:
        bank: The sources, at least `max(counts)` of them.
        counts: The counts M to draw from.
        num_mixtures: How many; at least 1.
        rng: Source of all randomness.

    Returns:
        Indices of the sources, int64 `[num_mixtures, max(counts)]`, and counts, int64 `[num_mixtures]`.

    Raises:
        ConfigError: There are no mixtures to draw, or the bank is too small.
    """
    largest = max(counts)
    check(num_mixtures >= 1, "number of mixtures", num_mixtures, "at least 1")
    if len(bank) < largest:
        raise ConfigError(f"{bank.name} {bank.split} has {len(bank)} sources; mixtures of {largest} need as many.")
    count = np.asarray(counts, np.int64)
    if largest == 1:
        rounds = [rng.permutation(len(bank)) for _ in range(-(-num_mixtures // len(bank)))]
        return np.concatenate(rounds)[:num_mixtures, np.newaxis], rng.choice(count, size=num_mixtures)
    drawn = rng.integers(len(bank), size=(num_mixtures, largest))
    while (repeated := _has_repeats(drawn)).any():
        drawn[repeated] = rng.integers(len(bank), size=(int(repeated.sum()), largest))
    return drawn, rng.choice(count, size=num_mixtures)


def check_counts(num_mixed: Sequence[int], bank: SourceBank) -> tuple[int, ...]:
    """Returns the counts of sources in a mixture as a tuple after checking them.

    Args:
        num_mixed: One or more counts, each at least 1.
        bank: What is mixed; a bank of mixtures is not mixed again.

    Returns:
        The counts.

    Raises:
        ConfigError: There is none, or one is below 1; or the bank holds mixtures and they are not (1,).
    """
    counts = tuple(int(m) for m in num_mixed)
    if not counts or min(counts) < 1:
        raise ConfigError(f"num_mixed is {counts}; it must hold one or more counts of at least 1.")
    if not bank.has_truth and counts != (1,):
        raise ConfigError(f"num_mixed is {counts}; {bank.name} that are mixtures are not mixed again: it must be (1,).")
    return counts


def _has_repeats(drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    ordered = np.sort(drawn, axis=1)
    return np.asarray((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
