"""Bulk separation in several processes, by other runners of Beam, on other file systems, and killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import psutil
import pytest
from apache_beam.io.localfilesystem import LocalFileSystem

from vae_bss_tf.audio.context import weights_of
from vae_bss_tf.audio.familiarity import UNKNOWN, usual
from vae_bss_tf.bulk import runners, storage
from vae_bss_tf.errors import DataError
from vae_bss_tf.runtime.loading import described

REPOSITORY = Path(__file__).resolve().parents[2]
OWN = {"job.json", "summary.json", "failures.jsonl"}


def contents(folder: Path) -> dict[str, bytes]:
    """The files under a folder but for the job's own."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name not in OWN}


@pytest.fixture
def start(notes: Path):
    """Starts the command as a process of its own."""
    started = []

    def run(takes: Path, output: Path, *more: str) -> subprocess.Popen[str]:
        words = ["--input", takes, "--model", notes, "--output", output, *more]
        process = subprocess.Popen(
            [sys.executable, "-m", "vae_bss_tf.bulk", *map(str, words)],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def num_done(stems: Path) -> int:
    """How many files are separated; folders may come and go meanwhile."""
    return sum("_source2." in name for _, _, names in os.walk(stems) for name in names)


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "vae_bss_tf.bulk.worker" in child.cmdline()]


def test_two_processes_write_what_one_does_and_print_only_their_own(start, bulk, takes, tmp_path) -> None:
    bulk(takes, output=tmp_path / "one")
    process = start(takes, tmp_path / "two", "--workers", "2")
    printed, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert printed.startswith("model: ")
    assert "4 files: 4 separated" in printed
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_interrupted_three_times_every_file_is_separated_once_and_right(start, bulk, record, tmp_path, failures):
    takes, stems = tmp_path / "takes", tmp_path / "stems"
    for index in range(48):
        record(takes / f"{index % 3}" / f"{index:02}.wav", 2 + 2 * (index % 3))
    (takes / "bad.wav").write_text("no recording")
    bulk(takes, output=tmp_path / "whole")
    chance = random.Random(0)
    for _ in range(3):
        done = num_done(stems)
        process = start(takes, stems, "--workers", "2")
        wait_for(lambda done=done, process=process: num_done(stems) > done + 1 or process.poll() is not None)
        if process.poll() is not None:  # a fast machine was done before it could be interrupted again
            process.communicate()
            break
        time.sleep(chance.uniform(0, 0.2))
        left = workers(process)
        process.kill()
        process.communicate()
        psutil.wait_procs(left, timeout=10)
        assert not any(worker.is_running() for worker in left)
        if process.returncode == 0:  # it was done before it could be killed
            break
        assert not (stems / "failures.jsonl").exists()
    code, summary = bulk(takes, output=stems)
    assert (code, summary["files"], summary["failed"]) == (0, 49, 1)
    assert summary["finished"] >= 6
    assert contents(stems) == contents(tmp_path / "whole")
    assert list(failures()) == ["bad.wav"]
    assert not list(stems.rglob(".partial*"))


def test_a_file_that_ends_its_process_twice_costs_one_line(start, bulk, record, tmp_path, failures) -> None:
    takes, stems = tmp_path / "takes", tmp_path / "stems"
    for index in range(6):
        record(takes / f"{index:02}.wav")
    bulk(takes, output=tmp_path / "whole")
    fatal = record(takes / "fatal.wav", 600)
    process = start(takes, stems, "--workers", "2")

    def at_fatal() -> list[int]:
        marks = stems / ".partial-working"
        listed = os.listdir(marks) if marks.is_dir() else []
        at = [name for name in listed if (marks / name).is_file() and (marks / name).read_text() == str(fatal)]
        return [int(name) for name in at if is_running(int(name))]

    def losses() -> int:
        return json.loads(told.read_text())[str(fatal)] if (told := stems / "lost.json").is_file() else 0

    for number in (1, 2):
        wait_for(at_fatal)
        os.kill(at_fatal()[0], signal.SIGKILL)
        wait_for(lambda number=number: losses() >= number)
        assert losses() == number
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert errors.count("warning: a worker was lost") == errors.count("\n") == 2
    assert str(fatal) in errors
    assert printed.count("writing to") == 3
    assert list(failures()) == ["fatal.wav"]
    assert "ended 2 processes" in failures()["fatal.wav"]
    assert contents(stems) == contents(tmp_path / "whole") | {"lost.json": (stems / "lost.json").read_bytes()}
    assert not list(stems.rglob(".partial*"))


