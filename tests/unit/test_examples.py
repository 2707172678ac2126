"""The examples in the docstrings of the reference run and give what they show."""

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import vae_bss_tf

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted((REPOSITORY / "docs" / "reference").glob("*.md"))
NAMES = [name for page in PAGES for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]


def found(name: str) -> tuple[Any, Any]:
    """What a dotted name stands for, and the module that it is in."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        value = module
        for part in parts[i:]:
            value = getattr(value, part)
        return value, module
    raise AssertionError(f"{name} is not there")


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    value, module = found(name)
    public = {public: getattr(vae_bss_tf, public) for public in vae_bss_tf.__all__}
    names = {**public, **vars(module), "np": np, "tf": tf, "keras": keras}
    finder = doctest.DocTestFinder(recurse=not inspect.ismodule(value))
    for example in finder.find(value, name, module=False, globs=names):
        report: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=report.append)
        assert result.failed == 0, "".join(report)


def test_every_name_has_an_example() -> None:
    without = [name for name in NAMES if ">>>" not in (inspect.getdoc(found(name)[0]) or "")]
    assert without == ["vae_bss_tf.errors"]
