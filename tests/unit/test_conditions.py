"""The changed recordings of the benchmark of conditions hold what they say."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.conditions import CONDITIONS, write_changed

RATE = 8_000


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        folder = tmp_path / "truth" / name
        folder.mkdir(parents=True)
        sources = 0.1 * rng.normal(size=(2, 2 * RATE))
        for file, signal in (("mixture", sources.sum(axis=0)), ("source1", sources[0]), ("source2", sources[1])):
            soundfile.write(folder / f"{file}.wav", signal, RATE, subtype="FLOAT")
    return tmp_path / "truth"


def decibels(signal: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(signal**2)))


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_changed_mixture_is_the_sum_of_its_sources_but_for_noise(name: str, truth: Path, tmp_path: Path) -> None:
    write_changed(truth, tmp_path / "changed", name)
    for folder in sorted((tmp_path / "changed").iterdir()):
        mixture, *sources = (soundfile.read(folder / f"{file}.wav")[0] for file in ("mixture", "source1", "source2"))
        rest = mixture - sum(sources)
        if "noise" in name:
            assert decibels(rest) - decibels(mixture) == pytest.approx(-30, abs=0.3)
        else:
            assert np.abs(rest).max() < 1e-6
        before = [soundfile.read(truth / folder.name / f"source{k}.wav")[0] for k in (1, 2)]
        gains = sorted(decibels(s) - decibels(b) for s, b in zip(sources, before, strict=True))
        expected = {"louder": (0, 6), "reverberation": (1, 1)}  # the reverberation adds a quarter of the energy
        known = next((value for word, value in expected.items() if word in name), (0, 0))
        assert np.subtract(gains, gains[0]) == pytest.approx(np.subtract(known, known[0]), abs=0.7)
        if known == (1, 1):
            assert gains[0] - decibels(mixture) + decibels(sum(before)) == pytest.approx(0, abs=0.7)
