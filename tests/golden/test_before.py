"""Runs trained before the redesign load and separate as they did (tests/golden/before/make.py made them)."""

from pathlib import Path

import numpy as np
import pytest

from training.run import Run

RUNS = sorted((Path(__file__).parent / "before" / "runs").iterdir())


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_a_saved_run_loads_and_separates_equally(path: Path) -> None:
    run = Run.load(path)
    with np.load(path / "expected.npz") as stored:
        mixtures, expected = stored["mixtures"], stored["sources"]
    model = run.model()
    sources = model.separate(mixtures)
    np.testing.assert_allclose(sources, expected, atol=1e-5)
