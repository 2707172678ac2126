"""The command `python -m vae_bss_tf.bulk` in one process: what it writes, what it skips, what it refuses."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from vae_bss_tf import separate
from vae_bss_tf.audio import recordings
from vae_bss_tf.audio import stems as stem_files
from vae_bss_tf.bulk import collisions
from vae_bss_tf.bulk.losses import Losses, mark
from vae_bss_tf.bulk.work import fingerprint, separates_pictures
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import held

REPOSITORY = Path(__file__).resolve().parents[2]
OWN = {"job.json", "summary.json", "failures.jsonl"}


def contents(folder: Path) -> dict[str, bytes]:
    """The files under a folder but for the job's own."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name not in OWN}


def test_every_file_is_separated_as_the_command_for_one_does_it(bulk, takes, notes, tmp_path, failures, capsys) -> None:
    code, summary = bulk(takes / "**" / "*.*")
    assert code == 0
    one_by_one = tmp_path / "one by one"
    for path in (path for path in takes.rglob("*") if path.is_file()):
        folder = one_by_one / path.parent.relative_to(takes)
        assert separate.main([str(path), "--model", str(notes), "--output", str(folder), "--quiet"]) == 0
    assert contents(tmp_path / "stems") == contents(one_by_one)
    assert (summary["files"], summary["separated"], summary["finished"], summary["failed"]) == (4, 4, 0, 0)
    assert summary["hours_of_sound"] == pytest.approx((1 + 2.5 + 0.4 + 1.3) / 3600)
    assert summary["real_time_factor"] == pytest.approx(5.2 / summary["seconds"])
    assert failures() == {}
    printed = capsys.readouterr().out
    assert "4 files: 4 separated, 0 finished before, 0 failed" in printed
    assert "real-time factor" in printed
    assert "next:" in printed


def test_a_folder_stands_for_the_recordings_under_it(bulk, takes, tmp_path) -> None:
    (takes / "notes.txt").write_text("no recording")
    code, summary = bulk(takes)
    assert (code, summary["files"], summary["separated"]) == (0, 4, 4)
    assert len(contents(tmp_path / "stems")) == 8


def test_a_damaged_file_costs_one_line_and_nothing_else(bulk, takes, tmp_path, failures, capsys) -> None:
    (takes / "monday" / "torn.wav").write_bytes((takes / "one.wav").read_bytes()[:9_000])
    (takes / "empty.flac").touch()
    (takes / "text.wav").write_text("no recording")
    code, summary = bulk(takes)
    assert (code, summary["files"], summary["separated"], summary["failed"]) == (0, 7, 4, 3)
    lines = failures()
    assert sorted(lines) == ["empty.flac", "text.wav", "torn.wav"]
    assert "is truncated" in lines["torn.wav"]
    assert str(takes / "empty.flac") in lines["empty.flac"]
    assert len(contents(tmp_path / "stems")) == 8
    assert not list(tmp_path.rglob(".partial*"))
    assert "failures.jsonl" in capsys.readouterr().out


def test_where_every_file_fails_the_command_says_so(bulk, tmp_path, capsys) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no recording")
    code, summary = bulk(bad)
    assert (code, summary["failed"]) == (2, 1)
    assert capsys.readouterr().err.startswith("error: none of the files could be separated")


def test_finished_files_are_skipped_and_half_finished_ones_are_not(bulk, takes, tmp_path) -> None:
    bulk(takes)
    stems = tmp_path / "stems"
    before = contents(stems)
    times = {path: path.stat().st_mtime_ns for path in stems.rglob("*_source?.*")}
    (stems / "monday" / "two_source2.wav").unlink()
    (stems / "monday" / ".partial-123456789abc-killed").mkdir()
    code, summary = bulk(takes)
    assert (code, summary["separated"], summary["finished"]) == (0, 1, 3)
    assert contents(stems) == before
    redone = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert redone == {"two_source1.wav", "two_source2.wav"}


