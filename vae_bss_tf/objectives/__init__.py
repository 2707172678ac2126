"""Objectives: what a training step minimises, given a model and mixtures. None is stored inside the model."""

from vae_bss_tf.objectives.base import Noise, Objective
from vae_bss_tf.objectives.elbo import Elbo
from vae_bss_tf.objectives.masked_remix import MaskedRemix
from vae_bss_tf.objectives.remixed_elbo import RemixedElbo

__all__ = ["Elbo", "MaskedRemix", "Noise", "Objective", "RemixedElbo"]
