"""Files that take their place in one move: kills, links, other processes, and a full disk."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vae_bss_tf.errors import ConfigError, DataError, OutputExistsError
from vae_bss_tf.files import find_files, refuse_existing, replacing, replacing_folder, write_text

HANG = """
import sys, time
from pathlib import Path
from vae_bss_tf.files import replacing, replacing_folder

path = Path(sys.argv[1])
with (replacing_folder if path.suffix == "" else replacing)(path) as partial:
    (partial / "half" if path.suffix == "" else partial).write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def hang_while_writing(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HANG, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("name", ["a.txt", "folder"])
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path, end: int, name: str) -> None:
    process = hang_while_writing(tmp_path / name)
    assert len(names(tmp_path)) == 1
    process.send_signal(end)
    process.wait()
    write_text(tmp_path / "another", "")
    assert len(names(tmp_path)) == 2, "only the next one of the same name removes it"
    if name == "folder":
        with replacing_folder(tmp_path / name) as staging:
            (staging / "whole").write_text("whole")
    else:
        write_text(tmp_path / name, "whole")
    assert names(tmp_path) == sorted(["another", name])


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    process = hang_while_writing(tmp_path / "a.txt")
    try:
        write_text(tmp_path / "a.txt", "mine")
        assert len(names(tmp_path)) == 2
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_a_folder_retired_by_a_killed_process_comes_back(tmp_path: Path) -> None:
    target = tmp_path / "export"
    target.mkdir()
    (target / "old").touch()
    process = hang_while_writing(target)
    process.kill()
    process.wait()
    # The moment between the two moves, at which the process could have been killed as well.
    [scratch] = tmp_path.glob(".partial-*")
    target.rename(scratch / ".replaced")
    with contextlib.suppress(RuntimeError), replacing_folder(target):
        assert names(target) == ["old"]
        raise RuntimeError
    assert names(tmp_path) == ["export"]
    assert names(target) == ["old"]


def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with contextlib.suppress(RuntimeError), replacing(path) as partial:
        partial.write_text("new")
        raise RuntimeError
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"


def test_links_stay_and_what_they_point_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file-link").symlink_to("file")
    with (
        pytest.raises(OutputExistsError, match=r"link to file, which does not exist"),
        replacing(tmp_path / "file-link"),
    ):
        pass
    (tmp_path / "file").touch()
    write_text(tmp_path / "file-link", "text")
    with replacing_folder(tmp_path / "link") as staging:
        (staging / "new").touch()
    assert names(tmp_path) == ["file", "file-link", "link", "real"]
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["new"]
    assert (tmp_path / "file-link").is_symlink()
    assert (tmp_path / "file").read_text() == "text"


def test_names_of_the_longest_kind_and_of_no_encoding_can_be_written(tmp_path: Path) -> None:
    for name in ("n" * 255, os.fsdecode(b"caf\xe9")):
        write_text(tmp_path / name, name[:3])
        assert (tmp_path / name).read_text() == name[:3]
    with pytest.raises(OSError, match="too long"):
        write_text(tmp_path / ("n" * 256), "")


def test_links_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "inner").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("a/1.png", "a/inner/2.PNG", "elsewhere/3.png", "a/notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "inner" / "round").symlink_to(tmp_path / "a")
    found = find_files(tmp_path / "a", (".png",), "picture")
    assert [str(path.relative_to(tmp_path / "a")) for path in found] == ["1.png", "inner/2.PNG", "linked/3.png"]
    (tmp_path / "a" / "lost.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"lost\.png is a link to nothing"):
        find_files(tmp_path / "a", (".png",), "picture")


def test_existing_outputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nothing")
    for name in ("file", "folder", "link"):
        with pytest.raises(OutputExistsError, match=name):
            refuse_existing([tmp_path / "new", tmp_path / name], force=False)
    refuse_existing([tmp_path / "file", tmp_path / "new"], force=True)
    with pytest.raises(ConfigError, match="longer than 255 bytes"):
        refuse_existing([tmp_path / ("é" * 128)], force=True)
    with pytest.raises(OutputExistsError, match="is a folder"):
        refuse_existing([tmp_path / "folder"], force=True)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"), replacing_folder(tmp_path / "file" / "folder"):
        pass


def test_many_processes_may_write_one_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from vae_bss_tf.files import write_text\n"
        "for i in range(200): write_text(Path(sys.argv[1]), 'x' * 1000)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.txt")]) for _ in range(3)]
    while any(process.poll() is None for process in processes):
        time.sleep(0.02)
        if (tmp_path / "a.txt").exists():
            assert len((tmp_path / "a.txt").read_text()) == 1000
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert names(tmp_path) == ["a.txt"]
