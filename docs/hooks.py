"""What the documentation site adds to the documents as they stand in the repository.

- Documents that others link to, wherever they are in the repository, become pages under `repository/`, and links lead
  to them: so one link works in the repository and on the site.
- A block of code that is one command with `--help` is followed by what it prints.
- Equations, in LaTeX, become MathML, which browsers draw without a script.
- A notebook becomes a page with its text and its code, without outputs.
- A page that would ask another host for a script, a style or a picture fails the build.
"""

import contextlib
import importlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from latex2mathml import converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent
ELSEWHERE = "repository/"  # begins the site's paths of what is not in docs/
_NOTEBOOK = ".ipynb"
_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
_HELP = re.compile(r"^```\w*\npython -m (\S+) --help\n```$")
_DISPLAY = re.compile(r"^\$\$\n(.*?)\n\$\$$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"\$`([^`]+)`\$")
_ASSET = re.compile(
    r"<(?:script|img|source|iframe)[^>]+src=[\"']?(?:https?:)?//|<link[^>]+stylesheet[^>]+href=[\"']?(?:https?:)?//"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what documents link to outside of docs/, and what that links to."""
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    seen = set(waiting)
    while waiting:
        for target in _targets(waiting.pop()):
            if target not in seen and not target.is_relative_to(DOCS):
                seen.add(target)
                content = {"abs_src_path": str(target)}
                if target.suffix == _NOTEBOOK:
                    where = (
                        f"This page shows `{target.relative_to(REPOSITORY)}`, which runs in a clone of the repository."
                    )
                    content = {"content": f"{_text(target)}\n\n{where}\n"}
                files.append(File.generated(config, _site_path(target), **content))
                if target.suffix in (".md", _NOTEBOOK):
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Translates links and equations outside of code, and adds what `--help` prints."""
    place = _repository_path(page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        target = _document(place.parent / found[2])
        path = os.path.relpath(_site_path(target), Path(page.file.src_uri).parent)
        return f"{found[1]}{path}{found[3]}"

    parts = _FENCE.split(markdown)  # code at odd places
    for i, part in enumerate(parts):
        if i % 2:
            command = _HELP.match(part)
            parts[i] = f"{part}\n\n```\n{_help(command[1])}```" if command else part
        else:
            text = _DISPLAY.sub(lambda found: f'<div class="equation">{_mathml(found[1], "block")}</div>', part)
            text = _INLINE.sub(lambda found: _mathml(found[1], "inline"), text)
            parts[i] = _LINK.sub(link, text)
    return "".join(parts)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuses a page that asks another host for something."""
    found = _ASSET.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} asks another host: {output[found.start() : found.end() + 80]}")
    return output


def _targets(document: Path) -> Iterator[Path]:
    text = "".join(_FENCE.split(_text(document))[::2])
    for _, link, _ in _LINK.findall(text):
        yield _document(document.parent / link)


def _text(document: Path) -> str:
    """A document in Markdown; of a notebook, the code of each cell is a block."""
    text = document.read_text(encoding="utf-8")
    if document.suffix != _NOTEBOOK:
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells)


def _document(target: Path) -> Path:
    """A link's file: of a folder its README."""
    target = target.resolve()
    if target.is_dir():
        target = target / "README.md"
    if not target.is_file():
        raise PluginError(f"a document links to {target}, which is not there.")
    return target


def _site_path(path: Path) -> str:
    if path.is_relative_to(DOCS):
        return str(path.relative_to(DOCS))
    page = path.with_suffix(".md") if path.suffix == _NOTEBOOK else path
    return f"{ELSEWHERE}{page.relative_to(REPOSITORY)}"


def _repository_path(site_path: str) -> Path:
    if site_path.startswith(ELSEWHERE):
        return REPOSITORY / site_path.removeprefix(ELSEWHERE)
    return DOCS / site_path


def _help(name: str) -> str:
    """What a command of this package prints with `--help`, 80 columns wide."""
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS="80"),
        mock.patch.object(sys, "argv", [name, "--help"]),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        module.main()
    return printed.getvalue()


def _mathml(latex: str, display: str) -> str:
    return converter.convert(" ".join(latex.split()), display=display)
