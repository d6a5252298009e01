"""Shorten names that users chose for figures. Draw them with `parse_math=False`, as some contain dollar signs."""


def short(name: str, longest: int) -> str:
    """Put a name on one line of at most `longest` characters, with an ellipsis before its end, which identifies it."""
    line = " ".join(name.split())
    if len(line) <= longest:
        return line
    end = longest // 3
    return f"{line[: longest - 1 - end].rstrip()}\u2026{line[-end:].lstrip()}"
