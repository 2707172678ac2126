"""Settings and model files of earlier releases: the one place that knows their names.

Release 0.1 had one training of one phase, in which remixing began at a share of the epochs, and networks called after
their layers. Its runs load, are judged and are exported; an interrupted one is not resumed.
"""

from collections.abc import Mapping
from typing import Any

from vae_bss_tf.checks import shown
from vae_bss_tf.errors import CheckpointError, ConfigError

_NETWORKS = {"dense": "image", "conv": "spectrogram"}
_OF_CORRECTOR = (
    "corrector_convolutions",
    "corrector_units",
    "corrector_iterations",
    "corrector_training_iterations",
)
_OF_RECIPE = ("epochs", "mixtures_per_epoch", "validation_mixtures", "early_stopping", "seed")
_OF_PHASE = (
    "batch_size",
    "learning_rate",
    "learning_rate_schedule",
    "learning_rate_decay",
    "kl_weight",
    "kl_weight_end",
    "kl_warmup_epochs",
    "kl_decay_start",
    "kl_decay_end",
    "remix_silence",
    "steps_per_execution",
    "jit_compile",
    "mixed_precision",
)


def upgraded_model(values: Mapping[str, Any]) -> dict[str, Any]:
    """Renames a model's settings as an earlier release wrote them.

    Args:
        values: Fields of `ModelConfig` by name, of this or an earlier release.

    Returns:
        The same settings by today's names, without those of a corrector of the latents, which release 0.1 had.

    Raises:
        ConfigError: They are no settings by name.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"the model's settings are {shown(values)}; they must be settings by name.")
    kept = {name: value for name, value in values.items() if name not in _OF_CORRECTOR}
    network = kept.get("network")
    return {**kept, "network": _NETWORKS[network]} if isinstance(network, str) and network in _NETWORKS else kept


def upgraded_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Renames the parts of a preset as an earlier release wrote them.

    Args:
        values: Parts by name, as `Preset.to_dict` of this or an earlier release gave them.

    Returns:
        The same settings by today's names: what was one training is a recipe of one phase.

    Raises:
        ConfigError: A part is no settings by name; or the sound's compression is not by a power.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"the settings are {shown(values)}; they must be parts by name.")
    upgraded = dict(values)
    if "model" in values:
        upgraded["model"] = upgraded_model(values["model"])
    if isinstance(values.get("audio"), Mapping) and "compression" in values["audio"]:
        if values["audio"]["compression"] != "power":
            raise ConfigError("the sound is compressed by a logarithm, which release 0.1 had; train again.")
        upgraded["audio"] = {name: value for name, value in values["audio"].items() if name != "compression"}
    train = upgraded.pop("train", None)
    if isinstance(train, Mapping) and "recipe" not in upgraded:
        phase = {name: train[name] for name in _OF_PHASE if name in train}
        phase["learning_rate_floor"] = (
            train.get("learning_rate_floor", 0.0) if train.get("learning_rate_schedule") == "exponential" else 0.0
        )
        schedule = train.get("kl_schedule", "constant")
        phase["kl_schedule"] = schedule if schedule in ("constant", "linear", "decay") else "constant"
        if train.get("remix_weight"):
            masked = bool(upgraded.get("model", {}).get("mask_channels"))
            phase |= {"name": "masks" if masked else "remix", "remix_weight": train["remix_weight"]}
            phase |= {"objective": "masked_remix" if masked else "remixed_elbo"}
            phase |= {"trains": ["mask_network"] if masked else ["encoder", "decoder"]}
        upgraded["recipe"] = {
            **{name: train[name] for name in _OF_RECIPE if name in train},
            "phases": [phase],
        }
    return upgraded


def check_no_corrector(values: Mapping[str, Any]) -> None:
    """Refuses the weights of a model with a corrector of its latents, which release 0.1 had.

    Args:
        values: Fields of `ModelConfig` as the model's file has them.

    Raises:
        CheckpointError: It has one.
    """
    if values.get("corrector_units"):
        raise CheckpointError(
            "the model has a corrector of its latents, which release 0.1 had and this one has not; separate with its "
            "exported files, or train again."
        )
