"""How a client calls a model server."""

import dataclasses
from pathlib import Path

from vae_bss_tf.checks import check
from vae_bss_tf.errors import ConfigError

_LONGEST = 1_000_000  # seconds; the system's timers end somewhere


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """How a client calls a model server.

    Attributes:
        deadline: Seconds that one request may take, its retries included; > 0.
        retries: How often a request is sent again when the server cannot be reached, drops the connection, or says
            that it is unavailable (gRPC's UNAVAILABLE, HTTP's 503); >= 0. Nothing else is sent again. A request only
            computes, so sending it twice does no harm.
        backoff: Seconds before the first retry; > 0. Each further pause is twice as long, up to `max_backoff`, times
            a random factor between 0.5 and 1.
        max_backoff: Longest pause, seconds; > 0.
        max_message_bytes: Longest request and longest answer; >= 1. gRPC's own limit of 4 MiB is less than a minute
            of audio.
        manifest: An export's `manifest.json`: a model that differs from it is refused; it also gives the settings of a
            model whose server does not report them.

    Raises:
        ConfigError: A value is out of its range.

    Example:
        >>> options = ServerOptions(deadline=5.0, retries=0)
        >>> load("http://127.0.0.1:8501/v1/models/mnist", server=options)  # doctest: +SKIP
    """

    deadline: float = 60.0
    retries: int = 5
    backoff: float = 0.1
    max_backoff: float = 2.0
    max_message_bytes: int = 256 * 2**20
    manifest: Path | str | None = None

    def __post_init__(self) -> None:
        for name in ("deadline", "backoff", "max_backoff"):
            value = getattr(self, name)
            known = isinstance(value, int | float) and 0 < value <= _LONGEST
            check(known, name, value, f"a number of seconds, above 0 and up to {_LONGEST:,}")
        for name, least in (("retries", 0), ("max_message_bytes", 1)):
            value = getattr(self, name)
            check(isinstance(value, int) and value >= least, name, value, f"a whole number of at least {least}")
        if self.max_message_bytes >= 2**31:
            raise ConfigError(f"max_message_bytes is {self.max_message_bytes}; gRPC allows at most {2**31 - 1}.")
