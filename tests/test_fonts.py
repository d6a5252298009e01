"""Names in any script are drawn with the letters of a font that the system has."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from cvcc_zoo.plots import figure, plot_confusion
from cvcc_zoo.plots.figure import Figure, families, inches

CLASSES = ["猫", "a dog"]


def make_font(path: Path, name: str, letters: str) -> str:
    """A font whose letters are all the same full square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square, names = pen.glyph(), [".notdef", *(f"letter{number}" for number in range(len(letters)))]
    font = FontBuilder(1000)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(letter): names[number + 1] for number, letter in enumerate(letters)})
    font.setupGlyf(dict.fromkeys(names, square))
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    font.setupHorizontalHeader(ascent=1000, descent=0)
    font.setupNameTable({"familyName": name, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return str(path)


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fonts of the system, of which there are none; a test adds some."""
    found: list[str] = []
    monkeypatch.setattr(figure, "system_fonts", lambda: tuple(found))
    monkeypatch.setattr(figure, "_warned", set())
    figure._fonts_for.cache_clear()
    return found


def drawn(classes: list[str]) -> Figure:
    """The confusion matrix of two classes, drawn."""
    made = plot_confusion(5 * np.eye(len(classes), dtype=np.int64), classes, "pets")
    made.savefig("pets.png")
    assert isinstance(made, Figure)
    return made


def test_letters_that_the_usual_font_lacks_are_drawn_with_one_that_has_them(fonts: list[str], tmp_path: Path) -> None:
    fonts += [make_font(tmp_path / f"{name}.ttf", name, letters) for name, letters in (("Dogs", "狗"), ("Cats", "猫x"))]
    first, second = drawn(CLASSES).axes[0].get_yticklabels()
    assert first.get_fontfamily()[-1] == "Cats" and "Cats" not in second.get_fontfamily()
    assert families("猫狗")[-2:] == ["Dogs", "Cats"] and families("x") == families("")
    assert inches(["猫猫猫"], 72) == pytest.approx(3, abs=0.02)  # each as wide as high


def test_a_letter_that_no_font_has_is_told_once_with_the_package_to_install(fonts: list[str]) -> None:
    with pytest.warns(UserWarning, match="no font of this system has 猫, .*apt-get install fonts-noto-cjk") as told:
        drawn(CLASSES)
    assert len(told) == 1  # and nothing of matplotlib's own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(CLASSES)
    with pytest.warns(UserWarning, match="has ส, .*apt-get install fonts-noto-core"):
        drawn(["ส", "猫"])


def test_a_font_that_was_installed_later_is_found_by_the_next_process(tmp_path: Path) -> None:
    made = make_font(tmp_path / "Late.ttf", "Late", "\U000f1234")
    assert figure._family(made) == "Late" and "\U000f1234" in figure._characters(made)
    assert figure._characters(str(tmp_path / "none.ttf")) == frozenset()


def test_upright_sans_serif_fonts_come_before_others() -> None:
    names = ["NotoSerifCJK-Regular", "NotoSansCJK-Bold", "LastResort", "NotoSansCJK-Regular", "wqy-microhei"]
    assert sorted(names, key=figure._preference)[:2] == ["NotoSansCJK-Regular", "wqy-microhei"]


def test_a_name_with_dollars_is_drawn_as_it_is(fonts: list[str]) -> None:
    made = plot_confusion(np.eye(2, dtype=np.int64), ["$a", r"$\b$"], r"a run $\x$")
    made.suptitle(r"lr$\frac")
    made.savefig("dollars.png")
    assert r"lr$\frac" in [text.get_text() for text in made.texts]
