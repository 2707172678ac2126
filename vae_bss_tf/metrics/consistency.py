"""A score of a separator that needs no true sources: how well it separates mixtures of its own outputs.

Mixtures are separated, neighbouring ones exchange half of their sources, and the new mixtures, whose sources are known,
are separated again. The score is the improvement of SI-SDR in dB (SI-SDRi): the SI-SDR of what comes out against what
went in, in the best order, less that of the new mixture itself. It is the idea by which RemixIT (Tzinis et al. 2022)
and MixCycle (2202.03875) learn from mixtures alone, taken as a measure.

A separator agrees with itself more easily than with the truth, so the definition closes the ways to agree without
separating:

- **Half the mixture in each output**, any other share of it, or the mixture itself: each output of a new mixture is
  that mixture, which is 0 dB, since the improvement counts. The ratio alone would not do: pictures resemble each other,
  unseparated ones most of all, and so a mixture of two resembles both.
- **Everything in one output**: of each mixture the `num_mixed` largest outputs must hold a share of at least
  `LEAST_SHARE` of the energy. One that does not is silence, and counts -30 dB as a source of the new mixture.
- **A fixed division**, such as the left and the right half of a picture, or low and high frequencies: it is undone
  perfectly where the new mixture holds a left and a right half, and not at all where it holds two left ones. Each two
  mixtures are therefore remixed twice, with sources from different outputs and with sources from the same ones, and the
  worse of both counts.
- **Spare outputs**: only the `num_mixed` largest outputs of a mixture are remixed, and of the new mixture's outputs
  those that fit best count, as in the scores against a truth.

So 0 dB means that nothing was separated. The score says how well a model undoes the mixing of what it takes for
sources. It is no estimate of the improvement against true sources: what is left of a source in another's
output is remixed with it. It ranks models of one kind on the same mixtures.

Mixtures of a single source count as failures: their second output is rightly silent. The remedy is to leave them out,
or to compare models only, since all of them lose alike.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import DataError
from vae_bss_tf.metrics.matching import match_sources
from vae_bss_tf.metrics.ratios import Float64

if TYPE_CHECKING:
    from vae_bss_tf.domains.base import Domain

Float32 = npt.NDArray[np.float32]

LIMIT_DB = 30.0
LEAST_SHARE = 0.01

_CHUNK = 100  # mixtures remixed at once; even
_SEED = (0, 0)


class Consistency(NamedTuple):
    """How well a separator separates mixtures of its own outputs.

    Attributes:
        scores: float64 `[num_mixtures // 2]`, the improvement of each two neighbouring mixtures, dB, in [-30, 30].
        shared_out: bool `[num_mixtures // 2 * 2]`, whether each of a mixture's `num_mixed` largest outputs holds at
            least `LEAST_SHARE` of their energy.
    """

    scores: Float64
    shared_out: npt.NDArray[np.bool_]


def remix_consistency(
    separate: Callable[[Float32], Float32], mixtures: Float32, domain: "Domain", num_mixed: int
) -> Consistency:
    """Separates mixtures, exchanges sources between neighbouring ones, and separates the new mixtures.

    The same mixtures give the same scores: nothing is drawn at random but the phases of sound, from a fixed seed.

    Args:
        separate: float32 `[n, *input_shape]` to float32 `[n, num_outputs, *input_shape]`; a fixed function.
        mixtures: float32 `[num_mixtures, *input_shape]`, in no particular order, so that neighbours are independent;
            an odd last one is left out.
        domain: What they are.
        num_mixed: How many sources a mixture holds, or at most holds; at least 2.

    Returns:
        The scores; all -30 dB where there are fewer outputs than two.

    Raises:
        DataError: There are fewer than two mixtures.
    """
    number = len(mixtures) // 2 * 2
    if number == 0:
        raise DataError(f"{len(mixtures)} mixtures cannot be remixed; two or more are needed.")
    chunks = [mixtures[first : min(first + _CHUNK, number)] for first in range(0, number, _CHUNK)]
    parts = [_of_chunk(separate, chunk, domain, num_mixed) for chunk in chunks]
    return Consistency(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _of_chunk(
    separate: Callable[[Float32], Float32], mixtures: Float32, domain: "Domain", num_mixed: int
) -> tuple[Float64, npt.NDArray[np.bool_]]:
    import tensorflow as tf

    from vae_bss_tf.objectives import remixing

    outputs = separate(mixtures)
    kept = min(num_mixed, outputs.shape[1])
    if kept < 2:
        return np.full(len(mixtures) // 2, -LIMIT_DB), np.zeros(len(mixtures), bool)
    sources = _largest(domain.exchangeable(tf.constant(outputs), tf.constant(mixtures)), kept)
    sources = remixing.silence_faint(sources, LEAST_SHARE)
    scores = [
        _agreement(separate, domain.remix(remixing.exchange(sources, given), tf.constant(_SEED)), domain)
        for given in _exchanges(len(mixtures), kept)
    ]
    return np.minimum(*scores), np.asarray(_sounding(sources).all(axis=1))


def _largest(sources: Any, number: int) -> Any:
    """The sources of most energy of each mixture, `[batch, number, ...]`, in the order of the outputs."""
    import tensorflow as tf

    energies = np.square(np.asarray(sources, np.float64)).reshape(*sources.shape[:2], -1).sum(axis=2)
    order = np.sort(np.argsort(-energies, axis=1, kind="stable")[:, :number], axis=1)
    return tf.gather(sources, tf.constant(order), batch_dims=1)


def _exchanges(batch: int, number: int) -> tuple[Float32, Float32]:
    """What `remixing.exchange` gives away: the first outputs of both mixtures; those of one, the last of the other."""
    first = np.tile(-np.arange(number, dtype=np.float32), (batch, 1))
    turned = first.copy()
    turned[1::2] *= -1
    return first, turned


def _agreement(separate: Callable[[Float32], Float32], mixed: Any, domain: "Domain") -> Float64:
    """Mean improvement of SI-SDR of the sources of each two mixtures, `[batch // 2]`, dB."""
    mixtures = np.asarray(mixed.mixture)
    found, unseparated = (
        np.clip(domain.remixed_si_sdr(outputs, mixed), -LIMIT_DB, LIMIT_DB)
        for outputs in (separate(mixtures), mixtures[:, np.newaxis])
    )
    ratios = np.clip(found - unseparated, -LIMIT_DB, LIMIT_DB)
    ratios = np.where(_sounding(mixed.sources)[:, np.newaxis], ratios, -LIMIT_DB)
    best = np.take_along_axis(ratios, match_sources(ratios)[:, np.newaxis], axis=1)[:, 0]
    return best.mean(axis=1).reshape(-1, 2).mean(axis=1)


def _sounding(sources: Any) -> npt.NDArray[np.bool_]:
    return np.asarray(np.asarray(sources).any(axis=tuple(range(2, len(sources.shape)))))
