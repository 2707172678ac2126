"""The command that trains, and what it leaves in its run folder."""

import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from training import fit, speed, trainer
from training.run import Run
from training.trainer import Trainer
from training.warm_start import begin_from
from vae_bss_tf.config import DataConfig, ModelConfig, Preset
from vae_bss_tf.datasets import pipeline
from vae_bss_tf.errors import CheckpointError, ConfigError, DataError
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.objectives import Elbo, MaskedRemix, RemixedElbo

TINY = [
    "--quiet", "--batch-size", "32", "--no-jit-compile", "--set", "recipe.mixtures_per_epoch=512",
    "--set", "recipe.separate.steps_per_execution=8", "--set", "recipe.validation_mixtures=64",
    "--set", "model.hidden_units=[32,24]", "--set", "model.latent_dim=4",
]  # fmt: skip


def changed(preset, epochs=None, **changes):
    """A preset with other settings of its phases, and another number of epochs."""
    recipe = preset.recipe.replace(phases=tuple(phase.replace(**changes) for phase in preset.recipe.phases))
    return preset.replace(recipe=recipe if epochs is None else recipe.replace(epochs=epochs))


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
    assert Preset.from_dict({part: config[part] for part in ("model", "data", "recipe")}) == tiny_preset
    assert config["system"] == "vae"
    assert config["recipe"]["seed"] == 0
    assert config["versions"]["tensorflow"]
    assert [row["epoch"] for row in rows(tiny_run.path)] == ["0", "1", "2"]
    assert {row["phase"] for row in rows(tiny_run.path)} == {"separate"}
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
    other = tiny_preset.replace(recipe=tiny_preset.recipe.replace(seed=1, epochs=1))
    assert rows(fit.train(other, output=tmp_path / "other").path)[0] != rows(tiny_run.path)[0]