def test_of_two_files_of_one_name_the_second_fails(bulk, takes, record, failures) -> None:
    record(takes / "one.flac")
    code, summary = bulk(takes)
    assert (code, summary["separated"], summary["failed"]) == (0, 4, 1)
    assert "outputs of the same names" in failures()["one.wav"]


def test_outputs_are_never_inputs(bulk, takes) -> None:
    for finished in (0, 4):
        code, summary = bulk(takes / "**" / "*.*", output=takes / "stems")
        assert (code, summary["files"], summary["finished"]) == (0, 4, finished)


def test_the_format_can_be_chosen(bulk, takes, tmp_path) -> None:
    assert bulk(takes, "--format", "flac")[0] == 0
    found = contents(tmp_path / "stems")
    assert len(found) == 8
    assert all(name.endswith(".flac") for name in found)
    assert bulk(takes, "--format", "flac")[1]["finished"] == 4


def test_pictures_are_separated_as_the_command_for_one_does_it(bulk, tmp_path, failures) -> None:
    pictures, model = tmp_path / "pictures", REPOSITORY / "saved_models" / "mnist"
    (pictures / "more").mkdir(parents=True)
    shutil.copy(REPOSITORY / "sample" / "overlay.png", pictures / "more" / "overlay.png")
    shades = np.random.default_rng(0).uniform(0, 255, (3, 28, 28)).astype(np.uint8)
    Image.fromarray(shades[0]).save(pictures / "shade.png")
    np.save(pictures / "shades.npy", shades)
    (pictures / "bad.png").write_text("no picture")
    code, summary = bulk(pictures, model=model)
    assert (code, summary["separated"], summary["failed"]) == (0, 3, 1)
    assert list(failures()) == ["bad.png"]
    (pictures / "bad.png").unlink()
    one_by_one = tmp_path / "one by one"
    for path, folder in (("more/overlay.png", "more"), ("shade.png", "."), ("shades.npy", ".")):
        given = [str(pictures / path), "--model", str(model), "--output", str(one_by_one / folder), "--quiet"]
        assert separate.main(given) == 0
    assert contents(tmp_path / "stems") == contents(one_by_one)
    assert bulk(pictures, model=model)[1]["finished"] == 3


def test_pictures_that_would_replace_each_others_outputs_fail(bulk, tmp_path, failures) -> None:
    pictures, model = tmp_path / "pictures", REPOSITORY / "saved_models" / "mnist"
    (pictures / "scan").mkdir(parents=True)
    shades = np.random.default_rng(0).uniform(0, 255, (2, 28, 28)).astype(np.uint8)
    for name in ("scan_0", "scan_0b", "scan/scan_1", "book_z"):
        Image.fromarray(shades[0]).save(pictures / f"{name}.png")
    np.save(pictures / "scan", shades)
    np.save(pictures / "book_x", shades)
    np.savez(pictures / "book", x=shades)
    np.savez(pictures / "one", x=shades, x_0=shades[1])
    (pictures / "book_y.npy").write_text("no array")
    for status in ("separated", "finished"):
        code, summary = bulk(pictures, model=model)
        assert (code, summary[status], summary["failed"]) == (0, 3, 6)
    told = failures()
    assert sorted(told) == ["book.npz", "book_x.npy", "book_y.npy", "one.npz", "scan.npy", "scan_0.png"]
    for one, other in (("scan.npy", "scan_0.png"), ("book.npz", "book_x.npy")):
        for path, message in ((one, told[other]), (other, told[one])):
            assert f"outputs of the same names as {pictures / path}" in message
    assert "would be written to one_x_0_source1.png" in told["one.npz"]
    stems = ("book_z", "scan/scan_1", "scan_0b")
    assert sorted(contents(tmp_path / "stems")) == [f"{stem}_source{k}.png" for stem in stems for k in (1, 2)]


