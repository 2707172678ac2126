"""The benchmark that makes mixtures of three parts from the sources of duets."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.parts import main
from training.evaluation.truth_folder import find_cases

RATE = 8_000
PLAYERS = ("cello", "flute", "oboe", "tuba", "viola", "horn", "harp", "lute", "gong")


@pytest.fixture
def duets(tmp_path: Path) -> Path:
    """Nine recordings, each of two parts by one player, who plays on that recording alone."""
    rng = np.random.default_rng(0)
    for player in PLAYERS:
        folder = tmp_path / "duets" / player
        folder.mkdir(parents=True)
        sources = rng.uniform(-0.6, 0.6, size=(2, RATE))
        for file, signal in (("mixture", sources.sum(axis=0) / 2), (f"source1_{player}", sources[0] / 2),
                             (f"source2_{player}", sources[1] / 2)):  # fmt: skip
            soundfile.write(folder / f"{file}.wav", signal, RATE, subtype="FLOAT")
    return tmp_path / "duets"


def test_mixtures_of_three_parts(duets: Path, tmp_path: Path) -> None:
    words = ["--truth", str(duets), "--count", "5", "--known", "4"]
    for name in ("one", "two"):
        assert main([*words, "--output", str(tmp_path / name)]) == 0
    for first in sorted((tmp_path / "one").rglob("*.*")):
        second = tmp_path / "two" / first.relative_to(tmp_path / "one")
        # Not the bytes: a WAV of floats holds the second in which it was written.
        np.testing.assert_array_equal(soundfile.read(first)[0], soundfile.read(second)[0])
    assert len(list((tmp_path / "one" / "train").iterdir())) == 5
    cases = find_cases(tmp_path / "one" / "known", (".wav",))
    assert len(cases) == 4
    for case in cases:
        players = {path.stem.split("_")[1] for path in case.sources}
        assert len(players) == 3
        sources = np.stack([soundfile.read(path)[0] for path in case.sources])
        mixture, _ = soundfile.read(case.mixture)
        np.testing.assert_allclose(sources.sum(axis=0), mixture, atol=1e-6)
        assert np.abs(mixture).max() <= 0.9 + 1e-6


def test_parts_of_training_and_judging_come_from_different_recordings(duets: Path, tmp_path: Path) -> None:
    assert main(["--truth", str(duets), "--count", "5", "--known", "20", "--output", str(tmp_path / "trios")]) == 0
    known = find_cases(tmp_path / "trios" / "known", (".wav",))
    players = {path.stem.split("_")[1] for case in known for path in case.sources}
    assert players == set(sorted(PLAYERS)[6:])


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--num-sources", "1"], "at least 2"), (["--num-sources", "4"], "no 4 parts of different recordings")],
)
def test_what_cannot_be_made_is_one_line(
    words: list[str], said: str, duets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--truth", str(duets), *words, "--output", str(tmp_path / "trios")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "trios").exists()
