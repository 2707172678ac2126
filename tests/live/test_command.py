"""`python -m vae_bss_tf.live`: recordings, pipes, and a sound card that is made up."""

import io
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vae_bss_tf.live.__main__ import main
from vae_bss_tf.live.command import Gains, Meters
from vae_bss_tf.live.runtime import LiveSeparator, load


def expected_of(live_export, sound):
    separator = LiveSeparator(load(live_export))
    return np.concatenate([separator.process(sound), separator.finish()], axis=1)[:, separator.delay :]


def test_a_recording_becomes_one_file_for_each_source(live_export, sound, tmp_path, capsys):
    soundfile.write(tmp_path / "take.wav", sound, 11_025, "FLOAT")
    words = ["--model", str(live_export), "--input", str(tmp_path / "take.wav"), "--output", str(tmp_path / "out")]
    assert main([*words, "--gains", "-inf,0"]) == 0
    assert "latency 16.0 ms" in capsys.readouterr().out
    expected = expected_of(live_export, sound)
    sources = [soundfile.read(tmp_path / f"out/take_source{k}.wav", dtype="float32")[0] for k in (1, 2)]
    np.testing.assert_allclose(sources, expected, atol=1e-6)
    np.testing.assert_allclose(np.sum(sources, axis=0), sound, atol=1e-5)
    remix, _ = soundfile.read(tmp_path / "out/take_remix.wav", dtype="float32")
    np.testing.assert_allclose(remix, sources[1], atol=1e-6)
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err


def test_a_pipe_in_and_a_pipe_out(live_export, sound):
    done = subprocess.run(
        [sys.executable, "-m", "vae_bss_tf.live", "--model", live_export, "--input", "-", "--rate", "11025",
         "--sample-format", "f32", "--output", "-"],
        input=sound.tobytes(), capture_output=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    found = np.frombuffer(done.stdout, np.float32).reshape(-1, 2).T
    np.testing.assert_allclose(found, expected_of(live_export, sound), atol=1e-6)
    assert b"s separated" in done.stderr


def test_a_reader_that_has_what_it_wanted_ends_the_command(live_export, sound, tmp_path):
    (tmp_path / "sound.f32").write_bytes(np.tile(sound, 8).tobytes())
    command = f"{sys.executable} -m vae_bss_tf.live --model {live_export} --input - --rate 11025 --sample-format f32"
    pipes = f"{command} --output - < {tmp_path}/sound.f32 | head -c 1000 > {tmp_path}/out"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", pipes],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "broken pipe" not in done.stderr
    assert "Exception" not in done.stderr
    assert (tmp_path / "out").stat().st_size == 1_000


def test_samples_that_are_too_loud_are_kept_as_floats_and_counted_where_they_are_clipped(live_export, sound):
    loud = 4 * sound
    done = subprocess.run(
        [sys.executable, "-m", "vae_bss_tf.live", "--model", live_export, "--input", "-", "--rate", "11025",
         "--sample-format", "f32", "--output", "-"],
        input=loud.tobytes(), capture_output=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    found, expected = np.frombuffer(done.stdout, np.float32).reshape(-1, 2).T, expected_of(live_export, loud)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found).max() > 1
    assert b"INFO" not in done.stderr
    meters = Meters(11_025, shown=False)
    meters.add(found, 0.1)
    np.testing.assert_array_equal(meters.limited(found), np.clip(found, -1, 1))
    assert f"{(np.abs(found) > 1).sum():,} samples exceeded full scale" in meters.summary()


def test_two_channels_are_mixed_and_said_and_more_refused(live_export, sound, tmp_path, capsys):
    words = ["--model", str(live_export), "--output", str(tmp_path / "out"), "--input"]
    soundfile.write(tmp_path / "two.wav", np.stack([sound, np.zeros_like(sound)], axis=1), 11_025, "FLOAT")
    assert main([*words, str(tmp_path / "two.wav")]) == 0
    assert "the mean of 2 channels is separated" in capsys.readouterr().out
    source, _ = soundfile.read(tmp_path / "out" / "two_source1.wav", dtype="float32")
    np.testing.assert_allclose(source, expected_of(live_export, sound / 2)[0], atol=1e-6)
    soundfile.write(tmp_path / "three.wav", np.stack([sound] * 3, axis=1), 11_025)
    assert main([*words, str(tmp_path / "three.wav")]) == 2
    assert "three.wav has 3 channels" in capsys.readouterr().err


def test_another_rate_is_resampled_and_said_once(live_export, tmp_path, capsys, monkeypatch):
    t = np.arange(16_000) / 16_000
    raw = (8_000 * np.sin(2 * np.pi * 440 * t)).astype("<i2").tobytes()
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(raw)))
    words = ["--model", str(live_export), "--input", "-", "--rate", "16000", "--output", str(tmp_path)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert told.count("is resampled") == 1
    source, rate = soundfile.read(tmp_path / "live_source1.wav")
    assert rate == 11_025
    assert abs(len(source) - 11_025) <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "take.wav"], "--output"),
        (["--output", "out"], "--input"),
        (["--input", "none.wav", "--output", "out"], "no file none.wav"),
        (["--input", "README.md", "--output", "out"], "cannot be read as audio"),
        (["--gains", "1"], "2 sources"),
        (["--gains", "0,loud"], "such as 2 -6"),
        (["--gains", "0,nan"], "such as 2 -6"),
        (["--input", "-", "--rate", "nan", "--output", "out"], "sample rate"),
        (["--input", "sample/duet.wav", "--output", "-", "--gains", "0,-6"], "leave it out with --output -"),
        (["--input", "sample/duet.wav", "--output", "out", "--seconds", "3"], "leave it out with --input"),
        (["--seconds", "nan"], "--seconds is nan"),
        (["--seconds", "-5"], "--seconds is -5"),
    ],
)
def test_mistakes_get_one_line(words, message, live_export, capsys):
    assert main(["--model", str(live_export), *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert not Path("out").exists()


def test_a_pipe_with_nan_or_nothing_ends_with_one_line_and_no_file(live_export, tmp_path, capsys, monkeypatch):
    words = ["--model", str(live_export), "--input", "-", "--sample-format", "f32", "--rate", "11025",
             "--output", str(tmp_path / "out")]  # fmt: skip
    nothing = "standard input holds no sample"
    for raw, message in ((np.full(999, np.nan, "<f4").tobytes(), "NaN"), (b"", nothing), (b"x", nothing)):
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(raw)))
        assert main(words) == 2
        assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