def test_arrays_are_opened_only_beside_files_whose_names_begin_as_theirs(monkeypatch) -> None:
    opened = []
    monkeypatch.setattr(collisions, "picture_files", lambda path, num_sources: opened.append(path) or [])
    paths = ["a.npy", "a/a_0.npy", "a/a_1.png", "b.npy", "b_0.png", "b_0.npy", "b_/0.png", "bb.npy", "c_0.png"]
    assert collisions.refused(paths) == {}
    assert opened == ["b.npy", "b_0.npy"]


REFUSED = {
    "no match": (["nowhere/*.wav"], "no file matches nowhere/*.wav"),
    "unknown option": (["--modle=notes"], "--modle is no option"),
    "no workers": (["--workers", "0"], "--workers is 0"),
    "no model": (["--model", "nowhere"], "nowhere"),
    "no URL of Beam's": (["gs:///x/*.wav"], "cannot be reached"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=list(REFUSED))
def test_mistakes_are_one_line_and_exit_code_2(bulk, takes, capsys, words, message) -> None:
    code, summary = bulk(takes, *words)
    assert (code, summary) == (2, {})
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_an_impossible_job_leaves_the_folder_free(bulk, tmp_path, capsys) -> None:
    model = REPOSITORY / "saved_models" / "mnist"
    assert bulk(REPOSITORY / "sample", "--format", "wav", model=model)[0] == 2
    assert "--format and --allow-truncated are for recordings" in capsys.readouterr().err
    assert not (tmp_path / "stems").exists()
    assert bulk(REPOSITORY / "sample" / "overlay.png", model=model)[0] == 0


def test_brackets_in_a_folders_name_are_no_pattern(bulk, takes, record, tmp_path) -> None:
    record(tmp_path / "takes [2024]" / "four.wav")
    record(tmp_path / "takes 2" / "five.wav")
    assert bulk(tmp_path / "takes [2024]")[1]["files"] == 1
    assert sorted(path.name for path in (tmp_path / "stems").glob("*.wav")) == ["four_source1.wav", "four_source2.wav"]


def test_an_output_that_holds_the_input_is_told(bulk, takes, capsys) -> None:
    for output in (takes, takes.parent):
        assert bulk(takes, output=output)[0] == 2
        assert f"lies in {output}; choose another --output" in capsys.readouterr().err


def test_a_folder_of_another_job_is_refused(bulk, takes, tmp_path, capsys) -> None:
    assert bulk(takes)[0] == 0
    before = contents(tmp_path / "stems")
    for words, message in ((["--format", "ogg"], "another format"), ([takes.parent], "another root")):
        assert bulk(takes, *words)[0] == 2
        assert message in capsys.readouterr().err
    assert bulk(takes, model=REPOSITORY / "saved_models" / "duets")[0] == 2
    assert "another model" in capsys.readouterr().err
    assert contents(tmp_path / "stems") == before


def test_a_folder_with_other_files_is_refused(bulk, takes, tmp_path, capsys) -> None:
    (tmp_path / "stems").mkdir()
    (tmp_path / "stems" / "one_source1.wav").touch()
    assert bulk(takes)[0] == 2
    assert "holds other files" in capsys.readouterr().err


def test_one_job_at_a_time_writes_to_a_folder(bulk, takes, tmp_path, capsys) -> None:
    (tmp_path / "stems").mkdir()
    with held(tmp_path / "stems", wait=False):
        assert bulk(takes)[0] == 2
    assert "another job is writing" in capsys.readouterr().err
    assert bulk(takes)[0] == 0


def test_a_decoder_that_raises_anything_fails_its_file_alone(bulk, takes, failures, monkeypatch) -> None:
    choose = stem_files.choose_format

    def choose_or_raise(recording, file_format=None):
        if recording.path.name == "two.wav":
            raise RuntimeError("out of\ndate")
        return choose(recording, file_format)

    monkeypatch.setattr(stem_files, "choose_format", choose_or_raise)
    assert bulk(takes)[1]["separated"] == 3
    assert failures() == {"two.wav": "RuntimeError: out of date"}


def test_a_damaged_or_foreign_job_is_refused(bulk, takes, tmp_path, capsys) -> None:
    (tmp_path / "stems").mkdir()
    for content in ("[1]", "{"):
        (tmp_path / "stems" / "job.json").write_text(content)
        assert bulk(takes)[0] == 2
        assert "job.json is of no job of this command" in capsys.readouterr().err


def test_a_recording_of_the_same_stem_is_not_taken_for_finished(bulk, takes, record, tmp_path) -> None:
    assert bulk(takes / "one.wav")[1]["separated"] == 1
    samples, rate = soundfile.read(takes / "one.wav")
    soundfile.write(takes / "one.flac", samples, rate)
    _, summary = bulk(takes / "one.flac")
    assert (summary["separated"], summary["finished"]) == (1, 0)
    assert (tmp_path / "stems" / "one_source1.flac").is_file()


def test_linked_folders_are_searched_and_lost_links_told(bulk, takes, tmp_path, failures) -> None:
    (tmp_path / "linked").mkdir()
    (takes / "one.wav").rename(tmp_path / "linked" / "one.wav")
    (takes / "elsewhere").symlink_to(tmp_path / "linked")
    assert bulk(takes)[1]["files"] == 4
    (takes / "lost.wav").symlink_to(tmp_path / "nothing")
    assert bulk(takes)[1]["failed"] == 1
    assert "lost.wav" in failures()


def test_names_that_are_not_utf8_are_separated_or_cost_one_line(bulk, takes, tmp_path, failures) -> None:
    good, bad = (takes / os.fsdecode(name) for name in (b"caf\xe9.wav", b"na\xefve.wav"))
    shutil.copy(takes / "one.wav", good)
    bad.write_text("no recording")
    for status in ("separated", "finished"):
        code, summary = bulk(takes, good)
        assert (code, summary["files"], summary[status], summary["failed"]) == (0, 6, 5, 1)
        assert list(failures()) == [bad.name]
        assert str(bad) in failures()[bad.name]
    stems = contents(tmp_path / "stems")
    for k in (1, 2):
        assert stems[os.fsdecode(b"caf\xe9_source%d.wav" % k)] == stems[f"one_source{k}.wav"]


def test_a_lost_file_is_counted_by_a_name_that_is_not_utf8(tmp_path) -> None:
    path = str(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    for _ in range(2):
        losses = Losses(tmp_path)
        losses.begin()
        mark(str(losses.marks), path)
    assert list(Losses(tmp_path).begin()) == [path]


def test_a_file_that_ended_the_only_process_is_counted_by_the_next_run(tmp_path) -> None:
    for tries in (1, 2):
        losses = Losses(tmp_path)
        refused = losses.begin()
        assert bool(refused) == (tries > 2)
        (losses.marks / str(os.getpid())).write_text("fatal.wav")
        (losses.marks / "1").write_text("another.wav")  # of a worker, which ended with the job
    assert "fatal.wav is not tried any more" in Losses(tmp_path).begin()["fatal.wav"]
    (tmp_path / "lost.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"lost\.json is damaged"):
        Losses(tmp_path).begin()


@pytest.mark.parametrize("how", ["interrupted", "boot"])
def test_no_file_is_to_blame_for_an_interruption_or_the_end_of_the_machine(tmp_path, how) -> None:
    losses = Losses(tmp_path)
    losses.begin()
    (losses.marks / str(os.getpid())).write_text("long.wav")
    if how == "boot":
        (losses.marks / "job").write_text(f"another {os.getpid()}")
    else:
        with pytest.raises(KeyboardInterrupt), losses.unless_interrupted():
            signal.raise_signal(signal.SIGTERM)
        assert losses.was_interrupted()
    losses.begin()
    assert not (tmp_path / "lost.json").exists()


def test_aiff_files_are_finished_by_stems_of_their_own_format(bulk, takes, tmp_path) -> None:
    samples, rate = soundfile.read(takes / "one.wav")
    soundfile.write(takes / "two.aiff", samples, rate, format="AIFF")
    assert bulk(takes / "two.aiff")[1]["separated"] == 1
    assert bulk(takes / "two.aiff")[1]["finished"] == 1
    stems = sorted((tmp_path / "stems").glob("two_*"))
    assert [path.suffix for path in stems] == [".aif", ".aif"]
    stems[0].rename(stems[0].with_suffix(".wav"))  # as if it were of another recording
    assert bulk(takes / "two.aiff")[1]["separated"] == 1


OTHER_FORMATS = {
    "opus": ("two.opus", "OGG", "OPUS", "ogg"),
    "oga": ("two.oga", "OGG", "VORBIS", "ogg"),
    "aifc": ("two.aifc", "AIFF", "ALAW", "aif"),
    "caf": ("two.caf", "CAF", "PCM_16", "wav"),
    "FLAC called .wav": ("two.wav", "FLAC", "PCM_16", "flac"),
}


@pytest.mark.parametrize(("name", "container", "coding", "suffix"), OTHER_FORMATS.values(), ids=list(OTHER_FORMATS))
def test_recordings_are_finished_by_stems_of_the_format_that_they_hold(
    bulk, takes, tmp_path, name, container, coding, suffix
) -> None:
    samples, _ = soundfile.read(takes / "one.wav")
    soundfile.write(takes / name, samples, 16_000, coding, format=container)
    assert bulk(takes / name)[1]["separated"] == 1
    assert bulk(takes / name)[1]["finished"] == 1
    stems = sorted((tmp_path / "stems").glob("two_*"))
    assert [path.suffix for path in stems] == [f".{suffix}"] * 2
    for path in stems:
        path.rename(path.with_suffix(".mp3"))  # as if they were of another recording
    assert bulk(takes / name)[1]["separated"] == 1


def test_finished_recordings_whose_suffix_tells_their_format_are_not_opened(bulk, takes, monkeypatch) -> None:
    bulk(takes)
    monkeypatch.setattr(recordings, "describe", None)
    assert bulk(takes)[1]["finished"] == 4


def test_a_file_is_marked_before_it_is_opened(bulk, takes, tmp_path, monkeypatch) -> None:
    flac, describe, marked = takes / "two.wav", recordings.describe, []
    soundfile.write(flac, soundfile.read(takes / "one.wav")[0], 16_000, format="FLAC")
    bulk(flac)

    def describe_and_look(path, **options):
        marked.append((tmp_path / "stems" / ".partial-working" / str(os.getpid())).read_text())
        return describe(path, **options)

    monkeypatch.setattr(recordings, "describe", describe_and_look)
    assert bulk(flac)[1]["finished"] == 1
    assert marked == [str(flac)]


def test_a_model_is_identified_by_its_latest_version_and_its_weights(tmp_path) -> None:
    def write(version: int, weights: bytes) -> None:
        (tmp_path / str(version) / "variables").mkdir(parents=True, exist_ok=True)
        (tmp_path / str(version) / "saved_model.pb").write_bytes(b"graph")
        (tmp_path / str(version) / "variables" / "variables.data").write_bytes(weights)

    write(1, b"one")
    first = fingerprint(str(tmp_path))
    write(1, b"two")
    second = fingerprint(str(tmp_path))
    write(2, b"one")
    assert fingerprint(str(tmp_path)) == first != second


def test_pictures_are_told_by_what_a_folder_holds(tmp_path) -> None:
    for name, kind in (("digits", "png"), ("takes", "wav")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"one.{kind}").touch()
        found = separates_pictures("http://127.0.0.1:1/v1/models/mnist", [f"{tmp_path / name}/"], "/nowhere")
        assert found == (kind == "png")