def test_servers_of_a_job_listen_to_this_machine_alone() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with runners.servers_on_loopback():
        server = grpc.server(ThreadPoolExecutor(1))
        port = server.add_insecure_port("[::]:0")
        server.start()
        listening = [c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        server.stop(0)
    found = {address.ip for address in listening if address.port == port}
    assert found
    assert found <= {"::1", "127.0.0.1", "::ffff:127.0.0.1"}


def test_a_portable_runner_gives_the_same_bytes(bulk, takes, tmp_path) -> None:
    bulk(takes, output=tmp_path / "direct")
    flags = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    code, summary = bulk(takes, *flags, output=tmp_path / "portable")
    assert (code, summary["separated"]) == (0, 4)
    assert contents(tmp_path / "portable") == contents(tmp_path / "direct")


def test_dask_gives_the_same_bytes(bulk, takes, tmp_path) -> None:
    distributed = pytest.importorskip("distributed")
    (takes / "bad.wav").write_text("no recording")
    bulk(takes, output=tmp_path / "direct")
    processes = {"n_workers": 2, "threads_per_worker": 1}
    with distributed.LocalCluster(host="127.0.0.1", dashboard_address="127.0.0.1:0", **processes) as cluster:
        flags = ["--runner=apache_beam.runners.dask.dask_runner.DaskRunner"]
        code, summary = bulk(
            takes, *flags, f"--dask_client_address={cluster.scheduler_address}", output=tmp_path / "dask"
        )
    assert (code, summary["separated"], summary["failed"]) == (0, 4, 1)
    assert contents(tmp_path / "dask") == contents(tmp_path / "direct")
    assert (tmp_path / "dask" / "failures.jsonl").read_text() == (tmp_path / "direct" / "failures.jsonl").read_text()


def test_an_unknown_runner_is_refused(bulk, takes, capsys) -> None:
    assert bulk(takes, "--runner=NoRunner") == (2, {})
    assert capsys.readouterr().err.startswith("error: there is no runner NoRunner")


class Shelf(LocalFileSystem):
    """A file system that is not this machine's: `shelf://PATH` stands for a path, with no folders to be made."""

    @classmethod
    def scheme(cls):
        return "shelf"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def _list(self, dir_or_prefix):
        for found in super()._list(dir_or_prefix.removeprefix("shelf://")):
            yield type(found)(f"shelf://{found.path}", found.size_in_bytes, found.last_updated_in_seconds)

    def _path_open(self, path, *arguments, **keywords):
        return super()._path_open(path.removeprefix("shelf://"), *arguments, **keywords)

    def create(self, path, *arguments, **keywords):
        return super().create(path.removeprefix("shelf://"), *arguments, **keywords)

    def exists(self, path):
        return super().exists(path.removeprefix("shelf://"))

    def size(self, path):
        return super().size(path.removeprefix("shelf://"))

    def metadata(self, path):
        return super().metadata(path.removeprefix("shelf://"))

    def rename(self, source_file_names, destination_file_names):
        names = [[name.removeprefix("shelf://") for name in n] for n in (source_file_names, destination_file_names)]
        return super().rename(*names)

    def delete(self, paths):
        return super().delete([path.removeprefix("shelf://") for path in paths])


def test_another_file_system_gives_the_same_bytes(bulk, takes, notes, tmp_path) -> None:
    bulk(takes, output=tmp_path / "local")
    (takes / "empty.wav").touch()
    places = {"output": f"shelf://{tmp_path}/shelf", "model": f"shelf://{notes}"}
    code, _ = bulk(f"shelf://{takes}/**/*.*", **places)
    assert code == 0
    assert contents(tmp_path / "shelf") == contents(tmp_path / "local")
    assert json.loads((tmp_path / "shelf" / "summary.json").read_text())["separated"] == 4
    failure = json.loads((tmp_path / "shelf" / "failures.jsonl").read_text())
    assert failure["error"] == f"shelf://{takes}/empty.wav is empty (0 bytes); give a recording."
    (tmp_path / "shelf" / "one_source2.wav").unlink()
    bulk(f"shelf://{takes}/", **places)
    summary = json.loads((tmp_path / "shelf" / "summary.json").read_text())
    assert (summary["separated"], summary["finished"], summary["failed"]) == (1, 3, 1)
    assert contents(tmp_path / "shelf") == contents(tmp_path / "local")
    assert not list((tmp_path / "shelf").rglob(".partial*"))
    assert os.listdir(tmp_path / "shelf")


@pytest.fixture
def duets(tmp_path: Path) -> Path:
    """An export with a context network."""
    model = tmp_path / "duets"
    shutil.copytree(REPOSITORY / "saved_models" / "duets", model)
    (model / "config.json").unlink()
    return model


def test_a_file_of_an_export_elsewhere_comes_with_what_is_beside_it(bulk, record, duets, tmp_path) -> None:
    take, model = record(tmp_path / "take.wav", 3), duets / "full_int8.tflite"
    for place, output in ((model, "local"), (f"shelf://{model}", "shelf")):
        assert bulk(take, model=place, output=tmp_path / output)[0] == 0
    assert contents(tmp_path / "shelf") == contents(tmp_path / "local")
    jobs = [(tmp_path / output / "job.json").read_text() for output in ("local", "shelf")]
    assert jobs[0] == jobs[1]
    with storage.fetched_tree(f"shelf://{model}") as near:
        assert usual(near) == usual(model) != UNKNOWN


def test_a_saved_model_elsewhere_comes_with_what_is_in_its_export(duets) -> None:
    (duets / "saved_model" / "1").mkdir(parents=True)
    (duets / "saved_model" / "1" / "saved_model.pb").touch()
    for given in ("saved_model", "saved_model/1"):
        with storage.fetched_tree(f"shelf://{duets}/{given}") as near:
            files = {str(file.relative_to(near)) for file in near.rglob("*") if file.is_file()}
            assert files == {"1/saved_model.pb" if given == "saved_model" else "saved_model.pb"}
            assert described(near) == described(duets)
            assert weights_of(near).read_bytes() == weights_of(duets).read_bytes()


def test_a_model_elsewhere_without_a_manifest_comes_alone_and_none_is_told(duets) -> None:
    (duets / "manifest.json").unlink()
    with storage.fetched_tree(f"shelf://{duets}/int8.onnx") as near:
        assert [file.name for file in near.parent.iterdir()] == ["int8.onnx"]
    with pytest.raises(DataError, match=r"^there is nothing at"), storage.fetched_tree(f"shelf://{duets}/none.onnx"):
        pass
