"""What leaves a mixture of pictures a mixture, whatever its sources are: moving, mirroring and darkening it."""

from typing import TYPE_CHECKING

from vae_bss_tf.config import DataConfig

if TYPE_CHECKING:
    import tensorflow as tf

_SEED = 1 << 33  # apart from the draws of mixtures, which have seeds around 0 and 1 << 32


def augmented(mixtures: "tf.data.Dataset", data: DataConfig, *, seed: int, start_step: int = 0) -> "tf.data.Dataset":
    """Moves, mirrors and darkens each mixture of each batch at random, as the settings say.

    All sources of a mixture move together, since nobody can tell them apart. The change of batch `i` depends on the
    seed and `i` alone.

    Args:
        mixtures: Batches of `{"mixture": float32 [batch_size, height, width]}`, or `[batch_size, height, width,
            channels]`, in [0, 1].
        data: `max_shift`, `mirror` and `min_gain`.
        seed: Seed of the training.
        start_step: Index of the first batch.

    Returns:
        Batches of the same shape. What a shift uncovers repeats the outermost pixels.
    """
    import tensorflow as tf

    def change(batch: dict[str, "tf.Tensor"], step: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        pictures = batch["mixture"]
        number, height, width = pictures.shape[:3]
        step_seed = tf.stack([tf.constant(seed, tf.int64), step + _SEED])
        drawn = tf.random.stateless_uniform([4, number, 1], step_seed)
        shifts = tf.cast(tf.floor(drawn[:2] * (2 * data.max_shift + 1)), tf.int32) - data.max_shift
        rows = tf.clip_by_value(tf.range(height) + shifts[0], 0, height - 1)
        columns = tf.clip_by_value(tf.range(width) + shifts[1], 0, width - 1)
        if data.mirror:
            columns = tf.where(drawn[2] < 0.5, columns, width - 1 - columns)
        moved = tf.gather(tf.gather(pictures, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
        gains = data.min_gain + drawn[3] * (1 - data.min_gain)
        return {"mixture": moved * tf.reshape(gains, [number, *[1] * (len(pictures.shape) - 1)])}

    steps = tf.data.Dataset.counter(start_step)
    return tf.data.Dataset.zip(mixtures, steps).map(change, num_parallel_calls=2, deterministic=True).prefetch(8)
