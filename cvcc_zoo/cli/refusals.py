"""Errors of jsonargparse in one line that says what to do."""

import argparse
import importlib
import re
from inspect import signature

import yaml

from cvcc_zoo.files.plain import LONGEST_CONFIG
from cvcc_zoo.registry import unknown

DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
"""Hyphens, and what programs for texts put in their place."""
MESSAGES = {
    "required": r"arguments are required: (\w+)",
    "argument": r"unrecognized arguments: ?(\S*)",
    "key": r"[Kk]ey \"([\w.]+)\" is not|Option '([\w.]+)' is not",
    "group": r"Parser key \"(data|trainer)\":\s+Unable to load config '(.*?)'",
    "no group": r"Key \"(data)\.whitening\" not found",
    "syntax": r"^Problems parsing config.*?:(?s:(.*))",
    "line": r"line (\d+), column \d+",
    "no file": r"Parser key \"config\": File does not exist: '(.*)'",
    "folder": r"Parser key \"config\": Path is not a file: '(.*)'",
    "no options": r"^Unexpected config:",
    "option": r"Parser key \"([\w.]+)\":",
    "value": r"(?:Got value|Given value): (.*)",
    "type": r"Expected an? (<class '[\w.]+'>|[^.\n]*)",
    "choices": r"Literal\[(.*?)\]",
    "class": r"Expected a dot import path string: (.*)",
    "no subclass": r"Import path(?: (\S+))? does not correspond to a subclass of (\w+)",
    "constructor": r"(?s)^Does not validate against any.*?\nErrors:\n(.*?)\nGiven value type:",
    "other kind": r"Expected an? |Not a valid subclass of |Import path ",
    "import": r"class_path '([^']*)':\s+(No module named .*|module .* has no .*)",
    "no text": r"(\w+): Unable to serialize instance (.*)",
}
"""What jsonargparse 4.53 writes, as its errors carry nothing but text. A test provokes each of these messages."""
LIST = "a list"
TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "NoneType": "null", "str": "a text",
         "dict": "{key: value, ...}", "list": LIST, "collections.abc.Sequence": LIST}  # fmt: skip
CHOSEN = {"trainer.callbacks": "callbacks", "trainer.logger": "loggers", "trainer.plugins": "plugins"}
"""Options that take a class of Lightning by its name, and the module that has them."""
OURS = {"callbacks": ("Compile", "EMA", "OptimizerMonitor", "StepGraph", "Winograd")}
"""The classes of this package that are chosen in the same way."""
INNER = {"data": "dataset", "trainer": "accelerator"}
"""The option that is meant if a group of options is given a name."""
NAMED = ("optimizer", "lr_scheduler")
"""Options that take a name, or `{name: ..., option: value}`."""
UNLISTED = {"optimizer.lr", "optimizer.weight_decay", "optimizer.momentum"}
"""Options that are suggested, too, although no parser lists them."""


def find(kind: str, message: str) -> re.Match[str] | None:
    """Search a message for the pattern of a kind in MESSAGES."""
    return re.search(MESSAGES[kind], message)


def explain(message: str, parser: argparse.ArgumentParser) -> str:
    """Return an error of the parser in one line that says what to do; one that is not known is returned as it is."""
    found = find("required", message)
    if found and not parser.prog.startswith("cvcc-zoo "):  # of no command, but of a class that was chosen by its name
        name = found[1]
        options = f"--trainer.callbacks.{name}=... or --trainer.logger.{name}=..."
        return f"the class that was chosen also needs {name}: {options}"
    if found := find("argument", message) or find("key", message):
        word = next(filter(None, found.groups()), "")
        name = word.strip(DASHES).partition("=")[0]
        if name.startswith("data.") and name.split(".")[1] in _options_of_images():
            return f"--{name} changes nothing in `{parser.prog}`; leave it out"
        own = {option.lstrip("-") for action in parser._actions for option in action.option_strings}
        known = {option for option in own if "-->" not in option}  # which are links
        known |= UNLISTED if "optimizer" in own else set()
        if find("argument", message) and not word.startswith("--"):
            meant = f"--{word.strip(DASHES)}" if name in known else "--option=value"
            return f"{word!r} belongs to no option; write {meant}, and quote values that have spaces"
        if name in known:
            return f"write --{name}=VALUE, without spaces or more dashes"
        known = {option for option in known if option.rpartition(".")[2] not in ("h", "help")}
        return str(unknown("option", name, known, "`cvcc-zoo COMMAND --help` shows all"))
    return _of_file(message) or _of_value(message) or message.strip()


def _options_of_images() -> set[str]:
    from cvcc_zoo.data import ImageDataModule  # takes seconds, and is only needed for an error
    from cvcc_zoo.data.sources import OBJECTS

    return {*signature(ImageDataModule).parameters} - {*OBJECTS}


def of_constructor(message: str) -> str | None:
    """Return why a class that was chosen in a list, or beside other kinds of values, cannot be made; otherwise None."""
    if (found := find("constructor", message)) is None:
        return None
    reasons = re.split(r"\n  - ", f"\n{found[1]}")[1:]
    said = [" ".join(each.split()) for each in reasons if not re.match(MESSAGES["other kind"], each)]
    return "; ".join(said) or None


