import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import fit
from training.run import Run
from vae_bss_tf.config import DataConfig, ModelConfig, Preset
from vae_bss_tf.errors import CheckpointError, ConfigError, DataError
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.presets import get_preset

TINY = [
    "--quiet", "--batch-size", "32", "--set", "train.mixtures_per_epoch=2048", "--set", "train.steps_per_execution=8",
    "--set", "train.validation_mixtures=64", "--set", "model.hidden_units=[32,24]", "--set", "model.latent_dim=4",
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny_run(tiny_preset, tmp_path_factory):
    """A finished run."""
    return fit.train(tiny_preset, output=tmp_path_factory.mktemp("runs") / "tiny")


def weights(path):
    return Run.load(path).model().get_weights()


def rows(path):
    with (path / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_folder_describes_itself(tiny_run, tiny_preset):
    config = json.loads((tiny_run.path / "config.json").read_text())
    assert Preset.from_dict({part: config[part] for part in ("model", "data", "train")}) == tiny_preset
    assert config["system"] == "vae"
    assert config["train"]["seed"] == 0
    assert config["versions"]["tensorflow"]
    assert [row["epoch"] for row in rows(tiny_run.path)] == ["0", "1", "2"]
    assert float(rows(tiny_run.path)[2]["val_elbo"]) > float(rows(tiny_run.path)[0]["val_elbo"])
    for name in ("separation.png", "history.png"):
        assert (tiny_run.path / name).read_bytes().startswith(b"\x89PNG")
    assert list((tiny_run.path / "tensorboard").rglob("events*"))
    test = tiny_run.metrics["test"]
    assert test["vaem"]["psnr_halved"] - test["vaem"]["psnr"] == pytest.approx(20 * np.log10(2), abs=1e-6)
    assert not list(tiny_run.path.glob(".partial*"))


def test_a_run_can_be_opened_again(tiny_run):
    run = Run.load(tiny_run.path)
    assert run == tiny_run
    assert run.model().separate(np.zeros((8, 8))).shape == (2, 8, 8)


def test_one_seed_gives_one_result_and_another_another(tiny_preset, tiny_run, tmp_path):
    same = fit.train(tiny_preset, output=tmp_path / "same")
    assert (same.path / "history.csv").read_bytes() == (tiny_run.path / "history.csv").read_bytes()
    for a, b in zip(weights(same.path), weights(tiny_run.path), strict=True):
        np.testing.assert_array_equal(a, b)
    other = Preset(tiny_preset.model, tiny_preset.data, tiny_preset.recipe.replace(seed=1))
    assert (fit.train(other, output=tmp_path / "other").path / "history.csv").read_bytes() != (
        tiny_run.path / "history.csv"
    ).read_bytes()


def test_killed_and_resumed_equals_uninterrupted(tmp_path, request):
    # Remixing begins with the third epoch, its masked part with the fourth: the kill comes after both.
    remixing = ["remix_weight=1", "remix_start=0.15", "remix_mask_start=0.2", "remix_mask_learning_rate=5e-4"]
    changes = ["model.corrector_units=[8]", "train.remix_silence=0.05", *(f"train.{setting}" for setting in remixing)]
    settings = [*TINY, "--no-jit-compile", "--epochs", "12", "--early-stopping", "11"]
    settings += ["--set", "train.mixtures_per_epoch=1024"]
    settings += [word for change in changes for word in ("--set", change)]
    command = [sys.executable, "-m", "training.fit", *settings, "--output"]
    killed = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
    whole = subprocess.Popen([*command, str(tmp_path / "whole")], stdout=subprocess.DEVNULL)
    for process in (killed, whole):
        request.addfinalizer(process.kill)
    history = tmp_path / "killed" / "history.csv"
    deadline = time.monotonic() + 240
    while not (history.exists() and history.read_text().count("\n") > 4):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "metrics.json").exists()
    assert whole.wait(timeout=240) == 0
    resumed = subprocess.run(
        [*command, str(tmp_path / "killed"), "--resume"], capture_output=True, text=True, timeout=240, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    assert Run.load(tmp_path / "killed").metrics["epochs_before_resume"] >= 3
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    for a, b in zip(weights(tmp_path / "killed"), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_training_begins_with_the_weights_of_another(tiny_preset, tiny_run, tmp_path):
    """With a learning rate of almost zero it ends with them; a part that it alone has is its own."""
    still = tiny_preset.recipe.replace(
        epochs=1, learning_rate=1e-12, remix_weight=1.0, remix_start=0, remix_mask_start=0
    )
    model = tiny_preset.model.replace(corrector_units=(6,))
    run = fit.train(Preset(model, tiny_preset.data, still), output=tmp_path / "next", init=tiny_run.path)
    assert (run.init, Run.load(run.path)) == (tiny_run.path.name, run)
    for part in ("encoder", "decoder"):
        before, after = (getattr(r.model(), part) for r in (tiny_run, run))
        for a, b in zip(before.trainable_weights, after.trainable_weights, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    for bad, error in ((tmp_path / "none", "no run folder"), (tiny_run.path, "another encoder")):
        wider = Preset(model.replace(hidden_units=(32, 25)), tiny_preset.data, still)
        with pytest.raises(CheckpointError, match=error):
            fit.train(wider, output=tmp_path / "bad", init=bad)
        assert not (tmp_path / "bad").exists()
    fewer = Preset(model.replace(num_sources=1), tiny_preset.data, still)
    with pytest.raises(CheckpointError, match="another encoder"):
        fit.train(fewer, output=tmp_path / "fewer", init=tiny_run.path)
    with pytest.raises(ConfigError, match="--init is for vae and ae"):
        fit.train(tiny_preset, output=tmp_path / "glo", system="glo", init=tiny_run.path)


def test_a_mask_network_begins_with_a_run_and_goes_on_with_one(tiny_preset, going_on, tiny_run, tmp_path):
    preset = Preset(tiny_preset.model.replace(mask_channels=(3, 4)), tiny_preset.data, going_on)
    run = fit.train(preset, output=tmp_path / "masked", init=tiny_run.path)
    for part in ("encoder", "decoder"):
        ours, theirs = (getattr(r.model(), part).get_weights() for r in (run, tiny_run))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    assert np.any(run.model().mask_network.head.kernel)
    still = Preset(preset.model, preset.data, going_on.replace(learning_rate=1e-12))
    again = fit.train(still, output=tmp_path / "again", init=run.path)
    np.testing.assert_allclose(again.model().mask_network.head.kernel, run.model().mask_network.head.kernel, atol=1e-6)


def test_one_command_trains_what_a_preset_goes_on_from(tiny_stages, capsys):
    """Here the first stage is finished and the second was killed before its first backup."""
    last = ["--preset", "tiny-masked", "--seed", "3", "--quiet"]
    first, second, third = (tiny_stages / f"tiny{stage}-k2-seed3" for stage in ("", "-corrected", "-masked"))
    assert fit.main(["--preset", "tiny", "--seed", "3", "--epochs", "1", "--quiet"]) == 0
    before = (first / "model.keras").read_bytes()
    preset = get_preset("tiny-corrected")
    killed = Preset(preset.model, preset.data, preset.recipe.replace(seed=3))
    Run.create(second, killed, "vae", init=first.name)
    assert fit.main([*last, "--resume"]) == 0
    output = capsys.readouterr().out
    assert "tiny-corrected begins with runs/tiny-k2-seed3, which is finished after 1 epochs" in output
    assert "first a run of tiny-corrected: runs/tiny-corrected-k2-seed3, gone on with" in output
    assert (first / "model.keras").read_bytes() == before
    assert Run.load(third).stages() == [Run.load(path) for path in (first, second, third)]
    assert [Run.load(path).preset.recipe.seed for path in (second, third)] == [3, 3]
    for part in ("encoder", "corrector"):
        for a, b in zip(*(getattr(Run.load(p).model(), part).get_weights() for p in (second, third)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert fit.main(last) == 2
    assert "holds an earlier run" in capsys.readouterr().err
    for path in (first, second):  # a run that has begun needs them no more
        shutil.rmtree(path)
    assert fit.main([*last, "--resume"]) == 0
    assert not first.exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--set", "model.latent_dim=3"], "--init RUN"),
        (["--num-mixed", "1,2"], "--init RUN"),
        (["--early-stopping", "2"], "--early-stopping"),
        (["--set", "train.remix_weight=0"], "set train.remix_weight above 0"),
        (["--resume"], "is no run folder"),
        (["--output", "runs/tiny-corrected-k2-seed0"], "use another"),
    ],
)
def test_what_cannot_go_on_is_refused_before_anything_is_trained(tiny_stages, capsys, options, error):
    assert fit.main(["--preset", "tiny-masked", "--quiet", *options]) == 2
    assert error in capsys.readouterr().err
    assert not tiny_stages.exists()


def test_what_would_teach_a_mask_network_nothing_is_refused(tiny_preset, going_on, tiny_run, tmp_path):
    train = going_on
    model = tiny_preset.model.replace(mask_channels=(3,))
    for changes, init, error in (
        ({}, None, "--init RUN"),
        ({"epochs": 2, "remix_mask_start": 0.5}, tiny_run.path, "remix_mask_start=0"),
        ({"early_stopping": 3}, tiny_run.path, "--early-stopping"),
        ({"remix_weight": 0.0}, tiny_run.path, "remix_weight"),
    ):
        with pytest.raises(ConfigError, match=error):
            fit.train(Preset(model, tiny_preset.data, train.replace(**changes)), output=tmp_path / "bad", init=init)
    first = fit.train(Preset(model, tiny_preset.data, train), output=tmp_path / "first", init=tiny_run.path)
    other = Preset(model.replace(mask_channels=(4,)), tiny_preset.data, train)
    for changes in ({"corrector_units": (6,)}, {"num_sources": 3}):
        with pytest.raises(CheckpointError, match="mask network leaves"):
            fit.train(
                Preset(model.replace(**changes), tiny_preset.data, train), output=tmp_path / "bad", init=tiny_run.path
            )
    shutil.rmtree(first.path / "backup")
    preset = Preset(model, tiny_preset.data, train)
    with pytest.raises(CheckpointError, match="nothing to go on with"):
        fit.train(preset, output=first.path, resume="latest", init=tiny_run.path)
    (first.path / "metrics.json").unlink()
    shutil.copytree(tiny_run.path, tmp_path / "other")
    for init in (None, tmp_path / "other"):
        with pytest.raises(CheckpointError, match="no backup yet; begin it again with --init, the run tiny"):
            fit.train(preset, output=first.path, resume="latest", init=init)
    again = fit.train(preset, output=first.path, resume="latest", init=tiny_run.path)
    for a, b in zip(again.model().decoder.get_weights(), tiny_run.model().decoder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(CheckpointError, match="another mask_network"):
        fit.train(other, output=tmp_path / "bad", init=first.path)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_a_training_adds_sources_to_a_run(tiny_preset, tmp_path, network):
    """What the run's encoder and decoder say of its sources stays; the added ones do not begin as copies of them."""
    model = tiny_preset.model.replace(network=network, hidden_units=(16, 12, 10))
    few = fit.train(Preset(model, tiny_preset.data, tiny_preset.recipe), output=tmp_path / "few")
    still = tiny_preset.recipe.replace(epochs=1, learning_rate=1e-12)
    more = Preset(model.replace(num_sources=4), tiny_preset.data, still)
    grown = fit.train(more, output=tmp_path / "more", init=few.path).model()
    few_model = few.model()
    # Batch normalisation's moments move even where weights do not: both use the same ones.
    for part in ("encoder", "decoder"):
        for ours, theirs in zip(getattr(grown, part).weights, getattr(few_model, part).weights, strict=True):
            if not theirs.trainable:
                ours.assign(theirs)
    mixtures = np.random.default_rng(0).random((5, *model.input_shape), dtype=np.float32)
    for ours, theirs in zip(grown.encode(mixtures), few_model.encode(mixtures), strict=True):
        ours = np.array(ours)
        np.testing.assert_allclose(ours[:, :2], np.array(theirs), atol=1e-5)
        for added in (2, 3):
            assert np.abs(ours[:, [added]] - ours[:, :added]).max(axis=(0, 2)).min() > 1e-2
    latents = few_model.encode(mixtures)[0]
    np.testing.assert_allclose(np.array(grown.decode(latents)), np.array(few_model.decode(latents)), atol=1e-5)


def test_resume_wants_the_same_settings(tiny_preset, tiny_run):
    other = Preset(tiny_preset.model, tiny_preset.data, tiny_preset.recipe.replace(epochs=9))
    with pytest.raises(CheckpointError, match="other settings"):
        fit.train(other, output=tiny_run.path, resume="latest")


def test_other_counts_and_an_autoencoder_train_too(tiny_preset, tmp_path):
    preset = Preset(
        tiny_preset.model.replace(num_sources=3), DataConfig("digits", (1, 2, 3)), tiny_preset.recipe.replace(epochs=1)
    )
    assert fit.train(preset, output=tmp_path / "counts").metrics["test"]["num_mixed"] == [3]
    assert float(rows(fit.train(preset, output=tmp_path / "ae", system="ae").path)[0]["kl"]) == 0.0


def test_a_training_that_diverges_late_is_no_success(tiny_preset, tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Diverging(MultiSourceVAE):
        def compute_loss(self, *arguments, **words):
            late = self.sampler.step.value > tiny_preset.recipe.steps_per_epoch
            return tf.where(late, float("nan"), super().compute_loss(*arguments, **words))

    with pytest.raises(DataError, match="not finite any more in epoch 2"):
        fit.train(tiny_preset, output=tmp_path / "run", model_class=Diverging)
    run = Run.load(tmp_path / "run")
    assert run.metrics == {}
    assert [path.name for path in (run.path / "backup").iterdir()] == ["epoch-00001"]
    with pytest.raises(CheckpointError, match="is not finished"):
        fit.train(tiny_preset, output=tmp_path / "next", init=run.path)


def test_mirrored_training_runs_end_to_end(run_module, tmp_path):
    process = run_module("training.fit", *TINY, "--epochs", "1", "--strategy", "mirrored", "--output", tmp_path / "run")
    assert process.returncode == 0, process.stderr
    assert "2 x CPU, mirrored" in process.stdout
    assert Run.load(tmp_path / "run").model().config == ModelConfig((8, 8), 2, 4, (32, 24))


BAD = {
    "preset": (["--preset", "mnits"], "Did you mean 'mnist'"),
    "dataset": (["--dataset", "digit"], "Did you mean 'digits'"),
    "folder": (["--dataset", "mnist", "--data-dir", "nowhere"], "no folder nowhere"),
    "few sources": (["--num-sources", "0"], "num_sources"),
    "count": (["--num-mixed", "5"], "num_mixed"),
    "shape": (["--dataset", "digits", "--preset", "mnist"], "(8, 8)"),
    "setting": (["--set", "model.latent=3"], "latent_dim"),
    "form": (["--set", "latent_dim"], "PART.FIELD=VALUE"),
    "schedule": (["--kl-schedule", "linaer"], "linear"),
    "strategy": (["--strategy", "mirored"], "mirrored"),
    "nothing to resume": (["--resume"], "no run folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case, capsys, tmp_path):
    arguments, message = BAD[case]
    assert fit.main([*arguments, "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_too_few_sources_is_a_warning(tiny_preset, tmp_path, capsys):
    preset = Preset(tiny_preset.model.replace(num_sources=1), tiny_preset.data, tiny_preset.recipe.replace(epochs=1))
    run = fit.train(preset, output=tmp_path / "run")
    assert "warning: the model has 1 sources" in capsys.readouterr().err
    assert "vaem" not in run.metrics["test"]


def test_an_earlier_run_is_kept_unless_forced(tiny_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(tiny_run.path, run)
    before = (run / "history.csv").read_bytes()
    assert fit.main([*TINY, "--epochs", "1", "--output", str(run)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (run / "history.csv").read_bytes() == before
    assert fit.main([*TINY, "--epochs", "1", "--output", str(run), "--force"]) == 0
    assert (run / "history.csv").read_bytes() != before


def test_a_folder_that_is_no_run_is_never_deleted(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert fit.main([*TINY, "--output", str(tmp_path), "--force"]) == 2
    assert "no run of ours" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_full_disk_is_said_before_training(tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert fit.main([*TINY, "--output", str(tmp_path / "run")]) == 2
    assert "no space left" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_full_disk_deletes_no_run_that_is_resumed(tiny_preset, tiny_run, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tiny_run.path, run, ignore=shutil.ignore_patterns("backup", "metrics.json"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DataError, match="no space left"):
        fit.train(tiny_preset, output=run, resume="latest")
    assert (run / "model.keras").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_fills_up_ends_in_one_line(tmp_path):
    command = (
        f"mount -t tmpfs -o size=420k none {tmp_path} && "
        f"exec {sys.executable} -m training.fit {' '.join(TINY)} --epochs 3 --output {tmp_path}/run"
    )
    process = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, timeout=240, check=False
    )
    if "mount" in process.stderr:
        pytest.skip("no mounts in this sandbox")
    assert process.returncode == 2, process.stderr
    assert "no space left" in process.stderr
    assert "Traceback" not in process.stderr


def test_no_network_is_said_within_20_seconds(run_module, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    started = time.monotonic()
    process = run_module("training.fit", "--dataset", "mnist", "--output", tmp_path / "run", timeout=60)
    assert time.monotonic() - started < 30  # the import of TensorFlow counts too
    assert process.returncode == 2
    assert "--data-dir" in process.stderr
    assert "--dataset digits" in process.stderr
