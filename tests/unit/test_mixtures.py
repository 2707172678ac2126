import itertools

import numpy as np
import pytest

from training.scores import mean_scores
from vae_bss_tf.config import DataConfig, ModelConfig, Preset
from vae_bss_tf.datasets import load_bank, pipeline
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.datasets.image_mixtures import evaluation_mixtures, training_mixtures
from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.phases import Recipe


@pytest.fixture(scope="module")
def marked_bank():
    """Sources that tell who they are: source i is 2^i in its own pixel, so that a mixture names its sources."""
    items = np.zeros((7, 1, 7), np.uint8)
    items[np.arange(7), 0, np.arange(7)] = 200
    return SourceBank("marked", "train", items, np.arange(7), 255.0)


def take(dataset, count):
    return [batch["mixture"].numpy() for batch in itertools.islice(dataset, count)]


def test_training_yields_mixtures_and_nothing_else(marked_bank):
    dataset = training_mixtures(marked_bank, num_mixed=(2,), batch_size=4, seed=0)
    assert list(dataset.element_spec) == ["mixture"]
    assert dataset.element_spec["mixture"].shape == (4, 1, 7)


def test_no_clean_source_reaches_the_model(marked_bank):
    mixtures = np.concatenate(take(training_mixtures(marked_bank, num_mixed=(2,), batch_size=64, seed=0), 20))
    level = 200 / 255 / 2
    np.testing.assert_allclose(mixtures.sum(axis=(1, 2)), 2 * level, rtol=1e-6)
    twice = np.isclose(mixtures.max(axis=(1, 2)), 2 * level)
    assert 0.09 < twice.mean() < 0.2  # a source drawn twice, one time in seven, is the mixture of two copies


@pytest.mark.parametrize("counts", [(1,), (3,), (4,), (1, 2, 3)])
def test_every_mixture_has_a_count_that_was_asked_for(marked_bank, counts):
    mixtures = np.concatenate(take(training_mixtures(marked_bank, num_mixed=counts, batch_size=64, seed=1), 30))
    found = mixtures.sum(axis=(1, 2)) / (200 / 255 / max(counts))
    np.testing.assert_allclose(found, np.round(found), atol=1e-4)
    shares = [np.mean(np.round(found) == count) for count in counts]
    np.testing.assert_allclose(shares, 1 / len(counts), atol=0.05)
    assert mixtures.max() <= 1 + 1e-6


def test_all_sources_are_drawn_equally_often(marked_bank):
    mixtures = np.concatenate(take(training_mixtures(marked_bank, num_mixed=(2,), batch_size=64, seed=1), 60))
    drawn = mixtures.sum(axis=(0, 1))
    np.testing.assert_allclose(drawn / drawn.sum(), 1 / 7, atol=0.012)


def test_batches_depend_on_seed_and_step_alone(marked_bank):
    first = take(training_mixtures(marked_bank, num_mixed=(1, 2), batch_size=8, seed=3), 6)
    later = take(training_mixtures(marked_bank, num_mixed=(1, 2), batch_size=8, seed=3, start_step=4), 2)
    other = take(training_mixtures(marked_bank, num_mixed=(1, 2), batch_size=8, seed=4), 6)
    np.testing.assert_array_equal(first[4:], later)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


def test_evaluation_mixtures_are_the_sum_of_their_sources_and_stay_the_same(marked_bank):
    one, two = (evaluation_mixtures(marked_bank, num_mixed=(1, 3), num_mixtures=200, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.mixtures, two.mixtures)
    np.testing.assert_allclose(one.mixtures, one.sources.sum(axis=1))
    present = one.labels >= 0
    np.testing.assert_array_equal(present.sum(axis=1), one.counts)
    assert set(one.counts) == {1, 3}
    np.testing.assert_array_equal(one.sources[~present], 0)
    own_pixel = one.sources[present].argmax(axis=-1)[:, 0]
    np.testing.assert_array_equal(own_pixel, one.labels[present])
    drawn = [tuple(sorted(row[row >= 0])) for row in one.labels]
    assert all(len(set(row)) == len(row) for row in drawn)


def test_mixtures_of_one_item_come_once_each_before_any_comes_again(marked_bank):
    drawn = evaluation_mixtures(marked_bank, num_mixed=(1,), num_mixtures=16, seed=3).labels[:, 0]
    assert sorted(drawn[:7]) == sorted(drawn[7:14]) == list(range(7))
    assert drawn[:7].tolist() != drawn[7:14].tolist()
    pictures = Preset(ModelConfig(input_shape=(1, 7)), DataConfig("images", (1,)), Recipe())
    assert pipeline.num_distinct(pictures, marked_bank, 1_000) == 7
    assert pipeline.num_distinct(pictures.replace(data=DataConfig("images", (2,))), marked_bank, 1_000) == 1_000


def test_a_gain_scales_the_same_draw(marked_bank):
    plain, quiet = (
        evaluation_mixtures(marked_bank, num_mixed=(2,), num_mixtures=20, gain=gain) for gain in (None, 1 / 3)
    )
    assert (plain.gain, quiet.gain) == (1 / 2, 1 / 3)
    np.testing.assert_allclose(quiet.mixtures, plain.mixtures * 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(quiet.sources, plain.sources * 2 / 3, rtol=1e-6)
    estimates = plain.sources[:, ::-1] * 0.9 + 0.01
    scores = mean_scores(estimates, plain), mean_scores(estimates * np.float32(2 / 3), quiet)
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_a_preset_keeps_its_level_whatever_counts_are_drawn():
    preset = Preset(ModelConfig(num_sources=3), DataConfig("digits", (1, 2, 3)), Recipe())
    bank = load_bank("digits", "test")
    gains = [
        pipeline.evaluation_data(preset, bank, num_mixtures=4, num_mixed=counts).gain for counts in (None, (2,), (4,))
    ]
    assert gains == [1 / 3, 1 / 3, 1 / 4]


def test_splits_share_no_source(data_folder):
    for dataset, folder in (("digits", None), ("mnist", data_folder / "mnist")):
        banks = [load_bank(dataset, split, folder) for split in ("train", "validation", "test")]
        if dataset == "mnist":
            assert [len(bank) for bank in banks] == [55_000, 5_000, 10_000]
        assert all(bank.items.dtype == np.uint8 and set(bank.labels) == set(range(10)) for bank in banks)
    digits = [load_bank("digits", split) for split in ("train", "validation", "test")]
    assert sum(map(len, digits)) == 1797


def test_impossible_draws_are_refused(marked_bank):
    with pytest.raises(ConfigError, match="at least 1"):
        evaluation_mixtures(marked_bank, num_mixed=(2,), num_mixtures=0)
    with pytest.raises(ConfigError, match="num_mixed"):
        training_mixtures(marked_bank, num_mixed=(0,), batch_size=1, seed=0)
    small = SourceBank("small", "test", marked_bank.items[:1], marked_bank.labels[:1], 255.0)
    with pytest.raises(ConfigError, match="need as many"):
        evaluation_mixtures(small, num_mixed=(2,), num_mixtures=1)


def test_a_bank_needs_sources_and_their_labels():
    with pytest.raises(DataError, match="no sources"):
        SourceBank("x", "train", np.zeros((0, 2, 2)), np.zeros(0, np.int64), 1.0)
    with pytest.raises(DataError, match="labels"):
        SourceBank("x", "train", np.zeros((2, 2, 2)), np.zeros(1, np.int64), 1.0)
