import json

import pytest

from vae_bss_tf.config import AudioConfig, ModelConfig, Preset
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.phases import Recipe
from vae_bss_tf.presets import PRESETS, get_preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json_and_keep_their_hash(name):
    preset = PRESETS[name]
    back = Preset.from_dict(json.loads(json.dumps(preset.to_dict())))
    assert back == preset
    assert back.config_hash() == preset.config_hash()


def test_hash_changes_with_any_setting():
    preset = PRESETS["digits"]
    changed = Preset(preset.model, preset.data, preset.recipe.replace(seed=1))
    assert changed.config_hash() != preset.config_hash()


def test_the_papers_presets_are_as_published():
    for name in ("mnist-paper", "mums"):
        train = get_preset(name).train
        assert (train.batch_size, train.learning_rate, train.mixtures_per_epoch) == (32, 2e-4, 30_000)
        assert (train.learning_rate_schedule, train.learning_rate_decay, train.learning_rate_floor) == (
            "exponential", 0.9998, 1e-5,
        )  # fmt: skip
        assert (train.kl_schedule, train.kl_weight, train.kl_warmup_epochs) == ("linear", 0.5, 50)
        assert get_preset(name).model.likelihood == "laplace"
        assert get_preset(name).model.likelihood_scale ** 2 == pytest.approx(0.5)


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(ConfigError, match=r"Did you mean 'mnist'"):
        get_preset("mnits")
    with pytest.raises(ConfigError, match="latent_dim"):
        ModelConfig.from_dict({"latent_dims": 3})


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (ModelConfig, "num_sources", 0),
        (ModelConfig, "latent_dim", 0),
        (ModelConfig, "hidden_units", ()),
        (ModelConfig, "likelihood_scale", 0.0),
        (ModelConfig, "convolutions", (24, 0)),
        (TrainConfig, "remix_weight", -1.0),
        (TrainConfig, "remix_silence", 1.0),
        (TrainConfig, "remix_mask_learning_rate", -1e-3),
        (ModelConfig, "prior", "cauchy"),
        (TrainConfig, "epochs", 0),
        (TrainConfig, "learning_rate", 0.0),
        (TrainConfig, "learning_rate_decay", 1.5),
        (TrainConfig, "kl_weight", -1.0),
        (TrainConfig, "kl_decay_start", 0.9),
        (TrainConfig, "mixed_precision", "float8"),
        (TrainConfig, "seed", 2**31 - 2**24),
        (AudioConfig, "n_fft", 128),
    ],
)
def test_values_out_of_range_are_refused_by_name(kind, field, value):
    with pytest.raises(ConfigError, match=field.split("_")[-1]):
        kind(**{field: value})


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (TrainConfig, "remix_weight", "much"),
        (TrainConfig, "remix_start", None),
        (TrainConfig, "epochs", 2.5),
        (TrainConfig, "seed", True),
        (TrainConfig, "jit_compile", 1),
        (ModelConfig, "prior", 3),
        (ModelConfig, "convolutions", [2.5]),
        (AudioConfig, "noise_db", "-40"),
    ],
)
def test_values_of_another_kind_are_refused_by_name(kind, field, value):
    with pytest.raises(ConfigError, match=f"^{field} is"):
        kind.from_dict({field: value})


def test_remixing_is_for_few_sources():
    parts = get_preset("mnist").to_dict()
    parts["model"].update({"num_sources": 5})
    with pytest.raises(ConfigError, match=r"remix_weight=0"):
        Preset.from_dict(parts)
    for field in ("convolutions", "encoder_units"):
        with pytest.raises(ConfigError, match=field):
            get_preset("tones").model.replace(**{field: (4,)})


@pytest.mark.parametrize("value", [0, "1,2", ["x"], [True], None])
def test_lists_of_numbers_are_nothing_else(value):
    with pytest.raises(ConfigError, match=r"pitch_shifts.*\[1, 2\]"):
        AudioConfig.from_dict({"pitch_shifts": value})
    with pytest.raises(ConfigError, match="hidden_units"):
        ModelConfig.from_dict({"hidden_units": value})


def test_an_epoch_is_a_whole_number_of_compiled_calls():
    config = Recipe(mixtures_per_epoch=30_000, batch_size=32, steps_per_execution=32)
    assert config.steps_per_epoch == 960
    assert Recipe(mixtures_per_epoch=100, batch_size=32, steps_per_execution=32).steps_per_epoch == 4
