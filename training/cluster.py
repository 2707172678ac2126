"""Several hosts that train one model: which of them this process is, and what they agree on.

Each process is told by the environment variable TF_CONFIG who the others are and which of them it is itself. The chief
is the first; it alone writes to the run folder. The others keep the same files in a folder of their own while they
train, so that every process runs the same code.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf
from tensorflow.python.eager import context

from vae_bss_tf.errors import CheckpointError, ConfigError, JobError

_VARIABLE = "TF_CONFIG"
_RESUMED = ("config.json", "history.csv", "backup")
_LOSSES = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)


# Seconds that a worker waits for all others before the training begins.
WAIT_SECONDS = 600
# Seconds without a sign of life after which a worker counts as lost. TensorFlow's 10 are too few for one that shares
# its processor while it traces a graph.
_PATIENCE = 60


@dataclasses.dataclass(frozen=True)
class Place:
    """Which of the workers this process is.

    Attributes:
        index: Its number; the chief has 0.
        workers: How many there are.
    """

    index: int = 0
    workers: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.index == 0


def place() -> Place:
    """Reads which of the workers this process is from TF_CONFIG.

    Returns:
        Its place.

    Raises:
        ConfigError: TF_CONFIG is missing or no description of a cluster of a chief and workers.
    """
    return _described()[0]


def _described() -> tuple[Place, dict[str, list[str]]]:
    """Reads TF_CONFIG: this process' place, and the addresses of the chief and the workers."""
    text = os.environ.get(_VARIABLE)
    if text is None:
        raise ConfigError(
            f"multi-worker needs {_VARIABLE}, such as "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}.'
        )
    try:
        described = json.loads(text)
        cluster, task = described["cluster"], described["task"]
        kind, index = task["type"], int(task["index"])
        found = {name: list(addresses) for name, addresses in cluster.items() if isinstance(addresses, list)}
        chiefs, every = found.get("chief", []), [address for addresses in found.values() for address in addresses]
        if set(cluster) - {"chief", "worker"} or len(found) < len(cluster) or len(chiefs) > 1:
            raise ValueError
        if not 0 <= index < len(found[kind]) or len(set(every)) < len(every):
            raise ValueError
        if any(not 0 < int(address.rpartition(":")[2]) < 1 << 16 for address in every):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{_VARIABLE} is {text[:200]}; it must name a cluster of at most one chief and workers, each by an address "
            "of its own such as host1:2222, and the task of this process among them."
        ) from error
    return Place(index + (len(chiefs) if kind == "worker" else 0), len(every)), found


def connected() -> tf.distribute.MultiWorkerMirroredStrategy:
    """Waits for the other workers of TF_CONFIG and makes the strategy.

    Returns:
        The strategy.

    Raises:
        ConfigError: TF_CONFIG is missing or wrong, or TensorFlow has begun to compute already.
        JobError: The workers do not meet within `WAIT_SECONDS`.
    """
    mine, jobs = _described()
    message = context.coordination_config_pb2.CoordinatedJob  # releases keep it in different modules
    coordinated = [message(name=name, num_tasks=len(jobs[name])) for name in ("chief", "worker") if jobs.get(name)]
    context.context().configure_coordination_service(
        "standalone",
        f"/job:{coordinated[0].name}/replica:0/task:0",
        cluster_register_timeout_in_ms=1000 * WAIT_SECONDS,
        heartbeat_timeout_in_ms=1000 * _PATIENCE,
        coordinated_jobs=coordinated,
    )
    # Without the barrier the chief would wait for an hour, whatever the timeout.
    context.context().coordination_service.cluster_register_with_barrier = True
    every = [address for job in coordinated for address in jobs[job.name]]
    print(f"waiting for {mine.workers} workers: {', '.join(every)}", flush=True)
    with _ended_by_signals():
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError as error:
            raise ConfigError("multi-worker is asked for after TensorFlow has begun to compute; ask before.") from error
        except _LOSSES as error:
            raise JobError(_why_alone(error, mine, every)) from error


