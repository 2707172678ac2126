"""Where a pipeline runs: on this machine's cores, or wherever Beam's own flags say."""

import contextlib
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions, WorkerOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner, PipelineState, create_runner
from apache_beam.transforms import environments

from vae_bss_tf.bulk import worker
from vae_bss_tf.errors import ConfigError, JobError

_LOCAL = (None, "DirectRunner", "FnApiRunner")
_EVERY_INTERFACE = ("[::]:", "0.0.0.0:")


def run(
    build: Callable[[beam.Pipeline], None], flags: Sequence[str], workers: int, lost: Callable[[str], None]
) -> None:
    """Runs a pipeline to its end.

    Args:
        build: Adds the job to an empty pipeline.
        flags: Beam's own, such as `--runner=FlinkRunner`. Without a runner the pipeline runs on this machine.
        workers: Processes on this machine; one runs in this process itself. Other runners have flags of their own.
        lost: Called with the reason when a process on this machine is lost; it does not return, since Beam's runner
            would wait for the process' answer for ever.

    Raises:
        ConfigError: A flag is not Beam's, or its value is none.
        JobError: The job failed.
    """
    options = _options(flags)
    runner = _runner(options, workers)
    with servers_on_loopback(), _telling_losses(lost):
        try:
            pipeline = beam.Pipeline(runner=runner, options=options)
            build(pipeline)
            state = pipeline.run().wait_until_finish()
        except Exception as error:  # runners raise errors of many kinds
            lines = [line for line in map(str.strip, str(error).splitlines()) if line] or [type(error).__name__]
            raise JobError(f"the job failed ({lines[-1][:300]}); run the same command again to go on.") from error
    if state != PipelineState.DONE:
        raise JobError(f"the job ended as {state}; run the same command again to go on.")


def _options(flags: Sequence[str]) -> PipelineOptions:
    try:
        options = PipelineOptions(list(flags))
        runner = options.view_as(StandardOptions).runner
    except SystemExit as error:  # argparse has printed what is wrong
        raise ConfigError("a flag of Beam has a wrong value; see the line above.") from error
    if runner in _LOCAL:
        known = options.get_all_options()
        unknown = set(options.get_all_options(retain_unknown_options=True)) - set(known)
        if unknown:
            raise ConfigError(f"--{min(unknown)} is no option of this command and none of Beam's; see --help.")
    return options


def _runner(options: PipelineOptions, workers: int) -> PipelineRunner:
    name = options.view_as(StandardOptions).runner
    if name not in _LOCAL:
        try:
            return create_runner(name)
        except (ValueError, ImportError, AttributeError) as error:
            raise ConfigError(
                f"there is no runner {name}, or it is not installed; Beam's documentation lists them."
            ) from error
    # Beam's direct runner would first try to download another one; the one that it falls back to is taken at once.
    direct = options.view_as(DirectOptions)
    direct.direct_num_workers = workers
    logs = options.view_as(WorkerOptions)
    logs.default_sdk_harness_log_level = logs.default_sdk_harness_log_level or "ERROR"
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = fn_runner.ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    environment = None
    if workers > 1:
        # Beam starts it by a shell, which "exec" has step aside. What goes wrong in it comes back by Beam's own ways.
        command = f"exec {shlex.quote(sys.executable)} -m {worker.__name__} {os.getpid()} 2>{os.devnull}"
        environment = environments.SubprocessSDKEnvironment.from_command_string(command)
    return fn_runner.FnApiRunner(environment, provision_info=provision)


@contextlib.contextmanager
def servers_on_loopback() -> Iterator[None]:
    """Has Beam's servers listen to this machine alone.

    The servers by which its runners speak to their workers take code from whoever connects, ask for no name, and would
    listen on every interface.
    """
    make = grpc.server

    def server(*arguments: Any, **keywords: Any) -> grpc.Server:
        made = make(*arguments, **keywords)
        add_port = made.add_insecure_port

        def add_insecure_port(address: str) -> int:
            for everywhere in _EVERY_INTERFACE:
                if address.startswith(everywhere):
                    address = "localhost:" + address.removeprefix(everywhere)
            return add_port(address)

        made.add_insecure_port = add_insecure_port
        return made

    grpc.server = server
    try:
        yield
    finally:
        grpc.server = make


@contextlib.contextmanager
def _telling_losses(lost: Callable[[str], None]) -> Iterator[None]:
    """Hears of the first lost worker by the thread that waits for it; the others are ended because of it."""
    told = threading.excepthook
    first = threading.Lock()

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.thread is not None and arguments.thread.name == "run_worker":
            if first.acquire(blocking=False):
                lost(str(arguments.exc_value))
        elif not isinstance(arguments.exc_value, grpc.RpcError):  # the first sign of the loss
            told(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = told


def is_local(flags: Sequence[str]) -> bool:
    """Whether Beam's flags leave the pipeline to this machine."""
    return _options(flags).view_as(StandardOptions).runner in _LOCAL
