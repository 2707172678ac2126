"""The notebooks run from their first cell to their last, and show and play what they say."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
SECONDS = 120  # of processor time, for one notebook
CELL = "import time; print(time.process_time())"


@pytest.fixture
def executed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A notebook after its execution in a copy of its folder, and the seconds of processor time that it took."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("sample", "saved_models", "docs"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    notebook = nbformat.read(shutil.copy(REPOSITORY / "notebooks" / request.param, folder), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(CELL))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(folder)}}).execute()
    return folder, notebook.cells[:-1], float(notebook.cells[-1].outputs[0].text)


def shown(cells: list) -> list[str]:
    """The kinds of what the cells display: "image/png" for a picture, "text/html" for a player."""
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    data = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    return [next(kind for kind in ("image/png", "text/html", "text/plain") if kind in kinds) for kinds in data]


def printed(cells: list, name: str = "stdout") -> str:
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == name)


@pytest.mark.parametrize("executed", ["separate-and-listen.ipynb"], indirect=True)
def test_separate_and_listen(executed: tuple[Path, list, float]) -> None:
    folder, cells, seconds = executed
    kinds = shown(cells)
    assert kinds.count("image/png") == 4  # the sample, the own recording, live, and the picture
    assert kinds.count("text/html") == 3 + 2 + 2  # players
    text = printed(cells)
    assert float(re.search(r"differs from the recording by (\S+) at most", text)[1]) < 1e-5
    assert re.search(r"64 ms behind; a block of 20 ms took \d+\.\d\d ms", text)
    assert len(list((folder / "made" / "stems").glob("recording_source*.wav"))) == 2
    assert seconds < SECONDS


@pytest.mark.parametrize("executed", ["train-on-overlays.ipynb"], indirect=True)
def test_train_on_overlays(executed: tuple[Path, list, float]) -> None:
    folder, cells, seconds = executed
    assert shown(cells) == ["image/png"] * 7
    assert "oneDNN" not in printed(cells, "stderr")
    scores = dict(re.findall(r"SI-SDR of the (\w+)[^:]*: (\S+) dB", printed(cells)))
    assert float(scores["sources"]) > float(scores["mixture"]) + 1.5
    assert len(list((folder / "made" / "overlays").rglob("*.png"))) == 3_300
    assert seconds < SECONDS


def test_each_notebook_is_stored_without_outputs_and_has_its_test() -> None:
    for path in NOTEBOOKS:
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert not any(cell.outputs or cell.execution_count for cell in cells), path
        assert f'["{path.name}"]' in Path(__file__).read_text(encoding="utf-8")
