"""Text between two comments of a page: a program writes it, and the rest of the page is left alone."""

import re


def fill(page: str, place: str, module: str, text: str) -> str:
    """Return the page with `text` between the comments of a place; a page without the place is returned unchanged.

    The comments are `<!-- place: python -m benchmarks.module -->` and `<!-- end of the place -->`. Raises ValueError if
    a page has only one of them, or the place twice.
    """
    begin, end = f"<!-- {place}: python -m benchmarks.{module} -->", f"<!-- end of the {place} -->"
    if page.count(begin) != page.count(end) or page.count(begin) > 1:
        raise ValueError(f"a page has one {begin} and one {end}, or neither")
    pattern = f"{re.escape(begin)}.*{re.escape(end)}"
    return re.sub(pattern, lambda _: f"{begin}\n\n{text}\n\n{end}", page, flags=re.DOTALL)
