"""How a command ends: exit codes, one line for each mistake, and output whose reader goes away."""

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tensorflow.errors import ResourceExhaustedError

from vae_bss_tf.errors import ConfigError, run_command

TALK = """
import sys
from pathlib import Path
from vae_bss_tf.errors import run_command

def command():
    for i in range(20_000):
        print("line", i, flush=i % 100 == 0)
        print("line", i, file=sys.stderr)
    Path(sys.argv[1]).write_text("done")

sys.exit(run_command(command))
"""


@pytest.mark.parametrize("redirection", ["2>/dev/null | head -1", "2>&1 | head -1", ">&-", ">&- 2>&-"])
def test_a_command_outlives_the_reader_of_its_output(tmp_path: Path, redirection: str) -> None:
    line = f'"{sys.executable}" -c "$TALK" "{tmp_path / "done"}" {redirection}; exit ${{PIPESTATUS[0]}}'
    process = subprocess.run(
        ["bash", "-c", line], env={**os.environ, "TALK": TALK}, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0
    assert (tmp_path / "done").read_text() == "done"
    assert "Error" not in process.stdout + process.stderr
    assert "Traceback" not in process.stdout + process.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConfigError("beta is -1."), "beta is -1."),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk"),
        (OSError(errno.EFBIG, "File too large", "a.wav"), r"no space left on the disk \(a.wav\)"),
        (OSError("HDF5 failed, errno = 28"), "no space left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), r"no permission \(a\)"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), "file name too long"),
        (ModuleNotFoundError("no", name="matplotlib.pyplot"), r"matplotlib is not .*'vae-bss-tf\[figures\]'"),
        (ModuleNotFoundError("no", name="tensorflow"), r"'vae-bss-tf\[train\]'"),
        (MemoryError("Unable to allocate 16.0 GiB"), "not enough memory"),
        (ResourceExhaustedError(None, None, "OOM when allocating"), "not enough memory"),
        (ResourceExhaustedError(None, None, "part-0; No space left on device"), "no space left on the disk"),
        (ConfigError("there is no folder\nof two lines"), "no folder of two lines"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    assert run_command(command) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert re.search(f"^error: .*{message}", printed)


@pytest.mark.parametrize("error", [ModuleNotFoundError("no", name="ours"), OSError("unknown"), ZeroDivisionError()])
def test_a_fault_of_the_program_keeps_its_traceback(error: Exception) -> None:
    def command() -> None:
        raise error

    with pytest.raises(type(error)):
        run_command(command)


def test_characters_that_the_terminal_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    assert run_command(lambda: print(os.fsdecode(b"caf\xe9.wav"))) == 0
    assert raw.getvalue() == b"caf\\udce9.wav\n"
