"""What a finished training leaves beside its model: `metrics.json` and `separation.png`."""

from typing import Any

from training import figures, systems
from training.run import Run
from training.scores import mean_scores
from vae_bss_tf.datasets import SourceBank, pipeline
from vae_bss_tf.files import write_json

NUM_SCORED = 1_000
_PICTURED = 10


def write_results(run: Run, bank: SourceBank, trained: dict[str, Any], device: str) -> None:
    """Scores a run's model on test mixtures, and writes its scores and a picture.

    Args:
        run: The run, with its model.
        bank: The sources of the test split.
        trained: What `Trainer.train` returned.
        device: The devices it was trained on, in words.
    """
    model, preset = run.model(), run.preset
    num_mixed = [preset.data.max_mixed]
    truth = pipeline.evaluation_data(preset, bank, num_mixtures=NUM_SCORED, num_mixed=num_mixed)
    if systems.is_baseline(run.system):
        sources = model.separate(truth.mixtures)
        scored = {run.system: sources}
    else:
        outputs = model.predict({"mixture": truth.mixtures}, batch_size=NUM_SCORED // 4, verbose=0)
        sources = outputs["sources"]
        scored = {"vae": outputs["estimates"], "vaem": sources}
    shown = slice(0, _PICTURED)
    figure = figures.separation(truth.mixtures[shown], sources[shown], truth.sources[shown], audio=preset.audio)
    figures.save(figure, run.path / "separation.png")
    test: dict[str, Any] = {"mixtures": NUM_SCORED, "num_mixed": num_mixed}
    if preset.model.num_sources >= preset.data.max_mixed:
        test |= {name: mean_scores(estimates, truth, name) for name, estimates in scored.items()}
    write_json(
        run.path / "metrics.json",
        {
            "seed": preset.recipe.seed,
            "device": device,
            **trained,
            "parameters": sum(variable.shape.num_elements() for variable in model.trainable_variables),
            "test": test,
        },
    )
