"""A training through every kind of phase: what each leaves as it is, and that it can be killed anywhere."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training import fit, trainer
from training.backup import Backup
from training.history import read_history
from training.run import Run
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.objectives import MaskedRemix

TITLES = ["separate", "remix", "masks 1/2", "masks 2/2"]
PARTS = ("encoder", "decoder", "mask_network")


class Died(BaseException):
    """Stands for a kill; nothing catches it."""


@dataclasses.dataclass
class Seen:
    """What was seen of a training: the models that phases began with, those after each epoch, and the teachers."""

    begun: list[dict[str, list[np.ndarray]]] = dataclasses.field(default_factory=list)
    epochs: list[dict[str, list[np.ndarray]]] = dataclasses.field(default_factory=list)
    teachers: list[dict[str, list[np.ndarray]]] = dataclasses.field(default_factory=list)


def weights_of(model: MultiSourceVAE) -> dict[str, list[np.ndarray]]:
    parts = {name: getattr(model, name) for name in PARTS}
    return {name: [w.copy() for w in part.get_weights()] for name, part in parts.items() if part is not None}


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Seen]:
    """An uninterrupted training."""
    path, seen = tmp_path_factory.mktemp("runs") / "whole", Seen()
    begin_phase, end_epoch = Backup.begin_phase, Backup.end_epoch

    def taught(teacher, *arguments):
        seen.teachers.append(weights_of(teacher))
        return MaskedRemix(teacher, *arguments)

    def begun(self, done, model):
        seen.begun.append(weights_of(model))
        begin_phase(self, done, model)

    def ended(self, done, learner):
        seen.epochs.append(weights_of(learner.separator))
        end_epoch(self, done, learner)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "MaskedRemix", taught)
        patch.setattr(Backup, "begin_phase", begun)
        patch.setattr(Backup, "end_epoch", ended)
        assert fit.main([*command, "--output", str(path)]) == 0
    return Run.load(path), seen


def test_one_run_goes_through_all_phases(whole: tuple[Run, Seen]) -> None:
    run, seen = whole
    rows = read_history(run.path / "history.csv")
    assert [row["phase"] for row in rows] == [title for title in TITLES for _ in range(2)]
    assert [row["epoch"] for row in rows] == list(range(8))
    assert [row["mixtures"] for row in rows] == [512 * (i + 1) for i in range(8)]
    assert all("val_elbo" in row for row in rows[:4])
    assert all("val_score" in row for row in rows[4:])
    assert (run.metrics["epochs"], run.metrics["mixtures"]) == (8, 8 * 512)
    assert (len(seen.begun), len(seen.epochs), len(seen.teachers)) == (4, 8, 2)


def test_a_phase_changes_what_it_trains_and_nothing_else(whole: tuple[Run, Seen]) -> None:
    """The moments of batch normalisation are among the weights."""
    _, seen = whole
    for epoch, weights in enumerate(seen.epochs):
        begun = seen.begun[epoch // 2]
        for part in PARTS:
            assert same(weights[part], begun[part]) == ((part == "mask_network") != (epoch >= 4)), (epoch, part)


def test_the_best_model_of_a_phase_goes_on_to_the_next(whole: tuple[Run, Seen]) -> None:
    run, seen = whole
    scores = [row["val_elbo"] for row in read_history(run.path / "history.csv")[:2]]
    for part in PARTS:
        assert same(seen.begun[1][part], seen.epochs[int(np.argmax(scores))][part])


def test_each_round_is_taught_by_the_model_as_the_round_before_left_it(whole: tuple[Run, Seen]) -> None:
    run, seen = whole
    assert list(seen.teachers[0]) == ["encoder", "decoder"]
    for part in PARTS:
        assert same(seen.teachers[1][part], seen.epochs[5][part])
        assert same(weights_of(run.model())[part], seen.epochs[7][part])
    assert not same(seen.teachers[1]["mask_network"], seen.epochs[3]["mask_network"])


@pytest.fixture(scope="module")
def killed(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What kill -9 leaves in the second epoch of each phase: the process is halted for a copy, at last it is killed."""
    folder = tmp_path_factory.mktemp("killed")
    run = folder / "run"
    arguments = [sys.executable, "-m", "training.fit", *command, "--output", str(run)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    try:
        deadline, copies = time.monotonic() + 400, []
        while len(copies) < len(TITLES):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
            if (run / "history.csv").exists() and len(read_history(run / "history.csv")) > 2 * len(copies):
                time.sleep(0.03)
                os.kill(process.pid, signal.SIGSTOP)
                copies.append(folder / TITLES[len(copies)].replace("/", "-"))
                shutil.copytree(run, copies[-1])
                os.kill(process.pid, signal.SIGCONT)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
    shutil.rmtree(copies[-1])
    run.rename(copies[-1])
    return copies


@pytest.mark.parametrize("phase", range(4), ids=TITLES)
def test_a_run_killed_in_any_phase_resumes_as_if_nothing_had_happened(
    whole: tuple[Run, Seen],
    killed: list[Path],
    command: list[str],
    phase: int,
    check_equal: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But for the last, it is followed to the next phase's beginning: from equal models equal phases follow."""
    path, (run, seen) = killed[phase], whole
    assert not (path / "metrics.json").exists()
    begun, epochs = [], []

    def begins(self, done, model):
        begun.append(weights_of(model))
        raise Died

    def ended(self, done, learner):
        epochs.append(done.epochs)
        end_epoch(self, done, learner)

    end_epoch = Backup.end_epoch
    monkeypatch.setattr(Backup, "begin_phase", begins)
    monkeypatch.setattr(Backup, "end_epoch", ended)
    words = [*command, "--output", str(path), "--resume"]
    if phase == len(TITLES) - 1:
        assert fit.main(words) == 0
        check_equal(Run.load(path), run)
    else:
        with pytest.raises(Died):
            fit.main(words)
        assert all(same(begun[0][part], seen.begun[phase + 1][part]) for part in PARTS)
        assert read_history(path / "history.csv") == read_history(run.path / "history.csv")[: 2 * (phase + 1)]
    assert epochs == [2 * phase + 1, 2 * phase + 2][2 - len(epochs) :]


def test_a_run_that_dies_between_phases_resumes_as_if_nothing_had_happened(
    whole: tuple[Run, Seen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_equal: Callable
) -> None:
    """It dies after each phase's first state is written, before its last model is, and at both ends of the training."""
    left = [f"{moment} {phase}" for phase in range(4) for moment in ("after begin", "before save")]
    left = ["before begin 0", *left, "after save 3"]
    phase = 0

    def dying(what, function):
        def wrapped(*arguments):
            nonlocal phase
            phase = arguments[1].phase if what == "begin" else phase
            for moment in ("before", "after"):
                if f"{moment} {what} {phase}" in left:
                    left.remove(f"{moment} {what} {phase}")
                    raise Died
                if moment == "before":
                    function(*arguments)

        return wrapped

    monkeypatch.setattr(Backup, "begin_phase", dying("begin", Backup.begin_phase))
    monkeypatch.setattr(trainer, "save_model", dying("save", trainer.save_model))
    path, preset = tmp_path / "run", whole[0].preset
    resume = None
    while left:
        with pytest.raises(Died):
            fit.train(preset, output=path, resume=resume)
        resume = "latest"
    fit.train(preset, output=path, resume=resume)
    check_equal(Run.load(path), whole[0])


def test_a_finished_run_that_lost_its_model_or_its_history_gets_back_what_can_be_had(
    whole: tuple[Run, Seen], command: list[str], tmp_path: Path
) -> None:
    for lost in ("model.keras", "history.csv"):
        path = tmp_path / lost
        shutil.copytree(whole[0].path, path)
        (path / lost).unlink()
        if lost == "model.keras":
            with pytest.raises(CheckpointError, match="--resume"):
                Run.load(path).model()
        assert fit.main([*command, "--output", str(path), "--resume"]) == 0
        assert same(Run.load(path).model().get_weights(), whole[0].model().get_weights())
        assert (path / lost).is_file()


def test_no_backup_of_the_name_leaves_a_run_as_it_was(
    whole: tuple[Run, Seen], command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(whole[0].path, path)
    before = {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    for name in ("", "epoch-00001", "..", "best", "/"):
        assert fit.main([*command, "--output", str(path), f"--resume={name}"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    assert {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
