"""Systems that the model is compared with: NMF, GLO, MixIT, the oracle masks and the trivial estimates.

Each has `separate(mixtures, num_sources)`: float32 `[n, *shape]` to float32 `[n, num_sources, *shape]`. The oracles
need the true sources and take them in place of the number.
"""

from typing import TYPE_CHECKING

from vae_bss_tf.checks import check_choice
from vae_bss_tf.config import ModelConfig

if TYPE_CHECKING:
    import keras

TRAINED = ("glo", "mixit")


def build(system: str, config: ModelConfig, seed: int = 0) -> "keras.Model":
    """Builds a baseline that is trained on mixtures, ready to compile and `fit` on `{"mixture": ...}` batches.

    Args:
        system: "glo", with the decoder of the VAE of `config`, or "mixit", with as many trainable parameters as that
            VAE.
        config: The VAE that it is compared with; `num_sources` is the baseline's own K.
        seed: Seed of what it draws in training beside the mixtures.

    Returns:
        The model, untrained.

    Raises:
        ConfigError: The system is unknown, or cannot have as many parameters.
    """
    check_choice("baseline", system, TRAINED)
    if system == "glo":
        from vae_bss_tf.baselines.glo import GLO

        return GLO(config, seed=seed)
    from vae_bss_tf.baselines.mixit import MixIT, hidden_width
    from vae_bss_tf.model import MultiSourceVAE

    return MixIT(config, hidden_width(config, MultiSourceVAE(config).num_parameters))
