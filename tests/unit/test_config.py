import json

import pytest

from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.phases import Phase, Recipe
from vae_bss_tf.presets import PRESETS, for_counts, get_preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json_and_keep_their_hash(name):
    preset = PRESETS[name]
    back = Preset.from_dict(json.loads(json.dumps(preset.to_dict())))
    assert back == preset
    assert back.config_hash() == preset.config_hash()


def test_hash_changes_with_any_setting():
    preset = PRESETS["digits"]
    changed = [
        preset.replace(recipe=preset.recipe.replace(seed=1)),
        preset.replace(recipe=preset.recipe.replace(phases=(preset.recipe.phases[0].replace(share=2.0),))),
    ]
    assert len({preset.config_hash(), *(other.config_hash() for other in changed)}) == 3


def test_the_papers_presets_are_as_published():
    for name in ("mnist-paper", "mums"):
        recipe = get_preset(name).recipe
        (phase,) = recipe.phases
        assert (phase.objective, set(phase.trains)) == ("elbo", {"encoder", "decoder"})
        assert (phase.batch_size, phase.learning_rate, recipe.mixtures_per_epoch) == (32, 2e-4, 30_000)
        assert (phase.learning_rate_schedule, phase.learning_rate_decay, phase.learning_rate_floor) == (
            "exponential", 0.9998, 1e-5,
        )  # fmt: skip
        assert (phase.kl_schedule, phase.kl_weight, phase.kl_warmup_epochs) == ("linear", 0.5, 50)
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
        (ModelConfig, "prior", "cauchy"),
        (Phase, "name", "two words"),
        (Phase, "objective", "likelihood"),
        (Phase, "trains", ()),
        (Phase, "trains", ("corrector",)),
        (Phase, "share", 0.0),
        (Phase, "rounds", 0),
        (Phase, "remix_weight", 0.0),
        (Phase, "remix_silence", 1.0),
        (Phase, "learning_rate", 0.0),
        (Phase, "learning_rate_decay", 1.5),
        (Phase, "kl_weight", -1.0),
        (Phase, "kl_decay_start", 0.9),
        (Phase, "keep", "first"),
        (Phase, "mixed_precision", "float8"),
        (Recipe, "epochs", 0),
        (Recipe, "seed", 2**31 - 2**24),
        (Recipe, "phases", ()),
        (Recipe, "phases", (Phase("twice"), Phase("twice"))),
        (AudioConfig, "n_fft", 128),
    ],
)
def test_values_out_of_range_are_refused_by_name(kind, field, value):
    with pytest.raises(ConfigError, match="part" if value == ("corrector",) else field.split("_")[-1]):
        kind(**{field: value})


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Phase, "remix_weight", "much"),
        (Phase, "share", None),
        (Phase, "jit_compile", 1),
        (Phase, "trains", "encoder"),
        (Phase, "trains", [1]),
        (Phase, "kl_weight", 1e300),
        (Phase, "batch_size", 10**12),
        (Recipe, "epochs", 2.5),
        (Recipe, "epochs", 10**20),
        (Recipe, "seed", True),
        (Recipe, "phases", {"name": "separate"}),
        (ModelConfig, "prior", 3),
        (ModelConfig, "convolutions", [2.5]),
        (AudioConfig, "noise_db", "-40"),
    ],
)
def test_values_of_another_kind_are_refused_by_name(kind, field, value):
    with pytest.raises(ConfigError, match=f"^{field} is"):
        kind.from_dict({field: value})


def test_remixing_is_for_few_sources():
    remix = Recipe(phases=(Phase("remix", objective="remixed_elbo"),))
    Preset(ModelConfig(num_sources=5), DataConfig("mnist"), Recipe())
    with pytest.raises(ConfigError, match=r"num_sources is 5.*at most 4 for the phase remix"):
        Preset(ModelConfig(num_sources=5), DataConfig("mnist"), remix)
    for field in ("convolutions", "encoder_units", "upsampling"):
        with pytest.raises(ConfigError, match=field):
            get_preset("tones").model.replace(**{field: (4,)})


def test_batches_that_are_remixed_are_even():
    assert Phase(batch_size=33).batch_size == 33
    for objective in ("remixed_elbo", "masked_remix"):
        with pytest.raises(ConfigError, match="even"):
            Phase(objective=objective, batch_size=33)


def test_a_phase_that_trains_masks_needs_a_mask_network():
    masks = Recipe(phases=(Phase(), Phase("masks", objective="masked_remix", trains=("mask_network",))))
    Preset(ModelConfig(mask_channels=(3, 4)), DataConfig("mnist"), masks)
    with pytest.raises(ConfigError, match=r"mask_channels.*given for the phase masks"):
        Preset(ModelConfig(), DataConfig("mnist"), masks)
    with pytest.raises(ConfigError, match="mask_channels"):
        ModelConfig(input_shape=(8, 8), mask_channels=(2, 2, 2, 2, 2))


def test_a_recipe_knows_the_kl_weight_that_it_ends_with():
    separate = Phase(kl_schedule="decay", kl_weight_end=0.2)
    masks = Phase("masks", objective="masked_remix", trains=("mask_network",))
    recipe = Recipe(phases=(separate, Phase("remix", objective="remixed_elbo", kl_weight=0.25), masks))
    assert recipe.final_kl_weight == 0.25
    assert Recipe(phases=(separate, masks)).final_kl_weight == 0.2
    assert Recipe(phases=(masks,)).final_kl_weight == 1.0
    assert Recipe(phases=(masks,), prior_weight=0.3).final_kl_weight == 0.3


def test_no_preset_begins_with_a_phase_that_needs_a_trained_model():
    assert not any(preset.recipe.phases[0].remixes for preset in PRESETS.values())


@pytest.mark.parametrize("value", [0, "1,2", ["x"], [True], None])
def test_lists_of_numbers_are_nothing_else(value):
    with pytest.raises(ConfigError, match=r"pitch_shifts.*\[1, 2\]"):
        AudioConfig.from_dict({"pitch_shifts": value})
    with pytest.raises(ConfigError, match="hidden_units"):
        ModelConfig.from_dict({"hidden_units": value})


def test_kl_weights_fall_with_the_square_of_the_number_of_sources_in_a_mixture() -> None:
    pairs, four = get_preset("mnist"), for_counts("mnist", [4])
    assert for_counts("mnist", [1]) == for_counts("mnist", [2]) == pairs
    for two, many in zip(pairs.recipe.phases, four.recipe.phases, strict=True):
        factor = 1 / 4 if "encoder" in two.trains else 1
        assert (many.kl_weight, many.kl_weight_end) == (factor * two.kl_weight, factor * two.kl_weight_end)
        assert many.remix_from == "neighbours"
    assert four.recipe.phases[-1].share < pairs.recipe.phases[-1].share
    assert for_counts("mnist-paper", [1, 4]) == get_preset("mnist-paper")
    assert for_counts("notes", [1, 4]) == get_preset("notes")


def test_where_the_counts_differ_new_mixtures_are_made_of_those_of_the_fewest_sources() -> None:
    for alike, differ in zip(
        for_counts("mnist", [4]).recipe.phases, for_counts("mnist", [1, 2, 3, 4]).recipe.phases, strict=True
    ):
        expected = alike.replace(remix_from="sparsest") if alike.remixes else alike
        assert differ == (expected.replace(remix_weight=2.0) if alike.name == "remix" else expected)
