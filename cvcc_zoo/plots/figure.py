"""matplotlib's Figure for names that users chose: in any script that a font of the system has, and without mathematics.

matplotlib's own font has Latin, Greek, Cyrillic, Arabic and a few more; what it lacks it draws as boxes.
"""

import functools
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")
"""How the names of their letters begin in Unicode."""
LEAST = ("lastresort", "serif", "mono", "bold", "black", "light", "thin", "italic", "oblique")
"""What fonts are taken last for, by their file names."""


class Figure(MatplotlibFigure):
    """A figure whose texts are drawn letter for letter, whatever letters these are."""

    def draw(self, renderer: Any) -> None:
        """Find the fonts first. Warns, once, of letters that no font has, and says what to install."""
        texts = list(self._texts())
        for text in texts:
            text.set_fontfamily(families(text.get_text()))
        _warn_of(frozenset().union(*(_fonts_for(_lacking(text.get_text()))[1] for text in texts)))
        with _boxes_are_told():
            super().draw(renderer)

    def _texts(self) -> Iterator[Text]:
        """All texts with something written in them. Those that are no numbers of an axis lose their mathematics."""
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
    """Matplotlib's families for a text, and after them those of the system that have the letters which these lack."""
    return [*mpl.rcParams["font.family"], *_fonts_for(_lacking(text))[0]]


def inches(texts: Iterable[str], size: float) -> float:
    """The width in inches of the longest text at a size in points."""
    measure = text_to_path.get_text_width_height_descent
    with _boxes_are_told():
        widths = [measure(text, FontProperties(family=families(text), size=size), ismath=False)[0] for text in texts]
    return max(widths, default=0.0) / 72


@contextmanager
def _boxes_are_told() -> Iterator[None]:
    """Without matplotlib's own warnings of missing letters, one for each, which do not say what to do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def _lacking(text: str) -> frozenset[str]:
    """The letters of a text that matplotlib's usual font lacks; spaces and control letters are not drawn."""
    missing = frozenset(text) - _letters(findfont(FontProperties()))
    return frozenset(letter for letter in missing if unicodedata.category(letter)[0] not in "CZ")


@functools.lru_cache(maxsize=1024)
def _fonts_for(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that together have these letters, as far as there are any, and the letters that none has."""
    found = []
    for path in system_fonts() if letters else ():
        if letters & (known := _letters(path)):
            found.append(_family(path))
            letters -= known
        if not letters:
            break
    return tuple(found), letters


_told: set[str] = set()


def _warn_of(letters: frozenset[str]) -> None:
    """Say once what to install for letters."""
    new = letters - _told
    _told.update(new)
    packages = sorted({"fonts-noto-cjk" if _is_east_asian(letter) else "fonts-noto-core" for letter in new})
    if new:
        warnings.warn(
            f"no font of this system has {' '.join(sorted(new))}, so that the picture has boxes there; install fonts "
            f"(on Debian and Ubuntu: apt-get install {' '.join(packages)}) and draw it again",
            stacklevel=3,
        )


def _is_east_asian(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(EAST_ASIAN)


@functools.cache
def system_fonts() -> tuple[str, ...]:
    """Files of the fonts of this system, upright sans-serif ones of usual weight first."""
    return tuple(sorted(findSystemFonts(), key=_unlikeliness))  # matplotlib's own list may be older than a font


def _unlikeliness(path: str) -> tuple[int, bool, str]:
    name = Path(path).stem.lower()
    named = name.replace("sansserif", "").replace("sans-serif", "")
    return sum(word in named for word in LEAST), "sans" not in name, name


@functools.cache
def _letters(path: str) -> frozenset[str]:
    """The letters that a font has; none for a file that is no outline font."""
    try:
        font = get_font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def _family(path: str) -> str:
    """The name of a font's family, which matplotlib knows from then on."""
    if path not in (entry.fname for entry in fontManager.ttflist):
        fontManager.addfont(path)
    return str(get_font(path).family_name)