def _of_file(message: str) -> str | None:
    """Explain an error of a YAML file, or return None."""
    if found := find("group", message):
        group, value = found.groups()
        if group == "data" and re.fullmatch(r"(?!torchvision\.)[a-z_]\w*(\.\w+)*\.[A-Z]\w*", value):
            return (
                f"--data takes a YAML file with options of our own data sets (docs/datasets.md), not {value}; a "
                "DataModule of yours trains in Python: Trainer().fit(model, data)"
            )
        return (
            f"--{group} takes a YAML file with its options, and there is no file {value}; "
            f"did you mean --{group}.{INNER[group]}={value}?"
        )
    if found := find("no group", message):
        return f"{found[1]} has no options; indent them below it, or leave it out"
    if found := find("syntax", message):
        places = re.findall(MESSAGES["line"], message)
        said = [line for line in found[1].strip().splitlines() if not line.startswith(" ")]
        return f"the YAML cannot be read{f', line {places[-1]}' if places else ''}: {', '.join(said)}"
    if found := find("no file", message):
        return f"there is no file {found[1]}, which --config names"
    if found := find("folder", message):
        return f"--config takes a file, and {found[1]} is a folder; the options of a run are in its config.yaml"
    if find("no options", message):
        return "a file of options has lines such as `name: value`, and this one has no value; correct it"
    return None


def _of_value(message: str) -> str | None:
    """Explain an error of the value of an option, or return None."""
    if (option := find("option", message)) is None:
        return None
    name, value = option[1], find("value", message)
    given = value[1].strip(" ") if value else ""
    if value and name == "data.classes":
        return f'--{name} takes a list of names, and not {given}; quote each name: --{name}=\'["no", "a, b"]\''
    choices = re.findall(r"'([^']*)'", " ".join(re.findall(MESSAGES["choices"], message)))
    if value and choices:
        return str(unknown(name.rpartition(".")[2], given.strip(), [*dict.fromkeys(choices)], f"--{name}"))
    if (found := find("class", message)) and name in CHOSEN:
        known = [*importlib.import_module(f"lightning.pytorch.{CHOSEN[name]}").__all__, *OURS.get(CHOSEN[name], ())]
        hint = f"or the import path of your own: --{name}=my_module.Mine"
        return str(unknown(name.rpartition(".")[2].removesuffix("s"), found[1], known, hint))
    if others := re.findall(MESSAGES["no subclass"], message):
        path = next((path for path, _ in others if path), given)
        return f"--{name} takes a class below {' or '.join(dict.fromkeys(kind for _, kind in others))}, not {path}"
    if found := find("import", message):
        why, hint = found[2].strip(), ""
        if why.startswith("No module"):
            without = f", or leave it out: --{name}=null" if name == "trainer.callbacks" else ""
            hint = f"; start the command in the folder of the module, or name that folder in PYTHONPATH{without}"
        return f"--{name} cannot be {found[1]}: {why}{hint}"
    expected = dict.fromkeys(re.findall(MESSAGES["type"], message))
    kinds = [kind.removeprefix("<class '").removesuffix("'>") for kind in expected]
    if value is None or not kinds or not set(kinds) <= TYPES.keys():
        return None
    if name in NAMED:
        form = f"--{name}=NAME --{name}.OPTION=VALUE{', or null for none' if name == 'lr_scheduler' else ''}"
        return f"--{name} takes a name, and its options beside it, not {given!r}: {form}"
    hint = ""
    sides = re.fullmatch(r"[\[(]?(\d+) ?[x,] ?(\d+)[\])]?", given)
    if sides and name.endswith("image_size"):
        hint = f"; images are square: --{name}={sides[1]}"
    elif LIST in (TYPES[kind] for kind in kinds):
        hint = f"; write {name}=[{given}]"
    return f"the option {name} takes {' or '.join(TYPES[kind] for kind in kinds)}, not {given or repr(given)}{hint}"


def check_text(config: str) -> None:
    """Raise ValueError if a config in YAML is too long, or has a value that could not be read again."""
    if len(config) > LONGEST_CONFIG:
        raise ValueError(
            f"config.yaml would have {len(config):,} characters, of which at most {LONGEST_CONFIG:,} are read again; "
            "shorten the longest option, such as a list of classes or of their weights"
        )
    if found := find("no text", config):
        option, value = found.groups()
        raise ValueError(
            f"the option {option} is {value} by default, an object of Python that config.yaml cannot hold, so that it "
            f"would not repeat this run; give it as text or number, with the name of what it belongs to: .{option}=..."
        )
    for token in yaml.scan(config) if r"\uD" in config else ():
        if isinstance(token, yaml.ScalarToken) and re.search("[\ud800-\udfff]", token.value):
            raise ValueError(
                f"the name {token.value!r} is not UTF-8, so config.yaml cannot hold it; rename the file or folder, or "
                "give a link to it"
            )


def check_keys(text: str) -> None:
    """Raise YAMLError for YAML in which an option occurs twice: PyYAML would silently ignore the first one."""
    waiting, seen = [yaml.compose(text, yaml.SafeLoader)], set()  # an alias is the same node again
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
            for name in names:
                if names.count(name) > 1:
                    raise yaml.YAMLError(f"{name} occurs twice; remove one")
            waiting += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
