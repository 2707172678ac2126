"""`python -m training.evaluate`: runs and comparisons end to end, and what it refuses."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import evaluate
from training.evaluation import figures
from training.evaluation import judging as comparison
from training.fit import train
from training.run import Run
from vae_bss_tf.config import DataConfig, Preset
from vae_bss_tf.datasets import pipeline
from vae_bss_tf.files import write_json
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.presets import get_preset


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_preset: Preset) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for system in ("vae", "mixit", "self-remixing"):
        train(tiny_preset, output=folder / system, system=system)
    return folder


@pytest.fixture(autouse=True)
def few_training_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "NMF_MIXTURES", 300)
    monkeypatch.setattr(comparison, "THRESHOLD_MIXTURES", 100)


def test_a_comparison_writes_tables_and_figures(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    systems = "zeros,mixture/k,nmf,mixit,self-remixing,vae,vaem,nmf-oracle,ibm,irm"
    words = ["--dataset", "digits", "--systems", systems, "--runs-dir", str(runs), "--num-mixtures", "40"]
    assert evaluate.main([*words, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "digits: 40 test mixtures of 2 sources, K = 2" in printed
    assert "VAEM less" in printed
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {
        "comparison.json", "comparison.csv", "comparison.md", "separation-digits-k2.png", "time-digits-k2.png",
        "latents.png", "traversal.png",
    }  # fmt: skip
    values = json.loads((tmp_path / "out" / "comparison.json").read_text())
    (comparison,) = values["comparisons"]
    scores = {result["system"]: result["scores"] for result in comparison["results"]}
    assert list(scores) == systems.split(",")
    for score in scores.values():
        assert score["psnr_halved"]["mean"] == pytest.approx(score["psnr"]["mean"] + 6.0206, abs=1e-3)
        assert score["psnr"]["low"] <= score["psnr"]["mean"] <= score["psnr"]["high"]
    assert scores["zeros"]["si_sdr"]["mean"] == -30
    assert scores["irm"]["psnr"]["mean"] > scores["nmf-oracle"]["psnr"]["mean"] > scores["zeros"]["psnr"]["mean"]
    budgets = {result["system"]: result["budget"] for result in comparison["results"]}
    assert budgets["vaem"]["mixtures"] == budgets["mixit"]["mixtures"] == 3 * 256
    assert {row["against"] for row in comparison["paired"]} == set(systems.split(",")) - {"vaem"}
    with (tmp_path / "out" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    known = {result["system"] for result in comparison["results"] if result["without_truth"]}
    assert known == set(systems.split(",")) - {"nmf-oracle", "ibm", "irm"}
    assert len(rows) == len(scores) * len(scores["irm"]) + len(known)
    remixed = {row["system"]: float(row["mean"]) for row in rows if row["score"] == "remix_si_sdri"}
    assert remixed["zeros"] == -30
    assert {row["score"] for row in comparison["paired"]} == {"psnr"}
    columns = (tmp_path / "out" / "comparison.md").read_text().partition("| system | ")[2]
    assert columns.startswith("PSNR full | PSNR halved | SSIM full | SSIM halved | SI-SDR |")


@pytest.mark.parametrize("name", ["comparison.csv", "separation-digits-k2.png", "time-digits-k2.png", "latents.png"])
def test_nothing_is_overwritten_without_force(tmp_path: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    words = ["--dataset", "digits", "--systems", "mixture/k", "--num-mixtures", "10", "--output", str(tmp_path)]
    (tmp_path / name).symlink_to("gone")
    assert evaluate.main(words) == 2
    assert f"{name} exists; replace it by --force" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_force_replaces_an_earlier_evaluation_and_leaves_the_rest(tmp_path: Path) -> None:
    words = ["--dataset", "digits", "--systems", "mixture/k", "--num-mixtures", "10", "--output", str(tmp_path)]
    for name in ("comparison.csv", "notes.txt"):
        (tmp_path / name).write_text("mine")
    assert evaluate.main([*words, "--force"]) == 0
    assert (tmp_path / "comparison.csv").read_text().startswith("dataset,")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_every_k_is_judged_on_the_same_mixtures(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = pipeline.load_banks
    monkeypatch.setattr(pipeline, "load_banks", lambda *words: loaded.append(words) or load(*words))
    words = ["--dataset", "digits", "--systems", "mixture/k,nmf", "--num-sources", "2,3", "--num-mixtures", "30"]
    assert evaluate.main([*words, "--output", str(tmp_path / "both")]) == 0
    assert len(loaded) == 1
    words[words.index("2,3")] = "3"
    assert evaluate.main([*words, "--output", str(tmp_path / "three")]) == 0
    assert len(loaded) == 2
    both, three = (
        json.loads((tmp_path / name / "comparison.json").read_text())["comparisons"] for name in ("both", "three")
    )
    assert [table["num_sources"] for table in both] == [2, 3]
    for one, other in zip(both[1]["results"], three[0]["results"], strict=True):
        assert one["scores"] == other["scores"]


def test_sources_of_mixtures_of_several_counts_are_counted(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [
        "--run",
        str(runs / "vae"),
        "--num-mixed",
        "1,2",
        "--num-mixtures",
        "60",
        "--output",
        str(tmp_path / "out"),
    ]
    assert evaluate.main(words) == 0
    assert "sources found:" in capsys.readouterr().out
    (comparison,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["comparisons"]
    counted = comparison["results"][-1]["count"]
    matrix = counted["confusion"]
    assert sum(map(sum, matrix)) == 60
    assert counted["accuracy"] == pytest.approx(sum(matrix[m][m] for m in range(3)) / 60)


@pytest.mark.filterwarnings("error:No artists with labels")
def test_runs_are_judged_each_by_its_name(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(runs / "vae", tmp_path / "again")
    words = ["--run", str(runs / "vae"), str(tmp_path / "again"), "--systems", "vaem", "--num-mixtures", "20"]
    assert evaluate.main([*words, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    for name in ("vae", "again"):
        assert f"{name}, digits: 20 test mixtures" in printed
        assert (tmp_path / "out" / f"separation-{name}.png").is_file()
    assert "ahead" not in printed
    assert "VAEM less" not in printed
    values = json.loads((tmp_path / "out" / "comparison.json").read_text())["comparisons"]
    assert [(one["run"], one["verdict"], one["paired"]) for one in values] == [("vae", None, []), ("again", None, [])]
    with (tmp_path / "out" / "comparison.csv").open() as file:
        assert {row["run"] for row in csv.DictReader(file)} == {"vae", "again"}
    assert evaluate.main([*words[:2], str(runs / "vae"), "--output", str(tmp_path / "two")]) == 2
    assert "same name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to judge"),
        (["--dataset", "digits", "--num-mixtures", "0"], "--num-mixtures is 0; it must be from 1 to 20,000"),
        (["--dataset", "digits", "--num-mixtures", "-5"], "from 1 to 20,000"),
        (["--dataset", "digits", "--num-mixtures", "9" * 30], "from 1 to 20,000"),
        (["--dataset", "digits", "--num-sources", "2,0"], "--num-sources is 0"),
        (["--dataset", "digits", "--num-sources", "9" * 30], "from 1 to 64"),
        (["--dataset", "digits", "--num-mixed", "-1"], "--num-mixed is -1"),
        (["--dataset", "digits", "--seed", "-1"], "--seed is -1"),
        (["--dataset", "digits", "--test-seed", "9" * 30], "--test-seed is 9"),
        (["--dataset", "digits", "--systems", "nmf-kl"], "nmf-kl does not separate images"),
        (["--dataset", "digits", "--num-sources", "1"], "K=1 outputs cannot be matched to mixtures of 2"),
        (["--dataset", "digits", "--systems", "nmf,glo"], "python -m training.fit --dataset digits --system glo"),
        (["--dataset", "digits", "--systems", "mixt"], "Did you mean 'mixit'"),
        (["--dataset", "digit"], "Did you mean 'digits'"),
        (["--run", "no-such-run"], "no run folder"),
        (["--run", "{runs}/vae/config.json"], "no run folder"),
        (["--run", "{runs}/begun"], "not finished; finish it with --resume"),
        (["--dataset", "digits", "--test-seed", "-1"], "from 0 to"),
        (["--run", "{runs}/vae", "--num-mixed", "3"], "cannot be matched to mixtures of 3"),
        (["--run", "{runs}/vae", "--dataset", "digit"], "Did you mean 'digits'"),
        (["--run", "{runs}/vae", "--num-sources", "3"], "--num-sources changes nothing with --run; leave it out"),
        (["--run", "{runs}/vae", "--truth", "x", "--test-seed", "3"], "changes nothing with --truth; leave it out"),
        (["--run", "{runs}/vae", "{runs}/images", "--dataset", "digits"], "takes mixtures of shape (28, 28)"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_code_2(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    if not (runs / "images").exists():
        Run.create(runs / "images", get_preset("mnist"), "vae")
        (runs / "images" / "metrics.json").write_text('{"seconds": 1}')
        Run.create(runs / "begun", get_preset("digits"), "vae")
    words = [word.format(runs=runs) for word in words]
    where = ["--runs-dir", str(runs), "--output", str(tmp_path / "out")]
    assert evaluate.main([*where, "--num-mixtures", "20", *words]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(": judged")]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--num-mixtures", "--num-sources", "--num-mixed", "--seed", "--systems"])
def test_what_is_no_number_is_told_with_the_option(option: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(["--dataset", "digits", option, "," if option == "--systems" else "two"])
    assert stopped.value.code == 2
    assert f"argument {option}:" in capsys.readouterr().err.splitlines()[-1]


def untrained(preset: Preset, path: Path) -> Run:
    """A finished run of a model that has learned nothing."""
    run = Run.create(path, preset, "vae")
    MultiSourceVAE(preset.model).save(path / "model.keras")
    write_json(path / "metrics.json", {"mixtures": 1, "seconds": 1, "parameters": 1, "seed": 0})
    return run


def test_what_is_no_run_of_a_separator_is_passed_over(runs: Path, tmp_path: Path) -> None:
    """A live separator's run, which is trained into the same folder, and a damaged one."""
    folder = shutil.copytree(runs, tmp_path / "runs")
    for name, content in (("live", '{"system": "live"}'), ("damaged", "{")):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(content)
    words = ["--dataset", "digits", "--systems", "vaem", "--runs-dir", str(folder), "--num-mixtures", "20"]
    assert evaluate.main([*words, "--output", str(tmp_path / "out")]) == 0


