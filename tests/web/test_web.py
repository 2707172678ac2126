"""The page in the browser and its library: their own tests, and equality with Python."""

from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[2] / "deploy" / "web"


def test_the_library_equals_python(node, references):
    result = node("--test", "test/library/", VAE_BSS_REFERENCES=references)
    assert result.returncode == 0, result.stdout
    assert "# skipped 0" in result.stdout


@pytest.mark.timeout(1200)  # it took four minutes on cores that were shared with much other work
def test_the_page_in_chromium(node, page, sample_references):
    result = node("--test", "--test-concurrency=2", "test/page/", VAE_BSS_REFERENCES=sample_references, CHROMIUM=page)
    assert result.returncode == 0, result.stdout
    assert "# skipped 0" in result.stdout


def test_the_lock_file_names_no_registry():
    assert "http" not in (WEB / "package-lock.json").read_text(encoding="utf-8")
