import functools
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import nn

import cvcc_zoo.optim
from cvcc_zoo import ImageClassifier
from cvcc_zoo.optim import AdamW, Muon, describe_groups, make_lr_scheduler, make_optimizer, param_groups, plain_spec
from cvcc_zoo.optim.build import OWN, find_optimizer
from cvcc_zoo.optim.replay import Replay
from cvcc_zoo.registry import ENTRIES, Spec
from cvcc_zoo.zoo.creation import create


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


@pytest.mark.parametrize("muon", [True, False])
def test_what_a_network_of_timm_excludes_is_not_decayed(muon: bool) -> None:
    network = timm.create_model("test_vit", num_classes=10)
    for model in (network, ImageClassifier.wrap(network, num_classes=10, image_size=160)):
        *_, no_decay, excluded = param_groups(model, weight_decay=0.1, muon=muon)
        found = {name.removeprefix("network.") for name in names(model, excluded)}
        assert found == {"cls_token", "pos_embed"} and excluded["weight_decay"] == no_decay["weight_decay"] == 0


def test_a_network_of_timm_excludes_by_patterns() -> None:
    with torch.device("meta"):
        network = timm.create_model("xcit_nano_12_p8_224")
    *_, excluded = param_groups(network, weight_decay=0.1)
    assert names(network, excluded) == {"cls_token", "pos_embed.token_projection.weight"}


def test_everything_is_decayed_when_asked() -> None:
    spec = {"name": "SGD", "lr": 0.1, "weight_decay": 1e-4, "decay_norms_and_biases": True}
    (group,) = make_optimizer(spec, create("linear").network).param_groups
    assert group["weight_decay"] == 1e-4


def test_the_weights_between_the_first_and_the_last_layer_go_to_muon() -> None:
    network = create("resnet20").network
    muon, decay, no_decay = param_groups(network, weight_decay=0.1, muon=True)
    assert names(network, decay) == {"conv1.weight", "fc.weight"}
    assert {"layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "layer3.2.conv2.weight"} <= names(network, muon)
    assert all(name.endswith(".weight") and "bn" not in name for name in names(network, muon))
    assert {"bn1.weight", "fc.bias"} <= names(network, no_decay)
    assert [g["use_muon"] for g in (muon, decay, no_decay)] == [True, False, False]
    assert [g["weight_decay"] for g in (muon, decay, no_decay)] == [0.1, 0.1, 0]
    assert len(muon["params"]) == 20 and sum(len(g["params"]) for g in (muon, decay, no_decay)) == 65


@pytest.mark.parametrize("model", sorted(set(ENTRIES) - {"linear", "ridge"}))
def test_every_model_has_its_first_and_last_layer_outside_of_muon(model: str) -> None:
    with torch.device("meta"):
        network = create(model).network.eval()
    groups = param_groups(network, 0.0, muon=True)
    layers = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    routed = {id(p) for g in groups if g["use_muon"] for p in g["params"]}
    assert {id(p) for p in layers[1:-1]} == routed
    assert network(torch.empty(1, 3, 32, 32, device="meta")).shape[1] == layers[-1].shape[0]
    assert layers[0].shape[1] in (3, 3 * 32 * 32)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_the_layers_of_a_transformer_are_neither_its_tokens_nor_its_classifiers(model: str) -> None:
    with torch.device("meta"):
        network = create(f"timm.{model}", image_size=32).network
    muon, decay, _, excluded = param_groups(network, 0.0, muon=True)
    inner = {f"blocks.{block}.{layer}.weight" for block in range(12) for layer in
             ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}  # fmt: skip
    assert names(network, muon) == inner
    more = "deit" in model
    assert names(network, decay) == {"patch_embed.proj.weight", "head.weight", *(["head_dist.weight"] if more else ())}
    assert names(network, excluded) == {"cls_token", "pos_embed", *(["dist_token"] if more else ())}


def test_the_classifier_is_the_last_layer_wherever_it_is_defined() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(4))

    class Headed(Small):
        def get_classifier(self) -> nn.Module:
            return self.fc

    for network, hidden in ((Small(), {"a.weight", "b.weight"}), (Headed(), {"b.weight", "c.weight"})):
        assert names(network, param_groups(network, 0.0, muon=True)[0]) == hidden


