"""The private parts of other libraries that a package touches, found in its syntax trees.

Each of these counts once a file:

- an attribute `x._name` where no class, function or variable of the package is called `_name` and no `__init__` of it
  sets `self._name`: it belongs to a class of others, `self._trainer` as much as `torch._foreach_add_`;
- a private method that a class with bases defines and that nothing in the package calls but by `super()`: a library
  calls it;
- an import of a private name, or from a private module;
- a private name as text in `getattr`, `hasattr`, `setattr`, or compared by ==: `type(x).__name__ == "_Launcher"`;
- `vars(...)` or `__dict__` of Lightning's Trainer, or of what is imported from Lightning;
- the names of INNER, as attributes or keys: Lightning's loops and what a ModelCheckpoint counts, which have no
  underscore but are not in its documentation (https://lightning.ai/docs/pytorch/stable/common/trainer.html).

The standard library does not count (`os._exit` is documented), nor names with two underscores on both sides, nor text
in other text, such as the names in torch's files.
"""

import ast
import sys

INNER = {
    "fit_loop", "validate_loop", "test_loop", "predict_loop", "epoch_loop", "batch_progress", "epoch_progress",
    "optim_progress", "total_batch_idx", "restarting", "best_k_models", "kth_best_model_path", "kth_value",
    "current_score",
}  # fmt: skip
"""Names of Lightning without an underscore that are not documented."""
ACCESS = {"getattr", "hasattr", "setattr"}


def is_private(name: str) -> bool:
    """Return whether a name begins with an underscore and is not `_` or `__name__`."""
    return name.startswith("_") and name.strip("_") != "" and not name.startswith("__") and name.isidentifier()


def touches(trees: dict[str, ast.Module], package: str) -> dict[str, list[str]]:
    """Return the private names of others that each file touches, for the files that have any."""
    own = _defined(trees) - _hooks(trees)
    found = {file: sorted(_touched(tree, package, own)) for file, tree in trees.items()}
    return {file: names for file, names in found.items() if names}


def _defined(trees: dict[str, ast.Module]) -> set[str]:
    """Return the names that the package defines."""
    found: set[str] = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                stores = (n for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))
                found |= {n.attr for n in stores if ast.unparse(n.value) == "self"}
    return found


def _hooks(trees: dict[str, ast.Module]) -> set[str]:
    """Return the private methods that only a library can call."""
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    called = {n.attr for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value) != "super()"}
    called |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    bodies = [node.body for node in nodes if isinstance(node, ast.ClassDef) and node.bases]
    methods = {each.name for body in bodies for each in body if isinstance(each, ast.FunctionDef)}
    return {name for name in methods - called if is_private(name)}


def _touched(tree: ast.Module, package: str, own: set[str]) -> set[str]:
    """Return the private names of others in a file."""
    found: set[str] = set()
    imports = _imports(tree)
    standard = {name for name, module in imports.items() if module.partition(".")[0] in sys.stdlib_module_names}
    lightning = {name for name, module in imports.items() if module.partition(".")[0] == "lightning"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr not in own and ast.unparse(node.value) not in standard:
            found |= {node.attr} if is_private(node.attr) or node.attr in INNER else set()
        elif isinstance(node, ast.FunctionDef) and is_private(node.name) and node.name not in own:
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            module = getattr(node, "module", None) or ""
            names = [f"{module}.{alias.name}" if module else alias.name for alias in node.names]
            away = [name for name in names if name.partition(".")[0] not in (package, *sys.stdlib_module_names)]
            found |= {name for name in away if not getattr(node, "level", 0) and any(map(is_private, name.split(".")))}
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            found |= set(str(node.slice.value).split(".")) & INNER
        elif isinstance(node, ast.Call | ast.Compare) and _reads_by_text(node):
            texts = [str(n.value) for n in ast.iter_child_nodes(node) if isinstance(n, ast.Constant)]
            found |= {text for text in texts if is_private(text) and text not in own}
        if (inside := _fields_of(node)) is not None:
            trainer = {"trainer", "_trainer"} & {_name(part) for part in ast.walk(inside)}
            found |= {ast.unparse(node)} if trainer or _name(inside) in lightning else set()
    return found


def _reads_by_text(node: ast.Call | ast.Compare) -> bool:
    """Return whether text in this expression can be the name of an attribute or class."""
    if isinstance(node, ast.Call):
        return _name(node.func) in ACCESS
    return all(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops)


def _name(node: ast.AST) -> str:
    """Return the last part of a dotted name, or nothing."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _fields_of(node: ast.AST) -> ast.expr | None:
    """Return x of `vars(x)` or `x.__dict__`."""
    if isinstance(node, ast.Call) and _name(node.func) == "vars" and node.args:
        return node.args[0]
    return node.value if isinstance(node, ast.Attribute) and node.attr == "__dict__" else None


def _imports(tree: ast.Module) -> dict[str, str]:
    """Return the module that each imported name of a file is, or comes from."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {alias.asname or alias.name: node.module or "" for alias in node.names}
    return found
