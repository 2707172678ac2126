"""Random headers and random words on the command line: one line and exit code 2, or a result; no traceback ever."""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vae_bss_tf import separate
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.config import AudioConfig

AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=32, num_bins=32)
pytestmark = pytest.mark.usefixtures("bounded_memory")
BOUNDED = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
NUMBERS = st.one_of(
    st.sampled_from(["-6", "0", "-inf", "inf", "nan", "1e308", "-1e308", "1e-400", "1e400", "", " ", "--", "-", "0x10",
                     "1_000", "9" * 400, "٣", "\x00", "é", "-0"]),
    st.floats().map(str),
    st.text(max_size=5),
)  # fmt: skip


class Halves:
    """A model that gives half of the mixture to each of two sources."""

    def separate(self, mixtures: np.ndarray) -> np.ndarray:
        return np.repeat(mixtures[:, None] / 2, 2, axis=1)


@pytest.fixture(autouse=True)
def no_model_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Separator, "load", lambda *_, **__: Separator(Halves(), AUDIO))


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wav") / "one.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (2_000, 2)), 8_000)
    return path


def run(content: bytes, suffix: str, words: list[str]) -> int:
    """Runs the command on a file in a folder of its own that holds a user's files, and checks how it ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / f"one.{suffix}").write_bytes(content)
        (folder / "out").mkdir()
        mine = folder / "out" / "one_source3.wav"
        mine.write_text("mine")
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                code = separate.main(
                    [str(folder / f"one.{suffix}"), "--model", "m", "--quiet", "--output", str(folder / "out"), *words]
                )
            except SystemExit as end:  # of argparse
                code = int(end.code or 0)
        assert code in (0, 2), errors.getvalue()
        if code == 2:
            assert "error: " in errors.getvalue()
            assert "Traceback" not in errors.getvalue()
            assert list((folder / "out").iterdir()) == [mine]
        assert mine.read_text() == "mine"
        assert (folder / f"one.{suffix}").read_bytes() == content
        return code


def test_the_fuzzed_command_works_on_what_is_whole(wav: Path) -> None:
    assert run(wav.read_bytes(), "wav", ["--gains", "-6,0"]) == 0


@BOUNDED
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 10), st.sampled_from(EDGES) | st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4])),
        min_size=1, max_size=3,
    ),
    cut=st.none() | st.integers(0, 8_044),
    flags=st.lists(
        st.sampled_from(["--allow-truncated", "--format=flac", "--format=ogg", "--skip-silent"]), unique=True
    ),
)  # fmt: skip
def test_headers_of_wav_files(
    wav: Path, changes: list[tuple[int, int, int]], cut: int | None, flags: list[str]
) -> None:
    content = bytearray(wav.read_bytes())
    for word, value, size in changes:
        content[4 * word : 4 * word + size] = (value % 256**size).to_bytes(size, "little")
    run(bytes(content[:cut]), "wav", flags)


@BOUNDED
@given(
    content=st.binary(max_size=200), head=st.sampled_from([b"", b"RIFF", b"RF64", b"FORM", b"fLaC", b"OggS", b"ID3"])
)
def test_files_of_any_bytes(content: bytes, head: bytes) -> None:
    assert run(head + content, "wav", []) == 2


@BOUNDED
@given(
    gains=st.none() | st.lists(NUMBERS, max_size=3).map(",".join),
    deadline=st.none() | NUMBERS,
    file_format=st.none() | st.sampled_from(["wav", "flac", "mp3", "WAV", ""]),
)
@example(gains="--", deadline=None, file_format=None)
@example(gains=None, deadline="--", file_format=None)
@example(gains="1e308,0", deadline=None, file_format=None)
def test_words_on_the_command_line(wav: Path, gains: str | None, deadline: str | None, file_format: str | None) -> None:
    words = [] if gains is None else ["--gains", gains]
    words += [] if deadline is None else [f"--deadline={deadline}"]
    words += [] if file_format is None else ["--format", file_format]
    run(wav.read_bytes(), "wav", words)
