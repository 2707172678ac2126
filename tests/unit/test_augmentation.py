"""Mixtures of pictures that are moved, mirrored and darkened while a model trains on them."""

import numpy as np
import pytest

from vae_bss_tf.config import DataConfig
from vae_bss_tf.datasets import pipeline
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.presets import get_preset

SHIFT = 2


def batches(pictures: np.ndarray, data: DataConfig, start_step: int = 0, number: int = 3) -> np.ndarray:
    bank = SourceBank("images", "train", pictures, np.zeros(len(pictures), np.int64), 255.0, has_truth=False)
    preset = get_preset("images").replace(data=data)
    dataset = pipeline.training_data(preset, bank, batch_size=50, start_step=start_step)
    return np.stack([batch["mixture"].numpy() for batch in dataset.take(number)])


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
def test_each_mixture_is_one_of_those_that_a_shift_and_a_mirror_make(shape: tuple[int, ...]) -> None:
    """All of them come, and no other: numpy makes each of the 50 by padding and cutting."""
    picture = np.random.default_rng(0).integers(1, 255, size=shape).astype(np.uint8)
    data = DataConfig("images", (1,), max_shift=SHIFT, mirror=True)
    found = np.rint(batches(picture[None], data, number=20) * 255).astype(np.uint8).reshape(-1, *shape)
    padded = np.pad(picture, [(SHIFT, SHIFT)] * 2 + [(0, 0)] * (len(shape) - 2), mode="edge")
    allowed = set()
    for top in range(2 * SHIFT + 1):
        for left in range(2 * SHIFT + 1):
            moved = padded[top : top + shape[0], left : left + shape[1]]
            allowed |= {moved.tobytes(), moved[:, ::-1].tobytes()}
    assert {one.tobytes() for one in found} == allowed


def test_gains_are_uniform_from_the_least_to_one() -> None:
    white = np.full((1, 4, 4), 255, np.uint8)
    found = batches(white, DataConfig("images", (1,), min_gain=0.6), number=20)
    assert np.ptp(found, axis=(2, 3)).max() == 0
    gains = np.sort(found[..., 0, 0].ravel())
    np.testing.assert_allclose(gains, np.linspace(0.6, 1, len(gains)), atol=0.03)


def test_a_resumed_training_sees_what_it_would_have_seen() -> None:
    pictures = np.random.default_rng(1).integers(255, size=(6, 8, 8)).astype(np.uint8)
    data = DataConfig("images", (1,), max_shift=3, mirror=True, min_gain=0.5)
    np.testing.assert_array_equal(batches(pictures, data)[2], batches(pictures, data, start_step=2)[0])


def test_settings_without_augmentation_are_those_of_before() -> None:
    assert set(DataConfig("mnist").to_dict()) == {"dataset", "num_mixed"}
    moved = DataConfig("images", (1,), max_shift=1)
    assert DataConfig.from_dict(moved.to_dict()) == moved


@pytest.mark.parametrize("field", [{"max_shift": -1}, {"min_gain": 0.0}, {"min_gain": 1.5}])
def test_bad_settings_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(field))):
        DataConfig("images", (1,), **field)  # type: ignore[arg-type]


@pytest.mark.parametrize("dataset", ["notes", "mnist"])
def test_only_a_folder_of_pictures_is_augmented(dataset: str) -> None:
    with pytest.raises(ConfigError, match="folder of pictures"):
        get_preset(dataset).data.replace(mirror=True)
