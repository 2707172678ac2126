"""The model card of a run whose mixtures have no known truth; `test_export` has the card of a whole export."""

from pathlib import Path

from export.card import card
from export.gate.parity import Reference
from export.manifest import Export
from training.run import Run
from vae_bss_tf.config import DataConfig, Preset
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.files import write_json


def test_a_card_without_a_truth_claims_no_score_against_one(tiny_preset: Preset, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "own", tiny_preset.replace(data=DataConfig("mixtures", (1,))), "vae")
    known = {"remix_si_sdri": 7.256, "shared_out": 0.914}
    write_json(run.path / "metrics.json", {"mixtures": 100, "test": {"has_truth": False, "without_truth": known}})
    reference = Reference(EvaluationSet(*[None] * 4, 1.0), None, {}, {"si_sdr": 9.87, "psnr": 6.54}, [])
    export = Export("own", "python -m export", run, reference, {}, dynamic_batch=False, data_licence="")
    assert not export.has_truth
    entry = {"path": "a.onnx", "bytes": 10**6, "scores_db": {}, "max_abs_error": {"sources": 1e-7}, "latency_ms": 1.0}
    reference_values = {"num_mixtures": 500, "scores_db": {}}
    described = {
        "reference": reference_values,
        "formats": {"onnx_float32": entry},
        "training_command": None,
        "config_hash": "0",
    }
    text = " ".join(card(export, described).split())
    assert "7.26 dB" in text
    assert "91 % of the mixtures" in text
    assert "mixtures, taken as they are" in text
    assert "The training data: not stated" in text
    for absent in ("9.87", "PSNR", "mixture of 1"):
        assert absent not in text
