"""Systems that the model is compared with: NMF, GLO, MixIT, the oracle masks and the trivial estimates.

Each baseline separates as the model does: `separate(mixtures)` takes float32 `[n, *shape]` to float32
`[n, num_sources, *shape]`, whose sources sum to the mixture. The oracle masks are functions that take the true sources
as well.
"""

from typing import TYPE_CHECKING

from vae_bss_tf.checks import check_choice
from vae_bss_tf.config import ModelConfig

if TYPE_CHECKING:
    import keras


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
    if check_choice("baseline", system, ("glo", "mixit")) == "glo":
        from vae_bss_tf.baselines.glo import GLO

        return GLO(config, seed=seed)
    from vae_bss_tf.baselines.mixit import MixIT, hidden_width
    from vae_bss_tf.model import MultiSourceVAE

    return MixIT(config, hidden_width(config, MultiSourceVAE(config).num_parameters))
