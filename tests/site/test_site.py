"""The documentation site is built without a warning, and its pages are whole in a browser."""

import json
import os
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
        assert ".ipynb" not in page  # links between notebooks lead to pages


def test_pages_ask_no_other_host_and_fit_a_telephone_and_a_desk(site: Path) -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None or shutil.which("node") is None or not (PACKAGES / "node_modules").is_dir():
        pytest.skip("Chromium, Node.js or the packages of deploy/web are missing")
    words = ("node", Path(__file__).with_name("look.mjs"), site, PACKAGES)
    done = subprocess.run(
        words, env={**os.environ, "CHROMIUM": chromium}, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert len(found["pages"]) > 20
