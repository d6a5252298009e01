"""How text is printed that may come from the files of others: it is shown as it is, and commands nothing.

A class name, a card or an answer of a server may hold escape sequences of terminals, which move the cursor, change
titles or write to the clipboard, and what rich takes for colours, links and pictures.
"""

import sys
import unicodedata

TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
"""Characters that turn the direction of what follows them, and two that end a line."""


def harmless(text: str) -> str:
    """Text without characters that command a terminal: they are written as in a Python string, by their numbers."""
    if text.isprintable():
        return text
    return "".join(ascii(each)[1:-1] if _commands(each) else each for each in text)


def _commands(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) in ("Cc", "Cs") or character in TURNING


def say(text: str, *, error: bool = False) -> None:
    """Print a line, on stderr if it is an `error`, at once."""
    print(harmless(text), file=sys.stderr if error else sys.stdout, flush=True)
