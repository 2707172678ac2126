"""A run folder: made, replaced, and damaged."""

import shutil
from pathlib import Path

import keras
import pytest

from training.history import read_history
from training.run import Run
from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError, OutputExistsError


def test_a_run_whose_making_was_killed_can_be_made_again(tiny_preset: Preset, tmp_path: Path) -> None:
    """Before its settings had their name."""
    (tmp_path / "run" / ".partial-0-1").mkdir(parents=True)
    Run.create(tmp_path / "run", tiny_preset, "vae")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_replacing_a_run_can_be_killed_and_repeated(
    tiny_preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    Run.create(path, tiny_preset, "ae")
    for name in ("backup", "tensorboard"):
        (path / name).mkdir()

    def stop(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            Run.create(path, tiny_preset, "vae", force=True)
    assert Run.load(path).system == "ae"
    with pytest.raises(OutputExistsError, match="--force"):
        Run.create(path, tiny_preset, "vae")
    assert Run.create(path, tiny_preset, "vae", force=True) == Run.load(path)
    assert [path.name for path in path.iterdir()] == ["config.json"]


def test_a_run_behind_a_link_is_replaced_and_the_link_stays(tiny_preset: Preset, tmp_path: Path) -> None:
    Run.create(tmp_path / "run", tiny_preset, "ae")
    (tmp_path / "latest").symlink_to("run")
    Run.create(tmp_path / "latest", tiny_preset, "vae", force=True)
    assert (tmp_path / "latest").is_symlink()
    assert Run.load(tmp_path / "run").system == "vae"


def test_an_export_is_never_emptied_for_a_run(tiny_preset: Preset, tmp_path: Path) -> None:
    Run.create(tmp_path / "exported", tiny_preset, "vae")
    (tmp_path / "exported" / "manifest.json").write_text("{}")
    with pytest.raises(OutputExistsError, match="is an export"):
        Run.create(tmp_path / "exported", tiny_preset, "vae", force=True)
    assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == ["config.json", "manifest.json"]


@pytest.mark.parametrize("content", ["[1]", '"done"', "{", "[" * 100_000, '{"seconds": "x"}'])
def test_damaged_metrics_are_refused(content: str, tiny_preset: Preset, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", tiny_preset, "vae")
    (run.path / "metrics.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"metrics\.json cannot be read"):
        print(run.metrics)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"epoch,loss\n0,high\n", b"epoch,loss\n0\n", b"epoch,loss\n0,1,2\n", b"loss\n1\n", b'epoch\n"0"1\n'],
)
def test_a_damaged_history_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"history\.csv cannot be read .* remove it"):
        read_history(tmp_path / "history.csv")


def test_keras_alone_names_the_module_that_its_loader_needs(golden_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered = keras.saving.get_custom_objects()
    for name in list(registered):  # as where nothing of this package is imported
        monkeypatch.delitem(registered, name)
    with pytest.raises(TypeError, match="make sure they are all imported") as raised:
        keras.models.load_model(golden_runs / "vae" / "model.keras")
    assert "vae_bss_tf" in str(raised.value).splitlines()[-1]
