"""What is to be trained before a preset that goes on from another, without any training."""

import pytest

from training import stages
from training.run import Run, exclusive
from vae_bss_tf.config import DataConfig, Preset, get_preset
from vae_bss_tf.errors import CheckpointError, ConfigError, OutputExistsError
from vae_bss_tf.files import write_json

FIRST, SECOND = "tiny-k2-seed0", "tiny-corrected-k2-seed0"


def planned(folder, preset=None):
    return stages.plan("tiny-masked", preset or get_preset("tiny-masked"), folder / "last")


def made(path, preset, *, init=None, finished=False, backup=False):
    run = Run.create(path, preset, "vae", init=init)
    if finished:
        write_json(path / "metrics.json", {"seed": 0})
    if backup:
        (path / "backup" / "epoch-00001").mkdir(parents=True)
    return run


def test_all_of_it_with_the_seed_and_what_the_machine_can(tiny_stages):
    preset = get_preset("tiny-masked")
    changed = Preset(preset.model, preset.data, preset.train.replace(seed=5, mixed_precision="mixed_bfloat16"))
    init, found = planned(tiny_stages, changed)
    assert init is None
    assert [stage.name for stage in found] == ["tiny", "tiny-corrected"]
    assert [stage.path for stage in found] == [tiny_stages / "tiny-k2-seed5", tiny_stages / "tiny-corrected-k2-seed5"]
    assert {(stage.preset.train.seed, stage.preset.train.mixed_precision) for stage in found} == {(5, "mixed_bfloat16")}
    assert [stage.preset.model for stage in found] == [get_preset(stage.name).model for stage in found]
    assert not tiny_stages.exists()


def test_a_finished_run_is_begun_from_whatever_it_learned_for(tiny_stages):
    preset = get_preset("tiny")
    made(tiny_stages / FIRST, Preset(preset.model, preset.data, preset.train.replace(epochs=1)), finished=True)
    init, found = planned(tiny_stages)
    assert (init, [stage.name for stage in found]) == (tiny_stages / FIRST, ["tiny-corrected"])


def test_what_has_a_backup_needs_nothing_before_it(tiny_stages):
    begun = made(tiny_stages / SECOND, get_preset("tiny-corrected"), init="elsewhere", backup=True)
    init, found = planned(tiny_stages)
    assert (init, found) == (None, [stages.Stage("tiny-corrected", begun.path, begun.preset, True)])


def test_what_was_killed_before_its_first_backup_begins_with_what_it_began_with(tiny_stages):
    made(tiny_stages / SECOND, get_preset("tiny-corrected"), init=FIRST)
    assert [(stage.name, stage.begun) for stage in planned(tiny_stages)[1]] == [
        ("tiny", False),
        ("tiny-corrected", True),
    ]


def test_what_cannot_be_begun_from_is_refused(tiny_stages):
    preset = get_preset("tiny")
    other_data = Preset(preset.model, DataConfig("digits", (1,)), preset.train)
    other_model = Preset(preset.model.replace(latent_dim=3), preset.data, preset.train)
    for number, other in enumerate((other_data, other_model)):
        folder = tiny_stages / str(number)
        made(folder / FIRST, other, finished=True)
        with pytest.raises(ConfigError, match="--init RUN"):
            planned(folder)
    made(tiny_stages / "begun" / SECOND, get_preset("tiny-corrected"), init="elsewhere")
    with pytest.raises(CheckpointError, match="killed before its first backup"):
        planned(tiny_stages / "begun")
    (tiny_stages / "strange" / FIRST).mkdir(parents=True)
    (tiny_stages / "strange" / FIRST / "diary.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="is no run; name one by --init"):
        planned(tiny_stages / "strange")


def test_stages_of_a_run_end_where_they_cannot_be_followed(tiny_stages):
    preset = get_preset("tiny")
    made(tiny_stages / "first", preset)
    second = made(tiny_stages / "second", preset, init="first")
    itself = made(tiny_stages / "itself", preset, init="itself")
    assert [run.path.name for run in second.stages()] == ["first", "second"]
    assert itself.stages() == [itself]
    (tiny_stages / "first" / "config.json").write_text("{")
    assert second.stages() == [second]


def test_a_run_folder_is_held_by_one_training(tiny_stages):
    run = made(tiny_stages / "run", get_preset("tiny"))
    with exclusive(run.path):
        with pytest.raises(OutputExistsError, match="another process"), exclusive(run.path):
            pass
        with pytest.raises(OutputExistsError, match="another process"):
            Run.create(run.path, run.preset, "vae", force=True)
    assert Run.load(run.path) == run
    with exclusive(run.path):
        pass