def test_a_latent_of_one_dimension_and_few_sources_have_no_map(tiny_preset: Preset, runs: Path, tmp_path: Path) -> None:
    narrow = tiny_preset.replace(model=tiny_preset.model.replace(latent_dim=1))
    run = untrained(narrow, tmp_path / "run")
    for path, words in ((run.path, ["--num-mixtures", "50"]), (runs / "vae", ["--num-mixtures", "1"])):
        out = tmp_path / path.name / "out"
        assert evaluate.main(["--run", str(path), *words, "--output", str(out)]) == 0
        assert {"comparison.md", "traversal.png"} <= {file.name for file in out.iterdir()}
        assert not (out / "latents.png").exists()


def test_the_latents_are_drawn_of_the_mixtures_that_their_model_separates(
    tiny_preset: Preset, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of those of the first run, which is of another system and of other mixtures."""
    three = tiny_preset.replace(
        model=tiny_preset.model.replace(num_sources=3), data=tiny_preset.data.replace(num_mixed=(3,))
    )
    run, drawn = untrained(three, tmp_path / "run"), []
    for name in ("latent_map", "latent_traversal"):
        draw = getattr(figures, name)
        recorded = lambda model, truth, draw=draw: drawn.append((model, truth)) or draw(model, truth)  # noqa: E731
        monkeypatch.setattr(figures, name, recorded)
    words = ["--run", str(runs / "mixit"), str(run.path), "--num-mixtures", "20", "--output", str(tmp_path / "out")]
    assert evaluate.main(words) == 0
    assert [(model.config.num_sources, truth.sources.shape[1]) for model, truth in drawn] == [(3, 3)] * 2


def test_a_test_split_that_has_changed_is_told(
    tiny_preset: Preset, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(20):
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(pictures / f"{i}.png")
    data = DataConfig("images", (2,), max_shift=1)
    run = train(tiny_preset.replace(data=data), output=tmp_path / "run", data_dir=pictures)
    words = ["--run", str(run.path), "--data-dir", str(pictures), "--num-mixtures", "20"]
    assert evaluate.main([*words, "--output", str(tmp_path / "same")]) == 0
    assert "warning" not in capsys.readouterr().err
    others = ["--dataset", "digits", "--num-mixtures", "20", "--output", str(tmp_path / "digits")]
    assert evaluate.main([*words[:2], *others]) == 0  # which are not moved
    for i in range(20, 40):
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(pictures / f"{i}.png")
    assert evaluate.main([*words, "--output", str(tmp_path / "other")]) == 0
    assert "the test split is not the one" in capsys.readouterr().err


def test_systems_are_judged_on_pictures_of_their_own_size(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pictures = tmp_path / "my pictures"
    pictures.mkdir()
    for i in range(20):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (8, 12, 3), np.uint8)).save(pictures / f"{i}.png")
    words = ["--dataset", "images", "--num-mixed", "2", "--data-dir", str(pictures), "--num-mixtures", "20"]
    assert evaluate.main([*words, "--systems", "mixture/k,irm", "--output", str(tmp_path / "out")]) == 0
    assert evaluate.main([*words, "--systems", "ae", "--runs-dir", str(tmp_path), "--output", str(tmp_path / "2")]) == 2
    assert f"training.fit --dataset images --data-dir '{pictures}' --system ae" in capsys.readouterr().err


def test_overlays_are_mixtures_for_a_run_on_single_pictures_too(runs: Path, tmp_path: Path) -> None:
    overlays = tmp_path / "overlays"
    overlays.mkdir()
    for i in range(20):
        Image.fromarray(np.full((8, 8), 12 * i, np.uint8)).save(overlays / f"{i}.png")
    words = ["--run", str(runs / "vae"), "--dataset", "images", "--data-dir", str(overlays)]
    for name, more in (("said", ["--num-mixed", "1"]), ("as they are", [])):
        assert evaluate.main([*words, *more, "--output", str(tmp_path / name)]) == 0
        (found,) = json.loads((tmp_path / name / "comparison.json").read_text())["comparisons"]
        assert not found["has_truth"]
        assert found["mixtures"] < 20  # each of the test split once
    assert evaluate.main([*words, "--num-mixed", "2", "--output", str(tmp_path / "mixed")]) == 0
    assert json.loads((tmp_path / "mixed" / "comparison.json").read_text())["comparisons"][0]["has_truth"]
    run = Run.load(runs / "vae")
    on_pictures = untrained(run.preset.replace(data=DataConfig("images", (2,))), tmp_path / "on pictures")
    words[1] = str(on_pictures.path)
    for name, more, has_truth in (("single", ["--num-mixed", "1"], False), ("as trained", [], True)):
        assert evaluate.main([*words, *more, "--output", str(tmp_path / name)]) == 0
        found = json.loads((tmp_path / name / "comparison.json").read_text())["comparisons"]
        assert found[0]["has_truth"] == has_truth


def test_a_data_set_that_has_no_preset_is_judged_on(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--run", str(runs / "vae"), "--dataset", "fashion-mnist", "--data-dir", str(tmp_path)]
    assert evaluate.main([*words, "--output", str(tmp_path / "out")]) == 2
    assert "preset" not in (error := capsys.readouterr().err)
    assert str(tmp_path) in error
