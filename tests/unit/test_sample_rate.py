"""Settings for sound of another sample rate."""

import json
from pathlib import Path

import pytest

from training import fit
from training.warm_start import source_of
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.presets import get_preset
from vae_bss_tf.sizing import at_sample_rate


@pytest.mark.parametrize("name", ["mixtures", "notes", "tones", "mums"])
@pytest.mark.parametrize("rate", [5_512.5, 11_025, 22_050, 44_100])
def test_bins_and_frames_keep_their_width_and_length(name: str, rate: float) -> None:
    was, now = get_preset(name), at_sample_rate(get_preset(name), rate)
    assert was.audio is not None
    assert now.audio is not None
    assert now.audio.sample_rate / now.audio.n_fft == was.audio.sample_rate / was.audio.n_fft
    assert now.audio.num_samples / rate == was.audio.num_samples / was.audio.sample_rate
    assert now.audio.num_bins * rate / now.audio.n_fft == rate / 2
    assert now.model.input_shape == (was.model.input_shape[0], was.model.input_shape[1] * rate / 5_512.5)
    assert now.recipe == was.recipe


@pytest.mark.parametrize("rate", [2_000, 8_000, 16_000, 48_000, 96_000])
def test_other_rates_have_bins_of_about_the_same_width(rate: float) -> None:
    audio = at_sample_rate(get_preset("mixtures"), rate).audio
    assert audio is not None
    assert 2**-0.5 <= (audio.sample_rate / audio.n_fft) / (5_512.5 / 512) <= 2**0.5
    assert audio.num_bins == audio.n_fft // 2


def test_rates_out_of_range_and_pictures_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for rate in (0.0, -1.0, 1_999.0, 1e6, float("nan")):
        with pytest.raises(ConfigError, match=r"--sample-rate is .*from 2,000 to 96,000"):
            at_sample_rate(get_preset("notes"), rate)
    with pytest.raises(ConfigError, match="for sound"):
        at_sample_rate(get_preset("digits"), 8_000)
    assert fit.main(["--dataset", "digits", "--sample-rate", "8000", "--dry-run"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_takes_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit.main(["--dataset", "mixtures", "--sample-rate", "11025", "--dry-run"]) == 0
    settings = json.loads(capsys.readouterr().out)
    assert settings["audio"]["sample_rate"] == 11_025
    assert settings["audio"]["n_fft"] == 1_024
    assert settings["model"]["input_shape"] == [8, 512]


def test_a_model_is_widened_where_its_bins_stay_as_wide() -> None:
    shipped = Path(__file__).resolve().parents[2] / "saved_models" / "duets"
    for rate in (5_512.5, 11_025, 22_050):
        audio = at_sample_rate(get_preset("mixtures"), rate).audio
        assert source_of(shipped, "vae", audio).config.input_shape == (8, 256)
    with pytest.raises(ConfigError, match=r"bins are 7.81 Hz wide, and 10.77 Hz in .*twice or four times"):
        source_of(shipped, "vae", at_sample_rate(get_preset("mixtures"), 8_000).audio)
