"""A rich console for tables and text; in a module of its own because rich takes a while to import."""

import errno
import os
from typing import Any

from rich.console import Console
from rich.text import Text

from cvcc_zoo.printing import harmless


class PlainConsole(Console):
    """rich's console for literal text: no markup, emoji names, automatic highlighting or escape sequences."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string, alone or in a table, to text that is printed literally."""
        return super().render_str(harmless(text), **options)

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError as `print` does, so that a command ends in one way; rich would exit here."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
