"""Blind source separation learned from mixtures alone, with a multi-source variational auto-encoder."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_bss_tf.audio.separator import Separator as Separator
    from vae_bss_tf.config import AudioConfig as AudioConfig
    from vae_bss_tf.config import DataConfig as DataConfig
    from vae_bss_tf.config import ModelConfig as ModelConfig
    from vae_bss_tf.config import Preset as Preset
    from vae_bss_tf.datasets import SourceBank as SourceBank
    from vae_bss_tf.datasets import load_bank as load_bank
    from vae_bss_tf.datasets.image_mixtures import evaluation_mixtures as evaluation_mixtures
    from vae_bss_tf.datasets.image_mixtures import training_mixtures as training_mixtures
    from vae_bss_tf.errors import VaeBssError as VaeBssError
    from vae_bss_tf.masking import ratio_mask as ratio_mask
    from vae_bss_tf.model import MultiSourceVAE as MultiSourceVAE
    from vae_bss_tf.phases import Phase as Phase
    from vae_bss_tf.phases import Recipe as Recipe
    from vae_bss_tf.presets import PRESETS as PRESETS
    from vae_bss_tf.presets import get_preset as get_preset
    from vae_bss_tf.runtime import ServerOptions as ServerOptions
    from vae_bss_tf.runtime import load as load

__version__ = "0.2.0"

_EXPORTS = {
    "MultiSourceVAE": "vae_bss_tf.model",
    "ModelConfig": "vae_bss_tf.config",
    "DataConfig": "vae_bss_tf.config",
    "Phase": "vae_bss_tf.phases",
    "Recipe": "vae_bss_tf.phases",
    "AudioConfig": "vae_bss_tf.config",
    "Preset": "vae_bss_tf.config",
    "PRESETS": "vae_bss_tf.presets",
    "get_preset": "vae_bss_tf.presets",
    "SourceBank": "vae_bss_tf.datasets",
    "load_bank": "vae_bss_tf.datasets",
    "evaluation_mixtures": "vae_bss_tf.datasets.image_mixtures",
    "training_mixtures": "vae_bss_tf.datasets.image_mixtures",
    "ratio_mask": "vae_bss_tf.masking",
    "Separator": "vae_bss_tf.audio.separator",
    "load": "vae_bss_tf.runtime",
    "ServerOptions": "vae_bss_tf.runtime",
    "VaeBssError": "vae_bss_tf.errors",
}

__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    # Imported on first use: importing the package must not import TensorFlow.
    if name in _EXPORTS:
        try:
            return getattr(importlib.import_module(_EXPORTS[name]), name)
        except ModuleNotFoundError as error:
            from vae_bss_tf.errors import explained

            raise explained(error) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
