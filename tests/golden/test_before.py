"""Runs trained before the redesign load and separate as they did (tests/golden/before/make.py made them)."""

from pathlib import Path

import numpy as np
import pytest

from training.run import Run
from vae_bss_tf.errors import CheckpointError

FOLDER = Path(__file__).parent / "before" / "runs"
RUNS = sorted(path for path in FOLDER.iterdir() if path.name != "corrected")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_a_saved_run_loads_and_separates_equally(path: Path) -> None:
    run = Run.load(path)
    with np.load(path / "expected.npz") as stored:
        mixtures, expected = stored["mixtures"], stored["sources"]
    model = run.model()
    sources = model.separate(mixtures)
    np.testing.assert_allclose(sources, expected, atol=1e-5)


def test_a_model_with_a_corrector_is_refused_in_one_line() -> None:
    with pytest.raises(CheckpointError, match=r"^the model has a corrector of its latents.*train again") as raised:
        Run.load(FOLDER / "corrected").model()
    assert "\n" not in str(raised.value)
