"""Which separated source goes on with which over a whole recording."""

import itertools
import tracemalloc

import numpy as np
import pytest

from vae_bss_tf.audio.order import WindowFeatures, consistent_orders, features

RATE, LENGTH = 5_512.5, 2_048
PARTIALS = {"dull": (1.0, 0.3, 0.05, 0.02), "bright": (0.4, 0.6, 1.0, 0.9), "hollow": (1.0, 0.02, 0.7, 0.02)}


def melody(timbre: str, num_windows: int, rng: np.random.Generator, lowest: float = 200) -> np.ndarray:
    """A new note in each half of a window, of one timbre, within an octave: float32 `[samples]`."""
    hop = LENGTH // 2
    time = np.arange(hop) / RATE
    notes = lowest * 2 ** rng.uniform(0, 1, num_windows + 1)
    return np.concatenate(
        [
            sum(a * np.sin(2 * np.pi * f * (k + 1) * time) for k, a in enumerate(PARTIALS[timbre])) * np.hanning(hop)
            for f in notes
        ]
    ).astype(np.float32)


def windows_of(melodies: list[np.ndarray], orders: np.ndarray) -> np.ndarray:
    """Separated windows with their sources in given orders: `[windows, samples, num_sources]`."""
    starts = np.arange(len(orders)) * LENGTH // 4
    whole = np.stack(melodies, axis=-1)
    return np.stack([whole[s : s + LENGTH][:, order] for s, order in zip(starts, orders, strict=True)])


def described(windows: np.ndarray) -> WindowFeatures:
    """The features of windows that begin a recording."""
    return features(windows, np.zeros((2, *windows.shape[1:]), np.float32), RATE)


@pytest.mark.parametrize("num_sources", [1, 2, 3])
def test_sources_are_told_apart_by_their_sound_however_often_notes_change(num_sources: int) -> None:
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(num_sources) for _ in range(40)])
    windows = windows_of([melody(name, 40, rng) for name in list(PARTIALS)[:num_sources]], shuffled)
    orders, certainty = consistent_orders(described(windows))
    heard = np.take_along_axis(shuffled, orders, axis=1)  # which melody stands in each place
    assert (heard == heard[0]).all()
    assert certainty.min() > 0.9


@pytest.mark.parametrize(("octaves", "gain"), [(1.5, 1.0), (0.0, 0.2)])
def test_alike_sources_are_told_apart_by_their_pitch_or_level(octaves: float, gain: float) -> None:
    rng = np.random.default_rng(4)
    shuffled = np.stack([rng.permutation(2) for _ in range(40)])
    melodies = [melody("hollow", 40, rng, 150), gain * melody("hollow", 40, rng, 150 * 2**octaves)]
    orders, _ = consistent_orders(described(windows_of(melodies, shuffled)))
    heard = np.take_along_axis(shuffled, orders, axis=1)
    assert (heard == heard[0]).all(axis=1).mean() > 0.95


@pytest.mark.parametrize("frequency", [65.0, 110.0, 441.0, 1_400.0])
def test_the_pitch_is_that_of_the_fundamental(frequency: float) -> None:
    time = np.arange(LENGTH) / RATE
    harmonics = [k for k in range(1, 9) if k * frequency < RATE / 2]
    note = sum(np.sin(2 * np.pi * k * frequency * time + k**2) / k for k in harmonics)
    found = described(np.asarray(note, np.float32)[np.newaxis, :, np.newaxis])
    assert 2 ** found.sound[0, 0, -1] == pytest.approx(frequency, rel=0.05)


def test_features_are_the_same_in_batches() -> None:
    rng = np.random.default_rng(1)
    windows = rng.normal(size=(7, LENGTH, 2)).astype(np.float32)
    whole = described(windows)
    parts = described(windows[:3]), features(windows[3:], windows[1:3], RATE)
    for one, *others in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(one, np.concatenate(others), rtol=1e-12)


