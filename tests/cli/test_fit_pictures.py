"""Training on a folder of pictures: from the command to the run, and what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import fit
from training.run import Run
from vae_bss_tf.datasets import decoded

TINY = [
    "--quiet", "--no-jit-compile", "--batch-size", "16", "--epochs", "3", "--set", "recipe.mixtures_per_epoch=32",
    "--set", "recipe.validation_mixtures=16", "--set", "model.hidden_units=[12]", "--set", "model.encoder_units=[12]",
    "--set", "model.mask_channels=[3,4]",
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures in colour, one of another size."""
    made = tmp_path / "my pictures \U0001f600"
    made.mkdir()
    for i in range(12):
        size = (20, 24, 3) if i == 3 else (16, 16, 3)
        Image.fromarray(np.random.default_rng(i).integers(256, size=size, dtype=np.uint8)).save(made / f"{i:02d}.png")
    return made


def words(folder: Path, *more: str) -> list[str]:
    return ["--dataset", "images", "--data-dir", str(folder), *more]


def test_a_folder_of_mixtures_in_colour_is_trained_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = ["--set", "data.max_shift=1", "--set", "data.mirror=true"]
    assert fit.main([*words(folder, "--size", "8x12"), *TINY, *moved, "--output", str(tmp_path / "run")]) == 0
    assert f"or: python -m vae_bss_tf.separate FILE --model {tmp_path / 'run'}" in capsys.readouterr().out
    run = Run.load(tmp_path / "run")
    assert run.preset.model.input_shape == (8, 12, 3)
    assert (run.preset.data.size, run.preset.data.num_mixed) == ((8, 12), (1,))
    assert (run.preset.data.max_shift, run.preset.data.mirror) == (1, True)
    assert {phase.name for phase in run.preset.recipe.phases} == {"separate", "remix", "masks"}
    assert not run.metrics["test"]["has_truth"]
    assert 0 < run.metrics["test"]["mixtures"] < len(list(folder.iterdir()))  # each once
    assert run.model().separate(np.zeros((8, 12, 3))).shape == (2, 8, 12, 3)
    assert (tmp_path / "run" / "separation.png").is_file()


@pytest.mark.parametrize(
    ("more", "shape", "patch"),
    [
        (["--size", "64"], [64, 64, 3], 2),
        (["--size", "28", "--channels", "1"], [28, 28], 1),
        (["--preset", "mnist", "--size", "28", "--num-mixed", "2"], [28, 28, 3], 1),
    ],
)
def test_the_settings_follow_the_pictures(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], shape: list[int], patch: int
) -> None:
    assert fit.main(words(folder, *more, "--dry-run")) == 0
    resolved = json.loads(capsys.readouterr().out)
    assert resolved["model"]["input_shape"] == shape
    assert resolved["model"]["mask_patch"] == patch
    assert resolved["data"]["dataset"] == "images"


BAD: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "mixed sizes": (lambda folder: None, [], "03.png is 20x24 pixels"),
    "text": (lambda folder: (folder / "05.png").write_text("text"), ["--size", "16"], "05.png is no PNG"),
    "grey among colour": (
        lambda folder: Image.fromarray(np.zeros((16, 16), np.uint8)).save(folder / "07.png"),
        ["--size", "16"],
        "07.png is grey",
    ),
    "few": (lambda folder: [os.remove(path) for path in sorted(folder.iterdir())[1:]], [], "holds 1 pictures"),
}


@pytest.mark.parametrize(("make", "more", "message"), BAD.values(), ids=list(BAD))
def test_a_bad_folder_is_one_line_and_exit_code_2(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object], more: list[str],
    message: str,
) -> None:  # fmt: skip
    make(folder)
    assert fit.main([*words(folder, *more), *TINY, "--output", str(tmp_path / "run")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line
    assert not (tmp_path / "run").exists()


def test_size_and_channels_are_for_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit.main(["--dataset", "digits", "--size", "16", "--dry-run"]) == 2
    assert "--dataset images" in capsys.readouterr().err
    assert fit.main(["--dataset", "images", "--dry-run"]) == 2
    assert "--data-dir" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        fit.main(["--size", "0x3"])
