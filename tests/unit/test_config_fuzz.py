"""Whatever the settings of a run hold: valid settings, or one line that says what is wrong with them."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from training.run import Run
from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.usefixtures("bounded_memory")
BOUNDED = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module", params=["today", "vae", "sound-masked"])
def config(request: pytest.FixtureRequest, tiny_recipe: Preset, golden_runs: Path) -> dict:
    """What `config.json` holds: of today, and of release 0.1."""
    if request.param == "today":
        return {"system": "vae", "init": "begun", **tiny_recipe.to_dict(), "config_hash": tiny_recipe.config_hash()}
    return json.loads((golden_runs / request.param / "config.json").read_text())


def check_line(text: str) -> None:
    assert len(text.splitlines()) == 1
    assert len(text) < 2_000


def check_preset(values: object) -> None:
    """Settings are refused in one line, or as good as any: they survive JSON."""
    try:
        preset = Preset.from_dict(values)
    except ConfigError as error:
        check_line(str(error))
    else:
        assert Preset.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
        assert len(preset.config_hash()) == 16


def check_run(folder: Path, content: str | bytes) -> None:
    """A run folder with this `config.json` is refused in one line, or opened."""
    (folder / "config.json").write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        run = Run.load(folder)
    except CheckpointError as error:
        check_line(str(error))
    else:
        assert run.preset == Preset.from_dict(json.loads(content))
        assert isinstance(run.system, str)


def test_the_fuzzed_settings_are_good(config: dict, tmp_path: Path) -> None:
    check_run(tmp_path, json.dumps(config))
    assert Run.load(tmp_path).preset.recipe.phases


@BOUNDED
@given(st.data())
def test_settings_of_any_json(json_values: st.SearchStrategy, tmp_path: Path, data: st.DataObject) -> None:
    values = data.draw(json_values)
    check_preset(values)
    check_preset({"model": values, "data": {}, "recipe": {}})
    check_preset({"model": {}, "data": values, "train": values})
    check_run(tmp_path, json.dumps(values))


@BOUNDED
@given(st.data())
def test_settings_with_one_part_changed(
    config: dict, json_changes: st.SearchStrategy, tmp_path: Path, data: st.DataObject
) -> None:
    values = data.draw(json_changes(config))
    check_preset(values)
    check_run(tmp_path, json.dumps(values))


@BOUNDED
@given(content=st.binary(max_size=100))
@example(content=b"[" * 100_000)
@example(content=b'{"model": ' * 100_000)
@example(content=b"9" * 5_000)
@example(content=b"{}\xff")
def test_settings_of_any_bytes(content: bytes, tmp_path: Path) -> None:
    check_run(tmp_path, content)


@pytest.mark.parametrize("part", ["model", "data", "recipe", "audio"])
def test_settings_too_large_to_print_are_refused_in_a_short_line(part: str, tiny_recipe: Preset) -> None:
    for value in (10**5_000, [10**5_000], "x" * 10**6, {"x" * 10**6: 1}, [1] * 10**6, {1: 2}):
        check_preset({**tiny_recipe.to_dict(), part: value})
        for field in ("input_shape", "num_mixed", "epochs", "noise_db", "network", "phases"):
            check_preset({**tiny_recipe.to_dict(), part: {field: value}})


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_a_folder_in_place_of_a_file_is_refused(name: str, config: dict, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "metrics.json").write_text("[" * 100_000)
    if name == "config.json":
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
        print(Run.load(tmp_path).metrics)
