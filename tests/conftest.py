"""What the tests share: tiny settings and the place of the real data."""

import copy
import os
import resource
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import soundfile
from hypothesis import strategies as st

from vae_bss_tf.config import DataConfig, ModelConfig, Preset
from vae_bss_tf.phases import Phase, Recipe

REPOSITORY = Path(__file__).resolve().parents[1]
LONGEST = (
    "export",
    "live",
    "test_web",
    "test_fit",
    "test_kills",
    "test_multi_worker",
    "test_fit_resume",
    "test_notebooks",
    "test_site",
)

_NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**30), 1e308, 2**63])
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def _places(value, path=()):
    """The paths of all parts of a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*path, key))


def _replaced(value, path, parts):
    """A JSON value with the part at a path replaced, or removed where there are no `parts`."""
    if not path:
        return parts[0] if parts else None
    result = copy.deepcopy(value)
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    if parts:
        inner[path[-1]] = parts[0]
    else:
        del inner[path[-1]]
    return result


def _changes(value):
    """What a JSON value becomes when any one of its parts is any other, or missing."""
    parts = st.just([]) | st.lists(_VALUES, min_size=1, max_size=1)
    return st.builds(lambda path, parts: _replaced(value, path, parts), st.sampled_from(list(_places(value))), parts)


@pytest.fixture
def bounded_memory():
    """Lets the process gain no more than 2 GB meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2_000_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(scope="session")
def json_values():
    """Any JSON value, as a strategy of Hypothesis."""
    return _VALUES


@pytest.fixture(scope="session")
def json_changes():
    """Makes the strategy of what a JSON value becomes when any one of its parts is any other, or missing."""
    return _changes


def pytest_configure(config: pytest.Config) -> None:
    """Has xdist take the groups in the order given below, not those of the most tests first."""
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes (`-n`), one makes what the tests of a file, of the export or of live separators share.

    The longest groups come first, so that no process is left alone with one of them at the end.
    """
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: LONGEST.index(groups[item]) if groups[item] in LONGEST else len(LONGEST))


def _group(item: pytest.Item) -> str:
    folder = item.path.parent.name
    return folder if folder in ("export", "live") else item.path.stem


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """A model that builds and runs in no time."""
    return ModelConfig(input_shape=(8, 8), num_sources=3, latent_dim=4, hidden_units=(16, 12))


@pytest.fixture(scope="session")
def tiny_preset() -> Preset:
    """A training of a second, not compiled by XLA, which would take longer: two sources of scikit-learn's digits."""
    phase = Phase(
        batch_size=32, steps_per_execution=4, jit_compile=False, kl_schedule="decay", kl_warmup_epochs=1.0
    )  # fmt: skip
    return Preset(
        ModelConfig(input_shape=(8, 8), num_sources=2, latent_dim=4, hidden_units=(16, 12)),
        DataConfig("digits"),
        Recipe(epochs=3, mixtures_per_epoch=256, validation_mixtures=64, phases=(phase,)),
    )


@pytest.fixture(scope="session")
def tiny_recipe(tiny_preset: Preset) -> Preset:
    """A recipe of every kind of phase, in four epochs: the ELBO, remixing, and two rounds of a mask network."""
    first = tiny_preset.recipe.phases[0]
    remix = first.replace(name="remix", objective="remixed_elbo", remix_masked=True, remix_silence=0.05)
    masks = first.replace(
        name="masks", objective="masked_remix", trains=("mask_network",), rounds=2, share=2, steps_per_execution=1
    )
    return tiny_preset.replace(
        model=tiny_preset.model.replace(mask_channels=(3, 4)),
        recipe=tiny_preset.recipe.replace(epochs=4, phases=(first.replace(keep="best"), remix, masks)),
    )


@pytest.fixture
def two_bands(tmp_path: Path) -> Path:
    """A folder with one recording of 6 s at 4 kHz: two tones far apart in pitch, whose levels change, and their sum."""
    time = np.arange(6 * 4_000) / 4_000
    low, high = (0.3 * np.sin(2 * np.pi * f * time) * (1 + 0.3 * np.sin(3 * time)) for f in (220, 1_200))
    folder = tmp_path / "truth" / "duet"
    folder.mkdir(parents=True)
    for name, signal in (("mixture", low + high), ("source1", low), ("source2", high)):
        soundfile.write(folder / f"{name}.wav", signal, 4_000, subtype="FLOAT")
    return folder.parent


@pytest.fixture(scope="session")
def golden_runs() -> Path:
    """The folder with small runs of release 0.1, of every system."""
    return REPOSITORY / "tests" / "golden" / "before" / "runs"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real data sets, from VAE_BSS_DATA or beside the repository."""
    folder = Path(os.environ.get("VAE_BSS_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data is not here; name its folder in VAE_BSS_DATA")
    return folder


@pytest.fixture(scope="session")
def run_module():
    """Runs `python -m MODULE ARGUMENTS...` as a user would and returns the finished process."""

    def run(module: str, *arguments: object, cwd: Path | None = None, timeout: float = 300):
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=cwd or REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    return run
