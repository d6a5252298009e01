"""What jsonargparse says of a wrong value, in one line that says what to do."""

import importlib
import re

import yaml

from cvcc_zoo.registry import unknown

TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "NoneType": "null", "str": "a text"}
CHOSEN = {"trainer.callbacks": "callbacks", "trainer.logger": "loggers", "trainer.plugins": "plugins"}
"""Options that take a class of Lightning by its name, and the module that has them."""
INNER = {"data": "dataset", "trainer": "accelerator"}
"""The option that is meant where a group of options is given a name."""


def in_one_line(message: str) -> str | None:
    """The message for a group of options that is given a name, a file without options, a wrong value; else None."""
    if found := re.search(r"Parser key \"(data|trainer)\":\s+Unable to load config '(.*?)'", message):
        group, value = found.groups()
        return (
            f"--{group} takes a YAML file with its options, and there is no file {value}; "
            f"did you mean --{group}.{INNER[group]}={value}?"
        )
    if message.startswith("Problems parsing config"):
        places = re.findall(r"line (\d+), column \d+", message)
        said = [line for line in message.partition(":")[2].strip().splitlines() if not line.startswith(" ")]
        return f"the YAML cannot be read{f', line {places[-1]}' if places else ''}: {', '.join(said)}"
    if found := re.search(r"Parser key \"config\": File does not exist: '(.*)'", message):
        return f"there is no file {found[1]}, which --config names"
    if message.startswith("Unexpected config:"):
        return "a file of options has them by their names, as `name: value`, and this one has none; write it anew"
    option = re.search(r'Parser key "([\w.]+)":', message)
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    expected = re.findall(r"Expected an? ([^.\n]*)", message)
    if option and value and (choices := re.findall(r"'([^']*)'", " ".join(re.findall(r"Literal\[(.*?)\]", message)))):
        return str(unknown(option[1].rpartition(".")[2], value[1].strip(), [*dict.fromkeys(choices)], f"--{option[1]}"))
    found = re.search(r"Expected a dot import path string: (.*)", message)
    if found and option and option[1] in CHOSEN:
        known = importlib.import_module(f"lightning.pytorch.{CHOSEN[option[1]]}")
        hint = f"or the import path of your own: --{option[1]}=my_module.Mine"
        return str(unknown(option[1].rpartition(".")[2].removesuffix("s"), found[1], known.__all__, hint))
    if option and (found := re.search(r"class_path '([^']*)':\s+(No module named .*|module .* has no .*)", message)):
        return f"--{option[1]} cannot be {found[1]}: {found[2].strip()}"
    kinds = [kind.removeprefix("<class '").removesuffix("'>") for kind in dict.fromkeys(expected)]
    if option is None or value is None or not kinds or not set(kinds) <= TYPES.keys():
        return None
    name, given, hint = option[1], value[1].strip(), ""
    sides = re.fullmatch(r"[\[(]?(\d+) ?[x,] ?(\d+)[\])]?", given)
    if sides and name.endswith("image_size"):
        hint = f"; images are square: --{name}={sides[1]}"
    return f"the option {name} takes {' or '.join(TYPES[kind] for kind in kinds)}, not {given}{hint}"


def check_keys(text: str) -> None:
    """Raise YAMLError for YAML in which an option stands twice, of which the first would be lost in silence."""
    waiting, seen = [yaml.compose(text, yaml.SafeLoader)], set()  # an alias is the node that it stands for, once more
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
            for name in names:
                if names.count(name) > 1:
                    raise yaml.YAMLError(f"{name} stands twice; leave one out")
            waiting += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
