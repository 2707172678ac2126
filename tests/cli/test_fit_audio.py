"""From a folder of recordings to separated files: training, its scores on waveforms, and the run's separator."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from training import evaluate, figures, results
from training.fit import report as report_of
from training.fit import train
from training.run import Run
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.datasets import decoded as audio_cache
from vae_bss_tf.datasets import pipeline
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.phases import Phase, Recipe

AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=32, num_bins=32, frame_pooling=4, power=0.5)
PHASE = Phase(batch_size=16, steps_per_execution=4, jit_compile=False)
PRESET = Preset(
    ModelConfig(
        input_shape=AUDIO.feature_shape,
        latent_dim=3,
        network="spectrogram",
        hidden_units=(16, 16, 12),
        mask_channels=(3, 4),
    ),
    DataConfig("notes"),
    Recipe(
        epochs=3,
        mixtures_per_epoch=128,
        validation_mixtures=32,
        phases=(
            PHASE,
            PHASE.replace(name="remix", objective="remixed_elbo", remix_masked=True),
            PHASE.replace(name="masks", objective="masked_remix", trains=("mask_network",)),
        ),
    ),
    AUDIO,
)


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notes")
    time = np.arange(1_600) / 8_000
    for i in range(12):
        soundfile.write(folder / f"note_{i}.wav", 0.5 * np.sin(2 * np.pi * (200 + 100 * i) * time), 8_000)
    return folder


def test_a_folder_of_recordings_becomes_a_separator(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(audio_cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(results, "NUM_SCORED", 20)
    run = train(PRESET, output=tmp_path / "run", data_dir=notes)
    assert Run.load(run.path).preset == PRESET
    assert (run.path / "separation.png").is_file()
    assert_heard_in_tensorboard(run)

    bank = pipeline.load_banks(PRESET, notes, ["test"])["test"]
    truth = pipeline.evaluation_data(PRESET, bank, num_mixtures=20)
    waveforms = truth.masked_waveforms(run.model().separate(truth.mixtures))
    assert np.abs(waveforms.sum(axis=1) - truth.waveforms).max() < 1e-5
    assert run.metrics["test"]["vaem"]["si_sdr"] == pytest.approx(
        matched_si_sdr(waveforms, truth.source_waveforms), abs=0.5
    )
    assert run.metrics["test"]["vae"]["si_sdr"] != run.metrics["test"]["vaem"]["si_sdr"]

    separator = Separator.load(run.path)
    mixture = truth.waveforms[0]
    sources = separator.separate(mixture, AUDIO.sample_rate)
    assert np.abs(sources.sum(axis=0) - mixture).max() < 1e-5

    arguments = ["--run", str(run.path), "--data-dir", str(notes), "--num-mixtures", "20"]
    assert evaluate.main(arguments) == 0
    content = json.loads((run.path / "evaluation" / "comparison.json").read_text())
    scores = {r["system"]: r["scores"]["si_sdr"]["mean"] for r in content["comparisons"][0]["results"]}
    assert list(scores) == ["mixture/k", "vae", "vaem", "nmf", "nmf-kl", "ibm", "irm"]
    assert scores["vaem"] == pytest.approx(run.metrics["test"]["vaem"]["si_sdr"], abs=1e-3)
    assert min(scores["ibm"], scores["irm"]) > max(scores["vaem"], scores["nmf"], scores["mixture/k"])
    assert content["comparisons"][0]["paired"][0]["score"] == "si_sdr"


def assert_heard_in_tensorboard(run: Run) -> None:
    """Beside each picture of separated mixtures are the sounds of its columns, and the sources sum to the mixtures."""
    events = EventAccumulator(str(run.path / "tensorboard" / "separation"), size_guidance={"tensors": 0})
    events.Reload()
    names = ["mixture", "source 1", "source 2"]
    assert set(events.Tags()["tensors"]) == {"separation", *names}
    for epoch in range(PRESET.recipe.epochs):
        sounds = []
        for name in names:
            event = events.Tensors(name)[epoch]
            assert event.step == epoch + 1
            encoded = [row[0] for row in make_ndarray(event.tensor_proto)]
            assert len(encoded) == figures.SPECTROGRAMS
            waveforms, rates = zip(*(soundfile.read(io.BytesIO(wav)) for wav in encoded), strict=True)
            assert set(rates) == {AUDIO.sample_rate}
            sounds.append(np.stack(waveforms))
        mixture, *sources = sounds
        assert mixture.shape[1] == AUDIO.num_samples
        assert np.abs(mixture).max() > 0.1
        np.testing.assert_allclose(sum(sources), mixture, atol=3 / 2**15)  # 16 bits each


def test_mixtures_without_a_truth_have_no_score_against_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(audio_cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(results, "NUM_SCORED", 20)
    folder, time = tmp_path / "takes", np.arange(4_000) / 8_000
    folder.mkdir()
    for i in range(12):
        duet = sum(0.3 * np.sin(2 * np.pi * pitch * time) for pitch in (200 + 100 * i, 1_700 - 90 * i))
        soundfile.write(folder / f"take_{i}.wav", duet, 8_000)
    preset = PRESET.replace(data=DataConfig("mixtures", (1,)), recipe=PRESET.recipe.replace(phases=(PHASE,), epochs=1))
    run = train(preset, output=tmp_path / "run", data_dir=folder)

    test = run.metrics["test"]
    assert set(test) == {"mixtures", "has_truth", "without_truth"}
    assert not test["has_truth"]
    known = test["without_truth"]
    assert set(known) == {"remix_si_sdri", "shared_out", "shares", "elbo", "kl", "sum_si_sdr"}
    assert sum(known["shares"]) == pytest.approx(1)
    assert known["shares"] == sorted(known["shares"], reverse=True)
    assert len(known["kl"]) == 2
    assert min(known["kl"]) >= 0
    report_of(run)
    printed = capsys.readouterr().out
    assert "whose true sources nobody knows" in printed
    assert "PSNR" not in printed

    where = ["--data-dir", str(folder), "--num-mixtures", "20", "--output", str(tmp_path / "out")]
    assert evaluate.main(["--run", str(run.path), *where]) == 0
    printed = capsys.readouterr().out
    assert "mixtures: 8 test mixtures without a truth, K = 2" in printed  # as many windows as there are, once each
    assert (
        "It compares models of one kind and is no estimate of the SI-SDR. `separate` writes what VAEM gives." in printed
    )
    assert "ahead" not in printed
    (comparison,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["comparisons"]
    assert not comparison["has_truth"]
    assert comparison["paired"] == []
    found = {row["system"]: row for row in comparison["results"]}
    assert list(found) == ["mixture/k", "vae", "vaem", "nmf", "nmf-kl"]
    assert all(row["scores"] == {} for row in found.values())
    assert found["mixture/k"]["without_truth"]["remix_si_sdri"]["mean"] < 0.1
    assert found["vaem"]["without_truth"]["elbo"] == pytest.approx(known["elbo"], rel=1e-4)
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "remix SI-SDRi" in text
    assert "PSNR" not in text
    assert not (tmp_path / "out" / "latents.png").exists()


def matched_si_sdr(estimates: np.ndarray, sources: np.ndarray) -> float:
    """SI-SDR by its formula (Le Roux et al. 2019), in the better of the two orders."""

    def ratio(estimate: np.ndarray, source: np.ndarray) -> np.ndarray:
        target = source * (estimate * source).sum(-1, keepdims=True) / (source**2).sum(-1, keepdims=True)
        return 10 * np.log10((target**2).sum(-1) / ((estimate - target) ** 2).sum(-1))

    orders = [ratio(estimates[:, order], sources).mean(axis=1) for order in ([0, 1], [1, 0])]
    return float(np.maximum(*orders).mean())


def test_data_and_preset_must_be_of_one_kind(notes: Path) -> None:
    with pytest.raises(ConfigError, match="holds images"):
        pipeline.load_banks(Preset(PRESET.model, DataConfig("digits"), PRESET.recipe, AUDIO), None)
    with pytest.raises(ConfigError, match="holds sound"):
        pipeline.load_banks(Preset(PRESET.model, PRESET.data, PRESET.recipe), notes)
