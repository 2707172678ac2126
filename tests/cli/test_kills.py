"""Commands that are killed at random moments and run again: nothing is lost, nothing left behind, the result the same.

A command runs to its end, in whose course it is halted at random moments for a copy of what is on the disk: that is
what kill -9 leaves there. VAE_BSS_KILLS is the number of copies of each command's folder; the same command then runs
on each of them.
"""

import contextlib
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from export import __main__ as export
from training import evaluate, fit
from training.run import Run
from vae_bss_tf import separate
from vae_bss_tf.datasets.decoded import CACHE_VARIABLE, SAVE_EVERY
from vae_bss_tf.runtime import load

REPOSITORY = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("VAE_BSS_KILLS", "1"))
pytestmark = pytest.mark.timeout(200 * max(KILLS, 3))
MEAN_PAUSE = 0.15 / KILLS  # seconds between two moments at which a process may be halted


@pytest.fixture(scope="module", autouse=True)
def small_results() -> None:
    """What runs in this process is compared with what ran in another: both write all results."""


@contextlib.contextmanager
def halted(process: subprocess.Popen) -> Iterator[None]:
    """Halts a process and its children."""
    os.killpg(process.pid, signal.SIGSTOP)
    leader = psutil.Process(process.pid)
    for one in (leader, *leader.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            while one.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE) and not in_vfork(one):
                time.sleep(0.001)
    yield
    os.killpg(process.pid, signal.SIGCONT)


def in_vfork(process: psutil.Process) -> bool:
    """Whether a process waits for a halted one that it is starting; it cannot be halted before that has started."""
    try:
        return Path(f"/proc/{process.pid}/wchan").read_text() in ("kernel_clone", "wait_for_vfork_done")
    except OSError:
        return False


def kill(module: str, words: list[object], folder: Path) -> list[Path]:
    """Runs a command that writes to a folder, and returns copies of it as kills at random moments would leave it.

    Every moment since the command began to write is as likely as any other.
    """
    rng, copies, moments = random.Random(0), [], 0
    before = listing(folder)
    command = [sys.executable, "-m", module, *map(str, words)]
    log = folder.parent / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output, start_new_session=True)
        try:
            while process.poll() is None:
                time.sleep(rng.expovariate(1 / MEAN_PAUSE))
                if not moments and listing(folder) == before:
                    continue
                moments += 1
                place = len(copies) if len(copies) < KILLS else rng.randrange(moments)
                if place < KILLS:
                    copy = folder.parent / f"killed{place}"
                    with halted(process):
                        shutil.rmtree(copy, ignore_errors=True)
                        shutil.copytree(folder, copy, symlinks=True)
                    copies[place : place + 1] = [copy]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, log.read_text()
    assert len(copies) == KILLS
    return copies


def listing(folder: Path) -> list[tuple]:
    """What is in a folder, even while it changes."""
    return [(place, sorted(folders), sorted(files)) for place, folders, files in os.walk(folder)]


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that a command writes to."""
    (tmp_path / "whole").mkdir()
    return tmp_path / "whole"


@pytest.fixture
def signals() -> Iterator[None]:
    """Restores what a command sets."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def test_a_training_of_all_phases(command: list[str], folder: Path, check_equal: Callable) -> None:
    copies = kill("training.fit", [*command, "--output", folder / "run"], folder)
    for copy in copies:
        resume = ["--resume"] if (copy / "run" / "config.json").exists() else []
        assert fit.main([*command, "--output", str(copy / "run"), *resume]) == 0
        check_equal(Run.load(copy / "run"), Run.load(folder / "run"))
        assert [path.name for path in copy.iterdir()] == ["run"]


