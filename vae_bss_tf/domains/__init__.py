"""Domains: what a mixture is. `domain_of` gives the one of a preset."""

from vae_bss_tf.config import AudioConfig
from vae_bss_tf.domains.base import Domain
from vae_bss_tf.domains.image import Images
from vae_bss_tf.domains.sound import Sound

__all__ = ["Domain", "Images", "Sound", "domain_of"]


def domain_of(audio: AudioConfig | None) -> Domain:
    """Returns the domain that a preset's audio settings name.

    Args:
        audio: `Preset.audio`: the settings of sound, or None for images.
    """
    return Images() if audio is None else Sound(audio)
