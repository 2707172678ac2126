"""The context network: one definition on two sets of operations, and recordings of any length corrected in pieces."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from training.context.trainer import KERAS, ContextTrainer, ContextTraining, create, scores_of
from vae_bss_tf.audio.context import NUMPY, ContextConfig, ContextNetwork, context_of, log_masks, weights_of
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.errors import CheckpointError, ConfigError, DataError

AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=32, num_bins=32, frame_pooling=4)
CONFIG = ContextConfig(channels=(3, 4, 5))
LENGTH = context_of(AUDIO)[1]


def random_weights(seed=0):
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in CONFIG.shapes().items():
        weights[name] = rng.normal(scale=0.3, size=shape).astype(np.float32)
        weights[f"{name}_bias"] = rng.normal(scale=0.3, size=shape[-1:]).astype(np.float32)
    return weights


@pytest.fixture(scope="module")
def network():
    return ContextNetwork(random_weights(), CONFIG, AUDIO)


def recording(samples, num_sources=2, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(scale=0.1, size=(samples, num_sources, channels)).astype(np.float32)


def joined(network, sources, block=3_000):
    return np.concatenate(list(network.corrected(sources[i : i + block] for i in range(0, len(sources), block))))


@pytest.mark.parametrize(("num_sources", "frames"), [(2, 8), (3, 40)])
def test_both_sets_of_operations_give_the_same_masks(num_sources, frames):
    rng, weights = np.random.default_rng(1), random_weights()
    own = rng.exponential(size=(2, num_sources, frames, 32)).astype(np.float32)
    mixture, others = own.sum(axis=1, keepdims=True), own.sum(axis=1, keepdims=True) - own
    found = log_masks(weights, CONFIG, mixture, own, others, NUMPY)
    tensors = {name: tf.constant(value) for name, value in weights.items()}
    of_keras = log_masks(tensors, CONFIG, *map(tf.constant, (mixture, own, others)), KERAS)
    np.testing.assert_allclose(found, of_keras, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 50, LENGTH - 1, LENGTH, LENGTH + 1, LENGTH + LENGTH // 2, 3 * LENGTH + 77])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_sources_keep_their_sum(network, samples, channels):
    sources = recording(samples, channels=channels)
    corrected = joined(network, sources)
    assert corrected.shape == sources.shape
    np.testing.assert_allclose(corrected.sum(axis=1), sources.sum(axis=1), atol=1e-5)
    assert np.abs(corrected - sources).max() > 0.01 or samples < 100


def test_blocks_of_any_length_give_the_same(network):
    sources = recording(2 * LENGTH + 5)
    np.testing.assert_array_equal(joined(network, sources, 777), joined(network, sources, len(sources)))


def test_the_order_of_the_sources_makes_no_difference(network):
    sources = recording(LENGTH, num_sources=3)
    turned = joined(network, sources[:, [2, 0, 1]])
    np.testing.assert_allclose(turned, joined(network, sources)[:, [2, 0, 1]], atol=1e-5)


def test_the_level_makes_no_difference(network):
    sources = recording(LENGTH)
    np.testing.assert_allclose(joined(network, 8 * sources), 8 * joined(network, sources), atol=1e-3)


def test_no_more_than_four_pieces_are_held(network):
    blocks = (recording(LENGTH // 8, seed=i) for i in range(200))
    behind, given = 0, 0

    def counted():
        nonlocal given
        for block in blocks:
            given += len(block)
            yield block

    taken = 0
    for block in network.corrected(counted()):
        behind = max(behind, given - taken)
        taken += len(block)
    assert taken == given
    assert behind <= 4 * LENGTH


def exchanged_remixes(number, seed):
    """Low and high noise as sources; in what was separated they have changed places for a fifth of the time."""
    rng = np.random.default_rng(seed)
    white = np.fft.rfft(rng.normal(size=(number, 2, LENGTH)))
    low = np.fft.rfftfreq(LENGTH) < 0.2
    white[:, 0, ~low], white[:, 1, low] = 0, 0
    sources = np.fft.irfft(white, LENGTH).astype(np.float32)
    turned = rng.random(number) < 0.5
    sources[turned] = sources[turned, ::-1]
    estimates = sources.copy()
    for estimate, start in zip(estimates, rng.integers(LENGTH * 4 // 5, size=number), strict=True):
        part = slice(start, start + LENGTH // 5)
        estimate[:, part] = estimate[::-1, part].copy()
    return np.stack([sources, estimates], axis=1)


@pytest.fixture(scope="module")
def remixes():
    return exchanged_remixes(24, 0), exchanged_remixes(4, 1)


def trainer(remixes, epochs):
    training = ContextTraining(epochs=epochs, batch_size=2, learning_rate=5e-3, seed=1)
    return ContextTrainer(CONFIG, training, AUDIO, *remixes)


@pytest.fixture(scope="module")
def trained(remixes, tmp_path_factory):
    """The run folder of a training of two epochs, and what it returned."""
    run = tmp_path_factory.mktemp("run")
    two = trainer(remixes, 2)
    create(run / "context", CONFIG, two.training, AUDIO, None)
    return run, two.train(run / "context", report=lambda line: None)


def test_what_short_windows_exchanged_is_put_back(trained, remixes):
    run, metrics = trained
    assert metrics["val_sdr"] > metrics["val_sdr_before"] + 3
    network = ContextNetwork.load(run, AUDIO)

    def ratio(found):
        error = found - remixes[1][:, 0]
        return 10 * np.log10(np.square(remixes[1][:, 0]).sum() / np.square(error).sum())

    corrected = np.stack([joined(network, one.T[:, :, np.newaxis])[:, :, 0].T for one in remixes[1][:, 1]])
    assert ratio(corrected) > ratio(remixes[1][:, 1]) + 3


def test_an_untrained_network_changes_no_mask(remixes):
    fresh = trainer(remixes, 1)
    weights = {name: np.asarray(weight) for name, weight in fresh.weights.items()}
    sources = recording(LENGTH)
    own = np.abs(np.fft.rfft(np.random.default_rng(0).normal(size=(1, 2, 16, 64))))[..., :32].astype(np.float32)
    logits = log_masks(weights, CONFIG, own.sum(axis=1, keepdims=True), own, own[:, ::-1], NUMPY)
    shares = own**2 / np.square(own).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), shares, atol=1e-3)
    assert len(joined(ContextNetwork(weights, CONFIG, AUDIO), sources)) == LENGTH


def test_a_killed_training_resumes_to_the_same_weights(trained, remixes, tmp_path):
    class Killed(Exception):
        pass

    def kill(line):
        raise Killed

    create(tmp_path / "context", CONFIG, trainer(remixes, 2).training, AUDIO, None)
    with pytest.raises(Killed):
        trainer(remixes, 2).train(tmp_path / "context", report=kill)
    assert ContextNetwork.load(tmp_path, AUDIO) is None  # not before the training has ended
    metrics = trainer(remixes, 2).train(tmp_path / "context", report=lambda line: None)
    assert {**metrics, "seconds": 0} == {**trained[1], "seconds": 0}
    ours, theirs = (ContextNetwork.load(run, AUDIO).weights for run in (tmp_path, trained[0]))
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values)


def test_a_state_of_other_recordings_or_a_damaged_one_is_refused(trained, remixes, tmp_path):
    state = (trained[0] / "context" / "state.npz").read_bytes()
    (tmp_path / "state.npz").write_bytes(state)
    with pytest.raises(CheckpointError, match="other recordings"):
        trainer((remixes[0][::-1], remixes[1]), 2).train(tmp_path)
    (tmp_path / "state.npz").write_bytes(state[:1_000])
    with pytest.raises(CheckpointError, match="damaged"):
        trainer(remixes, 2).train(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "nan", "shape", "config", "no config"])
def test_a_damaged_network_is_refused(trained, tmp_path, damage):
    source, folder = trained[0] / "context", tmp_path / "context"
    folder.mkdir()
    for name in ("weights.npz", "config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    with np.load(source / "weights.npz") as arrays:
        weights = dict(arrays)
    if damage == "cut":
        (folder / "weights.npz").write_bytes((source / "weights.npz").read_bytes()[:500])
    elif damage == "nan":
        np.savez(folder / "weights.npz", **{**weights, "head_bias": np.full(4, np.nan, np.float32)})
    elif damage == "shape":
        np.savez(folder / "weights.npz", **{**weights, "head_bias": np.zeros(3, np.float32)})
    elif damage == "config":
        (folder / "config.json").write_text(json.dumps({"network": {"channels": [3, 4, 10**9]}}))
    else:
        (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"context network .* is damaged"):
        ContextNetwork.load(tmp_path, AUDIO)


@pytest.mark.parametrize("changed", [{"sample_rate": 8_000}, {"n_fft": 128}, {"num_bins": 16}, {"num_bins": 30}])
def test_a_network_of_a_model_with_other_settings_is_refused(trained, changed):
    with pytest.raises(CheckpointError, match="other audio settings"):
        ContextNetwork.load(trained[0], AUDIO.replace(**changed))


def test_what_lies_above_the_bins_has_the_mask_of_the_last(network):
    few = AUDIO.replace(num_bins=16)
    sources = recording(LENGTH)
    corrected = joined(ContextNetwork(random_weights(), CONFIG, few), sources)
    np.testing.assert_allclose(corrected.sum(axis=1), sources.sum(axis=1), atol=1e-5)


def test_only_the_model_s_own_network_is_found(trained, tmp_path):
    def weights(folder):
        shutil.copytree(trained[0] / "context", folder / "context", ignore=shutil.ignore_patterns("state.npz"))
        return folder / "context" / "weights.npz"

    export, run = tmp_path / "export", tmp_path / "run"
    of_export, of_run = weights(export), weights(run)
    (export / "manifest.json").write_text("{}")
    (export / "saved_model" / "1").mkdir(parents=True)
    (export / "float32.tflite").touch()
    (run / "config.json").write_text("{}")
    (run / "child").mkdir()
    (run / "child" / "config.json").write_text("{}")
    (tmp_path / "link.tflite").symlink_to(export / "float32.tflite")
    for model in (export, export / "float32.tflite", export / "saved_model" / "1", tmp_path / "link.tflite"):
        assert weights_of(model) == of_export
    assert weights_of(run) == of_run
    assert weights_of(run / "child") is None
    (tmp_path / "named").mkdir()
    weights(tmp_path / "named").rename(tmp_path / "named" / "context" / "other.npz")
    (tmp_path / "named" / "sibling").mkdir()
    assert weights_of(tmp_path / "named" / "sibling") is None


@pytest.mark.parametrize("name", ["weights.npz", "metrics.json", "config.json"])
def test_scores_are_those_of_a_whole_training(trained, tmp_path, name):
    folder = tmp_path / "context"
    shutil.copytree(trained[0] / "context", folder)
    assert scores_of(folder, AUDIO) == {key: trained[1][key] for key in ("val_sdr", "val_sdr_before")}
    (folder / name).unlink()
    with pytest.raises(CheckpointError):
        scores_of(folder, AUDIO)


def test_silence_is_learned_from_without_harm(remixes, tmp_path):
    silent = np.zeros_like(remixes[0])
    silent[0] = remixes[0][0]
    quiet = ContextTrainer(CONFIG, ContextTraining(epochs=1, batch_size=1), AUDIO, silent, remixes[1])
    assert np.isfinite(quiet.train(tmp_path, report=lambda line: None)["val_sdr"])


def test_a_weight_that_float16_does_not_hold_is_refused(remixes, tmp_path):
    fresh = trainer(remixes, 1)
    fresh.weights["mean"].assign(np.full(CONFIG.shapes()["mean"], 1e6, np.float32))
    with pytest.raises((CheckpointError, DataError), match=r"float16|not finite"):
        fresh.train(tmp_path, report=lambda line: None)
    assert not (tmp_path / "weights.npz").exists()


def test_there_is_none_where_none_was_trained(tmp_path):
    assert ContextNetwork.load(tmp_path, AUDIO) is None
    assert ContextNetwork.load("http://127.0.0.1:1/v1/models/duets", AUDIO) is None


@pytest.mark.parametrize("channels", [(), (3,), (3, 0), (3, 10**6), (1,) * 7, ("3", 4)])
def test_channels_that_cannot_be(channels):
    with pytest.raises(ConfigError, match="channels"):
        ContextConfig(channels=channels)


@pytest.mark.parametrize(
    "values", [{"epochs": 0}, {"remixes": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"seed": -1}]
)
def test_settings_of_a_training_that_cannot_be(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        ContextTraining(**values)


def test_one_source_is_left_as_it_is(trained):
    sources = np.random.default_rng(0).normal(size=(3_000, 1, 2)).astype(np.float32)
    network = ContextNetwork.load(trained[0], AUDIO)
    np.testing.assert_allclose(np.concatenate(list(network.corrected([sources]))), sources, rtol=1e-5)
