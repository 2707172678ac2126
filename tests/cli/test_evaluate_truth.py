"""`python -m training.evaluate --truth DIR`: runs on mixtures of one's own whose sources are known."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from scipy.signal import ShortTimeFFT

from benchmarks import truth_free
from training import evaluate
from training.evaluation import references, truth_folder
from training.fit import train
from training.run import Run
from vae_bss_tf import metrics
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.files import write_json
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.phases import Recipe

AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=32, num_bins=32, frame_pooling=4, power=0.5)
SOUND = Preset(
    ModelConfig(input_shape=AUDIO.feature_shape, latent_dim=3, network="spectrogram", hidden_units=(8, 8, 8)),
    DataConfig("mixtures", (1,)),
    Recipe(),
    AUDIO,
)


def finished(path: Path, preset: Preset) -> Path:
    """A run of an untrained model."""
    run = Run.create(path, preset, "vae")
    MultiSourceVAE(preset.model).save(path / "model.keras")
    write_json(path / "metrics.json", {"seconds": 1})
    return run.path


@pytest.fixture(scope="module")
def sound_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("runs") / "sound", SOUND)


@pytest.fixture(scope="module")
def image_run(tmp_path_factory: pytest.TempPathFactory, tiny_preset: Preset) -> Path:
    return finished(tmp_path_factory.mktemp("runs") / "image", tiny_preset)


def write_sound(folder: Path, number: int, rate: int = 8_000) -> None:
    folder.mkdir(parents=True)
    time = np.arange(rate) / rate
    sources = [0.3 * np.sin(2 * np.pi * pitch * time) for pitch in (300 + 70 * number, 1_500 - 60 * number)]
    soundfile.write(folder / "mixture.wav", sum(sources), rate, "FLOAT")
    for name, source in zip(("source1_flute", "source2_horn"), sources, strict=True):
        soundfile.write(folder / f"{name}.wav", source, rate, "FLOAT")


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    for number in range(3):
        write_sound(tmp_path / "takes" / f"take{number}", number)
    return tmp_path / "takes"


def test_whole_recordings_are_scored_beside_the_mixture_itself(
    sound_run: Path, takes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["--run", str(sound_run), "--truth", str(takes), "--output", str(tmp_path / "out")]
    assert evaluate.main(words) == 0
    printed = capsys.readouterr().out
    assert "takes: 3 mixtures with their sources" in printed
    assert "sound less the mixture itself: SI-SDR" in printed
    values = json.loads((tmp_path / "out" / "truth.json").read_text())
    assert values["folders"] == ["take0", "take1", "take2"]
    mixture, own = values["results"]
    assert [mixture["system"], own["system"]] == ["the mixture itself", "sound"]
    assert list(own["scores"])[:4] == ["si_sdr", "si_sir", "si_sar", "window_si_sdr"]
    assert mixture["scores"]["si_sdr"]["mean"] == pytest.approx(0, abs=0.1)  # two sources of one level
    assert np.isfinite(own["by_folder"]["si_sdr"]).all()
    with (tmp_path / "out" / "truth.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 3
    assert "| sound |" in (tmp_path / "out" / "truth.md").read_text()
    assert evaluate.main(words) == 2
    assert "truth.json exists; replace it by --force" in capsys.readouterr().err


def test_systems_without_a_run_are_judged_beside_it(
    sound_run: Path, takes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["--run", str(sound_run), "--truth", str(takes), "--output", str(tmp_path / "out"), "--systems"]
    assert evaluate.main([*words, "nmf-kl,irm,ibm"]) == 0
    values = json.loads((tmp_path / "out" / "truth.json").read_text())
    scores = {row["system"]: row["scores"]["si_sdr"]["mean"] for row in values["results"]}
    assert list(scores) == [
        "the mixture itself", "sound", "NMF, Kullback-Leibler", "IRM (exponent 2)", "IBM"
    ]  # fmt: skip
    assert min(scores["IRM (exponent 2)"], scores["IBM"]) > 25
    assert "| IBM |" in (tmp_path / "out" / "truth.md").read_text()
    for name in ("mixit", "nothing"):
        assert evaluate.main([*words, name, "--force"]) == 2
        assert (
            f"error: unknown system for --truth '{name}'. Choose one of: ibm, irm, nmf, nmf-kl."
            in capsys.readouterr().err
        )


def test_nmf_separates_tones_that_swell_in_turn() -> None:
    _, separate = references.find("nmf-kl", AUDIO, 2)
    time = np.arange(8_000) / 8_000
    swell = np.sin(np.pi * 5 * time) ** 2
    sources = np.stack([swell * np.sin(2 * np.pi * 300 * time), (1 - swell) * np.sin(2 * np.pi * 1_200 * time)])
    found = separate(sources.sum(axis=0, keepdims=True), (8_000, 1, 8_000), sources[:, np.newaxis])
    ratios = metrics.pairwise_si_bss_eval(found[np.newaxis], sources[np.newaxis, :, np.newaxis]).sdr[0]
    assert max(np.trace(ratios), np.trace(ratios[::-1])) / 2 > 10


def test_the_ideal_ratio_mask_is_the_wiener_filter_of_another_stft(takes: Path) -> None:
    _, separate = references.find("irm", AUDIO, 2)
    mixture, *sources = (
        soundfile.read(takes / "take0" / f"{name}.wav", dtype="float32")[0][np.newaxis]
        for name in ("mixture", "source1_flute", "source2_horn")
    )
    found = separate(mixture, (8_000, 1, 8_000), np.stack(sources))
    transform = ShortTimeFFT.from_window("hann", 8_000, 128, 96)  # 64 and 16 samples at 4,000 Hz
    powers = [np.square(np.abs(transform.stft(source))) for source in sources]
    for power, one in zip(powers, found, strict=True):
        expected = transform.istft(transform.stft(mixture) * power / sum(powers), k1=8_000)
        np.testing.assert_allclose(one[:, 256:-256], expected[:, 256:-256], atol=1e-3)


def test_the_benchmark_of_the_score_without_a_truth_takes_its_truth_from_a_folder(
    sound_run: Path, takes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for number in range(8):
        write_sound(tmp_path / f"take{number}", number)
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / f"take{number}" / "mixture.wav").rename(tmp_path / "folder" / f"{number}.wav")
    runs = [finished(tmp_path / f"run{number}", SOUND) for number in range(2)]
    words = [*map(str, (sound_run, *runs)), "--data-dir", str(tmp_path / "folder"), "--num-mixtures", "20"]
    words += ["--output", str(tmp_path / "ranking.json")]
    assert truth_free.main(words) == 2
    assert "mixtures has no true sources to compare with; give --truth" in capsys.readouterr().err
    assert truth_free.main([*words, "--truth", str(takes)]) == 0
    rows = json.loads((tmp_path / "ranking.json").read_text())["models"]
    assert evaluate.main(["--run", str(runs[1]), "--truth", str(takes), "--output", str(tmp_path / "out")]) == 0
    own = json.loads((tmp_path / "out" / "truth.json").read_text())["results"][1]
    assert rows[2]["model"] == str(runs[1])
    assert rows[2]["si_sdr"] == pytest.approx(own["scores"]["si_sdr"]["mean"])
    assert {"remix_si_sdri", "elbo", "sum_si_sdr"} <= set(rows[2])


def test_a_perfect_separation_has_the_best_scores_in_any_order(
    image_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, top = np.random.default_rng(0), np.arange(8)[:, None] < 4
    for number in range(2):
        folder = tmp_path / "truth" / f"overlay {number}"
        folder.mkdir(parents=True)
        mixture = rng.integers(1, 240, (8, 8)).astype(np.uint8)
        for name, picture in (("mixture", mixture), ("source1", mixture * top), ("source2_cat", mixture * ~top)):
            Image.fromarray(picture).save(folder / f"{name}.png")
        (folder / "notes.txt").write_text("not a picture")
    monkeypatch.setattr(
        MultiSourceVAE, "separate", lambda self, mixture: np.stack([mixture * ~top, mixture * top], axis=1)
    )
    _, (mixture, own) = truth_folder.judge([Run.load(image_run)], tmp_path / "truth")
    assert list(own.scores) == ["psnr", "si_sdr", "si_sir", "si_sar"]
    assert own.scores["si_sdr"].min() > 99
    assert own.scores["psnr"].min() > 99
    assert mixture.scores["si_sdr"].max() < 5


@pytest.mark.parametrize("system", ["mixit", "glo", "ae"])
def test_trained_systems_of_each_model_are_judged_on_pictures(
    system: str, tiny_preset: Preset, golden_runs: Path, tmp_path: Path
) -> None:
    recipe = tiny_preset.recipe.replace(epochs=2, mixtures_per_epoch=64)
    run = Run.load(golden_runs / system)
    if system == "glo":
        run = train(tiny_preset.replace(recipe=recipe), output=tmp_path / "run", system=system)
    rng = np.random.default_rng(0)
    (tmp_path / "truth" / "overlay").mkdir(parents=True)
    for name in ("mixture", "source1", "source2"):
        Image.fromarray(rng.integers(1, 240, (8, 8), np.uint8)).save(tmp_path / "truth" / "overlay" / f"{name}.png")
    _, (_, own) = truth_folder.judge([run], tmp_path / "truth")
    assert np.isfinite(own.scores["psnr"]).all()


def test_an_array_is_judged_where_it_is_one_picture(
    image_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "truth" / "overlay"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("mixture", "source1", "source2"):
        np.savez(folder / f"{name}.npz", rng.uniform(size=(8, 8)))
    words = ["--run", str(image_run), "--truth", str(tmp_path / "truth"), "--output", str(tmp_path / "out")]
    assert evaluate.main(words) == 0
    np.savez(folder / "mixture.npz", rng.uniform(size=(5, 8, 8)))
    assert evaluate.main([*words, "--force"]) == 2
    assert "mixture.npz holds 5 pictures; a mixture or source is one" in capsys.readouterr().err


def no_sources(folder: Path) -> None:
    for path in (folder / "take1").glob("source*"):
        path.unlink()


def another_rate(folder: Path) -> None:
    samples, _ = soundfile.read(folder / "take1" / "source2_horn.wav")
    soundfile.write(folder / "take1" / "source2_horn.wav", samples, 4_000)


def shorter(folder: Path) -> None:
    samples, rate = soundfile.read(folder / "take1" / "source2_horn.wav")
    soundfile.write(folder / "take1" / "source2_horn.wav", samples[:-1], rate)


def a_third_source(folder: Path) -> None:
    (folder / "take1" / "source3.wav").write_bytes((folder / "take1" / "source2_horn.wav").read_bytes())


def no_folders(folder: Path) -> None:
    for path in folder.iterdir():
        path.rename(folder.parent / path.name)


def silent(folder: Path) -> None:
    soundfile.write(folder / "take1" / "mixture.wav", np.zeros(8_000), 8_000)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_sources, "take1 holds no sources; it needs source1*, source2*, ... beside mixture.wav"),
        (
            another_rate,
            "source2_horn.wav is of 8000 samples, 1 channel, 4000 Hz and mixture.wav of 8000 samples, 1 chan",
        ),
        (shorter, "source2_horn.wav is of 7999 samples"),
        (a_third_source, "take1 has 3 sources, the model 2 outputs"),
        (no_folders, "holds no folders"),
        (silent, "mixture.wav: the waveform is silent"),
        (lambda folder: (folder / "take1" / "mixture.wav").unlink(), "take1 holds no mixture"),
        (lambda folder: (folder / "take1" / "mixture.wav").write_text("text"), "cannot be read as audio"),
        (lambda folder: (folder / "take1" / "mixture.flac").write_text("text"), "take1 holds several mixtures"),
        (lambda folder: folder.rename(folder.parent / "elsewhere"), "no folder"),
    ],
)
def test_bad_input_is_one_line(
    sound_run: Path,
    takes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    spoil(takes)
    words = ["--run", str(sound_run), "--truth", str(takes), "--output", str(tmp_path / "out")]
    assert evaluate.main(words) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(": judged")]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_runs_of_one_kind_are_needed(
    sound_run: Path, image_run: Path, takes: Path, capsys: pytest.CaptureFixture
) -> None:
    assert evaluate.main(["--truth", str(takes)]) == 2
    assert "give --run RUN" in capsys.readouterr().err
    assert evaluate.main(["--run", str(sound_run), str(image_run), "--truth", str(takes)]) == 2
    assert "one kind at a time" in capsys.readouterr().err
    assert evaluate.main(["--run", str(image_run), "--truth", str(takes)]) == 2
    assert "holds no mixture; it needs one mixture.* (.png" in capsys.readouterr().err
