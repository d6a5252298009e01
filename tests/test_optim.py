import pytest
import torch
from torch import nn

from cvcc_zoo.optim import make_lr_scheduler, make_optimizer, param_groups
from cvcc_zoo.registry import Spec
from cvcc_zoo.zoo import create


def names(model: nn.Module, group: dict[str, list[nn.Parameter]]) -> set[str]:
    chosen = {id(p) for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in chosen}


def test_norms_and_biases_are_not_decayed() -> None:
    network = create("resnet20").network
    decay, no_decay = param_groups(network, weight_decay=0.1)
    assert {"conv1.weight", "layer2.0.downsample.0.weight", "fc.weight"} <= names(network, decay)
    assert {"bn1.weight", "bn1.bias", "layer2.0.downsample.1.weight", "fc.bias"} <= names(network, no_decay)
    assert names(network, decay) | names(network, no_decay) == {name for name, _ in network.named_parameters()}
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (0.1, 0.0)


def test_everything_is_decayed_when_asked() -> None:
    spec = {"name": "SGD", "lr": 0.1, "weight_decay": 1e-4, "decay_norms_and_biases": True}
    (group,) = make_optimizer(spec, create("linear").network).param_groups
    assert group["weight_decay"] == 1e-4


def test_frozen_parameters_are_left_out() -> None:
    network = create("linear").network
    network.get_parameter("fc.weight").requires_grad_(False)
    assert [p.shape for g in make_optimizer({"name": "AdamW"}, network).param_groups for p in g["params"]] == [(10,)]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "Adafactor", "LBFGS", "Rprop"])
def test_torch_optimizers_are_built_by_name(name: str) -> None:
    optimizer = make_optimizer({"name": name, "lr": 0.01}, create("linear").network)
    assert type(optimizer) is getattr(torch.optim, name)


@pytest.mark.parametrize("name", ["lamb", "lion", "sgdw", "adafactorbv", "nadamw", "muon", "madgrad"])
def test_timms_optimizers_are_built_by_name_and_learn(name: str) -> None:
    network = create("linear").network
    more = {"momentum": 0.9} if name == "sgdw" else {}  # timm turns its Nesterov on
    optimizer = make_optimizer({"name": f"timm.{name}", "lr": 0.001, "weight_decay": 0.01, **more}, network)
    assert type(optimizer).__module__.startswith("timm.optim")
    x, labels = torch.randn(32, 3, 32, 32), torch.arange(32) % 10
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_an_optimizer_is_found_by_its_import_path() -> None:
    optimizer = make_optimizer({"name": "torch.optim.sgd.SGD", "lr": 0.1}, create("linear").network)
    assert type(optimizer) is torch.optim.SGD


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "AdmW"}, "no optimizer named 'AdmW'; did you mean AdamW"),
        ({"name": "SGD", "learning_rate": 1}, "no option of optimizer SGD named 'learning_rate'"),
        ({"name": "SGD", "lr": -1.0}, "optimizer SGD refuses these parameters or options: Invalid learning rate"),
        ({"name": "timm.lam"}, "no optimizer of timm named 'lam'; did you mean lamb"),
        ({"name": "timm.lamb", "momentum": 0.9}, "no option of optimizer timm.lamb named 'momentum'"),
        ({"name": "nowhere.SGD"}, "no optimizer at the import path 'nowhere.SGD'"),
        ({"name": "torch.nn.Linear"}, "torch.nn.Linear is no optimizer"),
    ],
)
def test_a_wrong_optimizer_is_refused_with_advice(spec: Spec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_optimizer(spec, create("linear").network)


def rates(spec: Spec, steps: int, lr: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make_lr_scheduler(spec, optimizer, total_steps=steps, total_epochs=2)["scheduler"]
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def test_the_length_of_a_whole_training_schedule_is_filled_in() -> None:
    assert rates({"name": "CosineAnnealingLR"}, 4) == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert rates({"name": "PolynomialLR"}, 4) == pytest.approx([1, 0.75, 0.5, 0.25])


def test_one_cycle_peaks_at_the_optimizers_lr() -> None:
    values = rates({"name": "OneCycleLR", "cycle_momentum": False}, 100, lr=0.3)
    assert max(values) == pytest.approx(0.3) and values[-1] < 1e-4


@pytest.mark.parametrize(
    ("spec", "interval"),
    [
        ({"name": "CosineAnnealingLR"}, "step"),
        ({"name": "CosineAnnealingLR", "T_max": 10}, "epoch"),
        ({"name": "CosineAnnealingLR", "interval": "epoch"}, "epoch"),
        ({"name": "StepLR", "step_size": 3}, "epoch"),
        ({"name": "StepLR", "step_size": 3, "interval": "step"}, "step"),
    ],
)
def test_schedules_that_span_the_training_step_with_the_batches_others_with_epochs(spec: Spec, interval: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    assert make_lr_scheduler(spec, optimizer, 100, 5)["interval"] == interval


def test_a_schedule_by_epoch_is_filled_with_the_epochs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made = make_lr_scheduler({"name": "CosineAnnealingLR", "interval": "epoch"}, optimizer, 100, 5)
    assert made["scheduler"].T_max == 5


def test_the_plateau_watches_the_validation_loss() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    assert make_lr_scheduler({"name": "ReduceLROnPlateau"}, optimizer, 9, 3)["monitor"] == "val/loss"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "CosineLR"}, "no lr_scheduler named 'CosineLR'; did you mean .*CosineAnnealingLR"),
        ({"name": "StepLR"}, "lr_scheduler StepLR needs the option step_size"),
        ({"name": "StepLR", "step": 3}, "no option of lr_scheduler StepLR named 'step'; did you mean step_size"),
        ({"name": "StepLR", "step_size": 3, "interval": "week"}, 'interval must be "step" or "epoch"'),
    ],
)
def test_a_wrong_schedule_is_refused_with_advice(spec: Spec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates(spec, 2)
