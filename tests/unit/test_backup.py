"""The states that an interrupted training resumes from."""

import errno
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.backup import Backup, EpochBackup, Progress
from training.callbacks import BestModel, EarlyStopping
from training.history import read_history, write_history
from training.learner import Learner
from training.recipe import PlannedPhase, plan
from vae_bss_tf import MultiSourceVAE
from vae_bss_tf.config import ModelConfig, Preset
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.objectives import Elbo


def compiled(config: ModelConfig) -> Learner:
    learner = Learner(MultiSourceVAE(config), Elbo(), ("encoder", "decoder"))
    learner.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    return learner


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def planned(tiny_preset: Preset) -> PlannedPhase:
    return plan(tiny_preset.recipe)[0]


@pytest.fixture(scope="module")
def fitted(tiny_config: ModelConfig, planned: PlannedPhase, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A learner after four epochs and the folder of its backups."""
    learner, folder = compiled(tiny_config), tmp_path_factory.mktemp("run") / "backup"
    backup = Backup(folder, "hash")
    backup.begin_phase(Progress(), learner.separator)
    data = {"mixture": tf.random.stateless_uniform([32, 8, 8], [0, 0])}
    learner.fit(data, batch_size=16, epochs=4, verbose=0, callbacks=[EpochBackup(backup, planned, Progress(), "loss")])
    return learner, folder


@pytest.fixture
def trained(fitted: tuple, tmp_path: Path) -> tuple[Learner, Path]:
    """The same with a folder of its own."""
    shutil.copytree(fitted[1], tmp_path / "backup")
    return fitted[0], tmp_path / "backup"


def test_the_start_of_the_phase_and_the_last_two_states_are_kept(trained: tuple[Learner, Path]) -> None:
    assert names(trained[1]) == ["epoch-00003", "epoch-00004", "phase-000"]


def test_no_state_is_kept_of_an_epoch_that_diverged(trained: tuple[Learner, Path], planned: PlannedPhase) -> None:
    learner, folder = trained
    again = EpochBackup(Backup(folder, "hash"), planned, Progress())
    again.set_model(learner)
    again.on_train_begin()
    again.on_epoch_end(4, {"loss": float("nan")})
    assert names(folder) == ["epoch-00003", "epoch-00004", "phase-000"]


def test_a_restored_state_is_the_whole_state(
    trained: tuple[Learner, Path], tiny_config: ModelConfig, planned: PlannedPhase
) -> None:
    learner, folder = trained
    other, backup = compiled(tiny_config), Backup(folder, "hash")
    done = backup.progress()
    assert (done.phase, done.epochs, done.state) == (0, 4, folder / "epoch-00004")
    assert (done.trained, done.mixtures) == (4, 4 * planned.mixtures_per_epoch)
    assert done.scores == tuple(learner.history.history["loss"])
    assert done.seconds > 0
    backup.load_epoch(other, done.state)
    assert int(other.optimizer.iterations) == 8
    ours, theirs = (m.separator.get_weights() + [v.numpy() for v in m.optimizer.variables] for m in (learner, other))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_seconds_add_up_over_resumes(trained: tuple[Learner, Path], planned: PlannedPhase) -> None:
    learner, folder = trained
    again = EpochBackup(Backup(folder, "hash"), planned, Progress(epochs=4, seconds=1_000.0))
    again.set_model(learner)
    again.on_train_begin()
    again.on_epoch_end(4, {"loss": 1.0})
    assert Backup(folder, "hash").progress().seconds > 1_000


def test_a_new_phase_takes_the_place_of_the_one_before(trained: tuple[Learner, Path], tiny_config: ModelConfig) -> None:
    learner, folder = trained
    backup = Backup(folder, "hash")
    backup.keep_best(0, 4, learner.separator)
    done = Progress(1, 4, 3, 96, 9.0)
    backup.begin_phase(done, learner.separator)
    assert names(folder) == ["phase-001"]
    assert backup.progress() == done
    model = MultiSourceVAE(tiny_config)
    backup.load_begin(model)
    for a, b in zip(model.get_weights(), learner.separator.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_states_of_the_phase_before_are_passed_over(trained: tuple[Learner, Path]) -> None:
    """A process was killed after the next phase's state was written and before those of its own were removed."""
    learner, folder = trained
    shutil.copytree(folder, folder.parent / "before")
    Backup(folder, "hash").begin_phase(Progress(1, 4), learner.separator)
    shutil.copytree(folder.parent / "before", folder, dirs_exist_ok=True)
    assert names(folder) == ["epoch-00003", "epoch-00004", "phase-000", "phase-001"]
    assert Backup(folder, "hash").progress() == Progress(1, 4)
    with pytest.raises(CheckpointError, match=r"epoch-00003 belongs to an earlier phase.*--resume phase-001"):
        Backup(folder, "hash").progress("epoch-00003")


def test_resuming_from_an_older_state_forgets_the_later_ones(trained: tuple[Learner, Path]) -> None:
    learner, folder = trained
    Backup(folder, "hash").keep_best(0, 4, learner.separator)
    every = names(folder)
    assert Backup(folder, "hash").progress("epoch-00003").epochs == 3
    assert names(folder) == every  # until it is known that the training can go on
    Backup(folder, "hash").discard_after(3)
    assert names(folder) == ["epoch-00003", "phase-000"]
    assert Backup(folder, "hash").progress("phase-000") == Progress()
    Backup(folder, "hash").discard_after(0)
    assert names(folder) == ["phase-000"]


def test_a_damaged_state_is_refused_and_the_older_one_offered(trained: tuple[Learner, Path]) -> None:
    _, folder = trained
    file = folder / "epoch-00004" / "state.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged.*--resume epoch-00003"):
        Backup(folder, "hash").progress()
    assert Backup(folder, "hash").progress("epoch-00003").epochs == 3


