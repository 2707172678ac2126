"""Devices: one, or several of one host or of many that `tf.distribute` keeps equal."""

import tensorflow as tf

from training import cluster
from vae_bss_tf.checks import check_choice
from vae_bss_tf.errors import ConfigError

STRATEGIES = ("auto", "mirrored", "multi-worker", "single")
EARLY = ("mirrored", "multi-worker")  # set TensorFlow's devices up, so they are made before anything else is
_LOGICAL_CPUS = 2


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Chooses the strategy that a training runs under.

    Args:
        name: "auto" mirrors over the GPUs when there is more than one; "mirrored" always mirrors, over two logical
            CPU devices where there is no GPU (a check of the code, not a gain in speed); "multi-worker" mirrors over
            the hosts that TF_CONFIG names, once all are there; "single" never does.

    Returns:
        The strategy.

    Raises:
        ConfigError: The name is another; TensorFlow has set up its devices already; or TF_CONFIG is missing or wrong.
        JobError: Another worker cannot be reached.
    """
    check_choice("strategy", name, STRATEGIES)
    if name == "multi-worker":
        return cluster.connected()
    gpus = tf.config.list_physical_devices("GPU")
    if name == "mirrored" and not gpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        if tf.config.get_logical_device_configuration(cpu) is None:
            try:
                tf.config.set_logical_device_configuration(
                    cpu, [tf.config.LogicalDeviceConfiguration()] * _LOGICAL_CPUS
                )
            except RuntimeError as error:
                raise ConfigError("mirrored is asked for after TensorFlow has begun to compute; ask before.") from error
        devices = [f"CPU:{i}" for i in range(_LOGICAL_CPUS)]
        # The default all-reduce crashes on logical CPU devices when a call runs several steps.
        return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def can_jit_compile(strategy: tf.distribute.Strategy) -> bool:
    """Says whether XLA can compile a step under a strategy: not on several CPU replicas, nor on several hosts.

    Args:
        strategy: As `make_strategy` gives it.

    Returns:
        True or False.
    """
    if cluster.spans_hosts(strategy):
        return False
    return strategy.num_replicas_in_sync == 1 or bool(tf.config.list_physical_devices("GPU"))


def describe(strategy: tf.distribute.Strategy) -> str:
    """Names the devices of a strategy.

    Args:
        strategy: As `make_strategy` gives it.

    Returns:
        Such as "1 x CPU", "4 x GPU, mirrored" or "8 x GPU on 2 workers, mirrored".
    """
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    replicas = strategy.num_replicas_in_sync
    workers = f" on {cluster.place_in(strategy).workers} workers" if cluster.spans_hosts(strategy) else ""
    return f"{replicas} x {kind}{workers}" + (", mirrored" if replicas > 1 else "")