def test_the_optimizer_keeps_a_rate_for_each_route() -> None:
    network = create("resnet20").network
    optimizer = make_optimizer({"name": "Muon", "lr": 0.05, "adamw_lr": 0.002, "weight_decay": 0.01}, network)
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.002, 0.002]
    text = describe_groups(network, optimizer.param_groups)
    assert text.startswith("muon: 269,824 parameters (lr 0.05, weight_decay 0.01)\n  layer1.0.conv1.weight (16, 16,")
    assert "no_decay: 1,578 parameters (lr 0.002, weight_decay 0)\n  bn1.weight (16,)" in text


def test_biases_and_norms_may_have_a_rate_of_their_own() -> None:
    spec = {"name": "Muon", "lr": 0.05, "adamw_lr": 0.002, "bias_lr": 0.0}
    network = create("resnet20").network
    optimizer = make_optimizer(spec, network)
    assert [(g["name"], g["lr"]) for g in optimizer.param_groups] == [("muon", 0.05), ("decay", 0.002), ("no_decay", 0)]
    with pytest.raises(ValueError, match="bias_lr must be at least 0, got -1"):
        make_optimizer({**spec, "bias_lr": -1.0}, network)


def test_parametrised_and_recurrent_weights_are_hidden_weights_too() -> None:
    layers = [nn.Linear(4, 4), torch.nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)), nn.LSTM(4, 4)]
    model = nn.Sequential(*layers, nn.Linear(4, 2))
    found = param_groups(model, 0.1, muon=True)
    assert names(model, found[0]) == {"1.parametrizations.weight.original", "2.weight_ih_l0", "2.weight_hh_l0"}


def test_the_lengths_of_weight_norm_are_no_matrices_for_muon() -> None:
    model = nn.Sequential(*(torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3)) for _ in range(3)))
    found = param_groups(model, 0.1, muon=True)
    assert names(model, found[0]) == {"1.parametrizations.weight.original1"}


@pytest.mark.parametrize("name", ["Adafactor", "LowRankAdam", "Muon"])
def test_what_a_wrapper_keeps_for_a_parameter_is_loaded_again(name: str) -> None:
    weight = nn.Parameter(torch.randn(64, 48))
    make: Any = OWN[name]
    lookahead: Any = vars(timm.optim)["Lookahead"]
    wrapped = [lookahead(make([weight]), k=1) for _ in range(2)]
    weight.grad = torch.randn(64, 48)
    wrapped[0].step()
    wrapped[1].load_state_dict(wrapped[0].state_dict())
    assert torch.equal(wrapped[1].state_dict()["state"][0]["lookahead_slow_buff"], weight)


def test_sgd_may_take_what_muon_leaves() -> None:
    spec = {"name": "Muon", "lr": 0.05, "adamw_lr": 0.002, "sgd_lr": 0.1}
    network = create("resnet20").network
    assert [g["lr"] for g in make_optimizer(spec, network).param_groups] == [0.05, 0.1, 0.1]
    assert [g["lr"] for g in make_optimizer({**spec, "bias_lr": 3.0}, network).param_groups] == [0.05, 0.1, 3.0]
    with pytest.raises(ValueError, match="sgd_lr must be at least 0, got -1"):
        make_optimizer({**spec, "sgd_lr": -1.0}, network)
    with pytest.raises(ValueError, match=r"sgd_momentum must be in \[0, 1\), got 1.5"):
        make_optimizer({**spec, "sgd_momentum": 1.5}, network)


