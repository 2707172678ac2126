import json

import keras
import numpy as np
import pytest

from training import backup
from vae_bss_tf import MultiSourceVAE
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.image_mixtures import training_mixtures
from vae_bss_tf.errors import CheckpointError


def compiled(config):
    model = MultiSourceVAE(config)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    return model


@pytest.fixture
def trained(tiny_config, tmp_path):
    """A model after four epochs and the folder of its backups."""
    model, folder = compiled(tiny_config), tmp_path / "backup"
    data = training_mixtures(load_bank("digits", "train"), num_mixed=(2,), batch_size=16, seed=0)
    model.fit(
        data, epochs=4, steps_per_epoch=2, verbose=0, shuffle=False, callbacks=[backup.EpochBackup(folder, "hash")]
    )
    return model, folder


def test_the_last_two_states_are_kept(trained):
    assert sorted(p.name for p in trained[1].iterdir()) == ["epoch-00003", "epoch-00004"]


def test_no_state_is_kept_of_an_epoch_that_diverged_or_was_cut_off(trained):
    model, folder = trained
    (folder / ".partial-1-epoch-00005").mkdir()
    again = backup.EpochBackup(folder, "hash")
    again.set_model(model)
    again.on_train_begin()
    again.on_epoch_end(4, {"loss": float("nan")})
    assert sorted(p.name for p in folder.iterdir()) == ["epoch-00003", "epoch-00004"]


def test_restored_state_is_the_whole_state(trained, tiny_config):
    model, folder = trained
    other = compiled(tiny_config)
    epochs, seconds = backup.restore(other, folder, "hash")
    assert epochs == 4
    assert seconds > 0
    assert int(other.optimizer.iterations) == 8
    for a, b in zip(
        model.variables + model.optimizer.variables, other.variables + other.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_seconds_add_up_over_resumes(trained, tiny_config):
    model, folder = trained
    before = backup.restore(model, folder, "hash")[1]
    data = training_mixtures(load_bank("digits", "train"), num_mixed=(2,), batch_size=16, seed=0, start_step=8)
    again = backup.EpochBackup(folder, "hash", before + 1_000)
    model.fit(data, initial_epoch=4, epochs=5, steps_per_epoch=2, verbose=0, shuffle=False, callbacks=[again])
    assert backup.restore(model, folder, "hash")[1] > before + 1_000


def test_a_damaged_state_is_refused_and_the_older_one_offered(trained, tiny_config):
    _, folder = trained
    file = folder / "epoch-00004" / "state.weights.h5"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged.*--resume epoch-00003"):
        backup.restore(compiled(tiny_config), folder, "hash")
    assert backup.restore(compiled(tiny_config), folder, "hash", "epoch-00003")[0] == 3


def test_a_foreign_state_is_refused(trained, tiny_config):
    with pytest.raises(CheckpointError, match=r"other settings.*--force"):
        backup.restore(compiled(tiny_config), trained[1], "another hash")


@pytest.mark.parametrize("damage", ["state.json", "state.weights.h5"])
def test_a_missing_part_is_named(trained, tiny_config, damage):
    (trained[1] / "epoch-00004" / damage).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {damage}"):
        backup.restore(compiled(tiny_config), trained[1], "hash")


def test_an_unreadable_description_is_refused(trained, tiny_config):
    (trained[1] / "epoch-00004" / "state.json").write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match="unreadable"):
        backup.restore(compiled(tiny_config), trained[1], "hash")


def test_nothing_to_restore_is_a_start_from_the_beginning(tiny_config, tmp_path):
    assert backup.restore(compiled(tiny_config), tmp_path, "hash") == (0, 0.0)
    with pytest.raises(CheckpointError, match="lacks"):
        backup.restore(compiled(tiny_config), tmp_path, "hash", "epoch-00001")
