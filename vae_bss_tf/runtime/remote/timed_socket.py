"""A socket whose reads end at a given time, however slowly the other side sends."""

import socket
import time
from typing import Any


class TimedSocket(socket.socket):
    """A socket that stops reading at the time `end`; a timeout alone starts anew with each byte that comes.

    Attributes:
        end: When reading stops with `TimeoutError`, on the clock of `time.monotonic`.
    """

    end = float("inf")

    def recv_into(self, *arguments: Any) -> int:
        """Receives into a buffer, as a socket does."""
        if self.end != float("inf"):
            self.settimeout(seconds_until(self.end))
        return super().recv_into(*arguments)


def seconds_until(end: float) -> float:
    """Seconds from now to a time of `time.monotonic`.

    Raises:
        TimeoutError: It has passed.
    """
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time is over")
    return left
