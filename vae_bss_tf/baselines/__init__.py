"""Systems that the model is compared with: NMF, GLO, MixIT, RemixIT, Self-Remixing, oracle masks, trivial estimates.

Each baseline separates as the model does: `separate(mixtures)` takes float32 `[n, *shape]` to float32
`[n, num_sources, *shape]`, whose sources sum to the mixture. The oracle masks are functions that take the true sources
as well.
"""

from typing import TYPE_CHECKING

from vae_bss_tf.checks import check, check_choice
from vae_bss_tf.config import ModelConfig

if TYPE_CHECKING:
    import keras


# What each baseline that is trained minimises, phase after phase: "own" is what its model brings itself.
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "glo": ("own",),
    "mixit": ("own",),
    "remixit": ("own", "remixit"),
    "self-remixing": ("own", "self_remixing"),
}
_MOST_SOURCES = {"mixit": 8, "remixit": 4, "self-remixing": 4}  # all of whose assignments or orders are tried


def build(system: str, config: ModelConfig, seed: int = 0) -> "keras.Model":
    """Builds a baseline that is trained on mixtures, ready to compile and `fit` on `{"mixture": ...}` batches.

    Args:
        system: "glo", with the decoder of the VAE of `config`; or "mixit", "remixit" or "self-remixing", which train
            MixIT's network, with as many parameters as that VAE.
        config: The VAE that it is compared with; `num_sources` is the baseline's own K.
        seed: Seed of what it draws in training beside the mixtures.

    Returns:
        The model, untrained.

    Raises:
        ConfigError: The system is unknown, has too many sources to try all their orders, or cannot have as many
            parameters.
    """
    if check_choice("baseline", system, OBJECTIVES) == "glo":
        from vae_bss_tf.baselines.glo import GLO

        return GLO(config, seed=seed)
    most = _MOST_SOURCES[system]
    check(config.num_sources <= most, "num_sources", config.num_sources, f"at most {most} for {system}")
    from vae_bss_tf.baselines.mixit import MixIT, hidden_width
    from vae_bss_tf.model import MultiSourceVAE

    return MixIT(config, hidden_width(config, MultiSourceVAE(config).num_parameters))


def learner(objective: str, model: "keras.Model", seed: int = 0) -> "keras.Model":
    """Gives what trains a baseline's model in a phase.

    Args:
        objective: One of `OBJECTIVES`.
        model: The baseline's model, which is trained in place.
        seed: Seed of what is drawn in training beside the mixtures.

    Returns:
        A model to compile and `fit`: the baseline itself, or what teaches it.
    """
    if objective == "own":
        return model
    from vae_bss_tf.baselines.remixing import RemixIT, SelfRemixing

    return (RemixIT if objective == "remixit" else SelfRemixing)(model, seed)
