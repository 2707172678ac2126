"""The presets: complete configurations by name, each with the recipe that trains it."""

import math
from collections.abc import Sequence
from typing import Any

from vae_bss_tf.checks import check_choice
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.phases import Phase, Recipe
from vae_bss_tf.sizing import sized

# As published: the learning rate falls slowly, the KL weight rises over 50 epochs.
_PAPER_PHASE = Phase(
    batch_size=32,
    learning_rate=2e-4,
    learning_rate_schedule="exponential",
    learning_rate_floor=1e-5,
    kl_schedule="linear",
    kl_weight=0.5,
    kl_warmup_epochs=50,
)
_PAPER_RECIPE = Recipe(epochs=3_000, phases=(_PAPER_PHASE,))

# A KL term that is strong from the start, and relaxed once the sources have separated.
_SEPARATE = Phase("separate", kl_schedule="decay", kl_weight=0.5, kl_warmup_epochs=0.5)

# XLA compiles the convolutions of a mask network badly on CPUs.
_MASKS = Phase(
    "masks",
    objective="masked_remix",
    trains=("mask_network",),
    learning_rate=2e-3,
    steps_per_execution=1,
    jit_compile=False,
    mixed_precision="auto",
)

_IMAGE_MODEL = ModelConfig(convolutions=(24, 48), encoder_units=(400, 300), mask_channels=(32, 64, 128))
_IMAGE_RECIPE = Recipe(
    epochs=100,
    phases=(
        _SEPARATE.replace(sources="mixed", share=0.35, most=500_000, kl_weight_end=0.5, learning_rate_floor=7e-4),
        Phase(
            "spare",
            sources="spare",
            share=0.1,
            most=150_000,
            learning_rate=7e-4,
            learning_rate_floor=7e-4,
            kl_weight=0.5,
        ),
        Phase(
            "remix",
            objective="remixed_elbo",
            share=0.35,
            most=600_000,
            learning_rate=7e-4,
            kl_schedule="decay",
            kl_weight=0.5,
            kl_weight_end=0.25,
            kl_decay_start=0.0,
            remix_silence=0.05,
        ),
        _MASKS.replace(share=0.3, rounds=8, remix_silence=0.05),
    ),
)

_PICTURES = ("mnist", "images")  # presets with this recipe

_SHARES_OF_MANY = {"separate": 0.4, "spare": 0.1, "remix": 0.45, "masks": 0.15}

# The KL weight of larger pictures was found at this size. The likelihood is a sum over pixels, and the KL weight grows
# with them, so that the two keep their balance.
_MEASURED_PIXELS = 64 * 64

# Larger pictures need more of the ELBO before there is anything to remix, and as many steps of half the size. XLA
# compiles transposed convolutions badly on CPUs.
_OF_LARGE_PICTURES: dict[str, dict[str, Any]] = {
    "separate": {"share": 0.65, "most": 2_000_000},
    "spare": {"share": 0.1, "most": 300_000},
    "remix": {"share": 0.2, "most": 1_000_000},
    "masks": {"share": 0.15, "rounds": 4},
}

# Squared error and a mild compression make a model of sound learn the partials of notes first; the Laplace
# likelihood on strongly compressed magnitudes spends its latents on the noise between them.
_TONES_AUDIO = AudioConfig(frame_pooling=4, power=0.7)
_TONES_MODEL = ModelConfig(
    input_shape=(32, 256),
    latent_dim=8,
    network="spectrogram",
    hidden_units=(96, 96, 96, 96, 192, 128),
    likelihood="normal",
    likelihood_scale=0.1,
)
_SEPARATE_SOUND = _SEPARATE.replace(batch_size=32, learning_rate=7e-4, kl_weight_end=0.2, steps_per_execution=16)
_TONES_RECIPE = Recipe(epochs=28, mixtures_per_epoch=10_000, validation_mixtures=500, phases=(_SEPARATE_SOUND,))

# Some thousand recordings are few: heard at five pitches they bear a wider network, and notes of a pitch that no
# recording of the instrument has are separated as well as those it was trained on.
_NOTES_AUDIO = _TONES_AUDIO.replace(pitch_shifts=(-2, -1, 0, 1, 2))
_NOTES_MODEL = _TONES_MODEL.replace(
    latent_dim=12,
    hidden_units=(192, 192, 192, 192, 384, 256),
    mask_exponent=2.0,
    mask_channels=(16, 32, 48),
    mask_patch=2,
)
_NOTES_RECIPE = _TONES_RECIPE.replace(
    epochs=165,
    phases=(
        _SEPARATE_SOUND.replace(share=0.6, most=1_000_000, keep="best"),
        Phase(
            "remix",
            objective="remixed_elbo",
            share=0.25,
            most=400_000,
            batch_size=32,
            learning_rate=5e-4,
            kl_weight=0.2,
            remix_masked=True,
            steps_per_execution=16,
        ),
        _MASKS.replace(share=0.15, rounds=4, batch_size=32),
    ),
)

