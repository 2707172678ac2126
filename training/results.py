"""What a finished training leaves beside its model: `metrics.json` and `separation.png`."""

from typing import Any

from training import figures, systems, truth_free
from training.run import Run
from training.scores import mean_scores
from vae_bss_tf.datasets import SourceBank, pipeline
from vae_bss_tf.files import write_json
from vae_bss_tf.nn.blocks import num_parameters

NUM_SCORED = 1_000
_PICTURED = 10


def write_results(run: Run, bank: SourceBank, trained: dict[str, Any], device: str) -> None:
    """Scores a run's model on test mixtures, and writes its scores and a picture.

    Mixtures whose true sources nobody knows have no scores against them; what can be known is written either way.

    Args:
        run: The run, with its model.
        bank: The sources, or the mixtures, of the test split.
        trained: What `Trainer.train` returned.
        device: The devices it was trained on, in words.
    """
    model, preset = run.model(), run.preset
    num_mixed = [preset.data.max_mixed]
    number = pipeline.num_distinct(preset, bank, NUM_SCORED)
    truth = pipeline.evaluation_data(preset, bank, num_mixtures=number, num_mixed=num_mixed)
    if systems.is_baseline(run.system):
        sources, fit = model.separate(truth.mixtures), None
        scored = {run.system: sources}
    else:
        outputs = model.predict({"mixture": truth.mixtures}, batch_size=NUM_SCORED // 4, verbose=0)
        sources = outputs["sources"]
        scored = {"vae": outputs["estimates"], "vaem": sources}
        fit = truth_free.mixture_fit(model, outputs, truth, preset.recipe.final_kl_weight)
    shown = slice(0, _PICTURED)
    true_sources = truth.sources[shown] if bank.has_truth else None
    figure = figures.separation(truth.mixtures[shown], sources[shown], true_sources, audio=preset.audio)
    figures.save(figure, run.path / "separation.png")
    test: dict[str, Any] = {"mixtures": number, "has_truth": bank.has_truth}
    if bank.has_truth:
        test["num_mixed"] = num_mixed
        if preset.model.num_sources >= preset.data.max_mixed:
            test |= {name: mean_scores(estimates, truth, name) for name, estimates in scored.items()}
    most = truth_free.sources_of(preset, has_truth=bank.has_truth)
    found = truth_free.known(list(scored)[-1], model.separate, sources, truth, most, fit)
    test["without_truth"] = {} if found is None else found.values()
    write_json(
        run.path / "metrics.json",
        {
            "seed": preset.recipe.seed,
            "device": device,
            **trained,
            "parameters": num_parameters(model),
            "data": {"test": bank.fingerprint()},
            "test": test,
        },
    )