@pytest.mark.parametrize("name", OWN)
def test_a_switch_is_true_or_false(name: str) -> None:
    """A text or a number would otherwise count as true."""
    parameters = inspect.signature(OWN[name]).parameters.values()
    switches = [each.name for each in parameters if isinstance(each.default, bool) or "bool" in str(each.annotation)]
    assert {"maximize", "foreach"} <= set(switches)
    for switch in switches:
        for value in ("perhaps", 1):
            wrong: dict[str, Any] = {switch: value}
            with pytest.raises(ValueError, match=f"{switch} is true or false, got {value!r}"):
                OWN[name]([torch.nn.Parameter(torch.ones(2, 2))], **wrong)


def test_matrices_and_vectors_in_one_group_are_refused_with_advice() -> None:
    with pytest.raises(ValueError, match=r"make groups by cvcc_zoo.optim.param_groups\(model, muon=True\)"):
        cvcc_zoo.optim.Muon(create("resnet20").network.parameters())
    with pytest.raises(ValueError, match="Muon needs a trainable weight between the first and the last layer"):
        param_groups(create("linear"), 0.0, muon=True)
    with pytest.raises(ValueError, match="use_muon needs parameters of two dimensions"):
        cvcc_zoo.optim.Muon([{"params": [nn.Parameter(torch.zeros(3))], "use_muon": True}])


def test_a_muon_whose_rate_nothing_would_use_is_refused_with_advice() -> None:
    vectors, matrices = [nn.Parameter(torch.zeros(3))], [nn.Parameter(torch.zeros(3, 2))]
    several: list[Any] = [vectors, [{"params": vectors}], [("scale", vectors[0])]]
    for params in several:
        with pytest.raises(ValueError, match="set use_muon=False for them, or choose AdamW"):
            Muon(iter(params), lr=0.2)
    assert Muon([{"params": vectors, "use_muon": False}]).param_groups[0]["lr"] == 0.003
    assert Muon([{"params": vectors, "lr": 0.1}]).param_groups[0]["lr"] == 0.1
    optimizer = Muon([{"params": vectors}, {"params": matrices}])
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert [group["use_muon"] for group in optimizer.param_groups] == [False, True, False]


def test_frozen_parameters_are_left_out() -> None:
    network = create("linear").network
    network.get_parameter("fc.weight").requires_grad_(False)
    assert [p.shape for g in make_optimizer({"name": "AdamW"}, network).param_groups for p in g["params"]] == [(10,)]


@pytest.mark.parametrize("name", ["NAdam", "RAdam", "LBFGS", "Rprop", "ASGD"])
def test_torch_optimizers_are_built_by_name(name: str) -> None:
    optimizer = make_optimizer({"name": name, "lr": 0.01}, create("linear").network)
    assert type(optimizer) is getattr(torch.optim, name)


@pytest.mark.parametrize("name", sorted(OWN))
def test_ours_win_where_names_clash(name: str) -> None:
    optimizer = make_optimizer({"name": name, "lr": 0.01}, create("resnet20").network)
    assert type(optimizer) is OWN[name] is getattr(cvcc_zoo.optim, name)
    if name != "LowRankAdam":
        theirs = getattr(torch.optim, name)
        assert type(make_optimizer({"name": f"torch.optim.{name}"}, nn.Linear(2, 2, bias=False))) is theirs