# Music that goes on: a window holds little more than a note of each source, since a latent that is wide enough for
# several notes is wide enough for both sources.
_MUSIC_AUDIO = _NOTES_AUDIO.replace(num_frames=32, max_onset=0.0)
_MUSIC_MODEL = _NOTES_MODEL.replace(input_shape=(8, 256), latent_dim=6, mask_channels=(8, 16, 24, 32), mask_patch=1)
_MUSIC_REMIX = Phase(
    "remix",
    objective="remixed_elbo",
    share=0.15,
    batch_size=32,
    kl_weight=2.0,
    steps_per_execution=16,
    learning_rate=7e-4,
    learning_rate_floor=6e-4,
)
_MUSIC_RECIPE = _TONES_RECIPE.replace(
    epochs=100,
    phases=(
        _SEPARATE_SOUND.replace(
            share=0.25, learning_rate=1e-3, learning_rate_floor=7e-4, kl_weight=2.0, kl_weight_end=2.0
        ),
        _MUSIC_REMIX,
        _MUSIC_REMIX.replace(
            name="remix_masked",
            share=0.3,
            remix_masked=True,
            kl_schedule="decay",
            kl_weight_end=1.0,
            kl_decay_start=0.0,
            kl_decay_end=0.6,
            learning_rate=6e-4,
            learning_rate_floor=0.0,
        ),
        _MASKS.replace(share=0.3, rounds=4, batch_size=32),
    ),
)


def _chosen_by_remixing(recipe: Recipe) -> Recipe:
    """The recipe for mixtures without a truth: remixing ELBO phases keep the model that separates its own remixes best.

    There the ELBO still rises where one latent begins to explain the whole mixture, and that score falls. Before any
    remixing the score is no judge: a model that shares everything out evenly has 0 dB, and one that begins to separate
    has less.
    """
    phases = [phase.replace(keep="best" if phase.objective == "remixed_elbo" else "last") for phase in recipe.phases]
    return recipe.replace(choose_by="remixing", phases=tuple(phases))


PRESETS: dict[str, Preset] = {
    # The paper's image network and published settings, unchanged.
    "mnist-paper": Preset(ModelConfig(), DataConfig("mnist"), _PAPER_RECIPE),
    # That network with the settings that separate.
    "mnist-dense": Preset(
        ModelConfig(), DataConfig("mnist"), Recipe(epochs=120, phases=(_SEPARATE.replace(kl_weight_end=0.1),))
    ),
    "mnist": Preset(_IMAGE_MODEL, DataConfig("mnist"), _IMAGE_RECIPE.replace(epochs=60)),  # an hour of two cores
    # A folder of one's own pictures, mixtures as they are; `sizing.sized` makes the network for their size.
    "images": Preset(_IMAGE_MODEL, DataConfig("images", (1,)), _chosen_by_remixing(_IMAGE_RECIPE)),
    # The digits that ship inside scikit-learn: no download. A twelfth of MNIST's pixels bear the same KL, so its
    # weight is a fifth.
    "digits": Preset(
        ModelConfig(input_shape=(8, 8), latent_dim=10, hidden_units=(256, 192, 128)),
        DataConfig("digits"),
        Recipe(epochs=30, phases=(_SEPARATE.replace(kl_weight=0.1, kl_weight_end=0.03),)),
    ),
    # The paper's audio network and published settings, unchanged: about 189 M parameters.
    "mums": Preset(
        ModelConfig(input_shape=(128, 256), latent_dim=64, hidden_units=(2560, 2048, 1536, 1024, 512)),
        DataConfig("notes"),
        _PAPER_RECIPE,
        AudioConfig(),
    ),
    # Compact networks on spectrograms whose frames are pooled by four.
    "tones": Preset(_TONES_MODEL, DataConfig("tones"), _TONES_RECIPE, _TONES_AUDIO),
    "notes": Preset(_NOTES_MODEL, DataConfig("notes"), _NOTES_RECIPE, _NOTES_AUDIO),
    "nsynth": Preset(_NOTES_MODEL, DataConfig("nsynth"), _NOTES_RECIPE, _NOTES_AUDIO),
    "mixtures": Preset(_MUSIC_MODEL, DataConfig("mixtures", (1,)), _chosen_by_remixing(_MUSIC_RECIPE), _MUSIC_AUDIO),
}