@pytest.mark.usefixtures("signals")
def test_an_export_over_an_earlier_one(golden_runs: Path, folder: Path) -> None:
    (folder / "exported").mkdir()
    (folder / "exported" / "manifest.json").write_text("{}")
    words = ["--run", str(golden_runs / "vae"), "--formats", "saved_model", "--force", "--to"]
    mixtures = np.random.default_rng(0).random((5, 8, 8), np.float32)
    for copy in kill("export", [*words, folder / "exported"], folder):
        assert any(
            (place / "manifest.json").exists() for place in (copy / "exported", *copy.glob(".partial*/.replaced"))
        )
        assert export.main([*words, str(copy / "exported")]) == 0
        assert [path.name for path in copy.iterdir()] == ["exported"]
        assert names(copy / "exported") == names(folder / "exported")
        ours, theirs = (load(place / "exported" / "saved_model/1").outputs(mixtures) for place in (copy, folder))
        for name, values in theirs.items():
            np.testing.assert_array_equal(ours[name], values)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "comparison.csv").open() as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]


def test_an_evaluation_over_an_earlier_one(golden_runs: Path, folder: Path) -> None:
    tables = folder / "tables"
    tables.mkdir()
    for name in ("comparison.md", "mine.txt"):
        (tables / name).write_text("earlier")
    words = ["--run", str(golden_runs / "vae"), "--num-mixtures", "100", "--force", "--output"]
    for copy in kill("training.evaluate", [*words, tables], folder):
        assert (copy / "tables" / "comparison.md").read_text() in ("earlier", (tables / "comparison.md").read_text())
        assert evaluate.main([*words, str(copy / "tables")]) == 0
        assert names(copy) == names(folder)
        assert table(copy / "tables") == table(tables)
        assert (copy / "tables" / "mine.txt").read_text() == "earlier"


def test_a_separation(folder: Path) -> None:
    recording = folder.parent / "duet.wav"
    soundfile.write(recording, np.random.default_rng(0).uniform(-0.5, 0.5, (240_000, 2)), 8_000)
    words = [str(recording), "--model", str(REPOSITORY / "saved_models" / "notes"), "--quiet", "--force", "--output"]
    for copy in kill("vae_bss_tf.separate", [*words, folder / "stems"], folder):
        assert separate.main([*words, str(copy / "stems")]) == 0
        assert names(copy) == names(folder) == {"stems", "stems/duet_source1.wav", "stems/duet_source2.wav"}
        for path in (folder / "stems").iterdir():
            assert (copy / "stems" / path.name).read_bytes() == path.read_bytes()


DECODE = """
import sys, time
import numpy as np
from vae_bss_tf.datasets.decoded import decoded

def decode(item):
    print(item, flush=True)
    time.sleep(0.002)
    yield from np.random.default_rng(item).random((1 + item % 2, 16), np.float32)

array, owners = decoded(range(400), decode, lambda item: 2, "kills", 16)
np.savez(sys.argv[1], array=array, owners=owners)
"""


def test_recordings_that_are_decoded(tmp_path: Path) -> None:
    """Each process is killed indeed and the next one resumes; what was saved is decoded once."""
    rng, cache, result = random.Random(0), tmp_path / "cache", tmp_path / "result.npz"
    environment = {**os.environ, CACHE_VARIABLE: str(cache)}
    items = 0
    kills = max(KILLS, 2)  # the second resumes what the first left
    for last in (*[False] * kills, True):
        process = subprocess.Popen(
            [sys.executable, "-c", DECODE, str(result)],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if not last:
            assert process.stdout is not None
            items += bool(process.stdout.readline())
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
        items += len(process.communicate()[0].splitlines())
        assert process.returncode in ((0,) if last else (-signal.SIGKILL, 0))
    expected = [np.random.default_rng(item).random((1 + item % 2, 16), np.float32) for item in range(400)]
    with np.load(result) as found:
        np.testing.assert_array_equal(found["array"], np.concatenate(expected))
        np.testing.assert_array_equal(found["owners"], np.repeat(range(400), [len(rows) for rows in expected]))
    assert 400 <= items <= 400 + kills * SAVE_EVERY
    (folder,) = cache.iterdir()
    assert names(folder) == {"waveforms.npy", "index.json"}
