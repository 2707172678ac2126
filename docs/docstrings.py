"""How the reference reads docstrings."""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Shows the section "Example" as code: griffe knows "Examples" alone."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Renames the section in an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
