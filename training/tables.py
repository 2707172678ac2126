"""Rows of cells as a table: in columns on the screen, as Markdown, and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence


def to_screen(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns of equal width."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def to_markdown(rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows, of which the first is the heading, as the lines of a Markdown table."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def to_csv(rows: Iterable[Sequence[object]]) -> str:
    """Rows, of which the first is the heading, as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
