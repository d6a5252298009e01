"""Search near earlier good trials with Optuna's TPE; needs the extra cvcc_zoo[search].

The tree-structured Parzen estimator: https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization.
"""

import functools
from pathlib import Path
from typing import Any, Literal

from cvcc_zoo.data.draws import mix_seed
from cvcc_zoo.registry import needed
from cvcc_zoo.search.record import DEFAULT_TRIALS, Trial
from cvcc_zoo.search.space import Choice, Range, Space, Values, text_of

STORAGE, STUDY = "optuna.sqlite", "search"


class TPESearch:
    """Let an Optuna study, saved in the search's folder for `optuna-dashboard`, suggest the values.

    Trials are random until ten have finished; failed ones do not count. Each depends only on the seed, its number and
    the results of earlier ones. Raises ValueError if Optuna is not installed.
    """

    trials = DEFAULT_TRIALS

    def __init__(self, space: Space, seed: int, direction: Literal["maximize", "minimize"], folder: Path) -> None:
        optuna = needed("optuna", "--method=optuna", "search")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.seed, self.path = space, seed, folder.resolve() / STORAGE
        self.direction = direction

    @functools.cached_property
    def study(self) -> Any:
        """The study in the folder, created at its first use."""
        import optuna

        return optuna.create_study(
            storage=self.storage, study_name=STUDY, direction=self.direction, load_if_exists=True
        )

    @functools.cached_property
    def storage(self) -> Any:
        """The file that holds the study."""
        import optuna

        quoted = str(self.path)
        for special, as_text in {"%": "%25", "?": "%3F", "{": "{{", "}": "}}"}.items():  # of URLs and of Optuna
            quoted = quoted.replace(special, as_text)
        return optuna.storages.get_storage(f"sqlite:///{quoted}")

    def values(self, number: int) -> Values:
        """Return what Optuna suggests; for an interrupted trial, what it suggested before."""
        import optuna

        self.study.sampler = optuna.samplers.TPESampler(seed=mix_seed(self.seed, number))
        known = self._known()
        if number == len(known):
            trial = self.study.ask()
        elif number < len(known):
            study = self.storage.get_study_id_from_name(STUDY)
            trial = optuna.trial.Trial(self.study, self.storage.get_trial_id_from_study_id_trial_number(study, number))
        else:
            raise self._missing(number)
        return {name: _suggest(trial, name, found) for name, found in self.space.items()}

    def tell(self, trial: Trial) -> None:
        """Report the result of a trial to Optuna, unless it knows it already."""
        import optuna

        if trial.number >= len(self._known()):
            raise self._missing(trial.number)
        failed = optuna.trial.TrialState.FAIL if trial.measure is None else None
        self.study.tell(trial.number, trial.measure, state=failed, skip_if_finished=True)

    def _known(self) -> list[Any]:
        """Return all trials that were started."""
        return list(self.study.get_trials(deepcopy=False))

    def _missing(self, number: int) -> ValueError:
        return ValueError(f"{self.path} has no trial {number}; restore the file, or choose another --folder")


def _suggest(trial: Any, name: str, found: Choice | Range) -> Any:
    """Return a suggested value; Optuna stores values of a list as text."""
    if isinstance(found, Choice):
        by_text = {text_of(value): value for value in found.values}
        return by_text[trial.suggest_categorical(name, list(by_text))]
    if found.whole:
        return trial.suggest_int(name, found.low, found.high, log=found.log)
    return trial.suggest_float(name, found.low, found.high, log=found.log)