def test_a_training_begins_with_the_weights_of_another(tiny_preset, tiny_recipe, tiny_run, tmp_path):
    """With a learning rate of almost zero it ends with them; a part that it alone has is its own."""
    masks = tiny_recipe.recipe.phases[2].replace(rounds=1)
    only_masks = tiny_recipe.recipe.replace(epochs=1, phases=(masks.replace(learning_rate=1e-12),))
    run = fit.train(tiny_recipe.replace(recipe=only_masks), output=tmp_path / "next", init=tiny_run.path)
    assert (run.init, Run.load(run.path)) == (str(tiny_run.path), run)
    assert run.model().prior_weight == tiny_run.model().prior_weight < 1
    for part in ("encoder", "decoder"):
        before, after = (getattr(r.model(), part) for r in (tiny_run, run))
        for a, b in zip(before.get_weights(), after.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    still = changed(tiny_preset, epochs=1, learning_rate=1e-12)
    for changes in ({"hidden_units": (32, 25)}, {"num_sources": 1}):
        other = still.replace(model=still.model.replace(**changes))
        with pytest.raises(CheckpointError, match="another encoder"):
            fit.train(other, output=tmp_path / "bad", init=tiny_run.path, force=True)
    wider = tiny_recipe.model.replace(mask_channels=(4, 4))
    with pytest.raises(CheckpointError, match="another mask_network"):
        fit.train(tiny_recipe.replace(model=wider), output=tmp_path / "bad", init=run.path, force=True)
    with pytest.raises(CheckpointError, match="no run folder"):
        fit.train(still, output=tmp_path / "none", init=tmp_path / "none")
    with pytest.raises(ConfigError, match="--init is for vae and ae"):
        fit.train(tiny_preset, output=tmp_path / "none", system="glo", init=tiny_run.path)
    assert not (tmp_path / "none").exists()


def test_a_remixing_phase_has_the_mask_network_that_it_begins_with_sharpen_what_it_remixes(
    tiny_recipe, tiny_run, tmp_path, monkeypatch
):
    given = []

    def recorded(*arguments):
        given.append(arguments[-1])
        return RemixedElbo(*arguments)

    monkeypatch.setattr(trainer, "RemixedElbo", recorded)
    _, remix, masks = tiny_recipe.recipe.phases

    def trained(name, init, *phases):
        recipe = tiny_recipe.recipe.replace(epochs=len(phases), phases=phases)
        return fit.train(tiny_recipe.replace(recipe=recipe), output=tmp_path / name, init=init)

    run = trained("masks", tiny_run.path, remix, masks.replace(rounds=1))
    before = run.model().mask_network.get_weights()
    again = trained("again", run.path, remix)
    assert given == [False, True]
    for ours, theirs in zip(again.model().mask_network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_of_release_01_can_be_begun_from(golden_runs, tmp_path):
    """One without a mask network, by a recipe that trains one."""
    old = Run.load(golden_runs / "vae")
    assert old.metrics
    phase = old.preset.recipe.phases[0].replace(
        name="masks", objective="masked_remix", trains=("mask_network",), batch_size=16
    )
    preset = old.preset.replace(
        model=old.preset.model.replace(mask_channels=(3, 4)),
        recipe=old.preset.recipe.replace(epochs=1, mixtures_per_epoch=128, phases=(phase,)),
    )
    run = fit.train(preset, output=tmp_path / "run", init=old.path)
    assert run.init == str(old.path)
    for a, b in zip(run.model().decoder.get_weights(), old.model().decoder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(run.model().mask_network.head.kernel)
    with pytest.raises(CheckpointError, match="corrector"):
        fit.train(preset, output=tmp_path / "bad", init=golden_runs / "corrected")
    assert not (tmp_path / "bad").exists()


def test_an_untrained_model_has_nothing_to_remix(tiny_recipe, tmp_path):
    for phase in tiny_recipe.recipe.phases[1:]:
        preset = tiny_recipe.replace(recipe=tiny_recipe.recipe.replace(phases=(phase,)))
        with pytest.raises(ConfigError, match=f"the phase {phase.name} remixes.*--init RUN"):
            fit.train(preset, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("network", ["image", "spectrogram"])
def test_sources_can_be_added_to_a_model(tiny_preset, network):
    """What its encoder and decoder say of its sources stays; the added ones do not begin as copies of them."""
    config = tiny_preset.model.replace(network=network, hidden_units=(16, 12, 10))
    few, grown = MultiSourceVAE(config), MultiSourceVAE(config.replace(num_sources=4))
    rng = np.random.default_rng(0)
    few.set_weights([weight + rng.uniform(0, 0.1, weight.shape) for weight in few.get_weights()])
    begin_from(grown, few)
    mixtures = rng.random((5, *config.input_shape), dtype=np.float32)
    for ours, theirs in zip(grown.encode(mixtures), few.encode(mixtures), strict=True):
        ours = np.array(ours)
        np.testing.assert_allclose(ours[:, :2], np.array(theirs), atol=1e-5)
        for added in (2, 3):
            assert np.abs(ours[:, [added]] - ours[:, :added]).max(axis=(0, 2)).min() > 1e-2
    latents = few.encode(mixtures)[0]
    np.testing.assert_allclose(np.array(grown.decode(latents)), np.array(few.decode(latents)), atol=1e-5)


def test_a_model_of_spectrograms_is_widened_to_a_higher_rate(tiny_preset):
    """It separates what lies below the other's highest frequency as that one does, and hears nothing above."""
    config = tiny_preset.model.replace(network="spectrogram", hidden_units=(16, 12, 10), input_shape=(8, 16))
    narrow, wide = MultiSourceVAE(config), MultiSourceVAE(config.replace(input_shape=(8, 64)))
    rng = np.random.default_rng(0)
    narrow.set_weights([weight + rng.uniform(0, 0.1, weight.shape) for weight in narrow.get_weights()])
    begin_from(wide, narrow)
    mixtures = rng.random((5, 8, 64), dtype=np.float32)
    for ours, theirs in zip(wide.encode(mixtures), narrow.encode(mixtures[:, :, :16]), strict=True):
        np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=1e-5)
    latents = rng.normal(size=(5, 2, config.latent_dim)).astype(np.float32)
    drawn, before = np.array(wide.decode(latents)), np.array(narrow.decode(latents))
    np.testing.assert_allclose(drawn[..., :16], before, atol=1e-5)
    np.testing.assert_allclose(drawn[..., 16:], np.repeat(before[..., -1:], 48, axis=-1), atol=1e-5)
    for other in (config.replace(input_shape=(4, 64)), config.replace(input_shape=(8, 8))):
        with pytest.raises(CheckpointError, match="another encoder"):
            begin_from(MultiSourceVAE(other), narrow)


def test_resume_wants_the_same_settings(tiny_preset, tiny_run):
    for other in (changed(tiny_preset, epochs=9), changed(tiny_preset, learning_rate=1e-4)):
        with pytest.raises(CheckpointError, match="other settings"):
            fit.train(other, output=tiny_run.path, resume="latest")
    with pytest.raises(CheckpointError, match="other settings"):
        fit.train(tiny_preset, output=tiny_run.path, resume="latest", system="ae")


def test_an_autoencoder_trains_and_so_do_other_counts(tiny_preset, tmp_path):
    preset = Preset(
        tiny_preset.model.replace(num_sources=3), DataConfig("digits", (1, 2, 3)), tiny_preset.recipe.replace(epochs=1)
    )
    run = fit.train(preset, output=tmp_path / "ae", system="ae")
    assert run.metrics["test"]["num_mixed"] == [3]
    assert float(rows(run.path)[0]["kl"]) == 0.0


def test_a_phase_for_spare_sources_is_left_out_where_there_are_none(tiny_preset):
    separate = tiny_preset.recipe.phases[0].replace(sources="mixed")
    recipe = tiny_preset.recipe.replace(phases=(separate, separate.replace(name="spare", sources="spare")))
    for num_sources, names in ((2, ["separate"]), (3, ["separate", "spare"])):
        preset = tiny_preset.replace(recipe=recipe, model=tiny_preset.model.replace(num_sources=num_sources))
        assert [phase.name for phase in fit.completed(preset, "vae").recipe.phases] == names


def test_minutes_are_planned_and_a_resumed_run_repeats_the_plan(tiny_preset, tmp_path, monkeypatch, capsys):
    """At speeds that are made up: a minute or so of a machine that trains 30 mixtures a second."""
    separate = tiny_preset.recipe.phases[0]
    phases = (separate, separate.replace(name="remix", objective="remixed_elbo"))
    tiny = tiny_preset.replace(recipe=tiny_preset.recipe.replace(phases=phases, mixtures_per_epoch=300))
    asked = []

    def measured(trainer, source):
        asked.append([planned.phase.name for planned in trainer.plan])
        return {name: speed.Speed(30.0, 0.5, 0.1) for name in ("separate", "remix")}

    monkeypatch.setattr(speed, "measured", measured)
    run = fit.train(tiny, output=tmp_path / "run", minutes=1.0)
    planned = Run.load(run.path).preset.recipe
    assert planned.phases == phases
    assert 500 < planned.epochs * planned.mixtures_per_epoch < 30 * 60 * 0.94
    assert f"planned: {planned.epochs} epochs" in capsys.readouterr().out
    history = (run.path / "history.csv").read_bytes()
    for left in (run.path / "backup").glob("epoch-*"):  # what remains of the last phase is trained again
        shutil.rmtree(left)
    again = fit.train(tiny, output=run.path, minutes=7.0, resume="latest")
    assert (again.preset.recipe, again.metrics["epochs_before_resume"] < planned.epochs) == (planned, True)
    assert (run.path / "history.csv").read_bytes() == history
    assert len(asked) == 1  # a resumed run measures nothing
    with pytest.raises(CheckpointError, match="other settings"):
        fit.train(tiny, output=run.path, resume="latest")
    for minutes in (0.0, -1.0, float("nan"), float("inf"), 1e20, 0.01):
        with pytest.raises(ConfigError, match="--minutes"):
            fit.train(tiny, output=tmp_path / "bad", minutes=minutes)
    assert not (tmp_path / "bad").exists()


def test_measuring_the_speed_leaves_nothing_behind(tiny_preset, tmp_path):
    banks = pipeline.load_banks(tiny_preset, None)
    trainer = Trainer(Run(tmp_path, tiny_preset, "vae"), banks, tf.distribute.get_strategy(), quiet=True)
    (found,) = speed.measured(trainer, seconds=0.2).values()
    assert 10 < found.mixtures_per_second < 1e6
    assert found.start_up > 0
    assert not list(tmp_path.iterdir())


def test_of_several_rounds_the_last_is_measured_whose_teacher_has_a_mask_network(tiny_recipe, tmp_path, monkeypatch):
    taught = []

    def recorded(teacher, *arguments):
        taught.append(teacher.mask_network is not None)
        return MaskedRemix(teacher, *arguments)

    monkeypatch.setattr(trainer, "MaskedRemix", recorded)
    banks = pipeline.load_banks(tiny_recipe, None)
    trial = Trainer(Run(tmp_path, tiny_recipe, "vae"), banks, tf.distribute.get_strategy(), quiet=True)
    assert list(speed.measured(trial, seconds=0.1)) == ["separate", "remix", "masks"]
    assert taught == [True]


def test_the_run_that_a_training_begins_with_is_what_is_measured(tiny_preset, tiny_run, tmp_path, monkeypatch):
    source, begun = tiny_run.model(), []

    def learner(self, planned, model):
        begun.append(model.get_weights())
        return make_learner(self, planned, model)

    make_learner = Trainer.learner
    monkeypatch.setattr(Trainer, "learner", learner)
    trial = Trainer(
        Run(tmp_path, tiny_run.preset, "vae"),
        pipeline.load_banks(tiny_run.preset, None),
        tf.distribute.get_strategy(),
        quiet=True,
    )
    speed.measured(trial, source, seconds=0.1)
    for one, other in zip(begun[0], source.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_mask_network_that_was_trained_on_is_resumed_without_its_run(tiny_recipe, tiny_run, tmp_path):
    masks = tiny_recipe.recipe.phases[2].replace(rounds=1)
    preset = tiny_recipe.replace(recipe=tiny_recipe.recipe.replace(epochs=1, phases=(masks,)))
    run = fit.train(preset, output=tmp_path / "run", init=tiny_run.path)
    assert fit.train(preset, output=tmp_path / "run", resume="latest").preset == run.preset
    chosen = preset.replace(recipe=preset.recipe.replace(prior_weight=0.7))
    assert fit.train(chosen, output=tmp_path / "chosen", init=tiny_run.path).model().prior_weight == 0.7


def test_a_phase_that_gains_nothing_any_more_ends_and_the_next_begins(tiny_recipe, tmp_path, monkeypatch):
    """Every validation has the same score here: a phase ends with the second epoch after its first."""

    def validate(self, model, mixture):
        return {name: tf.zeros(tf.shape(mixture)[:1]) for name in self.metrics}

    monkeypatch.setattr(Elbo, "validate", validate)
    phases = tuple(phase.replace(keep="best") for phase in tiny_recipe.recipe.phases[:2])
    recipe = tiny_recipe.recipe.replace(epochs=8, early_stopping=1, mixtures_per_epoch=64, phases=phases)
    run = fit.train(tiny_recipe.replace(recipe=recipe), output=tmp_path / "run")
    assert [(row["phase"], row["epoch"]) for row in rows(run.path)] == [
        ("separate", "0"), ("separate", "1"), ("remix", "4"), ("remix", "5"),
    ]  # fmt: skip
    assert [row["mixtures"] for row in rows(run.path)] == [str(64 * epochs) for epochs in (1, 2, 3, 4)]
    assert (run.metrics["epochs"], run.metrics["mixtures"]) == (4, 4 * 64)
    measured = {name: run.metrics[name] for name in ("seconds", "mixtures_per_second", "epochs_before_resume")}
    fit.train(run.preset, output=run.path, resume="latest")  # nothing is left to train
    assert {name: run.metrics[name] for name in measured} == measured
    (run.path / "metrics.json").write_text("{")
    fit.train(run.preset, output=run.path, resume="latest")
    assert run.metrics["epochs"] == 4
    history = (run.path / "history.csv").read_bytes()
    final = weights(run.path)
    # A kill after the history's last row and before its epoch's state; then the same, and the history is lost.
    for lost in (False, True):
        shutil.rmtree(run.path / "backup" / "epoch-00006")
        if lost:
            (run.path / "history.csv").unlink()
        fit.train(run.preset, output=run.path, resume="latest")
        assert history.endswith((run.path / "history.csv").read_bytes().splitlines()[-1] + b"\n")
        assert ((run.path / "history.csv").read_bytes() == history) == (not lost)
        assert (run.metrics["epochs"], run.metrics["epochs_before_resume"], run.metrics["mixtures"]) == (4, 3, 4 * 64)
        for a, b in zip(weights(run.path), final, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_training_that_diverges_late_is_no_success(tiny_preset, tmp_path, monkeypatch):
    loss = Elbo.__call__

    def diverging(self, model, mixture, step):
        value, metrics = loss(self, model, mixture, step)
        return tf.where(step >= 8, float("nan"), value), metrics  # from the second epoch on

    monkeypatch.setattr(Elbo, "__call__", diverging)
    with pytest.raises(DataError, match=r"not finite any more in epoch 2.*recipe\.separate\.learning_rate"):
        fit.train(tiny_preset, output=tmp_path / "run")
    run = Run.load(tmp_path / "run")
    assert run.metrics == {}
    assert sorted(path.name for path in (run.path / "backup").iterdir()) == ["epoch-00001", "phase-000"]
    with pytest.raises(CheckpointError, match="is not finished"):
        fit.train(tiny_preset, output=tmp_path / "next", init=run.path)


def test_mirrored_training_runs_end_to_end(run_module, tmp_path):
    """With standard output closed after its first line, which ends no training."""
    command = [sys.executable, "-m", "training.fit", *TINY, "--epochs", "1", "--strategy", "mirrored"]
    line = f"{' '.join(command)} --output {tmp_path}/run | head -1; exit ${{PIPESTATUS[0]}}"
    process = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=400, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout == "device: 2 x CPU, mirrored\n"
    assert "Traceback" not in process.stderr
    run = Run.load(tmp_path / "run")
    assert run.metrics["epochs"] == 1
    assert run.model().config == ModelConfig((8, 8), 2, 4, (32, 24))


def test_an_earlier_run_is_kept_unless_forced_and_too_few_sources_are_a_warning(tiny_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(tiny_run.path, run)
    before = (run / "history.csv").read_bytes()
    assert fit.main([*TINY, "--epochs", "1", "--output", str(run)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (run / "history.csv").read_bytes() == before
    assert fit.main([*TINY, "--epochs", "1", "--output", str(run), "--force", "--num-sources", "1"]) == 0
    assert (run / "history.csv").read_bytes() != before
    assert "warning: the model has 1 sources" in capsys.readouterr().err
    assert "vaem" not in Run.load(run).metrics["test"]


def test_a_folder_that_is_no_run_is_never_deleted(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert fit.main([*TINY, "--output", str(tmp_path), "--force"]) == 2
    assert "no run of ours" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def nearly_full(path):
    return types.SimpleNamespace(total=10**9, used=10**9 - 1000, free=1000)


def test_a_full_disk_is_said_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    assert fit.main([*TINY, "--output", str(tmp_path / "run")]) == 2
    assert "no space left" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_full_disk_deletes_no_run_that_is_resumed(tiny_preset, tiny_run, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tiny_run.path, run, ignore=shutil.ignore_patterns("backup", "metrics.json"))
    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    with pytest.raises(DataError, match="no space left"):
        fit.train(tiny_preset, output=run, resume="latest")
    assert (run / "model.keras").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_fills_up_ends_in_one_line_and_spares_the_earlier_backup(tmp_path):
    """A file takes all but a part of what the next state needs; what the disk holds then is copied and resumed."""
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    command = " ".join([sys.executable, "-m", "training.fit", *TINY, "--epochs", "6"])
    script = f"""
        mount -t tmpfs -o size=4m none {disk} || exit 77
        (
            until [ -d {disk}/run/backup/epoch-00002 ]; do sleep 0.01; done
            head -c $(($(df -B1 --output=avail {disk} | tail -1) - 40000)) /dev/zero > {disk}/filler
        ) 2>/dev/null &
        {command} --set recipe.mixtures_per_epoch=4096 --output {disk}/run
        code=$?
        rm {disk}/filler; cp -r {disk}/run {copy}
        exit $code
    """
    process = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=400, check=False
    )
    if process.returncode == 77 or "unshare" in process.stderr:
        pytest.skip("no mounts in this sandbox")
    assert process.returncode == 2, process.stderr
    error = [line for line in process.stderr.splitlines() if "rm:" not in line]
    assert len(error) == 1, process.stderr
    assert "no space left" in error[0]
    arguments = [*TINY, "--epochs", "6", "--set", "recipe.mixtures_per_epoch=4096", "--output", str(copy)]
    assert fit.main([*arguments, "--resume"]) == 0
    assert Run.load(copy).metrics["epochs_before_resume"] >= 2
    assert len(rows(copy)) == 6


def test_no_network_is_said_soon(run_module, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    started = time.monotonic()
    process = run_module("training.fit", "--dataset", "mnist", "--output", tmp_path / "run", timeout=60)
    assert time.monotonic() - started < 30  # the import of TensorFlow counts too
    assert process.returncode == 2
    assert "--data-dir" in process.stderr
    assert "--dataset digits" in process.stderr


def test_an_earlier_run_is_kept_where_the_new_one_cannot_begin(tiny_preset, tiny_run, tmp_path, monkeypatch):
    earlier = shutil.copytree(tiny_run.path, tmp_path / "earlier")
    before = {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()}
    wider = tiny_preset.replace(model=tiny_preset.model.replace(hidden_units=(32, 25)))
    with pytest.raises(CheckpointError, match="another encoder"):
        fit.train(wider, output=earlier, init=tiny_run.path, force=True)
    monkeypatch.setattr("training.trainer.shutil.disk_usage", lambda path: types.SimpleNamespace(free=1))
    with pytest.raises(DataError, match="no space left"):
        fit.train(tiny_preset, output=earlier, force=True)
    assert {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()} == before
    with pytest.raises(CheckpointError, match="another encoder"):
        fit.train(wider, output=tmp_path / "new", init=tiny_run.path)
    assert not (tmp_path / "new").exists()


def test_a_run_that_stopped_before_its_first_backup_begins_with_the_same_weights(
    tiny_preset, tiny_run, tmp_path, monkeypatch
):
    preset = changed(tiny_preset, epochs=1, learning_rate=1e-12)

    def full(self, done, model):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("training.backup.Backup.begin_phase", full)
        with pytest.raises(OSError, match="no space"):
            fit.train(preset, output=tmp_path / "run", init=tiny_run.path)
    with pytest.raises(CheckpointError, match=f"to begin with {re.escape(str(tiny_run.path))} again, give --init too"):
        fit.train(preset, output=tmp_path / "run", resume="latest")
    run = fit.train(preset, output=tmp_path / "run", init=tiny_run.path, resume="latest")
    learned, begun = (Run.load(path).model().trainable_weights for path in (run.path, tiny_run.path))
    for a, b in zip(learned, begun, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


def test_a_run_is_resumed_in_the_precision_it_began_in(tiny_preset, tmp_path, monkeypatch):
    """On a processor that computes in another one fast; what differs is named otherwise."""
    auto = changed(tiny_preset, epochs=1, mixed_precision="auto")
    monkeypatch.setattr("training.precision.resolved_precision", lambda name: "float32")
    run = fit.train(auto, output=tmp_path / "run")
    assert {phase.mixed_precision for phase in run.preset.recipe.phases} == {"float32"}
    monkeypatch.setattr("training.precision.resolved_precision", lambda name: "mixed_bfloat16")
    again = fit.train(auto, output=run.path, resume="latest")
    assert again.preset == run.preset
    assert again.metrics["mixtures_per_second"] > 0
    other = changed(tiny_preset, epochs=1, batch_size=16)
    with pytest.raises(CheckpointError, match=r"recipe.phases.separate.batch_size is 32 there and 16 here"):
        fit.train(other, output=run.path, resume="latest")


def test_a_training_is_not_resumed_on_other_data(tiny_preset, tiny_run, tmp_path, monkeypatch):
    run = shutil.copytree(tiny_run.path, tmp_path / "run")
    load = pipeline.load_banks

    def fewer(*words):
        banks = load(*words)
        less = banks["train"].items[:-1], banks["train"].labels[:-1]
        return {**banks, "train": dataclasses.replace(banks["train"], items=less[0], labels=less[1])}

    monkeypatch.setattr(pipeline, "load_banks", fewer)
    with pytest.raises(CheckpointError, match="other settings or other data"):
        fit.train(tiny_preset, output=run, resume="latest")