@pytest.mark.parametrize("found", [*OWN.values(), torch.optim.SGD, torch.optim.NAdam, find_optimizer("timm.lamb")])
def test_a_class_is_found_again_by_the_name_that_is_stored(found: Any) -> None:
    """Also as a partial; a checkpoint holds the name and the options."""
    spec = plain_spec("optimizer", functools.partial(found, lr=0.5))
    assert find_optimizer(spec["name"]) is found and spec["lr"] == 0.5
    assert plain_spec("optimizer", found) == {"name": spec["name"]}


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
        (
            {"name": "SGD", "lr": -1.0},
            "optimizer SGD refuses these parameters or options: lr must be at least 0",
        ),
        ({"name": "SGD", "lr": "1e-3"}, "lr must be a number, got '1e-3'; write it with a point: 1.0e-3"),
        ({"name": "SGD", "lr": True}, "lr must be a number, got True"),
        ({"name": "SGD", "momentum": 0.9, "dampening": "little"}, "dampening must be a number, got 'little'"),
        ({"name": "RMSprop", "alpha": "0.9"}, "alpha must be a number, got '0.9'"),
        ({"name": "AdamW", "betas": 0.9}, "betas must be 2 numbers, got 0.9"),
        ({"name": "AdamW", "betas": "ab"}, "betas must be a number, got 'a'"),
        ({"name": "Adafactor", "d": "1"}, "d must be a number, got '1'"),
        ({"name": "Adafactor", "eps": 1e-3}, "eps must be two numbers, of which the first may be None, got 0.001"),
        ({"name": "LowRankAdam", "rank": True}, "rank must be a whole number of at least 1, got True"),
        ({"name": "SGD", "layer_decay": True}, r"layer_decay must be a factor in \(0, 1\], got True"),
        ({"name": "timm.lam"}, "no optimizer of timm named 'lam'; did you mean lamb"),
        ({"name": "timm.lamb", "momentum": 0.9}, "no option of optimizer timm.lamb named 'momentum'"),
        ({"name": "nowhere.SGD"}, "no optimizer at the import path 'nowhere.SGD'"),
        ({"name": "torch.nn.Linear"}, "torch.nn.Linear is not a valid optimizer"),
    ],
)
def test_a_wrong_optimizer_is_refused_with_advice(spec: Spec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_optimizer(spec, create("linear").network)


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [(3, "must be 3 numbers, got 3"), ((1, 2), "must be 3 numbers"), (("a", "b", "c"), "must be a number, got 'a'")],
)
def test_wrong_coefficients_of_muon_are_told(coefficients: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"ns_coefficients {message}"):
        Muon([nn.Parameter(torch.zeros(2, 2))], ns_coefficients=coefficients)


@pytest.mark.parametrize("steps", [0, 101, 2.5, True])
def test_wrong_steps_of_muon_are_told(steps: Any) -> None:
    with pytest.raises(ValueError, match=f"ns_steps must be a whole number from 1 to 100, got {steps}"):
        Muon([nn.Parameter(torch.zeros(2, 2))], ns_steps=steps)


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


@pytest.mark.parametrize("name", sorted({*OWN, "NAdam"}))
def test_one_cycle_goes_with_every_optimizer(name: str) -> None:
    network = create("cnn_small").network
    optimizer = make_optimizer({"name": name, "lr": 0.01}, network)
    made = make_lr_scheduler({"name": "OneCycleLR"}, optimizer, total_steps=10, total_epochs=2)["scheduler"]
    first = [dict(group) for group in optimizer.param_groups]
    for _ in range(3):
        optimizer.step()
        made.step()
    assert all(group["lr"] > 0.04 * 0.003 for group in optimizer.param_groups)
    assert all(
        before.get(name) == now.get(name)
        for before, now in zip(first, optimizer.param_groups, strict=True)
        for name in ("momentum", "betas")
    )


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


@pytest.mark.parametrize("name", ["OneCycleLR", "ExponentialLR", "Cosine"])
def test_a_schedule_needs_a_rate_to_change(name: str) -> None:
    optimizer = make_optimizer({"name": "timm.adafactor"}, create("linear").network)
    with pytest.raises(ValueError, match="a schedule changes the lr of an optimizer, and Adafactor has none; give one"):
        make_lr_scheduler({"name": name}, optimizer, 100, 5)


