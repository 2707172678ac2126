"""What a live separator is trained to do, and that an interrupted training gives what an uninterrupted one gives."""

import dataclasses
import itertools

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from training.live import data, objective, stems, trainer
from training.live.__main__ import main as fit
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.live.runtime import LiveSeparator, load


class Halves:
    """A teacher that knows the sources: the low and the high one of what `folder` makes."""

    num_sources = 2

    def separate(self, mixture, rate):
        spectrum = np.fft.rfft(mixture)
        high = np.fft.rfftfreq(len(mixture), 1 / rate) > 400
        return np.stack([np.fft.irfft(spectrum * part, len(mixture)) for part in (~high, high)]).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten recordings of a note below 400 Hz and one above."""
    path, rng = tmp_path_factory.mktemp("takes"), np.random.default_rng(0)
    t = np.arange(2 * 11_025) / 11_025
    for i in range(10):
        low, high = rng.uniform(100, 300), rng.uniform(500, 900)
        mixture = 0.3 * np.sin(2 * np.pi * low * t) + 0.3 * np.sin(2 * np.pi * high * t)
        soundfile.write(path / f"take{i}.wav", mixture, 11_025)
    return path


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The teacher's folder, and beside it what it has separated."""
    path = tmp_path_factory.mktemp("taught")
    (path / "teacher").mkdir()
    (path / "teacher/manifest.json").write_text("{}")
    return path


@pytest.fixture
def teacher(monkeypatch, taught):
    """The teacher's folder, which `Separator.load` knows."""
    monkeypatch.setenv("VAE_BSS_TF_CACHE", str(taught / "cache"))
    monkeypatch.setattr(stems.Separator, "load", lambda path: Halves())
    return taught / "teacher"


def test_stems_are_what_the_teacher_finds_with_their_pitch(folder, teacher):
    train = stems.load(folder, teacher, "train", 11_025.0)
    held_out = stems.load(folder, teacher, "validation", 11_025.0)
    assert len(train) == 3 * 6  # three pitches of six recordings; two each validate and test
    assert len(held_out) == 2
    assert (train.pitches[:, 0] < 12 * np.log2(400)).all()
    assert (train.pitches[:, 1] > 12 * np.log2(400)).all()
    again = stems.load(folder, teacher, "train", 11_025.0)
    np.testing.assert_array_equal(train.excerpt(5), again.excerpt(5))


def test_batches_are_a_function_of_seed_and_step_and_lowest_first(tiny_config, folder, teacher):
    train = stems.load(folder, teacher, "train", 11_025.0)
    first = [batch[0].numpy() for batch in itertools.islice(iter(data.batches(train, tiny_config, 4, 7)), 3)]
    later = next(iter(data.batches(train, tiny_config, 4, 7, start_step=2)))[0].numpy()
    np.testing.assert_array_equal(first[2], later)
    assert not np.array_equal(first[0], first[1])
    for sources in first[0]:
        low, high = (np.abs(np.fft.rfft(source)).argmax() for source in sources)
        assert low < high
    assert np.abs(first[0].sum(axis=1)).max() <= 1.0001


@pytest.mark.parametrize(
    ("begins", "order"),
    [
        ((0.3, 0.1), (1, 0)),  # after silence, one after the other
        ((0.1, 0.6), (0, 1)),
        ((0.12, 0.1), (0, 1)),  # together: by pitch
        ((0.15, 0.1), (1, 0)),
        ((0.0, 0.2), (0, 1)),  # within a note, and soon both
        ((0.3, None), (0, 1)),  # a silent one comes last
        ((None, 0.3), (1, 0)),
        ((0.0, 0.6), None),  # within a note, one alone for long
        ((0.6, 0.0), None),
    ],
)
def test_who_begins_first_comes_first_and_of_two_that_begin_together_the_lower_one(begins, order, tiny_config):
    """The low source holds what its teacher left in it of the other one, which is no beginning."""
    t = np.arange(22_050) / 11_025
    low, high = (
        np.zeros(len(t)) if begin is None else np.sin(2 * np.pi * pitch * t) * (t >= begin)
        for begin, pitch in zip(begins, (200, 500), strict=True)
    )
    excerpt = np.stack([low + 0.03 * high, high])[np.newaxis].astype(np.float32)
    pitches = np.asarray([[np.nan if begin is None else 10.0 * (k + 1) for k, begin in enumerate(begins)]])
    made = stems.Stems((excerpt,), np.zeros(1, int), pitches)
    sources, sure = data.own_mixtures(made, tiny_config, 1)
    assert sure == [order is not None]
    samples = sources.shape[2]
    np.testing.assert_array_equal(sources[0], excerpt[0, list(order or (0, 1)), :samples])


