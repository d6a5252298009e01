"""Training on a Ray cluster, with the options and YAML files of `cvcc-zoo fit`; needs cvcc_zoo[ray].

    python -m cvcc_zoo.integrations.ray --workers=4 --config=cifar10/resnet20 --run=/shared/runs/resnet20

All workers must see the run folder and the data. When a worker is lost, Ray restarts all of them, and they resume from
`last.ckpt`. https://docs.ray.io/en/latest/train/getting-started-pytorch-lightning.html
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cvcc_zoo.files.own import expanded

try:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment
    from ray.train.torch import TorchTrainer
except ImportError as error:
    raise ImportError("training on Ray needs `pip install 'cvcc_zoo[ray]'`") from error


def fit(args: Sequence[str], run: str | Path, workers: int = 2, *, gpu: bool = False, failures: int = 3) -> None:
    """Train in the folder `run` with the options `args` of `cvcc-zoo fit`, or resume there.

    Each of the `workers` has a CPU, or with `gpu` a GPU. Raises Ray's error when workers are lost more than `failures`
    times, and ValueError for fewer than one worker or 0 failures.
    """
    if workers < 1 or failures < 0:
        raise ValueError(f"give at least 1 worker and at least 0 failures, got {workers} and {failures}")
    folder = expanded(run).resolve()
    place = Path.cwd()

    def train() -> None:
        import os

        from cvcc_zoo.internals.lightning import set_rank

        set_rank(get_context().get_world_rank())
        os.chdir(place)
        from cvcc_zoo.cli.lightning import main as lightning

        lightning(
            ["fit", *args, f"--run={folder}", "--ckpt_path=last"],
            strategy=RayDDPStrategy(),
            plugins=[RayLightningEnvironment()],
        )

    TorchTrainer(
        train,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(
            name=folder.name, storage_path=str(folder.parent / ".ray"), failure_config=FailureConfig(failures)
        ),
    ).fit()


def main(args: Sequence[str]) -> None:
    """Run the command above; unknown options are passed to `cvcc-zoo fit`."""
    parser = argparse.ArgumentParser(prog="python -m cvcc_zoo.integrations.ray", allow_abbrev=False)
    parser.add_argument(
        "--run", required=True, help="the run folder, visible to all workers; an existing run is resumed"
    )
    parser.add_argument("--workers", type=int, default=2, help="number of processes that train together")
    parser.add_argument("--gpu", action="store_true", help="give each worker a GPU")
    parser.add_argument("--failures", type=int, default=3, help="how often lost workers are restarted")
    options, more = parser.parse_known_args(args)
    fit(more, options.run, options.workers, gpu=options.gpu, failures=options.failures)


if __name__ == "__main__":
    main(sys.argv[1:])
