"""What the command that trains makes of its options: settings, or one line and exit code 2."""

import json

import pytest

from training import fit
from vae_bss_tf.config import Preset

BAD = {
    "preset": (["--preset", "mnits"], "Did you mean 'mnist'"),
    "dataset": (["--dataset", "digit"], "Did you mean 'digits'"),
    "folder": (["--dataset", "mnist", "--data-dir", "nowhere"], "no folder nowhere"),
    "few sources": (["--num-sources", "0"], "num_sources"),
    "count": (["--num-mixed", "5"], "num_mixed"),
    "shape": (["--dataset", "digits", "--preset", "mnist"], "(8, 8)"),
    "setting": (["--set", "model.latent=3"], "latent_dim"),
    "form": (["--set", "latent_dim"], "PART.FIELD=VALUE"),
    "phase": (["--preset", "mnist", "--phases", "mask"], "Did you mean 'masks'"),
    "no phase": (["--phases", ","], "phases"),
    "phase of a part": (["--set", "model.separate.latent_dim=3"], "Choose one of: recipe"),
    "setting of a phase": (["--set", "recipe.separate.batch=3"], "batch_size"),
    "schedule": (["--set", "recipe.separate.kl_schedule=linaer"], "linear"),
    "strategy": (["--strategy", "mirored"], "mirrored"),
    "nothing to resume": (["--resume"], "no run folder"),
    "resume of nothing": (["--resume", ""], "--resume names no backup"),
    "large KL weight": (["--set", "recipe.separate.kl_weight=1e300"], "kl_weight"),
    "infinite KL weight": (["--set", "recipe.separate.kl_weight=1e999"], "kl_weight"),
    "no number": (["--set", "recipe.separate.kl_weight=NaN"], "kl_weight"),
    "large batch": (["--batch-size", "1000000000000"], "batch_size"),
    "many epochs": (["--epochs", "99999999999999999999"], "epochs"),
    "many sources": (["--num-sources", "99999999999"], "num_sources"),
    "large seed": (["--seed", "99999999999"], "seed"),
    "many digits": (["--set", f"recipe.epochs={'9' * 5000}"], "epochs"),
    "deep": (["--set", f"model.hidden_units={'[' * 400}{']' * 400}"], "hidden_units"),
    "deeper": (["--set", f"model.hidden_units={'[' * 990}{']' * 990}"], "hidden_units"),
    "deepest": (["--set", f"model.hidden_units={'[' * 100_000}{']' * 100_000}"], "hidden_units"),
    "deep phases": (["--set", f"recipe.phases={'[' * 400}{']' * 400}"], "must be settings by name"),
    "phases of a kind": (["--set", "recipe.phases=3"], "phases"),
    "phases of others": (["--set", "recipe.phases=[3]"], "Phase"),
    "minutes": (["--minutes", "0"], "--minutes"),
    "epochs and minutes": (["--epochs", "3", "--minutes", "5"], "give one of them"),
    "resume and force": (["--resume", "--force"], "give one of them"),
    "no source": (["--preset", "mnist", "--num-mixed", "0"], "num_mixed"),
    "unknown data": (["--set", "data.dataset=digit"], "Did you mean 'digits'"),
    "objective of a baseline": (["--set", "recipe.separate.objective=own"], "objective of the phase separate"),
    "masks by another objective": (
        ["--preset", "mnist", "--set", "recipe.masks.objective=elbo"],
        "masked_remix, which alone trains the mask network",
    ),
    "no mask network": (
        ["--preset", "mnist", "--set", "model.mask_channels=[]", "--set", 'recipe.masks.trains=["encoder"]'],
        "given for the phase masks",
    ),
    "one to validate": (["--preset", "mnist", "--set", "recipe.validation_mixtures=1"], "2 or more"),
    "resumed latents": (["--system", "glo", "--resume"], "no backup holds the latents"),
}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["separate", "remix", "masks"]),
        (["--num-sources", "3"], ["separate", "spare", "remix", "masks"]),
        (["--system", "ae"], ["train"]),
        (["--system", "remixit"], ["train", "remixit"]),
    ],
)
def test_a_dry_run_prints_what_is_trained(words, names, capsys):
    assert fit.main(["--preset", "mnist", *words, "--dry-run"]) == 0
    phases = Preset.from_dict(json.loads(capsys.readouterr().out)).recipe.phases
    assert [phase.name for phase in phases] == names
    assert fit.main(["--preset", "mnist", *words, "--epochs", "3", "--minutes", "3", "--dry-run"]) == 2


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case, capsys, tmp_path):
    arguments, message = BAD[case]
    assert fit.main([*arguments, "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_mixtures_of_many_sources_have_smaller_kl_weights_unless_they_are_set(capsys):
    words = ["--preset", "mnist", "--num-sources", "4", "--num-mixed", "1,2,3,4", "--dry-run"]
    assert fit.main([*words, "--set", "recipe.remix.kl_weight=0.3"]) == 0
    phases = {phase.name: phase for phase in Preset.from_dict(json.loads(capsys.readouterr().out)).recipe.phases}
    assert (phases["separate"].kl_weight, phases["remix"].kl_weight) == (0.125, 0.3)


def test_phases_are_chosen_and_set_by_name(capsys):
    words = ["--preset", "mnist", "--phases", "separate,remix", "--set", "recipe.remix.kl_weight=0.125"]
    assert fit.main([*words, "--batch-size", "6", "--epochs", "2", "--dry-run"]) == 0
    recipe = Preset.from_dict(json.loads(capsys.readouterr().out)).recipe
    separate, remix = recipe.phases
    assert (separate.name, remix.name) == ("separate", "remix")
    assert (separate.batch_size, remix.batch_size) == (6, 6)
    assert (recipe.epochs, remix.kl_weight) == (2, 0.125)
    assert separate.kl_weight != 0.125