def test_the_ratio_of_the_loss_is_that_of_masked_spectra(tiny_model, sound):
    model = tiny_model()
    hop = model.config.hop_length
    sources = np.stack([sound, np.roll(sound, 777)])[np.newaxis, :, : 60 * hop]
    real, imaginary = objective.spectra(model, tf.constant(sources))
    spectra = real.numpy() + 1j * imaginary.numpy()
    masks = np.random.default_rng(0).uniform(size=(1, 2, 60, model.config.num_bands)).astype(np.float32)
    found = objective.ratios_of(model, tf.constant(masks), real, imaginary).numpy()
    masked = model.spread(masks).numpy() * spectra.sum(axis=1)
    for k, j in itertools.product(range(2), repeat=2):
        error = np.sum(np.abs(masked[:, k] - spectra[:, j]) ** 2) / np.sum(np.abs(spectra[:, j]) ** 2)
        assert found[0, k, j] == pytest.approx(-10 * np.log10(error + 1e-3), abs=1e-3)


def test_the_given_order_counts_where_it_is_sure():
    ratios = tf.constant([[[1.0, 5.0], [6.0, 2.0]]] * 2)
    fits = tf.constant([[[10.0, 20.0], [30.0, 40.0]]] * 2)
    found, fitted = objective.in_order(ratios, fits, tf.constant([True, False]))
    np.testing.assert_array_equal(found, [3.0, 11.0])
    np.testing.assert_array_equal(fitted, [50.0, 50.0])


def test_the_bound_is_the_elbo_of_a_frame(tiny_model, sound):
    """One frame, latents at the posterior mean: the likelihood and the KL by their formulas."""
    model = tiny_model()
    hop, config = model.config.hop_length, model.config
    sources = np.stack([0.5 * sound, 0.5 * sound])[np.newaxis, :, :hop]
    values = objective.values(model, tf.constant(sources), tf.constant([True]), None)
    real, imaginary = objective.spectra(model, tf.constant(sources))
    bands = model.bands(tf.reduce_sum(real, axis=1), tf.reduce_sum(imaginary, axis=1))
    scale = model.scale(bands)
    features = model.compress(bands, scale)
    mean, log_variance, _, _ = model.encode(features, scale, model.initial_state())
    estimate = model.decode(mean).numpy().sum(axis=2)
    error = (features.numpy() - estimate) / config.likelihood_scale
    log_likelihood = np.sum(-0.5 * error**2 - np.log(config.likelihood_scale * np.sqrt(2 * np.pi)))
    kl = 0.5 * np.sum(np.exp(log_variance) + np.square(mean) - 1 - log_variance)
    assert float(values.kl[0]) == pytest.approx(kl, rel=1e-4)
    assert float(values.elbo[0]) == pytest.approx(log_likelihood - kl, rel=1e-4)


def test_a_killed_training_resumes_to_the_same_weights(folder, teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "STEPS_PER_EPOCH", 2)
    words = ["--data-dir", str(folder), "--teacher", str(teacher), "--epochs", "3", "--batch-size", "2",
             "--channels", "8", "--latency", "64"]  # fmt: skip
    assert fit([*words, "--output", str(tmp_path / "whole")]) == 0

    class Killed(BaseException):
        pass

    def dies(line):
        if line.startswith("epoch 2/"):
            raise Killed

    train, held_out = (stems.load(folder, teacher, split, 11_025.0) for split in ("train", "validation"))
    config, training, sources = trainer.settings_of(tmp_path / "whole")
    trainer.create(tmp_path / "killed", config, training, sources, False)
    with pytest.raises(Killed):
        trainer.LiveTrainer(config, training, train, held_out).train(tmp_path / "killed", report=dies)
    killed = ["--output", str(tmp_path / "killed"), "--resume"]
    for change in (["--seed", "7"], ["--latency", "16"], ["--epochs", "9"], ["--data-dir", "x", "--teacher", "y"]):
        assert fit([*killed, *change]) == 2
        assert "was trained with other settings" in capsys.readouterr().err
    assert fit([*killed, "--force"]) == 2
    assert "give one of them" in capsys.readouterr().err
    fewer = dataclasses.replace(train, pitches=train.pitches[::-1])
    with pytest.raises(CheckpointError, match="other recordings"):
        trainer.LiveTrainer(config, training, fewer, held_out).train(tmp_path / "killed")
    assert fit([*words, *killed]) == 0
    for name, weights in np.load(tmp_path / "whole/weights.npz").items():
        np.testing.assert_array_equal(np.load(tmp_path / "killed/weights.npz")[name], weights)
    assert (tmp_path / "whole/history.csv").read_text() == (tmp_path / "killed/history.csv").read_text()
    assert load(tmp_path / "whole").config == config


