"""What the tests of bulk separation share; all of them need Apache Beam, which has an environment of its own."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("apache_beam", reason="Apache Beam is not installed; make test-bulk runs these tests")

import soundfile

from vae_bss_tf.bulk import command

REPOSITORY = Path(__file__).resolve().parents[2]
RATE = 16_000


def _record(path: Path, seconds: float = 1.0, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    times = np.arange(int(seconds * RATE)) / RATE
    tones = np.sin(2 * np.pi * rng.uniform(100, 2_000, (channels, 2, 1)) * times).sum(axis=1)
    soundfile.write(path, 0.4 * tones.T, RATE)
    return path


@pytest.fixture(scope="session")
def record():
    """Writes a recording of two tones, other ones for each name."""
    return _record


@pytest.fixture(scope="session")
def notes() -> Path:
    return REPOSITORY / "saved_models" / "notes"


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    """Recordings in nested folders, of several formats."""
    folder = tmp_path / "takes"
    _record(folder / "one.wav")
    _record(folder / "monday" / "two.wav", 2.5, channels=2)
    _record(folder / "monday" / "late" / "three.flac", 0.4)
    _record(folder / "tuesday" / "one.wav", 1.3)
    return folder


@pytest.fixture
def bulk(notes: Path, tmp_path: Path):
    """Runs the command in this process; returns the exit code and the summary, {} where there is none."""

    def run(*given: object, output: Path = tmp_path / "stems", model: object = notes, workers: int = 1):
        arguments = ["--model", model, "--output", output, "--workers", workers, "--input", *given]
        code = command.main([str(argument) for argument in arguments])
        place = Path(output) / "summary.json"
        return code, json.loads(place.read_text()) if place.is_file() else {}

    return run


@pytest.fixture
def failures(tmp_path: Path):
    """Reads what failed: lines by the name of the file."""

    def read(output: Path = tmp_path / "stems") -> dict[str, str]:
        lines = map(json.loads, (output / "failures.jsonl").read_text().splitlines())
        return {Path(line["path"]).name: line["error"] for line in lines}

    return read