def _why_alone(error: tf.errors.OpError, mine: Place, every: list[str]) -> str:
    """Says why the workers did not meet."""
    if isinstance(error, tf.errors.DeadlineExceededError):
        return (
            f"not all {mine.workers} workers came within {WAIT_SECONDS} s; start one with each index, and see that "
            f"they reach each other at the addresses of {_VARIABLE}."
        )
    if "start gRPC server" in str(error):
        return f"the port of {every[mine.index]} is in use; give every worker an index and an address of its own."
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return f"the workers did not meet ({reason}); end them all, and give each an index of its own."


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Has Ctrl-C end the process while TensorFlow waits, and SIGTERM afterwards, which TensorFlow would ignore."""
    interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def leave(code: int) -> None:
    """Ends this process at once if it has joined others, for whom TensorFlow would wait while it shuts down.

    Args:
        code: The exit code.
    """
    if context.context().coordination_service is not None:
        sys.stdout.flush()
        os._exit(code)


def place_in(strategy: tf.distribute.Strategy) -> Place:
    """Which of a strategy's workers this process is; the only one under a strategy of one host."""
    return place() if spans_hosts(strategy) else Place()


def spans_hosts(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy is one of several hosts."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


@contextlib.contextmanager
def own_folder(mine: Place, output: Path, *, resume: bool) -> Iterator[Path]:
    """Gives the folder that this process writes to while it trains.

    Args:
        mine: This process.
        output: The run folder.
        resume: Whether the run in it is resumed.

    Yields:
        For the chief the run folder itself; for others a folder that is removed afterwards, which begins with a copy of
        what a resumed training reads.

    Raises:
        CheckpointError: The run in `output` cannot be read; all workers must see the same folder.
    """
    if mine.is_chief:
        yield output
        return
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / output.name
        if resume:
            folder.mkdir()
            for name in _RESUMED:
                _copy(output / name, folder / name)
        yield folder


def _copy(path: Path, target: Path) -> None:
    try:
        if path.is_dir():
            shutil.copytree(path, target)
        elif path.exists():
            shutil.copyfile(path, target)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be copied ({error}); all workers must see one --output.") from error


@contextlib.contextmanager
def silent(mine: Place) -> Iterator[None]:
    """Keeps what every worker prints alike from standard output of all but the chief."""
    with contextlib.nullcontext() if mine.is_chief else contextlib.redirect_stdout(None):
        yield


def agree(strategy: tf.distribute.Strategy, value: Callable[[], str]) -> None:
    """Waits for all workers and makes sure that they have the same settings, data or weights.

    Args:
        strategy: The strategy.
        value: Gives what must be the same, as text; called on several hosts only.

    Raises:
        ConfigError: It differs between workers.
        JobError: A worker was lost.
    """
    if not spans_hosts(strategy):
        return
    number = int(hashlib.sha256(value().encode()).hexdigest()[:6], 16)  # exact in float32, as is the sum of many
    mean = meet(strategy, float(number))
    if mean != number:
        raise ConfigError(
            "the workers have different settings or data, or resume from different backups: give all the same command "
            "and, to resume, an --output that is the same folder for all; on processors of different kinds, add "
            "--mixed-precision float32."
        )


def meet(strategy: tf.distribute.Strategy, number: float = 0.0) -> float:
    """Waits for all workers.

    Args:
        strategy: A strategy of several hosts.
        number: This worker's.

    Returns:
        The mean of all workers' numbers.

    Raises:
        JobError: A worker was lost.
    """

    @tf.function
    def mean() -> tf.Tensor:
        each = strategy.run(lambda: tf.constant(number, tf.float64))
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, each, axis=None)

    with losses_told():
        return float(mean())


@contextlib.contextmanager
def losses_told() -> Iterator[None]:
    """Turns what TensorFlow raises when another worker is gone into one line.

    Raises:
        JobError: A worker was lost.
    """
    try:
        yield
    except _LOSSES as error:
        reason = type(error).__name__
        raise JobError(
            f"another worker was lost ({reason}); give every worker the same command with --resume."
        ) from error