def test_minutes_plan_the_epochs_and_begin_anew(tiny_config, folder, teacher, monkeypatch):
    monkeypatch.setattr(trainer, "STEPS_PER_EPOCH", 1)
    train, held_out = (stems.load(folder, teacher, split, 11_025.0) for split in ("train", "validation"))
    planned = trainer.LiveTrainer(tiny_config, trainer.LiveTraining(batch_size=2), train, held_out)
    fresh = [weights.copy() for weights in planned.model.get_weights()]
    assert planned.within(0.05).epochs >= 1
    for weights, expected in zip(planned.model.get_weights(), fresh, strict=True):
        np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --data-dir DIR and --teacher MODEL"),
        (["--data-dir", "none", "--teacher", "saved_models/none"], "no folder none"),
        (["--data-dir", ".", "--teacher", "saved_models/none", "--latency", "7"], "latency_ms"),
        (["--resume", "--output", "none"], "no run of a live separator"),
        (["--data-dir", "x", "--teacher", "y", "--output", "tests"], "choose another --output"),
        (["--data-dir", "x", "--teacher", "y", "--minutes", "nan"], "--minutes is nan"),
        (["--data-dir", "x", "--teacher", "y", "--minutes", "1e308"], "--minutes is 1e+308"),
    ],
)
def test_mistakes_get_one_line(words, message, capsys):
    assert fit(words) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]


def test_a_live_separator_teaches_too(folder, live_export, tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_BSS_TF_CACHE", str(tmp_path / "cache"))
    held_out = stems.load(folder, live_export, "validation", 11_025.0)
    path = sorted(stems.split_files(folder, "validation"))[0]
    waveform, rate = soundfile.read(path, dtype="float32")
    separated = LiveSeparator(load(live_export)).separate(waveform, rate)
    assert separated.shape == (2, len(waveform))
    np.testing.assert_allclose(separated.sum(axis=0), waveform, atol=1e-5)
    np.testing.assert_allclose(held_out.excerpt(0)[:, : len(waveform)], separated, atol=1e-4)


@pytest.mark.parametrize("words", [["--force", "--data-dir", "x", "--teacher", "y"], ["--resume"]])
def test_no_training_touches_an_export(words, live_export, capsys):
    before = {path.name: path.read_bytes() for path in live_export.iterdir()}
    assert fit([*words, "--output", str(live_export)]) == 2
    assert "is an export" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in live_export.iterdir()} == before


def test_a_run_that_lost_its_state_is_not_trained_anew(live_run, capsys):
    before = (live_run / "weights.npz").read_bytes()
    assert fit(["--resume", "--output", str(live_run)]) == 2
    assert "has lost its state.npz" in capsys.readouterr().err
    assert (live_run / "weights.npz").read_bytes() == before


def test_a_training_killed_in_its_first_epoch_keeps_the_weights_it_began_with(folder, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "STEPS_PER_EPOCH", 2)
    words = ["--data-dir", str(folder), "--teacher", str(teacher), "--batch-size", "2", "--channels", "8"]
    assert fit([*words, "--latency", "64", "--epochs", "1", "--output", str(tmp_path / "first")]) == 0
    words += ["--latency", "32", "--epochs", "2", "--init", str(tmp_path / "first")]
    assert fit([*words, "--output", str(tmp_path / "whole")]) == 0

    class Killed(BaseException):
        pass

    def dies(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(trainer.LiveTrainer, "_train_once", dies)
        with pytest.raises(Killed):
            fit([*words, "--output", str(tmp_path / "killed")])
    assert fit(["--output", str(tmp_path / "killed"), "--resume"]) == 0
    for name, weights in np.load(tmp_path / "whole/weights.npz").items():
        np.testing.assert_array_equal(np.load(tmp_path / "killed/weights.npz")[name], weights)


def test_fewer_recordings_than_sources_are_refused(folder, teacher, tmp_path, capsys):
    takes = sorted(folder.iterdir())
    for split, files in (("train", takes[:1]), ("validation", takes[1:3]), ("test", takes[3:4])):
        (tmp_path / "takes" / split).mkdir(parents=True)
        for file in files:
            (tmp_path / "takes" / split / file.name).symlink_to(file)
    words = ["--data-dir", str(tmp_path / "takes"), "--teacher", str(teacher), "--output", str(tmp_path / "run")]
    assert fit(words) == 2
    assert "1 recordings to train on are too few for 2 sources" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
