"""A matplotlib Figure for names that users chose: in any script that a system font has, without math markup.

matplotlib's own font has Latin, Greek, Cyrillic, Arabic and a few more; characters that it lacks are drawn as boxes.
"""

import functools
import math
import textwrap
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter

EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")
"""Prefixes of the Unicode names of East Asian characters."""
LAST = ("lastresort", "serif", "mono", "bold", "black", "light", "thin", "italic", "oblique")
"""Words in the file names of fonts that are used only if no other font has a character."""

PLAIN = 1e-4, 999_999
"""The numbers that a label of a logarithmic axis shows in full."""


class Figure(MatplotlibFigure):
    """A figure whose texts are drawn literally, in any script, and whose title has as many lines as it needs."""

    def suptitle(self, t: str, **options: Any) -> Text:
        """Write a title above the whole figure."""
        points = FontProperties(size=options.get("fontsize", mpl.rcParams["figure.titlesize"])).get_size_in_points()
        return super().suptitle(fitted(t, self.get_figwidth(), points), **options)

    def draw(self, renderer: Any) -> None:
        """Choose fonts, then draw. Warns once about characters that no font has, and says what to install."""
        texts = list(self._texts())
        for text in texts:
            text.set_fontfamily(families(text.get_text()))
        _warn_about(frozenset().union(*(_fonts_for(_missing(text.get_text()))[1] for text in texts)))
        with _without_glyph_warnings():
            super().draw(renderer)

    def _texts(self) -> Iterator[Text]:
        """Yield all texts that are not empty, with math markup switched off except in tick labels."""
        axes = [axis for each in self.get_axes() for axis in (each.xaxis, each.yaxis)]
        every = [tick for axis in axes for tick in (*axis.majorTicks, *axis.minorTicks)]
        ticks = {label for tick in every for label in (tick.label1, tick.label2)}
        for text in self.findobj(Text):
            assert isinstance(text, Text)
            if text.get_text():
                if text not in ticks:
                    text.set_parse_math(False)
                yield text


def families(text: str) -> list[str]:
    """Return matplotlib's font families, then system ones for the characters of the text that these lack."""
    return [*mpl.rcParams["font.family"], *_fonts_for(_missing(text))[0]]


def inches(texts: Iterable[str], size: float) -> float:
    """Return the width in inches of the widest text at a size in points."""
    measure = text_to_path.get_text_width_height_descent
    with _without_glyph_warnings():
        widths = [measure(text, FontProperties(family=families(text), size=size), ismath=False)[0] for text in texts]
    return max(widths, default=0.0) / 72


def fitted(text: str, width: float, size: float) -> str:
    """Break a text into lines of at most `width` inches at a size in points."""
    text = text.encode(errors="backslashreplace").decode()  # the name of a file may not be UTF-8
    letters, most = max(1, len(text)), 0.95 * width  # letters are up to 5 % wider at few dots per inch
    while inches(lines := textwrap.wrap(text, letters), size) > most and letters > 1:
        letters -= 1
    return "\n".join(lines)


@contextmanager
def _without_glyph_warnings() -> Iterator[None]:
    """Silence matplotlib's warnings, one for each missing character, which do not say what to do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def _missing(text: str) -> frozenset[str]:
    """Return the characters of a text that matplotlib's default font lacks, without spaces and control characters."""
    missing = frozenset(text) - _characters(findfont(FontProperties()))
    return frozenset(character for character in missing if unicodedata.category(character)[0] not in "CZ")


@functools.lru_cache(maxsize=1024)
def _fonts_for(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return font families that together have these characters, and the characters that no font has."""
    found = []
    for path in system_fonts() if characters else ():
        if characters & (known := _characters(path)):
            found.append(_family(path))
            characters -= known
        if not characters:
            break
    return tuple(found), characters


_warned: set[str] = set()


def _warn_about(characters: frozenset[str]) -> None:
    """Warn once about each character that no font has, and say what to install."""
    new = characters - _warned
    _warned.update(new)
    packages = sorted({"fonts-noto-cjk" if _is_east_asian(each) else "fonts-noto-core" for each in new})
    if new:
        warnings.warn(
            f"no font of this system has {' '.join(sorted(new))}, so the figure has boxes there; install fonts "
            f"(on Debian and Ubuntu: apt-get install {' '.join(packages)}) and draw it again",
            stacklevel=3,
        )


def _is_east_asian(character: str) -> bool:
    return unicodedata.name(character, "").startswith(EAST_ASIAN)


@functools.cache
def system_fonts() -> tuple[str, ...]:
    """Return the font files of this system, upright sans-serif ones of regular weight first."""
    return tuple(sorted(findSystemFonts(), key=_preference))  # matplotlib's cached list may be older than a font


def _preference(path: str) -> tuple[int, bool, str]:
    name = Path(path).stem.lower()
    words = name.replace("sansserif", "").replace("sans-serif", "")
    return sum(word in words for word in LAST), "sans" not in name, name


@functools.cache
def _characters(path: str) -> frozenset[str]:
    """Return the characters of a font; none if the file is not an outline font."""
    try:
        font = get_font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def _family(path: str) -> str:
    """Register a font with matplotlib, and return the name of its family."""
    if path not in (entry.fname for entry in fontManager.ttflist):
        fontManager.addfont(path)
    return str(get_font(path).family_name)


def label_logarithmic(axis: Axis, values: Iterable[float]) -> None:
    """Label a logarithmic axis at powers of ten, and if `values` span less than two, also at 2 and 5.

    The labels are plain numbers, or powers such as 10^-23 if one of the `values` is outside of PLAIN.
    """
    positive = [value for value in values if value > 0] or [1.0]
    subs = (1.0, 2.0, 5.0) if max(positive) < 100 * min(positive) else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=6))
    plain = min(positive) >= PLAIN[0] and max(positive) <= PLAIN[1]
    powers = LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(math.inf, math.inf))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}") if plain else powers)
    axis.set_minor_formatter(NullFormatter())


def label_whole(axis: Axis) -> None:
    """Label an axis of steps or blocks with whole numbers only."""
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))


def short(name: str, longest: int) -> str:
    """Put a name on one line of at most `longest` characters, with an ellipsis before its end, which identifies it."""
    line = " ".join(name.split())
    if len(line) <= longest:
        return line
    end = longest // 3
    return f"{line[: longest - 1 - end].rstrip()}\u2026{line[-end:].lstrip()}"
