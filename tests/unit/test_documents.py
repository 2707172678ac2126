"""What the documents say is there: their links lead somewhere, and their commands are commands of this package."""

import argparse
import contextlib
import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LISTED = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", "*.ipynb"]
NAMES = subprocess.run(LISTED, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
DOCUMENTS = sorted(path for name in NAMES if (path := REPOSITORY / name).is_file())
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # it also names commands of former releases
PACKAGES = ("vae_bss_tf", "training", "export", "benchmarks")
SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def whole(path: Path) -> str:
    """A document in Markdown; of a notebook, the code of each cell is a block."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n".join(source if kind == "markdown" else f"```\n{source}\n```" for kind, source in cells)


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return FENCE.sub("", whole(path))


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose(path)))
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_relative_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (document.parent / place) if place else document
        assert target.exists(), link
        assert target.resolve().is_relative_to(REPOSITORY), link
        assert not anchor or anchor in anchors(target), link


def commands(text: str) -> Iterator[list[str]]:
    """The commands of this package in the lines of a shell: a module and its arguments."""
    for line in text.replace("\\\n", " ").splitlines():
        with contextlib.suppress(ValueError):  # a line of another language
            line = re.sub(r"^%run -m (\S+) --", r"python -m \1", line)  # a notebook's
            words = shlex.split(line.removeprefix("$ "), comments=True)
            ends = [i for i, word in enumerate(words) if word in ("|", ">", ">>", "2>&1", "&&", "&", ";")]
            words = words[: ends[0]] if ends else words
            if "-m" in words and "python" in Path(words[words.index("-m") - 1]).name:
                words = words[words.index("-m") + 1 :]
                if words and words[0].split(".")[0] in PACKAGES:
                    yield words
            elif words and words[0] in SCRIPTS:
                yield [SCRIPTS[words[0]].partition(":")[0].removesuffix(".__main__"), *words[1:]]


class ParsedError(BaseException):
    """The arguments of a command were good; it need not run."""


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends each command when its arguments are parsed."""
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *arguments: object) -> None:
        parse(self, *arguments)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)


def start(words: list[str]) -> None:
    """Calls the `main` of a command as `python -m` would."""
    module = importlib.import_module(words[0])
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{words[0]}.__main__")
    with mock.patch.object(sys, "argv", [words[0], *words[1:]]):
        module.main()


@pytest.mark.parametrize("document", CURRENT, ids=name)
@pytest.mark.usefixtures("parse_only")
def test_commands_take_the_arguments_that_are_shown(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (words for _, block in FENCE.findall(whole(document)) for words in commands(block)):
        with pytest.raises((ParsedError, SystemExit)) as ended:
            start(words)
        code = getattr(ended.value, "code", 0)
        assert not code, f"{shlex.join(words)}: {capsys.readouterr().err}"


@pytest.mark.parametrize("document", CURRENT, ids=name)
@pytest.mark.usefixtures("parse_only")
def test_commands_in_sentences_have_the_options_that_are_named(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for code in re.findall(r"`([^`]+)`", prose(document)):
        for words in commands(code.replace("\n", " ")):
            with pytest.raises(SystemExit):
                start([words[0], "--help"])
            options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, words


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_reference_has_every_command(script: str) -> None:
    module = SCRIPTS[script].partition(":")[0].removesuffix(".__main__")
    text = (REPOSITORY / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert f"Also installed as `{script}`.\n\n```\npython -m {module} --help\n```" in text


def test_the_reference_has_every_benchmark_and_every_setting() -> None:
    commands = (REPOSITORY / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    modules = {path.stem for path in (REPOSITORY / "benchmarks").glob("[!_]*.py")}
    assert set(re.findall(r"^python -m benchmarks\.(\w+) --help$", commands, re.MULTILINE)) == modules
    settings = (REPOSITORY / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^::: (\S+)$", settings, re.MULTILINE))
    sources = [path for package in ("vae_bss_tf", "training") for path in (REPOSITORY / package).rglob("*.py")]
    classes = {
        ".".join((*path.relative_to(REPOSITORY).with_suffix("").parts, name))
        for path in sources
        for name in re.findall(r"^class (\w+)\(Settings\)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(classes) > 5
    assert classes <= documented


RESULT = re.compile(r"\[([^\]]*)\]\(([^)#]*benchmarks/results/[^)#]*)\)")
FIGURE = re.compile(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(?: (%|MB|million))?")
SCALES = {"": 1, "%": 100, "MB": 1e-6, "million": 1e-6}  # beside the number as it stands
MEASURED = re.compile(r"\d (?:dB|%|MB|million|times)|(?<![-\w.])(?<!Python )\d+\.\d")


def quoted(line: str, text: str) -> str:
    """What a line quotes of a result that it links to: the link's own text or, for "result", the row of the table."""
    if text != "result":
        return text
    cells = (re.sub(r"`[^`]*`|\(?\[[^\]]*\]\([^)]*\)\)?", "", cell) for cell in line.split("|"))
    return " | ".join(cell for cell in cells if not re.search(r"\b20\d\d\b", cell))  # dates are not in the file


@pytest.mark.parametrize("document", CURRENT, ids=name)
def test_figures_are_those_of_the_result_that_is_linked(document: Path) -> None:
    for line in prose(document).splitlines():
        for text, link in RESULT.findall(line):
            place = document.parent / link
            if not place.is_file():  # `test_relative_links_lead_somewhere` tells it
                continue
            numbers = [
                float(word) for word in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", place.read_text().replace(",", ""))
            ]
            for figure, unit in FIGURE.findall(quoted(line, text)):
                plain = figure.replace(",", "")
                decimals = len(plain.partition(".")[2])
                found = (f"{scale * n:.{decimals}f}" for n in numbers for scale in {1, SCALES[unit]})
                assert plain in found, f"{figure} of: {line}"


def test_each_figure_of_the_readme_names_its_result() -> None:
    for line in prose(REPOSITORY / "README.md").splitlines():
        without = MEASURED.search(re.sub(r"`[^`]*`", "", RESULT.sub("", line)))
        assert without is None, f"no result is linked for {without}"


def test_each_result_has_its_command_its_date_and_its_machine() -> None:
    measured = 0
    for table in re.findall(r"(?:^\|.*\n)+", prose(REPOSITORY / "docs" / "results.md"), re.MULTILINE):
        heading, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines())
        if "command" not in " ".join(heading):
            continue
        for row in rows:
            assert re.search(r"`python -m (training|benchmarks|export)\b", row[-2]), row
            assert re.search(r"\d+ (November|December) 20\d\d.*(cores|machine)", row[-1]), row
            measured += 1
    assert measured > 8
