"""The guide docs/own-mixtures.md: each of its commands, in its order, on small data and with a tiny network."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from training import evaluate, fit, results
from training.context import __main__ as context
from vae_bss_tf import separate
from vae_bss_tf.audio.context import ContextConfig
from vae_bss_tf.datasets import decoded

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "own-mixtures.md"
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "training.fit": fit.main,
    "training.context": context.main,
    "training.evaluate": evaluate.main,
    "vae_bss_tf.separate": separate.main,
}
_RATE = 8_000
_SHORT = ["--quiet", "--epochs", "1", "--batch-size", "8", "--no-jit-compile"]
_SETTINGS = ["recipe.mixtures_per_epoch=16", "recipe.validation_mixtures=16", "model.latent_dim=3"]
_PICTURES = ["model.hidden_units=[12]", "model.encoder_units=[12]", "model.mask_channels=[3,4]"]
_SOUND = [
    *("model.input_shape=[8,32]", "model.hidden_units=[16,16,12]", "model.mask_channels=[3,4]"),
    *("audio.sample_rate=4000", "audio.n_fft=64", "audio.hop_length=16", "audio.num_frames=32", "audio.num_bins=32"),
]


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def sound(path: Path, *pitches: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(_RATE // 2) / _RATE
    soundfile.write(path, sum(0.3 * np.sin(2 * np.pi * pitch * time) for pitch in pitches), _RATE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small folders of the names in the guide."""
    rng = np.random.default_rng(0)
    for i in range(12):
        picture(tmp_path / "overlays" / f"{i}.png", rng.integers(256, size=(28, 28)))
        sound(tmp_path / "takes" / f"{i}.wav", 200 + 100 * i, 1_700 - 90 * i)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(results, "NUM_SCORED", 16)
    monkeypatch.setattr("training.context.trainer.STEPS_PER_EPOCH", 5)
    monkeypatch.setattr(context, "ContextConfig", lambda: ContextConfig((6, 8, 12)))
    return tmp_path


def commands(kind: str) -> Iterator[list[str]]:
    """The guide's commands for a kind of mixtures; those for recordings name one of their folders or runs."""
    blocks = re.findall(r"^```\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).splitlines():
        words = shlex.split(line)
        assert words[:2] == ["python", "-m"], line
        of_sound = any(word in line for word in ("takes", "mixtures-k2", "duets"))
        if of_sound == (kind == "recordings"):
            yield words[2:]


def small(words: list[str], kind: str) -> list[str]:
    """A command with a tiny network and a short training in place of the minutes."""
    if words[0] == "training.evaluate" and "--truth" not in words:
        return [*words, "--num-mixtures", "16"]
    if words[0] not in ("training.fit", "training.context"):
        return words
    minutes = words.index("--minutes")
    if words[0] == "training.context":
        return [*words[:minutes], *words[minutes + 2 :], "--epochs", "1", "--remixes", "4", "--batch-size", "1"]
    tiny = [*_SETTINGS, *(_SOUND if kind == "recordings" else _PICTURES)]
    return [*words[:minutes], *words[minutes + 2 :], *_SHORT, *(word for value in tiny for word in ("--set", value))]


@pytest.mark.parametrize("kind", ["pictures", "recordings"])
def test_every_command_of_the_guide_runs(kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    halves = np.arange(28) < 14
    for name in ("one", "two"):
        if kind == "pictures":
            whole = np.full((28, 28), 200 if name == "one" else 90)
            for file, pixels in (("mixture", whole), ("source1", whole * halves), ("source2", whole * ~halves)):
                picture(folder / "known" / name / f"{file}.png", pixels)
        else:
            for file, pitches in (("mixture", (300, 900)), ("source1", (300,)), ("source2", (900,))):
                sound(folder / "known" / name / f"{file}.wav", *pitches)
    (folder / "saved_models").mkdir()
    (folder / "saved_models" / "duets").symlink_to(folder / "runs" / "mixtures-k2-seed0")  # as small as what it begins
    run = [small(words, kind) for words in commands(kind)]
    assert len(run) == (7 if kind == "pictures" else 6)
    for words in run:
        assert COMMANDS[words[0]](words[1:]) == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"
    assert "what is known" in capsys.readouterr().out
    outputs = folder / ("separated" if kind == "pictures" else "stems")
    assert len(list(outputs.iterdir())) == 24
    evaluation = folder / "runs" / ("images-k2-seed0" if kind == "pictures" else "mixtures-k2-seed0") / "evaluation"
    assert {path.name for path in evaluation.iterdir()} >= {"comparison.md", "truth.md"}
