"""Settings of release 0.1 in today's words."""

import json
from pathlib import Path

import pytest

from vae_bss_tf import legacy
from vae_bss_tf.config import Preset
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.presets import get_preset

REPOSITORY = Path(__file__).resolve().parents[2]
RUNS = REPOSITORY / "tests" / "golden" / "before" / "runs"


def settings_of(run: str) -> dict:
    return json.loads((RUNS / run / "config.json").read_text())


@pytest.mark.parametrize(
    ("run", "objective", "trains"),
    [
        ("vae", "elbo", ("encoder", "decoder")),
        ("remixed", "remixed_elbo", ("encoder", "decoder")),
        ("masked", "masked_remix", ("mask_network",)),
        ("sound-masked", "masked_remix", ("mask_network",)),
    ],
)
def test_a_training_becomes_a_recipe_of_one_phase(run: str, objective: str, trains: tuple[str, ...]) -> None:
    values = settings_of(run)
    preset = Preset.from_dict(values)
    (phase,) = preset.recipe.phases
    assert (phase.objective, phase.trains) == (objective, trains)
    assert (preset.recipe.epochs, preset.recipe.seed) == (values["train"]["epochs"], values["train"]["seed"])
    assert (phase.batch_size, phase.kl_weight) == (values["train"]["batch_size"], values["train"]["kl_weight"])
    assert preset.model.network == ("spectrogram" if run.startswith("sound") else "image")
    assert Preset.from_dict(preset.to_dict()) == preset


def test_a_cosine_of_release_01_ends_at_zero() -> None:
    """Its floor was that of the exponential schedule alone."""
    values = settings_of("vae")
    train = {**values["train"], "learning_rate_schedule": "cosine", "learning_rate_floor": 1e-5}
    assert Preset.from_dict({**values, "train": train}).recipe.phases[0].learning_rate_floor == 0
    train["learning_rate_schedule"] = "exponential"
    assert Preset.from_dict({**values, "train": train}).recipe.phases[0].learning_rate_floor == 1e-5


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "saved_models").glob("[!l]*/manifest.json")), ids=lambda p: p.parent.name
)
def test_settings_of_the_shipped_models_can_be_read(path: Path) -> None:
    settings = json.loads(path.read_text())["preset"]
    preset = Preset.from_dict(settings)
    assert preset.recipe.phases
    assert list(preset.model.input_shape) == settings["model"]["input_shape"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "must be parts by name"),
        ({"model": 3}, "must be settings by name"),
        ({**get_preset("tones").to_dict(), "audio": {"compression": "log"}}, "compressed by a logarithm"),
        ({**get_preset("tones").to_dict(), "model": {"network": "recurrent"}}, "unknown network 'recurrent'"),
        ({"model": {}, "data": {}}, "no 'recipe'"),
        ({"model": {}, "data": {}, "train": 3}, "no 'recipe'"),
        ({"model": {}, "data": {}, "train": {"epochs": "many"}}, "epochs is 'many'"),
    ],
)
def test_what_is_no_preset_is_refused(values: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preset.from_dict(values)


def test_upgrading_todays_settings_changes_nothing() -> None:
    values = get_preset("notes").to_dict()
    assert legacy.upgraded_preset(values) == values
