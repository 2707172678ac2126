"""Non-negative matrix factorisation: parts learned from mixtures, grouped into sources without the truth."""

from typing import Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf.checks import check, check_mixtures
from vae_bss_tf.errors import DataError
from vae_bss_tf.masking import ratio_mask

Float32 = npt.NDArray[np.float32]

NUM_COMPONENTS = 32
EMBEDDING_DIM = 16
_GROUPING_STEPS = 10
_UPDATES = 100  # when the dictionary is learned, and when activations are found for it


class ImageNMF:
    """NMF of images: mixture = activations times a dictionary of parts that is learned on training mixtures.

    The dictionary is scikit-learn's NMF with the generalised Kullback-Leibler divergence (Lee, Seung 1999),
    multiplicative updates. Parts are grouped into sources, in each mixture, by a rule that knows only training
    mixtures: parts whose activations rise and fall together over the training mixtures belong to one source,
    because the sources of a mixture are drawn independently. Each part is a point, its row in the leading
    eigenvectors of the correlation of the activations scaled by the square root of the eigenvalues; in each mixture
    the points, weighted by their part's mass there, are split into K clusters by k-means. The clusters' sums
    then share the mixture in proportion (the ratio mask of VAEM).

    Args:
        num_components: Parts in the dictionary; at least 1.

    Raises:
        ConfigError: `num_components` is out of its range.

    Example:
        >>> mixtures = np.random.default_rng(0).uniform(size=(100, 8, 8)).astype(np.float32)
        >>> ImageNMF().fit(mixtures).separate(mixtures[:5], num_sources=2).shape
        (5, 2, 8, 8)
    """

    def __init__(self, num_components: int = NUM_COMPONENTS) -> None:
        from sklearn.decomposition import NMF

        check(num_components >= 1, "num_components", num_components, "at least 1")
        self.factorisation = NMF(
            num_components,
            init="random",
            solver="mu",
            beta_loss="kullback-leibler",
            max_iter=_UPDATES,
            tol=0.0,
            random_state=0,
        )
        self.num_components = num_components

    def fit(self, mixtures: npt.ArrayLike) -> "ImageNMF":
        """Learns the dictionary and which of its parts occur together.

        Args:
            mixtures: float32 `[num_mixtures, height, width]`, training mixtures, in [0, 1].

        Returns:
            Itself.

        Raises:
            DataError: The mixtures' shape or range is wrong.
        """
        array = np.asarray(mixtures, np.float32)
        self.shape = array.shape[1:]
        flat = check_mixtures(array, self.shape).reshape(len(array), -1)
        activations = self.factorisation.fit_transform(flat)
        self.part_mass = self.factorisation.components_.sum(axis=1)
        correlation = np.nan_to_num(np.corrcoef(activations, rowvar=False))
        values, vectors = np.linalg.eigh(np.atleast_2d(correlation))
        kept = slice(-EMBEDDING_DIM, None)
        self.embedding = vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0.0))
        return self

    def separate(self, mixtures: npt.ArrayLike, *, num_sources: int) -> Float32:
        """Separates mixtures, grouping the parts by the blind rule above.

        Args:
            mixtures: float32 `[n, height, width]`, in [0, 1].
            num_sources: K, from 1 to the number of parts.

        Returns:
            float32 `[n, num_sources, height, width]`; the sources of a mixture sum to it.

        Raises:
            ConfigError: `num_sources` is out of its range.
            DataError: The mixtures' shape or range is wrong, or `fit` was not called yet.
        """
        check(1 <= num_sources <= self.num_components, "num_sources", num_sources, f"from 1 to {self.num_components}")
        array, activations = self._activations(mixtures)
        groups = _weighted_kmeans(self.embedding, activations * self.part_mass, num_sources)
        return self._resynthesise(array, activations, groups, num_sources)

    def separate_oracle(self, mixtures: npt.ArrayLike, sources: npt.ArrayLike) -> Float32:
        """Separates mixtures with each part given to the true source that it resembles most: an oracle.

        A part goes to the source with the largest inner product with the part's image.

        Args:
            mixtures: float32 `[n, height, width]`, in [0, 1].
            sources: float32 `[n, num_sources, height, width]`, the true sources.

        Returns:
            float32 `[n, num_sources, height, width]`, in the order of `sources`.

        Raises:
            DataError: The mixtures' shape or range is wrong, or nothing was learned yet.
        """
        array, activations = self._activations(mixtures)
        truth = np.asarray(sources, np.float32).reshape(len(array), -1, self.factorisation.components_.shape[1])
        groups = np.argmax(self.factorisation.components_ @ truth.swapaxes(1, 2), axis=2)
        return self._resynthesise(array, activations, groups, truth.shape[1])

    def _activations(self, mixtures: npt.ArrayLike) -> tuple[Float32, npt.NDArray[Any]]:
        if not hasattr(self, "embedding"):
            raise DataError("this NMF has learned nothing yet; call fit with training mixtures first.")
        array = check_mixtures(np.asarray(mixtures, np.float32), self.shape)
        return array, self.factorisation.transform(array.reshape(len(array), -1))

    def _resynthesise(
        self, mixtures: Float32, activations: npt.NDArray[Any], groups: npt.NDArray[Any], num_sources: int
    ) -> Float32:
        member = groups[:, None, :] == np.arange(num_sources)[:, None]
        estimates = (activations[:, None, :] * member) @ self.factorisation.components_
        estimates = estimates.reshape(len(mixtures), num_sources, *self.shape)
        return ratio_mask(estimates, mixtures, ops=np).astype(np.float32)


def _weighted_kmeans(points: npt.NDArray[Any], weights: npt.NDArray[Any], num_clusters: int) -> npt.NDArray[np.int64]:
    """K-means of the same points under many weightings at once.

    Starts from the heaviest point, then from the points of the largest weight times squared distance to the centres
    so far.

    Args:
        points: `[num_points, dim]`.
        weights: `[batch, num_points]`, >= 0.
        num_clusters: At most `num_points`.

    Returns:
        int64 `[batch, num_points]`, the cluster of each point.
    """
    chosen = np.argmax(weights, axis=1)[:, None]
    for _ in range(num_clusters - 1):
        distance = _squared_distance(points, points[chosen]).min(axis=2)
        chosen = np.concatenate([chosen, np.argmax(weights * distance, axis=1)[:, None]], axis=1)
    centres = points[chosen]
    for _ in range(_GROUPING_STEPS):
        groups = np.argmin(_squared_distance(points, centres), axis=2)
        share = weights[:, None, :] * (groups[:, None, :] == np.arange(num_clusters)[:, None])
        mass = share.sum(axis=2, keepdims=True)
        centres = np.where(mass > 0, (share @ points) / np.where(mass > 0, mass, 1.0), centres)
    return groups


def _squared_distance(points: npt.NDArray[Any], centres: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`[batch, num_points, num_centres]` from `[num_points, dim]` and `[batch, num_centres, dim]`."""
    return np.sum(points**2, -1)[:, None] + np.sum(centres**2, -1)[:, None, :] - 2 * points @ centres.swapaxes(1, 2)
