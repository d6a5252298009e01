"""Engines that start processes again: torchrun with two agents, of which one is lost, and Ray with a lost worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import write_images
from tests.reliability.test_processes import free_port, together

pytestmark = pytest.mark.slow
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A training of some hundred steps."""
    root = tmp_path_factory.mktemp("data") / "colours"
    for seed, colour in enumerate(("blue", "red")):
        write_images(root / "train" / colour, 100, seed=seed)
        write_images(root / "test" / colour, 20, seed=seed + 10)
    return [
        "--data.dataset=folder", f"--data.root={root}", "--data.batch_size=8", "--model=cnn_small",
        "--trainer.max_epochs=20", "--checkpoint_minutes=0.01", *QUIET,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of two processes that were left alone."""
    folder = tmp_path_factory.mktemp("whole")
    together(["fit", *options, "--run=run"], folder, 2)
    return weights(folder / "run")


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    return state


def wait_for_steps(run: Path, steps: int, seconds: float = 300) -> None:
    """Wait until `last.ckpt` has come so far."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (run / "last.ckpt").is_file() and torch.load(run / "last.ckpt", weights_only=True)["global_step"] >= steps:
            return
        time.sleep(0.1)
    raise AssertionError(f"{run} did not come to step {steps}")


class Agents:
    """Agents of torchrun, each with one worker."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.folder = folder
        self.command = [
            "torchrun", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=test",
            "--rdzv-conf=keep_alive_interval=1,keep_alive_max_attempt=3",
            f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--local-addr=127.0.0.1", *command,
        ]  # fmt: skip
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # or torchrun (2.14) does not tell a new agent where to meet
        }
        with (self.folder / f"agent-{len(self.started)}.txt").open("w") as output:
            agent = subprocess.Popen(
                self.command, cwd=self.folder, stdout=output, stderr=output, start_new_session=True, env=environment
            )
        self.started.append(agent)
        return agent


@pytest.fixture
def agents(options: list[str], tmp_path: Path) -> Iterator[Agents]:
    several = ["--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp"]
    made = Agents(["-m", "--", "cvcc_zoo", "fit", *options, *several, "--run=run", "--ckpt_path=last"], tmp_path)
    yield made
    for agent in made.started:
        if agent.poll() is None:
            os.killpg(agent.pid, signal.SIGKILL)


def test_torchrun_goes_on_after_an_agent_is_lost(
    agents: Agents, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    first = agents.start()
    time.sleep(2)  # the first one holds the meeting point
    lost = agents.start()
    wait_for_steps(tmp_path / "run", 60)
    workers = children(lost.pid)
    for process in (lost.pid, *workers):
        os.kill(process, signal.SIGKILL)
    time.sleep(10)  # until it is missed: an agent that comes before that would be taken for the third of two
    again = agents.start()
    assert [agent.wait(400) for agent in (first, again)] == [0, 0], (tmp_path / "agent-0.txt").read_text()
    assert "Restored all states from the checkpoint at" in (tmp_path / "agent-0.txt").read_text()
    state = weights(tmp_path / "run")
    assert all(torch.equal(state[name], tensor) for name, tensor in whole.items())


def test_ray_goes_on_after_a_worker_is_lost(options: list[str], whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    pytest.importorskip("ray.train")
    command = [sys.executable, "-m", "cvcc_zoo.integrations.ray", "--workers=2", "--run=run", *options]
    with (tmp_path / "ray.txt").open("w") as output:
        ray = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output, start_new_session=True)
    wait_for_steps(tmp_path / "run", 60)
    workers = [pid for pid in processes() if "RayTrainWorker" in name_of(pid)]
    os.kill(workers[0], signal.SIGKILL)
    assert ray.wait(400) == 0, (tmp_path / "ray.txt").read_text()
    assert "Restored all states from the checkpoint at" in (tmp_path / "ray.txt").read_text()
    state = weights(tmp_path / "run")
    assert all(torch.equal(state[name], tensor) for name, tensor in whole.items())


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def name_of(pid: int) -> str:
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_text() if path.exists() else ""


def children(pid: int) -> list[int]:
    """Processes that this one started, which have sessions of their own."""
    found = []
    for other in processes():
        status = Path(f"/proc/{other}/stat")
        if status.exists() and int(status.read_text().rpartition(")")[2].split()[1]) == pid:
            found.append(other)
    return found


def test_wrong_numbers_of_workers_are_told(tmp_path: Path) -> None:
    ray = pytest.importorskip("cvcc_zoo.integrations.ray", exc_type=ImportError)
    with pytest.raises(ValueError, match="give at least 1 worker and at least 0 failures, got 0 and 3"):
        ray.fit([], tmp_path / "run", workers=0)