def test_models_of_other_kinds_are_refused(capsys):
    assert main(["--model", "saved_models/duets", "--input", "sample/duet.wav", "--output", "out"]) == 2
    assert "no live separator" in capsys.readouterr().err
    assert main([]) == 2
    assert "give --model" in capsys.readouterr().err


def test_gains_change_while_sound_runs():
    gains = Gains(2, "0,-6")
    sources = np.asarray([[0.5, 0.5], [0.2, -0.2]], np.float32)
    np.testing.assert_allclose(gains.mixed(sources), [0.5 + 0.1002, 0.5 - 0.1002], atol=1e-3)
    gains.change("2 -inf")
    np.testing.assert_allclose(gains.mixed(sources), [0.5, 0.5], atol=1e-6)
    gains.change("1 12")
    assert gains.mixed(sources).max() == pytest.approx(0.5 * 10 ** (12 / 20), rel=1e-5)  # files of floats hold it


class Card(types.ModuleType):
    """A sound card that plays `sound` into the microphone and keeps what is heard."""

    class PortAudioError(Exception):
        pass

    class CallbackAbort(Exception):
        pass

    def __init__(self, sound, rates, gone=False):
        super().__init__("sounddevice")
        self.sound, self.rates, self.gone, self.heard = sound, rates, gone, []

    def query_devices(self, device=None, kind=None):
        return {"default_samplerate": self.rates[0]} if kind else "  0 Microphone\n> 1 Headphones"

    def check_input_settings(self, samplerate, device, **_):
        if device == 9:
            raise self.PortAudioError("no such device")
        if isinstance(device, str):  # as sounddevice does
            raise ValueError(f"No input device matching {device!r}")
        if samplerate not in self.rates:
            raise self.PortAudioError("Invalid sample rate")

    check_output_settings = check_input_settings

    def sleep(self, _):
        pass

    def Stream(self, *, blocksize, callback, device, **_):
        if device[0] == 9:
            raise self.PortAudioError("no such device")
        card = self

        class Running:
            active = True

            def __enter__(self):
                status = types.SimpleNamespace(output_underflow=True, input_overflow=False)
                try:
                    for first in range(0, len(card.sound) - blocksize + 1, blocksize):
                        heard = np.zeros((blocksize, 2), np.float32)
                        callback(card.sound[first : first + blocksize, None], heard, blocksize, None, status)
                        card.heard.append(heard)
                        status.output_underflow = False
                except card.CallbackAbort:
                    self.active = False
                if card.gone:
                    self.active = False
                return self

            def __exit__(self, *_):
                pass

        return Running()