def get_preset(name: str) -> Preset:
    """Returns a preset by name.

    `mnist-paper` and `mums` are as published. What the others change of the paper, and why (docs/quality.md has the
    figures):

    - The KL weight is at its strongest almost from the start and relaxes once the sources have separated; the paper's
      rises over 50 epochs. With a weak one a latent learns the whole mixture, and does not give it back.
    - The learning rate is 2.5 to 10 times the paper's and falls along a cosine, to zero where a recipe ends: hours in
      place of days.
    - `mnist`: two convolutions in the encoder, which learn from fewer mixtures. After the ELBO, a phase remixes
      separated sources, which teaches the encoder what belongs to one source. Then a mask network learns in rounds from
      the remixed sources of a frozen teacher, the model as the round before left it. The decoder is the paper's: a
      stronger one takes both digits.
    - `notes`: frames pooled by four and a decoder of one spectrum times its envelope over time in place of dense layers
      of 189 million weights, a milder compression, and a Normal likelihood in place of the Laplace: they learn partials
      first, not the noise between them. Each recording is heard at five pitches: some thousand of them are few.

    Args:
        name: A key of `PRESETS`.

    Returns:
        The preset.

    Raises:
        ConfigError: There is no such preset; the message names the nearest.

    Example:
        >>> [phase.name for phase in get_preset("mnist").recipe.phases]
        ['separate', 'spare', 'remix', 'masks']
    """
    return PRESETS[check_choice("preset", name, PRESETS)]


def for_counts(name: str, counts: Sequence[int]) -> Preset:
    """Returns a preset that suits mixtures of so many sources.

    Each of M sources has 1 / M of the mixture's range, so it adds less to the likelihood the more there are, while the
    KL of its latent stays. With the weights for two, the model puts two of four digits into one output more often than
    with (2 / M)^2 of them. Where the counts differ, the mixtures of the fewest sources are separated best, so new
    mixtures are made of theirs, and weigh twice as much. docs/evaluation.md has the figures of both. Three and more are
    harder to separate, and a step of the mask network takes as long as there are sources: a short training gives it
    less. This is for `mnist` and `images`; the other presets stay as they are.

    Args:
        name: A key of `PRESETS`.
        counts: The numbers of sources in a mixture; at least 1. M is the largest. For 1 or 2 alone nothing changes.

    Returns:
        The preset.

    Raises:
        ConfigError: There is no such preset.

    Example:
        >>> [phase.kl_weight for phase in for_counts("mnist", [4]).recipe.phases]
        [0.125, 0.125, 0.125, 0.5]
    """
    preset = get_preset(name)
    if name not in _PICTURES:
        return preset
    factor = min(1.0, (2 / max(counts)) ** 2)
    phases = []
    for phase in preset.recipe.phases:
        if max(counts) > 2:
            phase = phase.replace(share=_SHARES_OF_MANY[phase.name])
        if "encoder" in phase.trains:
            phase = phase.replace(kl_weight=factor * phase.kl_weight, kl_weight_end=factor * phase.kl_weight_end)
        if phase.remixes and len(set(counts)) > 1:
            phase = phase.replace(remix_from="sparsest", remix_weight=2.0 if "encoder" in phase.trains else 1.0)
        phases.append(phase)
    return preset.replace(recipe=preset.recipe.replace(phases=tuple(phases)))


def for_size(preset: Preset, input_shape: tuple[int, ...]) -> Preset:
    """Returns a preset of pictures with the network, and the shares of the phases, that suit their size.

    Args:
        preset: `images`, as `for_counts` gives it.
        input_shape: `(height, width)` or `(height, width, channels)`.

    Returns:
        The preset with the network of `sizing.sized`. Where that has transposed convolutions, more of the training goes
        to the ELBO, in batches of 32, and the KL weights grow with the pixels.

    Example:
        >>> for_size(get_preset("images"), (64, 64, 3)).recipe.phases[0].batch_size
        32
    """
    model = sized(input_shape, preset.model)
    if not model.upsampling:
        return preset.replace(model=model)
    factor = math.prod(input_shape[:2]) / _MEASURED_PIXELS
    phases = tuple(
        phase.replace(
            batch_size=32,
            jit_compile=False,
            kl_weight=factor * phase.kl_weight,
            kl_weight_end=factor * phase.kl_weight_end,
            **_OF_LARGE_PICTURES[phase.name],
        )
        for phase in preset.recipe.phases
    )
    return preset.replace(model=model, recipe=preset.recipe.replace(phases=phases))
