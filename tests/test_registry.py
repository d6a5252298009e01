import functools
from typing import Any

import pytest

import cvcc_zoo
from cvcc_zoo import registry
from cvcc_zoo.optim import SGD, AdamW, plain_spec
from cvcc_zoo.registry import as_spec, check_options, register, unknown


def test_an_unknown_name_is_answered_with_the_nearest_ones() -> None:
    error = unknown("model", "resnet21", ["resnet20", "resnet56", "linear"])
    assert str(error).startswith("no model named 'resnet21'; did you mean resnet20 or resnet56?")


def test_an_unknown_name_like_no_other_is_answered_with_all() -> None:
    assert "known are: cnn, linear" in str(unknown("model", "qqqq", ["linear", "cnn"]))


def test_a_name_cannot_be_registered_twice() -> None:
    for name, alias in (("linear", None), ("resnext29", None), ("new", "linear")):
        with pytest.raises(ValueError, match=r"the model name '(linear|resnext29)' is taken by a \w+ \(.*\); rename"):
            register(name, cvcc_zoo.Linear, "W x", parameters=1, alias=alias)


def test_a_class_that_is_defined_anew_replaces_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for known in ("ENTRIES", "ALIASES", "FAMILIES"):
        monkeypatch.setattr(f"cvcc_zoo.registry.{known}", dict(getattr(registry, known)))
    for summary in ("first", "again"):
        family = type("OfACell", (cvcc_zoo.Linear,), {"__module__": __name__})
        register("of_a_cell", family, summary, parameters=1, alias="cell")
    assert registry.find("cell").summary == "again" and registry.find("cell").family is family
    other = type("OfACellToo", (cvcc_zoo.Linear,), {"__module__": __name__})
    for name, found in (("cell", type("OfACell", (cvcc_zoo.Linear,), {"__module__": __name__})), ("of_a_cell", other)):
        with pytest.raises(ValueError, match="is taken by a OfACell \\(again\\); rename one"):
            register(name, found, "x", parameters=1)


def test_a_family_cannot_take_the_name_of_another() -> None:
    with pytest.raises(ValueError, match=r"the family name ResNet is taken by cvcc_zoo\.models\.resnet\.ResNet"):
        type("ResNet", (cvcc_zoo.Linear,), {"__module__": "elsewhere"})


@pytest.mark.parametrize(
    "value",
    [
        {"name": "SGD", "lr": 0.1},
        {"class_path": "SGD", "init_args": {"lr": 0.1}},
        functools.partial(SGD, lr=0.1),
    ],
)
def test_every_way_to_write_an_optimizer_gives_the_same_plain_data(value: object) -> None:
    assert plain_spec("optimizer", value) == {"name": "SGD", "lr": 0.1}


def test_a_class_and_a_name_are_the_same_optimizer() -> None:
    assert plain_spec("optimizer", AdamW) == plain_spec("optimizer", "AdamW") == {"name": "AdamW"}


def test_a_class_that_no_import_path_leads_to_is_refused_at_once() -> None:
    class Local(SGD):
        pass

    for kind in ("optimizer", "lr_scheduler", "loss"):
        for given in (Local, functools.partial(Local, lr=0.1)):
            options: dict[str, Any] = {kind: given}
            with pytest.raises(ValueError, match=f"the {kind} .*Local has no import path.* top level of a module"):
                cvcc_zoo.create("linear", **options)


def test_a_class_path_may_have_no_arguments_and_takes_no_list_of_them() -> None:
    assert as_spec("optimizer", {"class_path": "SGD", "init_args": None}) == {"name": "SGD"}
    with pytest.raises(ValueError, match=r"init_args of optimizer are options by name, .* not \[0.1\]"):
        as_spec("optimizer", {"class_path": "SGD", "init_args": [0.1]})
    beside = {"class_path": "SGD", "lr": 0.1, "init_args": {"momentum": 0.9}}
    with pytest.raises(ValueError, match=r"optimizer has lr beside class_path, .*; write \{name: SGD, lr: ...\}"):
        as_spec("optimizer", beside)


def test_a_spec_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="has no name"):
        as_spec("optimizer", {"lr": 0.1})


def test_options_are_checked_against_the_signature() -> None:
    def f(size: int, depth: int = 1) -> None: ...

    check_options("thing", f, {"size": 3})
    with pytest.raises(ValueError, match="no option of thing named 'dept'; did you mean depth"):
        check_options("thing", f, {"size": 1, "dept": 2})
    with pytest.raises(ValueError, match="thing needs the option size"):
        check_options("thing", f, {})
