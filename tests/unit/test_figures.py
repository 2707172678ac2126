"""Pictures of a training, of an evaluation and of recordings: what is drawn where."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from training import figures
from training.evaluation import figures as evaluation
from training.systems import SYSTEMS
from vae_bss_tf.audio.figures import spectrograms
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.domains import domain_of

AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=16, num_bins=32, power=0.5)


SIDE = 5  # of the images, in pixels


def drawn(figure: Figure) -> list[list[np.ndarray | None]]:
    """The images of a figure by row and column, a pixel apart; None where a place is empty, which is white."""
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    starts = [range(0, n, SIDE + 1) for n in canvas.shape]
    images = [[canvas[top : top + SIDE, left : left + SIDE] for left in starts[1]] for top in starts[0]]
    return [[None if (image == 1).all() else image for image in row] for row in images]


def row_titles(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_each_true_source_is_in_the_row_of_the_estimate_that_it_is_matched_to() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=(4, 2, 5, 5)).astype(np.float32)
    truth[3, 1] = 0  # a mixture of one source
    sources = truth.copy()
    sources[[1, 3]] = truth[[1, 3], ::-1]
    figure = figures.separation(truth.sum(axis=1), sources, truth)
    assert row_titles(figure) == ["mixture", "source 1", "source 2", "sum", "true 1", "true 2"]
    mixture, *estimates, total, true_1, true_2 = drawn(figure)
    np.testing.assert_allclose(total, mixture, atol=1e-6)
    for column in range(4):
        for estimate, true in zip(estimates, (true_1, true_2), strict=True):
            if true[column] is not None:
                np.testing.assert_allclose(true[column], estimate[column])
    assert [column is None for column in true_1] == [False, False, False, True]


def test_a_spare_output_has_no_row_of_a_true_source() -> None:
    truth = np.random.default_rng(0).uniform(size=(2, 1, 5, 5)).astype(np.float32)
    figure = figures.separation(truth[:, 0], np.concatenate([truth, 0 * truth], axis=1), truth)
    assert row_titles(figure) == ["mixture", "source 1", "source 2", "sum", "true 1"]


def test_spectrograms_are_in_decibels_over_hertz_and_seconds() -> None:
    level = np.full((1, 16, 32), 1e-4, np.float32)
    level[0, :, 3] = 1.0
    figure = figures.separation(level**AUDIO.power, level[:, np.newaxis] ** AUDIO.power, audio=AUDIO)
    image = figure.axes[0].images[0]
    assert image.get_extent() == [0, 16 * 16 / 4_000, 0, 32 * 4_000 / 64]
    np.testing.assert_allclose(image.get_array()[3], 0.0, atol=1e-5)
    np.testing.assert_allclose(image.get_array()[4], -60.0, atol=1e-4)
    assert "Hz" in figure.axes[0].get_ylabel()
    assert figure.axes[-1].get_xlabel() == "s"


def assert_legend_covers_nothing(figure: Figure) -> None:
    (legend,) = figure.legends
    figures.to_array(figure)
    extent = legend.get_window_extent()
    drawn = [axis.get_tightbbox() for axis in figure.axes]
    assert not any(extent.overlaps(box) for box in drawn)
    assert all(figure.bbox.contains(*box.min) and figure.bbox.contains(*box.max) for box in (extent, *drawn))


def test_recordings_are_drawn_below_each_other_in_decibels_of_the_mixture() -> None:
    rate, time = 8_000, np.arange(8_000) / 8_000
    tone = (0.5 * np.sin(2 * np.pi * 1_000 * time)).astype(np.float32)
    figure = spectrograms({"mixture": tone, "source 1": tone / 100, "source 2": tone[:4_000]}, rate)
    assert [axis.get_ylabel() for axis in figure.axes] == ["mixture\nHz", "source 1\nHz", "source 2\nHz"]
    assert figure.axes[-1].get_xlabel() == "s"
    levels = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    for level, loudest in zip(levels, (0, -40, 0), strict=True):
        assert level.max() == pytest.approx(loudest, abs=0.1)
        assert level[:, 10].argmax() * rate / 512 == pytest.approx(1_000, abs=rate / 512)
    assert levels[2][:, -1].max() < -100  # the shorter one has ended
    for axis in figure.axes:
        left, right, low, high = axis.images[0].get_extent()
        assert (left, right, low, high) == pytest.approx((0, 1, 0, 4_000), abs=0.02)
        assert axis.get_xlim() == (0, 1)
        assert axis.images[0].norm(-15) == 1 > axis.images[0].norm(-40) > 0.5  # bright


def test_a_last_row_is_dark_where_the_order_is_not_sure() -> None:
    tone = np.sin(np.arange(8_000)).astype(np.float32)
    certainty = np.asarray([1.0, 1.0, 0.0, 1.0])
    figure = spectrograms({"mixture": tone, "source 1": tone}, 8_000, certainty=(certainty, 0.25))
    *rows, last = figure.axes
    assert len(rows) == 2
    assert last.get_xlim() == (0, 1)
    shown = last.images[0]
    np.testing.assert_array_equal(np.asarray(shown.get_array())[0], certainty)
    assert shown.cmap(shown.norm(0.0))[:3] == (0, 0, 0)
    assert shown.get_extent()[:2] == [0.375, 1.375]  # a window's middle is two hops after its start


def test_scores_against_time_have_a_legend_beside_them_with_the_best_first() -> None:
    systems = [s for s in SYSTEMS if "images" in s.domains]
    results = [
        SimpleNamespace(
            system=system,
            scores={"psnr": np.full(3, 15.0 + i)},
            budget={"seconds": 100.0 + i},
            seconds_per_mixture=0.001 * (1 + i),
        )
        for i, system in enumerate(systems)
    ]
    figure = evaluation.score_against_time(SimpleNamespace(results=results, domain=domain_of(None)))
    assert_legend_covers_nothing(figure)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    shown = [s.title for s in reversed(systems) if s.kind in ("trained", "untrained") or s.name == "mixture/k"]
    assert names == shown
    styles = {(line.get_marker(), line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(styles) == len(names)
    for axis in figure.axes:
        (low, high), (bottom, top) = axis.get_xlim(), axis.get_ylim()
        assert all(low < line.get_xdata()[0] < high for line in axis.lines if line.get_marker() != "None")
        assert all(bottom < line.get_ydata()[0] < top for line in axis.lines)


def test_titles_of_systems_are_wrapped_between_words() -> None:
    mixtures, outputs = np.ones((2, SIDE, SIDE), np.float32), np.ones((2, 2, SIDE, SIDE), np.float32)
    systems = [system for system in SYSTEMS if "images" in system.domains and system.kind != "trivial"]
    results = [SimpleNamespace(system=system, outputs=outputs) for system in systems]
    truth = EvaluationSet(mixtures, outputs, np.full(2, 2), np.zeros((2, 2)), 0.5)
    figure = evaluation.systems_grid(SimpleNamespace(truth=truth, has_truth=True, results=results))
    labels = [label for label in figure.axes[0].get_xticklabels() if label.get_text() not in ("mixture", "truth")]
    assert [label.get_text().replace("\n", " ") for label in labels] == [s.title for s in systems]
    figures.to_array(figure)
    boxes = [label.get_window_extent() for label in labels]
    assert not any(left.x1 > right.x0 for left, right in itertools.pairwise(boxes))
    assert boxes[-1].x1 < figure.bbox.x1


@pytest.mark.parametrize("audio", [None, AUDIO])
def test_a_latent_map_has_its_legend_beside_it_and_shows_decoded_sources(audio: AudioConfig | None) -> None:
    rng = np.random.default_rng(0)
    shape = (SIDE, SIDE) if audio is None else AUDIO.feature_shape
    sources = rng.uniform(size=(20, 2, *shape)).astype(np.float32)
    truth = EvaluationSet(
        sources.sum(axis=1), sources, np.full(20, 2), np.arange(40).reshape(20, 2) % 10, 0.5, audio=audio
    )
    if audio is not None:
        truth = dataclasses.replace(truth, class_names=("a$x_$b", *"bcdefghij"))
    latents = rng.standard_normal((20, 2, 4)).astype(np.float32)
    outputs = {"sources": sources, "estimates": sources, "latent_mean": latents}
    figure = evaluation.latent_map(SimpleNamespace(predict=lambda *_, **__: outputs), truth)
    assert_legend_covers_nothing(figure)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(names) == 10
    assert audio is None or names == list(truth.class_names)
    points, decoded = figure.axes[:2]
    assert len(points.collections[0].get_offsets()) == 40
    canvas = np.asarray(decoded.images[0].get_array().filled(np.nan))
    assert np.isnan(canvas).any()  # white where no source is near
    assert np.nanmin(canvas) >= (0 if audio is None else -60.001)
    assert np.nanmax(canvas) == pytest.approx(sources.max() if audio is None else 0, abs=1e-3)


def history_rows() -> list[dict[str, object]]:
    separate = [{"elbo": -900.0, "val_elbo": -800.0}] + [{"elbo": -100.0 + i, "val_elbo": -101.0 + i} for i in range(3)]
    masked = [{"score": 20.0 + i, "val_score": 19.0 + i} for i in range(4)]
    named = [("separate", row) for row in separate] + [(f"mask {1 + i // 2}/2", row) for i, row in enumerate(masked)]
    return [
        {"epoch": float(i), "mixtures": 1e6 * (i + 1), "phase": phase, "loss": 1.0, **row}
        for i, (phase, row) in enumerate(named)
    ]


def test_a_history_shows_all_phases_and_the_range_after_the_first_epoch() -> None:
    figure = figures.history(history_rows())
    elbo, score = figure.axes
    assert [text.get_text() for text in elbo.texts] == ["separate", "mask 1/2", "mask 2/2"]
    assert elbo.get_ylim()[0] > -110
    training, validation = elbo.lines
    np.testing.assert_allclose(training.get_xdata(), np.arange(1, 9))
    assert np.isnan(training.get_ydata()[4:]).all()
    np.testing.assert_allclose(validation.get_ydata()[:4], [-800, -101, -100, -99])
    np.testing.assert_allclose(score.lines[0].get_ydata()[4:], [20, 21, 22, 23])
    assert_legend_covers_nothing(figure)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_history_of_an_old_run_and_of_a_baseline_is_drawn(number: int) -> None:
    old = [{"epoch": float(i), "loss": 3.0, "elbo": -3.0 - i, "kl": 1.0, "val_elbo": -4.0} for i in range(number)]
    assert [axis.get_ylabel() for axis in figures.history(old).axes] == ["ELBO, nats", "KL, nats"]
    baseline = [{"epoch": float(i), "loss": 3.0 - i} for i in range(number)]
    (axis,) = figures.history(baseline).axes
    np.testing.assert_allclose(axis.lines[0].get_ydata(), 3.0 - np.arange(number))
    assert figures.to_array(figures.history(baseline)).shape[-1] == 4
