"""`--strategy multi-worker`: workers that are killed in each phase, and resumed.

TensorFlow's workers listen on every interface, whatever TF_CONFIG says: they run in a network namespace of their own.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training import fit
from training.history import read_history
from training.run import Run

REPOSITORY = Path(__file__).resolve().parents[2]
# The worker that is killed in a phase. TensorFlow takes a minute to miss it, so the test runs only with
# VAE_BSS_MULTI_WORKER_KILLS=1; with =all either worker is killed in each phase.
KILLS = os.environ.get("VAE_BSS_MULTI_WORKER_KILLS")
KILLED = [("remix", 1)]
if KILLS == "all":
    KILLED = [(phase, index) for phase in ("separate", "remix", "masks 1", "masks 2") for index in (0, 1)]
START = """
folder=$1; shift
ip link set lo up
for index in 0 1; do
    cluster='{"worker": ["127.0.0.1:21003", "127.0.0.1:21004"]}'
    export TF_CONFIG='{"cluster": '$cluster', "task": {"type": "worker", "index": '$index'}}'
    "$@" > "$folder/$index.out" 2> "$folder/$index.err" &
    pids[index]=$!
    echo $! > "$folder/$index.pid"
done
for index in 0 1; do wait ${pids[index]}; echo $? > "$folder/$index.code"; done
"""


def can_isolate() -> bool:
    try:
        made = subprocess.run(["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return made.returncode == 0


pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not can_isolate(), reason="a network namespace cannot be made here"),
]


class Workers:
    """Two workers that run `training.fit` together."""

    def __init__(self, folder: Path, output: Path, words: list[str]) -> None:
        folder.mkdir()
        self.folder = folder
        fit_words = ["-m", "training.fit", *words, "--strategy", "multi-worker", "--output", str(output)]
        command = ["unshare", "-n", "bash", "-c", START, "start", str(folder), sys.executable, *fit_words]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)

    def kill(self, index: int) -> None:
        os.kill(int((self.folder / f"{index}.pid").read_text()), signal.SIGKILL)

    def wait(self) -> list[int]:
        self.process.wait(timeout=600)
        return [int((self.folder / f"{index}.code").read_text()) for index in (0, 1)]

    def told(self, index: int, stream: str) -> str:
        return (self.folder / f"{index}.{stream}").read_text()


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Workers, Run]:
    folder = tmp_path_factory.mktemp("whole")
    workers = Workers(folder / "logs", folder / "run", command)
    assert workers.wait() == [0, 0], workers.told(0, "err") + workers.told(1, "err")
    return workers, Run.load(folder / "run")


def test_the_chief_alone_writes_and_reports(whole: tuple[Workers, Run]) -> None:
    workers, run = whole
    assert [workers.told(index, "err") for index in (0, 1)] == ["", ""]
    assert "2 x CPU on 2 workers" in workers.told(0, "out")
    assert "next: python -m training.evaluate" in workers.told(0, "out")
    assert len(workers.told(1, "out").splitlines()) == 2
    assert run.metrics["device"] == "2 x CPU on 2 workers, mirrored"
    assert [row["epoch"] for row in read_history(run.path / "history.csv")] == list(range(8))


@pytest.mark.skipif(not KILLS, reason="takes minutes; VAE_BSS_MULTI_WORKER_KILLS=1 runs it")
@pytest.mark.parametrize(("phase", "index"), KILLED)
def test_a_lost_worker_ends_the_others_and_all_resume(
    whole: tuple[Workers, Run], command: list[str], tmp_path: Path, check_equal, phase: str, index: int
) -> None:
    output = tmp_path / "run"
    workers = Workers(tmp_path / "killed", output, command)
    while not any(row["phase"].startswith(phase) for row in read_history(output / "history.csv")):
        assert workers.process.poll() is None, workers.told(0, "err")
        time.sleep(0.02)
    workers.kill(index)
    codes = workers.wait()
    assert codes[index] == 128 + signal.SIGKILL
    assert codes[1 - index] == 2
    errors = workers.told(1 - index, "err")
    assert errors.startswith("error: another worker was lost")
    assert errors.count("\n") == 1
    resumed = Workers(tmp_path / "resumed", output, [*command, "--resume"])
    assert resumed.wait() == [0, 0], resumed.told(0, "err") + resumed.told(1, "err")
    check_equal(Run.load(output), whole[1])


@pytest.mark.parametrize(
    ("words", "message"), [([], "multi-worker needs TF_CONFIG"), (["--minutes", "5"], "--epochs in place of --minutes")]
)
def test_what_several_hosts_cannot_do_is_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert fit.main(["--strategy", "multi-worker", "--output", str(tmp_path / "run"), *words]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()
