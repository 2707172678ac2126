"""The samples of the repository: what makes them, and that the README's commands separate them as they stand."""

import itertools
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from benchmarks import sample
from vae_bss_tf import metrics, separate
from vae_bss_tf.audio.separator import Separator

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY / "sample"
DUET = SAMPLES / "duet.wav"
COMMAND = "python -m vae_bss_tf.separate "


def test_the_samples_are_what_the_package_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main(["--output", str(tmp_path)]) == 0
    assert COMMAND in capsys.readouterr().out
    for pixels in (SAMPLES, tmp_path):
        assert np.array_equal(np.asarray(Image.open(pixels / "overlay.png")), sample.overlay())
    shipped, made = (soundfile.read(folder / "duet.wav", dtype="int16") for folder in (SAMPLES, tmp_path))
    assert shipped[1] == made[1] == sample.SAMPLE_RATE
    assert np.abs(shipped[0].astype(int) - made[0]).max() <= 1  # the last bit of a sine is the machine's
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 300_000
    assert sample.main(["--output", str(tmp_path)]) == 2
    assert "--force" in capsys.readouterr().err


def test_the_shipped_model_separates_the_duet() -> None:
    recording, rate = soundfile.read(DUET, dtype="float32")
    parts = sample.duet()
    sources = Separator.load(REPOSITORY / "saved_models" / "duets").separate(recording, rate)
    assert np.abs(sources.sum(axis=0) - recording).max() < 1e-3
    ratios = metrics.pairwise_si_bss_eval(sources[np.newaxis], parts[np.newaxis].astype(np.float32)).sdr[0]
    assert max(np.mean([ratios[order[k], k] for k in range(2)]) for order in itertools.permutations(range(2))) > 18


def test_what_the_shipped_model_does_not_know_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rate = 11_025
    time = np.arange(8 * rate) / rate
    drums = 0.5 * np.random.default_rng(0).normal(size=len(time)).clip(-1, 1) * np.exp(-8 * (4 * time % 1))
    soundfile.write(tmp_path / "drums.wav", drums, rate)
    words = ["--model", str(REPOSITORY / "saved_models" / "duets"), "--output", str(tmp_path / "stems"), "--quiet"]
    assert separate.main([str(DUET), *words]) == 0
    told = capsys.readouterr()
    assert "warning" not in told.err
    assert re.search(r"sum of the model's estimates against the recording: SI-SDR \d.* \(in training ", told.out)
    assert float(re.findall(r"remixes of these sources: SI-SDRi (\S+) dB", told.out)[0]) > 8
    assert separate.main([str(tmp_path / "drums.wav"), *words, "--figure"]) == 0
    assert (tmp_path / "stems" / "drums_sources.png").exists()
    told = capsys.readouterr()
    assert re.search("warning: .*drums.wav is not what the model knows: .*, and the model hardly sep", told.err)
    assert float(re.findall(r"remixes of these sources: SI-SDRi (\S+) dB", told.out)[0]) < 1


@pytest.mark.parametrize("document", ["README.md", "docs/audio.md", "docs/images.md"])
def test_the_documents_commands_run_in_a_fresh_clone(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SAMPLES, tmp_path / "sample")
    (tmp_path / "saved_models").symlink_to(REPOSITORY / "saved_models")
    monkeypatch.chdir(tmp_path)
    lines = re.findall(rf"^{re.escape(COMMAND)}(sample/.*)$", (REPOSITORY / document).read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        assert separate.main([*words, "--quiet"]) == 0
        stem, output = Path(words[0]).stem, Path(words[words.index("--output") + 1])
        assert len(list(output.glob(f"{stem}_source[12].*"))) == 2
