"""A worker process of a job on this machine: Beam's own, which ends when the job's process is gone.

The runner starts it by `python -m vae_bss_tf.bulk.worker PID`, with the number of the job's process.
"""

import logging
import os
import sys
import threading
import time

_LOOK_SECONDS = 0.5


def main() -> None:
    """Works for the job until there is no more to do."""
    logging.getLogger().setLevel(logging.ERROR)  # Beam warns of parts of it that are not installed
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


def _end_with(job: int) -> None:
    """Ends this process as soon as another one is its parent: Beam would finish all of its files first."""
    while os.getppid() == job:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
