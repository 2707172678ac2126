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

_NAMES = {
    "vae_bss_tf.model": ("MultiSourceVAE",),
    "vae_bss_tf.config": ("ModelConfig", "DataConfig", "AudioConfig", "Preset"),
    "vae_bss_tf.phases": ("Phase", "Recipe"),
    "vae_bss_tf.presets": ("PRESETS", "get_preset"),
    "vae_bss_tf.datasets": ("SourceBank", "load_bank"),
    "vae_bss_tf.datasets.image_mixtures": ("evaluation_mixtures", "training_mixtures"),
    "vae_bss_tf.masking": ("ratio_mask",),
    "vae_bss_tf.audio.separator": ("Separator",),
    "vae_bss_tf.runtime": ("load", "ServerOptions"),
    "vae_bss_tf.errors": ("VaeBssError",),
}
_EXPORTS = {name: module for module, names in _NAMES.items() for name in names}

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
