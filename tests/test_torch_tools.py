"""Models go through torch's and Lightning's own tools as torchvision's networks do."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, update_bn
from torchvision.models.feature_extraction import create_feature_extractor

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.integrations.fabric import dataloader

WHITENINGS: list[Any] = ["standardize", {"name": "zca", "eps": 0.1, "contrast": "coates"}]


def images(count: int = 4) -> Tensor:
    return torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def model(whitening: Any = "standardize", name: str = "cnn_small") -> ImageClassifier:
    torch.manual_seed(0)
    made = create(name, image_size=8, whitening=whitening)
    made.whitening.fit(images(400))
    return made.eval()


@pytest.mark.filterwarnings("ignore")  # torch says that TorchScript is deprecated, and lists what is constant
@pytest.mark.parametrize("name", ["cnn_small", "linear", "resnet20"])
def test_a_traced_model_gives_the_same_logits(name: str) -> None:
    made = model(name=name)
    traced = torch.jit.trace(made, images(4))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(traced(images(7)), made(images(7)))


@pytest.mark.parametrize("whitening", WHITENINGS, ids=["standardize", "zca"])
def test_raw_images_are_traced_as_one_graph(whitening: Any) -> None:
    made, batch = model(whitening, "linear"), images()
    compiled = torch.compile(made, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(batch), made(batch))
    assert torch.export.export(made, (batch,), strict=True)


def test_torch_fx_is_told_to_trace_the_network() -> None:
    made = model()
    with pytest.raises(ValueError, match=r"trace model.network, whose input is model.whitening\(images\)"):
        create_feature_extractor(made, ["network.stages"])
    traced = create_feature_extractor(made.eval().network, ["stages"])
    torch.testing.assert_close(traced(made.whitening(images()))["stages"], made.features(images())[-1])


def test_statistics_may_arrive_in_the_buffers_alone() -> None:
    made = create("cnn_small", image_size=8)
    average = torch.optim.swa_utils.AveragedModel(made)
    made.whitening.fit(images(400))
    average.update_parameters(made)
    torch.testing.assert_close(average.eval()(images()), made.eval()(images()))
    state = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    fresh = create("cnn_small", image_size=8).eval()
    torch.testing.assert_close(torch.func.functional_call(fresh, state, (images(),)), made(images()))
    with pytest.raises(ValueError, match="no statistics yet"):
        fresh(images())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["model", "network"])
def test_torch_script_is_answered_with_what_to_use(part: str) -> None:
    made = model()
    with pytest.raises(ValueError, match=r"TorchScript is deprecated; use torch.export.export or `cvcc-zoo export`"):
        torch.jit.script(made if part == "model" else made.network)


def test_dir_names_what_can_be_read_and_no_trainer_without_one() -> None:
    made = model()
    assert "trainer" not in dir(made) and {"device", "network", "parted"} <= {*dir(made)}
    with pytest.raises(RuntimeError, match="not attached to a `Trainer`"):
        _ = made.trainer


@pytest.mark.parametrize("whitening", WHITENINGS, ids=["standardize", "zca"])
def test_vmap_over_images_is_a_batch(whitening: Any) -> None:
    made = model(whitening)
    for batch in (images(), images() / 255):
        alone = torch.func.vmap(lambda image: made(image[None])[0])(batch)
        torch.testing.assert_close(alone, made(batch), rtol=1e-4, atol=1e-5)


def test_vmap_over_models_is_one_after_the_other() -> None:
    models = [model(), model()]
    with torch.no_grad():
        models[1].whitening.mean += 0.1
        models[1].whitening.std *= 2
    stacked = torch.func.stack_module_state([*models])
    for batch in (images(), images() / 255):
        call = torch.func.vmap(lambda p, b, batch=batch: torch.func.functional_call(models[0], (p, b), (batch,)))
        torch.testing.assert_close(call(*stacked), torch.stack([each(batch) for each in models]), rtol=1e-4, atol=1e-5)


def test_gradients_of_each_image_have_the_mean_of_the_batch() -> None:
    made, labels = model(), torch.tensor([0, 1, 2, 3])
    weights: dict[str, Tensor] = dict(made.named_parameters())
    buffers = dict(made.named_buffers())

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(made, (weights, buffers), (image[None],)), label[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, images(), labels)
    torch.autograd.backward(F.cross_entropy(made(images()), labels))
    for name, weight in made.named_parameters():
        torch.testing.assert_close(each[name].mean(0), weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("whitening", ["standardize", "none"])
def test_a_model_is_summarised_before_a_training(whitening: str) -> None:
    made = create("cnn_small", whitening=whitening)
    assert ModelSummary(made, max_depth=2).total_parameters == sum(p.numel() for p in made.parameters())


def test_the_steps_of_a_model_run_under_fabric() -> None:
    data = ImageDataModule("fashion-mini", batch_size=200, image_size=8)
    made = create("linear", image_size=8, in_channels=data.in_channels)
    made.whitening = data.fit_whitening()
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    module, optimizer = fabric.setup(made, torch.optim.SGD(made.parameters(), lr=0.1))
    losses = []
    for number, batch in enumerate(dataloader(fabric, data, "train")):
        loss = module.training_step(batch, number)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < sum(losses[:5])
    with torch.no_grad():
        made.network.get_parameter("fc.weight").fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan at step"):
        module.training_step(batch, 0)


def test_the_images_of_an_epoch_under_fabric_are_those_of_the_trainer() -> None:
    options: Any = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}

    seen: list[tuple[Tensor, Tensor]] = []

    class Kept(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch)

    def data() -> ImageDataModule:
        return ImageDataModule("fashion-mini", batch_size=600, image_size=8, augmentations=["ColorJitter"], seed=5)

    model = create("linear", in_channels=1, image_size=8)
    lightning.Trainer(max_epochs=2, enable_model_summary=False, callbacks=[Kept()], **options).fit(model, data())
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    images = data()
    train, val = (dataloader(fabric, images, stage) for stage in ("train", "val"))
    found = [*train, *dataloader(fabric, images, "train")]
    assert (len(train), len(val), len(seen)) == (9, 1, 18)
    for ours, theirs in zip(found, seen, strict=True):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    (whole,) = val
    assert len(whole[0]) == 600 and whole[0].dtype == torch.uint8, "as they are"


def test_processes_of_fabric_share_the_batches() -> None:
    alone: list[list[Tensor]] = []
    shares: list[list[Tensor]] = []
    for world, rank in ((1, 0), (2, 0), (2, 1)):
        fabric = lightning.Fabric(accelerator="cpu", devices=1)
        patched = Mock(wraps=fabric, world_size=world, global_rank=rank, device=fabric.device)
        loader = dataloader(patched, ImageDataModule("fashion-mini", batch_size=600, image_size=8), "train")
        labels = [batch[1] for batch in loader]
        (alone if world == 1 else shares).append(labels)
    for whole, first, second in zip(alone[0], *shares, strict=True):
        assert torch.equal(torch.stack((first, second), 1).flatten(), whole)


def test_a_model_that_was_trained_under_fabric_is_saved_for_load(tmp_path: Path) -> None:
    """As docs/reliability.md shows."""
    fabric, data = lightning.Fabric(accelerator="cpu", devices=1), ImageDataModule("fashion-mini", image_size=8)
    made = create("linear", in_channels=1, image_size=8)
    made.whitening, made.classes = data.fit_whitening(), tuple(data.classes)
    made, optimizer = fabric.setup(made, torch.optim.SGD(made.parameters(), lr=0.1))
    fabric.backward(made.training_step(next(iter(dataloader(fabric, data, "train"))), 0))
    optimizer.step()
    trained = made.module
    checkpoint = {"state_dict": trained.state_dict(), "hyper_parameters": dict(trained.hparams)}
    trained.on_save_checkpoint(checkpoint)
    fabric.save(tmp_path / "model.ckpt", checkpoint)
    found, (images, *_) = load(tmp_path / "model.ckpt"), data.some_images(4)
    assert torch.equal(found(images), trained.eval()(images)) and found.classes == trained.classes


def test_fabric_gets_no_images_of_unknown_stages_or_changing_sizes() -> None:
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    with pytest.raises(ValueError, match="no stage named 'valid'; did you mean val"):
        dataloader(fabric, ImageDataModule("fashion-mini"), "valid")
    with pytest.raises(ValueError, match="need Lightning's Trainer; leave them out"):
        dataloader(fabric, ImageDataModule("fashion-mini", progressive_resizing={14: 0.5}), "train")


def test_a_loss_that_is_not_finite_ends_a_plain_loop_as_any_other() -> None:
    made = model(name="linear").train()
    with torch.no_grad():
        made.network.get_parameter("fc.weight").fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0 "):
        made.training_step((images(), torch.arange(4)), 0)


@pytest.mark.parametrize(("option", "value"), [("patch_whitening", 5e-4), ("init", "lsuv")])
def test_a_loop_of_ones_own_is_told_to_set_weights_from_images(option: str, value: Any) -> None:
    data = ImageDataModule("fashion-mini", batch_size=8, image_size=8)
    made = create("cnn_small", image_size=8, in_channels=1, **{option: value})
    made.whitening = data.fit_whitening()
    batch = next(iter(data.train_dataloader()))
    pair = batch.images, batch.labels
    with pytest.raises(ValueError, match=rf"{option}.* learns from .*, call model.prepare\(data\) with an ImageData"):
        made.training_step(pair, 0)
    made.prepare(data)
    assert made.training_step(pair, 0).item() > 0
    assert any(not parameter.requires_grad for parameter in made.parameters()) == (option == "patch_whitening")


def test_update_bn_is_given_the_images_of_a_loader_alone() -> None:
    data = ImageDataModule("fashion-mini", batch_size=2048, image_size=8)
    averaged: Any = AveragedModel(create("cnn_small", image_size=8, in_channels=1, whitening="none"))
    data.setup()
    loader = data.val_dataloader()
    with pytest.raises(ValueError, match=r"update_bn the images alone: \(images for images, _ in loader\)"):
        update_bn(loader, averaged)
    update_bn((images for images, _ in loader), averaged)
    assert int(averaged.module.network.get_buffer("stages.0.2.num_batches_tracked")) == 1