def test_the_plateau_watches_the_validation_loss() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    assert make_lr_scheduler({"name": "ReduceLROnPlateau"}, optimizer, 9, 3)["monitor"] == "val/loss"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "CosineLR"}, "no lr_scheduler named 'CosineLR'; did you mean .*CosineAnnealingLR"),
        ({"name": "StepLR"}, "lr_scheduler StepLR needs the option step_size"),
        ({"name": "StepLR", "step": 3}, "no option of lr_scheduler StepLR named 'step'; did you mean step_size"),
        ({"name": "StepLR", "step_size": 3, "interval": "week"}, "no interval of lr_scheduler StepLR named 'week'"),
    ],
)
def test_a_wrong_schedule_is_refused_with_advice(spec: Spec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates(spec, 2)


@pytest.mark.parametrize("optimizer", [cvcc_zoo.optim.Adam, cvcc_zoo.optim.AdamW])
@pytest.mark.parametrize(
    ("betas", "foreach", "advice"),
    [
        ((0.9, torch.tensor(0.99)), None, "betas must be either both floats or both Tensors"),
        ((torch.tensor(0.9), 0.99), None, "betas must be either both floats or both Tensors"),
        ((torch.tensor(0.9), torch.tensor(0.99)), True, r"betas\[0\] as a Tensor is not supported"),
    ],
)
def test_betas_that_torch_refuses_are_refused_before_parameters_are_looked_at(
    optimizer: Any, betas: Any, foreach: bool | None, advice: str
) -> None:
    with pytest.raises(ValueError, match=advice):
        optimizer(None, lr=0.01, betas=betas, foreach=foreach)


@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw", "spectral_unclamped"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_muon_leaves_matrices_without_numbers_alone(shape: tuple[int, int], adjust_lr_fn: str) -> None:
    matrices = [nn.Parameter(torch.ones(size)) for size in (shape, (2, 2))]
    optimizer = Muon(matrices, lr=0.1, adjust_lr_fn=adjust_lr_fn, unit_norm=True)
    for matrix in matrices:
        matrix.grad = torch.ones_like(matrix)
    optimizer.step()
    assert matrices[0].shape == shape and bool(torch.isfinite(matrices[1]).all()) and matrices[1][0, 0] != 1


@pytest.mark.parametrize("named", [False, True])
def test_a_state_of_other_shapes_is_refused_with_the_name_of_the_parameter(named: bool) -> None:
    models = [nn.Linear(4, size) for size in (3, 5)]
    first, second = (AdamW(each.named_parameters() if named else each.parameters()) for each in models)
    models[0](torch.ones(1, 4)).sum().backward()
    first.step()
    which = "weight" if named else "parameter 0 of group 0"
    words = f"exp_avg is (3, 4), but {which}, of shape (5, 4), needs (5, 4); load a state that was saved with the same"
    with pytest.raises(ValueError, match=re.escape(words)):
        second.load_state_dict(first.state_dict())


def test_a_state_of_other_groups_is_refused_with_what_changes_groups() -> None:
    model = create("linear")
    first, second = (make_optimizer({"name": "SGD", "weight_decay": decay}, model) for decay in (0.0, 1e-3))
    with pytest.raises(ValueError, match=r"different number of parameter groups; .* and whether weight_decay is 0"):
        second.load_state_dict(first.state_dict())


def test_graphs_of_two_optimizers_are_recorded_on_two_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else torch frees memory of cuBLAS that both use with the first: github.com/pytorch/pytorch/issues/193402."""
    streams = []

    @contextmanager
    def graph(graph: Any, stream: Any = None, capture_error_mode: str = "") -> Iterator[None]:
        streams.append(stream)
        yield

    monkeypatch.setattr("cvcc_zoo.optim.replay.can_replay", lambda tensors: True)
    for name, double in {"graph": graph, "device": lambda device: nullcontext(), "Stream": lambda device: object(),
                         "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None)}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, double)
    for replay in (Replay(), Replay()):
        for shape in ((2, 2), (2, 2), (3, 2), (3, 2)):
            replay(list, [torch.ones(shape)], "")
    first, second, third, fourth = map(id, streams)
    assert first == second != third == fourth and None not in streams
