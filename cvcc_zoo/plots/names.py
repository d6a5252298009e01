"""Names that users chose, as a picture has room for them. It draws them with `parse_math=False`: some have dollars."""


def short(name: str, longest: int) -> str:
    """A name on one line, with an ellipsis in it where it has more letters than `longest`; its end tells it apart."""
    line = " ".join(name.split())
    if len(line) <= longest:
        return line
    end = longest // 3
    return f"{line[: longest - 1 - end].rstrip()}\u2026{line[-end:].lstrip()}"
