"""The data that a preset asks for: its banks, its training batches, its fixed mixtures."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vae_bss_tf.checks import check_choice
from vae_bss_tf.config import Preset
from vae_bss_tf.datasets import DATASETS, SPLITS, load_bank
from vae_bss_tf.datasets.augmentation import augmented
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.domains import domain_of
from vae_bss_tf.errors import ConfigError

if TYPE_CHECKING:
    import tensorflow as tf


def load_banks(preset: Preset, data_dir: Path | None, splits: Iterable[str] = SPLITS) -> dict[str, SourceBank]:
    """Loads the sources of a preset's data set.

    Args:
        preset: The settings.
        data_dir: Folder of the data set's files, as `load_bank` takes it.
        splits: Which splits.

    Returns:
        A bank for each split.

    Raises:
        ConfigError: The data set does not fit the model's input, or is audio and the preset is not, or the reverse.
        DataError: As `load_bank`.
    """
    dataset, domain = preset.data.dataset, domain_of(preset.audio)
    kind = DATASETS[check_choice("data set", dataset, DATASETS)].kind
    if kind != domain.kind:
        raise ConfigError(f"{dataset} holds {kind} and the preset is for {domain.kind}; choose the one that fits.")
    shape = preset.model.input_shape
    banks = {
        split: load_bank(dataset, split, data_dir, audio=preset.audio, data=preset.data, input_shape=shape)
        for split in splits
    }
    expected = domain.bank_shape(shape)
    for bank in banks.values():
        if bank.shape != expected:
            raise ConfigError(
                f"{dataset} has sources of shape {bank.shape}, the model takes mixtures of shape {expected}; choose "
                "the preset or run that fits the data set."
            )
    return banks


def training_data(preset: Preset, bank: SourceBank, *, batch_size: int, start_step: int = 0) -> "tf.data.Dataset":
    """Endless batches of mixtures, as the preset's model takes them.

    Args:
        preset: The settings.
        bank: The sources of the training split.
        batch_size: Mixtures a batch.
        start_step: Index of the first batch.

    Returns:
        A `tf.data.Dataset` of `{"mixture": float32 [batch_size, *input_shape]}` in [0, 1].
    """
    seed = preset.recipe.seed
    mixtures = domain_of(preset.audio).training_mixtures(
        bank, num_mixed=preset.data.num_mixed, batch_size=batch_size, seed=seed, start_step=start_step
    )
    if preset.data.augments:
        mixtures = augmented(mixtures, preset.data, seed=seed, start_step=start_step)
    return mixtures


def num_distinct(preset: Preset, bank: SourceBank, wanted: int) -> int:
    """How many mixtures can be judged: those that are mixtures as they are come once each.

    Args:
        preset: The settings.
        bank: The sources, or the mixtures.
        wanted: How many are wanted.

    Returns:
        `wanted`, or the size of a bank of mixtures where it is smaller.
    """
    return min(wanted, len(bank)) if preset.data.max_mixed == 1 else wanted


def evaluation_data(
    preset: Preset, bank: SourceBank, *, num_mixtures: int, num_mixed: Sequence[int] | None = None, seed: int = 0
) -> EvaluationSet:
    """A fixed set of mixtures with their sources, as the preset's model takes them.

    Sources of images have the level that they have in the preset's training, 1 / max_mixed, whatever counts are drawn
    here, or a lower one where more are drawn. Spectrograms are scaled to a largest value of 1 anyway.

    Args:
        preset: The settings.
        bank: The sources.
        num_mixtures: How many; at least 1.
        num_mixed: The counts M; None takes the preset's.
        seed: Seed of the draw.

    Returns:
        The mixtures; an `AudioEvaluationSet` for audio.

    Raises:
        ConfigError: The bank is too small.
    """
    counts = preset.data.num_mixed if num_mixed is None else num_mixed
    return domain_of(preset.audio).evaluation_mixtures(
        bank,
        num_mixed=counts,
        num_mixtures=num_mixtures,
        seed=seed,
        gain=1 / max(preset.data.max_mixed, *counts),
    )
