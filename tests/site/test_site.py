"""The documentation site is built without a warning, and its pages are whole in a browser."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = REPOSITORY / "deploy" / "web"  # its node_modules has Playwright


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = (sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder)
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(build, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_notebooks_are_pages_with_their_text_and_code(site: Path) -> None:
    names = {path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    assert len(names) == 2
    for name in names:
        page = (site / "repository" / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        assert "<h1" in page
        assert page.count('class="highlight"') > 6
        assert f"notebooks/{name}.ipynb" in page
        assert not re.search(r'href="[^"]*\.ipynb', page)  # links between notebooks lead to pages


def look(folder: Path) -> dict[str, list[str]]:
    """The pages of a folder, and what was wrong with them in Chromium; skips where it is missing."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None or shutil.which("node") is None or not (PACKAGES / "node_modules").is_dir():
        pytest.skip("Chromium, Node.js or the packages of deploy/web are missing")
    words = ("node", Path(__file__).with_name("look.mjs"), folder, PACKAGES)
    environment = {**os.environ, "CHROMIUM": chromium}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_pages_ask_no_other_host_and_fit_a_telephone_and_a_desk(site: Path) -> None:
    found = look(site)
    assert found["wrong"] == []
    assert len(found["pages"]) > 20


def test_what_is_wrong_with_a_page_is_told(tmp_path: Path) -> None:
    wide = '<body style="margin: 0"><div style="width: 500px">wide</div>'
    (tmp_path / "page.html").write_text(f'{wide}<img src="missing.png"><script src="http://127.0.0.2:9/x.js"></script>')
    wrong = [line.replace("page.html at ", "") for line in look(tmp_path)["wrong"]]
    assert "390 pixels: is 500 pixels wide" in wrong
    assert "1280 pixels: asks another host: http://127.0.0.2:9/x.js" in wrong
    assert any(line.startswith("1280 pixels: http") and line.endswith("missing.png is not there") for line in wrong)
    for width in (390, 1280):
        assert any(line.startswith(f"{width} pixels: shows no picture for http") for line in wrong)
    assert not any(line.startswith("1280 pixels: is") for line in wrong)
