"""Every system that separates mixtures, registered once: what it is, how it is trained, and how it separates."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf.baselines import oracle
from vae_bss_tf.checks import check_choice
from vae_bss_tf.errors import ConfigError

if TYPE_CHECKING:
    from vae_bss_tf.baselines.nmf import ImageNMF
    from vae_bss_tf.datasets.image_mixtures import EvaluationSet

Float32 = npt.NDArray[np.float32]
Budget = dict[str, Any]

REFINEMENT_STEPS = 100
BATCH = 500  # mixtures a call

DIVERGENCES = {"nmf": "itakura-saito", "nmf-kl": "kullback-leibler"}  # of NMF of sound

_IMAGES, _SOUND = "images", "sound"


class Material:
    """What systems without a trained run are made from.

    Args:
        truth: The test mixtures with their true sources, which only the oracles use.
        training: float32 `[n, *shape]`, training mixtures, for NMF's dictionary of images.

    Attributes:
        audio: The spectrogram's settings; None for images.
    """

    def __init__(self, truth: "EvaluationSet", training: Float32) -> None:
        self.truth = truth
        self.training = training
        self.audio = truth.audio

    @functools.cached_property
    def nmf(self) -> "tuple[ImageNMF, Budget]":
        """NMF of images, fitted on first use, and what it was fitted with."""
        from vae_bss_tf.baselines.nmf import ImageNMF

        started = time.perf_counter()
        nmf = ImageNMF().fit(self.training)
        seconds = round(time.perf_counter() - started, 1)
        return nmf, _budget(len(self.training), seconds, nmf.factorisation.components_.size)


@dataclasses.dataclass(frozen=True)
class System:
    """One system.

    Attributes:
        name: What it is called in commands and files.
        title: What it is called in tables.
        kind: "trivial", "untrained" (fitted when it is evaluated), "trained", or "oracle".
        separate: Takes the trained model or, for the other kinds, the `Material`, float32 `[n, *shape]` mixtures and
            K, and returns float32 `[n, K, *shape]`. Trained models have a K of their own. The oracles take the first n
            test mixtures and return as many outputs as those have sources.
        trained_as: The `--system` of `training.fit` whose run it needs; None for the other kinds.
        baseline: Whether what is trained is a baseline, whose model has a train step of its own.
        domains: The kinds of mixtures that it is for, of "images" and "sound".
        learns: Whether it learns from many training mixtures when it is evaluated.
        fitted: What it is fitted with when it is evaluated: "mixtures", "seconds", "parameters", "seed"; empty where
            nothing is fitted.

    Example:
        >>> of("sound")["vaem"].title
        'VAEM'
    """

    name: str
    title: str
    kind: str
    separate: Callable[[Any, Float32, int], Float32]
    trained_as: str | None = None
    baseline: bool = False
    domains: tuple[str, ...] = (_IMAGES, _SOUND)
    learns: bool = False
    fitted: Callable[[Material], Budget] = lambda material: {}

    def bound(self, subject: Any, num_sources: int) -> Callable[[Float32], Float32]:
        """Returns `separate` as a function of the mixtures alone.

        Args:
            subject: The trained model or the `Material`.
            num_sources: K.
        """
        return lambda mixtures: self.separate(subject, mixtures, num_sources)


def _budget(mixtures: int, seconds: float, parameters: int) -> Budget:
    return {"mixtures": mixtures, "seconds": seconds, "parameters": parameters, "seed": 0}


def _trivial(name: str) -> Callable[[Material, Float32, int], Float32]:
    return lambda material, mixtures, num_sources: oracle.trivial_estimates(mixtures, num_sources)[name]


def _oracle(mask: oracle.Mask) -> Callable[[Material, Float32, int], Float32]:
    return lambda material, mixtures, num_sources: mask(mixtures, material.truth.sources[: len(mixtures)])


def _image_nmf(material: Material, mixtures: Float32, num_sources: int) -> Float32:
    return material.nmf[0].separate(mixtures, num_sources=num_sources)


def _grouped_nmf(material: Material, mixtures: Float32, num_sources: int) -> Float32:
    return material.nmf[0].separate_oracle(mixtures, material.truth.sources[: len(mixtures)])


def _sound_nmf(name: str) -> Callable[[Material, Float32, int], Float32]:
    def separate(material: Material, mixtures: Float32, num_sources: int) -> Float32:
        from vae_bss_tf.baselines.nmf_spectrogram import SpectrogramNMF

        assert material.audio is not None
        return SpectrogramNMF(material.audio, num_sources, DIVERGENCES[name]).separate(mixtures)

    return separate


def _decoded(model: Any, mixtures: Float32, num_sources: int) -> Float32:
    return model.predict({"mixture": mixtures}, batch_size=BATCH, verbose=0)["estimates"]


def _masked(model: Any, mixtures: Float32, num_sources: int) -> Float32:
    return model.separate(mixtures, batch_size=BATCH)


def _refined(model: Any, mixtures: Float32, num_sources: int) -> Float32:
    return model.separate(mixtures, batch_size=BATCH, refine=REFINEMENT_STEPS)


_of_single_spectrograms = functools.partial(
    System, kind="untrained", domains=(_SOUND,), fitted=lambda material: _budget(0, 0.0, 0)
)
_of_dictionary = functools.partial(System, domains=(_IMAGES,), learns=True, fitted=lambda material: material.nmf[1])

SYSTEMS: tuple[System, ...] = (
    System("zeros", "zeros", "trivial", _trivial("zeros")),
    System("mixture", "mixture", "trivial", _trivial("mixture")),
    System("mixture/k", "mixture / K", "trivial", _trivial("mixture/k")),
    _of_dictionary("nmf", "NMF", "untrained", _image_nmf),
    _of_single_spectrograms("nmf", "NMF", separate=_sound_nmf("nmf")),
    _of_single_spectrograms("nmf-kl", "NMF, Kullback-Leibler", separate=_sound_nmf("nmf-kl")),
    System("ae", "AE", "trained", _decoded, "ae"),
    System("aem", "AE, masked", "trained", _masked, "ae"),
    System("glo", "GLO", "trained", _masked, "glo", baseline=True, domains=(_IMAGES,)),
    System("mixit", "MixIT", "trained", _masked, "mixit", baseline=True),
    System("remixit", "RemixIT", "trained", _masked, "remixit", baseline=True),
    System("self-remixing", "Self-Remixing", "trained", _masked, "self-remixing", baseline=True),
    System("vae", "VAE", "trained", _decoded, "vae"),
    System("vaem", "VAEM", "trained", _masked, "vae"),
    System("vaem-refined", f"VAEM, refined ({REFINEMENT_STEPS} steps)", "trained", _refined, "vae"),
    _of_dictionary("nmf-oracle", "NMF, oracle grouping", "oracle", _grouped_nmf),
    System("ibm", "IBM", "oracle", _oracle(oracle.MASKS["ibm"])),
    System("irm", f"IRM (exponent {oracle.IRM_EXPONENT:g})", "oracle", _oracle(oracle.MASKS["irm"])),
)


def of(kind: str) -> dict[str, System]:
    """Returns the systems for a kind of mixtures, by name, in the order of the tables.

    Args:
        kind: "images" or "sound".
    """
    return {system.name: system for system in SYSTEMS if kind in system.domains}


def find(name: str, kind: str) -> System:
    """Returns the system of a name.

    Args:
        name: Its name.
        kind: The kind of mixtures, "images" or "sound".

    Raises:
        ConfigError: There is no such system, or it is for the other kind.
    """
    systems = of(kind)
    if name not in systems and any(system.name == name for system in SYSTEMS):
        raise ConfigError(f"{name} does not separate {kind}; leave it out. Choose from: {', '.join(systems)}.")
    return systems[check_choice("system", name, systems)]


def trained() -> tuple[str, ...]:
    """Returns what `training.fit --system` can train, the models before the baselines."""
    names = dict.fromkeys(system.trained_as for system in SYSTEMS if system.trained_as)
    return tuple(sorted(names, key=lambda name: (is_baseline(name), name != "vae")))


def is_baseline(name: str) -> bool:
    """Returns whether what `--system NAME` trains is a baseline, whose model has a train step of its own."""
    return any(system.baseline for system in SYSTEMS if system.trained_as == name)


def trains_on(name: str, kind: str) -> bool:
    """Returns whether what `--system NAME` trains is for a kind of mixtures, "images" or "sound"."""
    return any(system.trained_as == name for system in of(kind).values())
