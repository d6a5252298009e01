"""Tables and texts by rich; apart from the rest of this folder, because rich takes a while to import."""

from typing import Any

from rich.console import Console
from rich.text import Text

from cvcc_zoo.printing import harmless


class PlainConsole(Console):
    """rich's console for texts as they are: no markup, no names of emoji, no colours by guess, no escape sequences."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """A text that is to be printed, on its own or in a table."""
        return super().render_str(harmless(text), **options)