def test_a_foreign_state_is_refused(trained: tuple[Learner, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"other settings.*--force"):
        Backup(trained[1], "another hash").progress()


def test_a_state_whose_optimizer_has_other_variables_is_refused(trained: tuple[Learner, Path]) -> None:
    learner, folder = trained
    model = learner.separator.copy()
    narrower = Learner(model, Elbo(), ("encoder",))
    narrower.compile(optimizer=keras.optimizers.Adam(), jit_compile=False)
    with pytest.raises(CheckpointError, match=r"another version of this package.*--force"):
        Backup(folder, "hash").load_epoch(narrower, folder / "epoch-00004")


def test_a_damaged_start_of_the_phase_is_refused(trained: tuple[Learner, Path]) -> None:
    (trained[1] / "phase-000" / "state.npz").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"phase-000 is damaged.*--force"):
        Backup(trained[1], "hash").progress()


@pytest.mark.parametrize("damage", ["state.json", "state.npz"])
def test_a_missing_part_is_named(trained: tuple[Learner, Path], damage: str) -> None:
    (trained[1] / "epoch-00004" / damage).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {damage}"):
        Backup(trained[1], "hash").progress()


@pytest.mark.parametrize("content", [[1], {"phase": 0}, None])
def test_an_unreadable_description_is_refused(trained: tuple[Learner, Path], content: object) -> None:
    (trained[1] / "epoch-00004" / "state.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="unreadable"):
        Backup(trained[1], "hash").progress()


def test_nothing_to_restore_is_a_start_from_the_beginning(tmp_path: Path) -> None:
    assert Backup(tmp_path, "hash").progress() is None
    with pytest.raises(CheckpointError, match="has no state epoch-00001"):
        Backup(tmp_path, "hash").progress("epoch-00001")


def test_a_state_that_cannot_be_written_leaves_the_earlier_ones(
    trained: tuple[Learner, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, folder = trained

    def fill(path: Path, *arrays: np.ndarray) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", fill)
    backup = Backup(folder, "hash")
    for save in (
        lambda: backup.end_epoch(Progress(0, 5), learner),
        lambda: backup.keep_best(0, 5, learner.separator),
        lambda: backup.begin_phase(Progress(1, 5), learner.separator),
    ):
        with pytest.raises(OSError, match="No space left"):
            save()
        assert names(folder) == ["epoch-00003", "epoch-00004", "phase-000"]
        assert backup.progress().epochs == 4


def scripted(folder: Path, planned: PlannedPhase, learner: Learner, scores: list[float], done: int) -> None:
    """Epochs whose weights are their numbers, from the one after `done` on, and the end of the phase."""
    best = BestModel(Backup(folder, "hash"), planned, "val_elbo", scores[:done])
    best.set_model(learner)
    weight = learner.separator.decoder.head.bias
    for epoch in range(done, len(scores)):
        weight.assign(np.full(weight.shape, epoch + 1))
        best.on_epoch_end(epoch, {"val_elbo": scores[epoch]})
    best.on_train_end()


@pytest.mark.parametrize("scores", [[1, 3, 2, 2.5], [4, 3, 2, 1], [1, 2, 3, 4], [1, float("nan"), 2, 1]])
def test_the_best_model_is_given_back_whenever_the_phase_was_resumed(
    scores: list[float], tiny_config: ModelConfig, planned: PlannedPhase, tmp_path: Path
) -> None:
    learner = compiled(tiny_config)
    for done in range(5):
        folder = tmp_path / str(done)
        scripted(folder, planned, learner, scores[:done], 0)
        scripted(folder, planned, learner, scores, done)
        np.testing.assert_array_equal(learner.separator.decoder.head.bias, 1 + np.nanargmax(scores))
        assert names(folder)[-1] == f"best-{1 + np.nanargmax(scores):05d}"


def test_what_a_kill_after_a_better_model_leaves_holds_the_best_of_the_epochs_before(
    tiny_config: ModelConfig, tmp_path: Path
) -> None:
    learner, backup = compiled(tiny_config), Backup(tmp_path, "hash")
    backup.begin_phase(Progress(), learner.separator)
    for epoch, is_best in ((1, True), (2, False), (3, True)):
        if is_best:
            backup.keep_best(0, epoch, learner.separator)
        if epoch < 3:  # then it is killed
            backup.end_epoch(Progress(epochs=epoch), learner)
    assert names(tmp_path) == ["best-00001", "best-00003", "epoch-00001", "epoch-00002", "phase-000"]
    backup.discard_after(2)
    assert names(tmp_path) == ["best-00001", "epoch-00001", "epoch-00002", "phase-000"]
    for epoch, is_best in ((3, True), (4, False), (5, False)):
        if is_best:
            backup.keep_best(0, epoch, learner.separator)
        backup.end_epoch(Progress(epochs=epoch), learner)
    assert names(tmp_path) == ["best-00003", "epoch-00004", "epoch-00005", "phase-000"]


def test_states_follow_one_another_by_their_numbers(tiny_config: ModelConfig, tmp_path: Path) -> None:
    learner, backup = compiled(tiny_config), Backup(tmp_path, "hash")
    backup.begin_phase(Progress(), learner.separator)
    for epoch in (99_998, 99_999, 100_000):
        backup.end_epoch(Progress(epochs=epoch), learner)
    assert names(tmp_path) == ["epoch-100000", "epoch-99999", "phase-000"]
    assert backup.progress().epochs == 100_000
    backup.discard_after(99_999)
    assert backup.progress().epochs == 99_999


def test_early_stopping_counts_the_epochs_before_a_resume(tiny_config: ModelConfig) -> None:
    learner, scores = compiled(tiny_config), [1.0, 3.0, 2.0, 2.5, 4.0]
    for done in range(4):
        stopping = EarlyStopping(2, "val_elbo", scores[:done])
        stopping.set_model(learner)
        learner.stop_training = False
        stopping.on_train_begin()
        for epoch in range(done, len(scores)):
            stopping.on_epoch_end(epoch, {"val_elbo": scores[epoch]})
            if learner.stop_training:
                break
        assert epoch == 3


def test_the_history_can_be_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [
        {"phase": "separate", "epoch": 0, "mixtures": 10, "loss": 2.5, "kl": 0.1},
        {"phase": "masks 1/2", "epoch": 1, "mixtures": 20, "loss": float("nan"), "score": 3.0},
    ]
    write_history(tmp_path / "history.csv", rows)
    found = read_history(tmp_path / "history.csv")
    assert [list(row) for row in found] == [list(row) for row in rows]
    np.testing.assert_equal(found, rows)
    text = (tmp_path / "history.csv").read_text()
    write_history(tmp_path / "history.csv", found)
    assert (tmp_path / "history.csv").read_text() == text
    assert read_history(tmp_path / "none.csv") == []


def test_the_best_model_is_no_state_to_resume_from(trained: tuple[Learner, Path]) -> None:
    """It has no optimizer, and nobody knows what came after it."""
    learner, folder = trained
    Backup(folder, "hash").keep_best(0, 3, learner.separator)
    before = names(folder)
    with pytest.raises(CheckpointError, match=r"best-00003 is no state to resume from.*--resume epoch-00004"):
        Backup(folder, "hash").progress("best-00003")
    assert names(folder) == before