def test_microphone_to_headphones(live_export, sound, monkeypatch, capsys):
    card = Card(sound, (11_025,))
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    assert main(["--model", str(live_export), "--gains", "0,-inf", "--seconds", "0"]) == 0
    assert "1 under-runs" in capsys.readouterr().out
    heard = np.concatenate(card.heard)[:, 0]
    separator = LiveSeparator(load(live_export))
    np.testing.assert_allclose(heard, separator.process(sound)[0][: len(heard)], atol=1e-6)


def test_a_card_of_another_rate_is_resampled(live_export, sound, monkeypatch):
    card = Card(np.repeat(sound, 4), (44_100,))
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    assert main(["--model", str(live_export), "--seconds", "0"]) == 0
    heard = np.concatenate(card.heard)[:, 0]
    assert np.abs(heard[20_000:]).max() > 0.1


def test_devices_are_listed_and_lost_ones_told(live_export, sound, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", Card(sound, (11_025,), gone=True))
    assert main(["--list-devices"]) == 0
    assert "Headphones" in capsys.readouterr().out
    assert main(["--model", str(live_export)]) == 2
    assert "the sound device is gone" in capsys.readouterr().err
    assert main(["--model", str(live_export), "--input-device", "9"]) == 2
    assert "see --list-devices" in capsys.readouterr().err
    assert main(["--model", str(live_export), "--input-device", "nosuch"]) == 2
    assert "No input device matching 'nosuch'" in capsys.readouterr().err
    broken = Card(np.full(9_999, np.nan, np.float32), (11_025,))
    monkeypatch.setitem(sys.modules, "sounddevice", broken)
    assert main(["--model", str(live_export)]) == 2
    assert "NaN" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["--list-devices"]) == 2
    assert "vae-bss-tf[live]" in capsys.readouterr().err


def test_an_endless_pipe_ends_by_ctrl_c_and_what_was_heard_is_kept(live_export, sound, tmp_path):
    words = ["--model", live_export, "--input", "-", "--rate", "11025", "--sample-format", "f32"]
    done = subprocess.Popen(
        [sys.executable, "-m", "vae_bss_tf.live", *words, "--output", tmp_path / "out"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    done.stdin.write(sound.tobytes())
    done.stdin.flush()
    partial = []
    deadline = time.monotonic() + 60
    while not partial and time.monotonic() < deadline:
        time.sleep(0.1)
        partial = [p for p in (tmp_path / "out").rglob("*.wav") if p.stat().st_size > 3 * len(sound)]
    done.send_signal(signal.SIGINT)
    told, error = done.communicate(timeout=60)
    assert done.returncode == 0, error
    assert b"s separated" in told
    expected = expected_of(live_export, sound)
    sources = [soundfile.read(tmp_path / f"out/live_source{k}.wav", dtype="float32")[0] for k in (1, 2)]
    np.testing.assert_allclose(sources, expected, atol=1e-6)


def test_a_full_disk_and_a_closed_input_are_one_line(live_export, tmp_path):
    soundfile.write(tmp_path / "take.wav", np.zeros(30_000) + 0.1, 11_025)
    command = f"{sys.executable} -m vae_bss_tf.live --model {live_export}"
    for script, message in (
        (
            f"ulimit -f 40; {command} --input {tmp_path}/take.wav --output {tmp_path}/out",
            "could not be written in full",
        ),
        (f"{command} --input - --output {tmp_path}/out <&-", "standard input is closed"),
    ):
        done = subprocess.run(
            ["bash", "-c", f"trap '' XFSZ; {script}"], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*"))
