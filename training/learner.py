"""A model and an objective, as one Keras model that `fit` trains."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.objectives import Objective
from vae_bss_tf.phases import PARTS


class Learner(keras.Model):
    """Trains parts of a separator by an objective; neither knows of the other.

    `fit` takes a data set of `{"mixture": float32 [batch, *input_shape]}` and nothing else: no source can reach the
    model. Parts that are not trained stay as they are, the moments of their batch normalisation included.

    Args:
        separator: The model.
        objective: What a step minimises.
        parts: The parts of the model that are trained: of "encoder", "decoder" and "mask_network".

    Example:
        >>> from vae_bss_tf.objectives import Elbo
        >>> learner = Learner(MultiSourceVAE.from_preset("digits"), Elbo(), ("encoder", "decoder"))
        >>> learner.compile(keras.optimizers.Adam(1e-3))
        >>> history = learner.fit({"mixture": tf.random.uniform([32, 8, 8])}, verbose=0)
    """

    def __init__(self, separator: MultiSourceVAE, objective: Objective, parts: tuple[str, ...]) -> None:
        super().__init__(dtype=separator.dtype_policy)
        self.separator = separator
        self.objective = objective
        self.parts = tuple(parts)
        self.trackers = {name: keras.metrics.Mean(name=name) for name in ("loss", *objective.metrics)}
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss and the objective's metrics, as means over mixtures."""
        return list(self.trackers.values())

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The weights of the parts that are trained."""
        return [v for part in self.parts for v in getattr(self.separator, part).trainable_variables]

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """As `trainable_variables`."""
        return self.trainable_variables

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.separator(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step of gradient descent on a batch of mixtures; called by `fit`.

        Args:
            data: `{"mixture": float32 [batch, *input_shape]}` in [0, 1].

        Returns:
            The metrics by name.
        """
        for name, value in self.descend(_mixture(data)).items():
            self.trackers[name].update_state(value)
        return self.get_metrics_result()

    def descend(self, mixture: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step of gradient descent.

        Args:
            mixture: float32 `[batch, *input_shape]` in [0, 1], this replica's part.

        Returns:
            The loss, float32 scalar, and the objective's metrics, float32 `[batch]` each, by name.
        """
        variables = self.trainable_variables
        with self._others_frozen():
            with tf.GradientTape() as tape:
                loss, values = self.objective(self.separator, mixture, self.optimizer.iterations.value)
                # Gradients are summed over the replicas, so each contributes its share of the mean.
                share = self.optimizer.scale_loss(loss / tf.distribute.get_strategy().num_replicas_in_sync)
            self.optimizer.apply(tape.gradient(share, variables), variables)  # all replicas meet here
        return {"loss": loss, **values}

    @contextlib.contextmanager
    def _others_frozen(self) -> Iterator[None]:
        """Batch normalisation of the parts that are not trained uses its own moments, and does not change them."""
        others = [getattr(self.separator, part) for part in PARTS if part not in self.parts]
        others = [part for part in others if part is not None]
        before = [(variable, variable.trainable) for part in others for variable in part.variables]
        try:
            for part in others:
                part.trainable = False
            yield
        finally:
            for part in others:
                part.trainable = True
            for variable, is_trained in before:  # not the biases before batch normalisation
                variable.trainable = is_trained

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """The objective's metrics on a batch of held-out mixtures; called by `fit`.

        Args:
            data: As `train_step` takes it.

        Returns:
            The metrics by name.
        """
        for name, value in self.objective.validate(self.separator, _mixture(data)).items():
            self.trackers[name].update_state(value)
        return {name: self.trackers[name].result() for name in self.objective.metrics}


def _mixture(data: Any) -> tf.Tensor:
    inputs, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    return tf.cast(inputs["mixture"], tf.float32)
