"""Random words for every number of a command: settings, or one line and exit code 2. A user's files do not change."""

import contextlib
import io
import json
import signal
import tempfile
import types
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from export import benchmark, serve, serving
from training import evaluate, fit
from training.recipe import plan
from vae_bss_tf.config import Preset
from vae_bss_tf.presets import PRESETS

pytestmark = pytest.mark.usefixtures("bounded_memory")
BOUNDED = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBERS = st.one_of(
    st.sampled_from(["-1", "0", "1", "2", "3", "-0", "0.5", "1e3", "1e308", "-1e308", "1e400", "1e-400", "inf", "-inf",
                     "nan", "", " ", "-", "--", ",", "1,", "1,2", "2,99", "0x10", "1_000", "٣", "é", "\x00", "9" * 30,
                     "9" * 5_000, "2147483647", "2147483648", "true", "null", "[]", "[1]", "[[1]]", "{}", '"two"'],
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=5),
)  # fmt: skip
OPTIONS = (
    "--num-sources", "--num-mixed", "--epochs", "--minutes", "--batch-size", "--early-stopping", "--seed", "--size",
    "--channels",
)  # fmt: skip
MINE = {"mine.txt": b"years of work", "out/mine.txt": b"more of it"}


def paths(parts: dict) -> list[str]:
    """What `--set` may name: the fields of a preset's parts and of its phases."""
    fields = [f"{part}.{field}" for part, values in parts.items() for field in values]
    return fields + [f"recipe.{phase['name']}.{field}" for phase in parts["recipe"]["phases"] for field in phase]


PATHS = sorted({path for name in ("mnist", "notes") for path in paths(PRESETS[name].to_dict())})
SETTINGS = st.builds("{}={}".format, st.sampled_from(PATHS) | st.text(max_size=8), NUMBERS)


def planned(preset: Preset, **options: object) -> types.SimpleNamespace:
    """Stands for the training: plans it and nothing else."""
    completed = fit.completed(preset, "vae")
    assert sum(call.epochs for call in plan(completed.recipe)) == preset.recipe.epochs
    assert options["minutes"] is None or isinstance(options["minutes"], float)
    return types.SimpleNamespace(path=Path("run"), metrics={"test": {"has_truth": True}})


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no handlers of signals that outlive a command."""
    monkeypatch.setattr(fit, "train", planned)
    monkeypatch.setattr(fit, "report", lambda run: None, raising=False)
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def run(main, words: list[str], output: list[str]) -> tuple[int, str]:
    """Runs a command in a folder that holds a user's files, and checks how it ends."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        Path("out").mkdir()
        for file, content in MINE.items():
            Path(file).write_bytes(content)
        printed, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            try:
                code = main([*words, *output])
            except SystemExit as end:  # of argparse
                code = int(end.code or 0)
        lines = [line for line in errors.getvalue().splitlines() if not line.startswith("warning: ")]
        assert code in (0, 2), lines
        if code == 0:
            assert not lines
        else:
            assert len(lines) == 1
            assert lines[0].startswith("error: ")
        assert {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()} == MINE
        return code, printed.getvalue()


def test_the_fuzzed_command_works_on_good_words() -> None:
    code, printed = run(fit.main, ["--dry-run", "--epochs=7", "--set", "model.latent_dim=3"], [])
    preset = Preset.from_dict(json.loads(printed))
    assert (code, preset.recipe.epochs, preset.model.latent_dim) == (0, 7, 3)
    assert run(fit.main, ["--minutes=7"], ["--output", "out"])[0] == 0
    assert {"model.latent_dim", "recipe.epochs", "recipe.remix.share", "audio.n_fft", "recipe.phases"} <= set(PATHS)


@BOUNDED
@given(
    preset=st.sampled_from(["digits", "mnist", "notes"]),
    options=st.dictionaries(st.sampled_from(OPTIONS), NUMBERS, max_size=3),
    changes=st.lists(SETTINGS, max_size=3),
    dry=st.booleans(),
)
@example("digits", dict.fromkeys(OPTIONS, "--"), [], False)
@example("digits", {}, ["--"], False)
@example("mnist", {"--epochs": "2147483647"}, ["recipe.separate.rounds=2147483647"], False)
@example("notes", {}, ["recipe.masks.name=[1]", "recipe.masks.rounds=2"], True)
@example("notes", {}, ["recipe.phases=3", "recipe.masks.rounds=2"], True)
@example("notes", {}, ["audio.hop_length=0"], True)
@example("notes", {}, ["model.mask_channels=[1,1,1]", "model.mask_patch=0"], True)
def test_numbers_of_a_training(preset: str, options: dict[str, str], changes: list[str], dry: bool) -> None:
    words = ["--preset", preset, *(f"{option}={word}" for option, word in options.items())]
    words += [f"--set={change}" for change in changes]
    code, printed = run(fit.main, [*words, *(["--dry-run"] if dry else [])], ["--output", "out"])
    if dry and code == 0:
        Preset.from_dict(json.loads(printed))


COMMANDS = {
    "evaluate": (
        evaluate.main,
        ["--run=nowhere", "--output=out"],
        ["--num-sources", "--num-mixed", "--num-mixtures", "--seed", "--test-seed"],
    ),
    "benchmark": (benchmark.main, ["nowhere"], ["--threads", "--calls"]),
    "serve": (serve.main, ["--models-config=nowhere"], ["--port", "--rest-port", "--poll-seconds"]),
    "serving": (serving.main, ["nowhere", "--to=out"], ["--cpus", "--version", "--promote"]),
}


@pytest.mark.parametrize("command", COMMANDS)
@settings(BOUNDED, max_examples=40)
@given(data=st.data())
def test_numbers_of_other_commands(command: str, data: st.DataObject) -> None:
    """They name a model that is missing, so nothing is computed whatever the numbers are."""
    main, words, options = COMMANDS[command]
    drawn = data.draw(st.dictionaries(st.sampled_from(options), NUMBERS, max_size=3))
    assert run(main, words, [f"{option}={word}" for option, word in drawn.items()])[0] == 2
