"""Hooks of Lightning that a model needs: they run also if a subclass overrides them without calling super().

Lightning's own examples override hooks in that way, because there a hook does nothing. Ours runs after the hook of the
subclass, unless that has called it.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

HOOKS = (
    *("setup", "on_fit_start", "on_train_start", "on_train_batch_start", "on_train_batch_end", "on_train_end"),
    *("on_train_epoch_end", "on_validation_epoch_end", "on_test_epoch_end", "on_save_checkpoint", "on_load_checkpoint"),
)
Hook = Callable[..., Any]


class KeepsHooks:
    """A base whose HOOKS in this package run with those of every subclass."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Let the hooks of a class of this package note that they run, and complete those of a user's class."""
        super().__init_subclass__(**options)
        for name in HOOKS:
            owner = next(each for each in cls.__mro__ if name in vars(each))
            hook = vars(owner)[name]
            if not inspect.isfunction(hook) or (owner is not cls and issubclass(owner, KeepsHooks)):  # done there
                continue
            if _is_ours(cls):
                setattr(cls, name, _noted(hook))
            else:
                parent = next(each for each in cls.__mro__[1:] if _is_ours(each) and issubclass(each, KeepsHooks))
                setattr(cls, name, _completed(hook, getattr(parent, name)))


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "cvcc_zoo"


def _run_by(model: Any) -> set[str]:
    """Return the names of our hooks that have run in a model."""
    names: set[str] = vars(model).setdefault("_hooks_run", set())
    return names


def _noted(hook: Hook) -> Hook:
    @wraps(hook)
    def run(model: Any, *args: Any, **options: Any) -> Any:
        _run_by(model).add(hook.__name__)
        return hook(model, *args, **options)

    return run


def _completed(hook: Hook, ours: Hook) -> Hook:
    @wraps(hook)
    def run(model: Any, *args: Any, **options: Any) -> Any:
        _run_by(model).discard(ours.__name__)
        result = hook(model, *args, **options)
        if ours.__name__ not in _run_by(model):
            ours(model, *args, **options)
        return result

    return run
