"""Print text that may come from the files of others literally, so that it cannot control the terminal.

A class name, a card or a server's answer may contain escape sequences, which move the cursor, change titles or write to
the clipboard, and markup that rich turns into colours, links and emoji.
"""

import sys
import unicodedata

DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
"""Characters that change the direction of the following text, and two that end a line."""


def harmless(text: str) -> str:
    """Replace the characters that control a terminal by their escapes in a Python string."""
    if text.isprintable():
        return text
    return "".join(ascii(each)[1:-1] if _is_control(each) else each for each in text)


def _is_control(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) in ("Cc", "Cs") or character in DIRECTIONS


def say(text: str, *, error: bool = False) -> None:
    """Make a line harmless and print it immediately, to stderr if it is an `error`."""
    print(harmless(text), file=sys.stderr if error else sys.stdout, flush=True)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without a dot or colon at its end; its class if it has none."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.strip().rstrip(".:")