def test_overlaps_of_what_goes_on_are_one_and_of_strangers_are_none() -> None:
    rng = np.random.default_rng(2)
    melodies = [rng.normal(size=6 * LENGTH).astype(np.float32), np.zeros(6 * LENGTH, np.float32)]
    found = described(windows_of(melodies, np.asarray([[0, 1], [0, 1], [1, 0]])))
    np.testing.assert_allclose(found.quarters[1:], [[[1, 0], [0, 0]], [[0, 1], [0, 0]]], atol=1e-6)
    np.testing.assert_allclose(found.halves[2], [[0, 1], [0, 0]], atol=1e-6)
    assert not found.quarters[0].any()
    assert not found.halves[:2].any()


@pytest.mark.parametrize("num_sources", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_where_all_sound_alike_the_course_that_goes_on_best_is_found(seed: int, num_sources: int) -> None:
    """Of all courses, by what windows share with the two before."""
    num_windows = {2: 10, 3: 5}[num_sources]
    rng = np.random.default_rng(seed)
    quarters, halves = rng.uniform(0, 0.5, (2, num_windows, num_sources, num_sources))
    quarters[0] = halves[:2] = 0
    alike = np.zeros((num_windows, num_sources, 9)), np.ones((num_windows, num_sources))
    orders, certainty = consistent_orders(WindowFeatures(*alike, quarters, halves))

    def going_on(course: np.ndarray) -> float:
        steps = [quarters[w, course[w - 1], course[w]].sum() for w in range(1, num_windows)]
        return sum(steps) + sum(halves[w, course[w - 2], course[w]].sum() for w in range(2, num_windows))

    states = list(itertools.permutations(range(num_sources)))
    courses = (np.asarray(course) for course in itertools.product(states, repeat=num_windows))
    best = max(going_on(course) for course in courses if (course[0] == orders[0]).all())
    assert going_on(orders) == pytest.approx(best, abs=1e-9)
    # Nothing tells a course from the same with all sources exchanged: each window's orders are all as likely.
    np.testing.assert_allclose(certainty, 1 / len(states), atol=1e-9)


def test_a_stretch_in_which_nothing_tells_the_order_is_not_sure_unless_it_is_silent() -> None:
    num_windows, stretch = 40, slice(20, 28)
    sound = np.zeros((num_windows, 2, 9))
    sound[:, 1] = 1
    sound[stretch] = 0.5
    overlaps = np.broadcast_to(0.5 * np.eye(2), (num_windows, 2, 2)).copy()
    overlaps[20:30] = 0
    found = WindowFeatures(sound, np.ones((num_windows, 2)), overlaps, overlaps)
    orders, certainty = consistent_orders(found)
    elsewhere = np.delete(np.arange(num_windows), stretch)
    assert (orders[elsewhere] == orders[0]).all()
    np.testing.assert_allclose(certainty[stretch], 0.5, atol=0.01)
    assert certainty[elsewhere].min() > 0.99
    found.energy[stretch] = 1e-4
    assert consistent_orders(found)[1].min() > 0.99


def test_the_loudest_source_is_the_first() -> None:
    rng = np.random.default_rng(3)
    windows = windows_of([0.1 * melody("dull", 20, rng), melody("bright", 20, rng)], np.tile([0, 1], (20, 1)))
    orders, _ = consistent_orders(described(windows))
    np.testing.assert_array_equal(orders, np.tile([1, 0], (20, 1)))


@pytest.mark.parametrize(("num_sources", "most"), [(2, 2_048), (4, 20_480)])
def test_a_window_takes_little_memory(num_sources: int, most: int) -> None:
    rng, count = np.random.default_rng(0), 1_000
    products = rng.normal(size=(2, count, num_sources, num_sources))
    found = WindowFeatures(rng.normal(size=(count, num_sources, 9)), rng.uniform(size=(count, num_sources)), *products)
    tracemalloc.start()
    consistent_orders(found)
    assert tracemalloc.get_traced_memory()[1] < most * count
    tracemalloc.stop()


def test_silence_is_ordered_without_a_word() -> None:
    windows = np.zeros((3, LENGTH, 2), np.float32)
    orders, certainty = consistent_orders(described(windows))
    assert sorted(orders[0]) == [0, 1]
    assert np.isfinite(certainty).all()
