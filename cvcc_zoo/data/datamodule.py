"""ImageDataModule, for all models: data set -> split -> loader -> augmentation, and statistics for the whitening."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.data.attached import Attached
from cvcc_zoo.data.augment import Mixing, augment, make_augmentations
from cvcc_zoo.data.balance import EpochPermutation, check_sampler
from cvcc_zoo.data.classes import places_of
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.data.images import Images, on_accelerator, reshape
from cvcc_zoo.data.length import end_of, training_length
from cvcc_zoo.data.loader import Augmented, Batch, TensorLoader, limited, overfits
from cvcc_zoo.data.opening import MAX_PIXELS
from cvcc_zoo.data.pictures import plot_augmentations
from cvcc_zoo.data.resolution import Resolutions
from cvcc_zoo.data.shaping import Shaping
from cvcc_zoo.data.sources import Test, announce, check_test, find_dataset, sort_options
from cvcc_zoo.data.split import held_out
from cvcc_zoo.data.whitening import Whitening, make_whitening
from cvcc_zoo.plots import Figure


class ImageDataModule(Attached):
    """Serve a data set in batches `(images uint8 (N, C, H, W), labels int64 (N,))` on the model's device.

    `fit` never sees the test images: validation images and statistics come from the training images only.
    `num_classes`, `in_channels`, `image_size` and `classes` are available as soon as the object is built.
    """

    def __init__(
        self,
        dataset: str | None = None,
        root: str | None = None,
        batch_size: int = 128,
        validation: float | str = 0.1,
        test: Test = 0.1,
        whitening: dict[str, Any] | str | None = None,
        augmentations: list[dict[str, Any] | str] | dict[str, Any] | str = "standard",
        image_size: int | None = None,
        in_channels: int | None = None,
        resize: str = "squash",
        background: str = "white",
        progressive_resizing: dict[int, float] | None = None,
        progressive_cropping: dict[int, float] | None = None,
        split_seed: int = 0,
        seed: int = 0,
        follow_links: bool = False,
        max_pixels: int = MAX_PIXELS,
        sampler: str = "shuffle",
        train: Any = None,
        val: Any = None,
        classes: list[str] | None = None,
    ) -> None:
        """Choose and serve a data set. Raises ValueError for impossible options, FileNotFoundError for a missing root.

        Args:
            dataset: fashion-mini (in the package; the default without a root), cifar10, cifar100, mnist, fashion_mnist,
                svhn, torchvision.NAME, hf:NAME (Hugging Face), a file of arrays (.npz, .npy), or folder (the default
                with a root): your images in train/<class>/*, test/<class>/* and perhaps val/<class>/*, or in <class>/*.
            root: The folder of the data; for a downloaded data set $CVCC_ZOO_DATA or the user's cache by default.
            batch_size: Images per optimizer step, over all processes together.
            validation: Share of each class held out, in [0, 1), if there is no val/; or a fold, such as 2/5.
            test: Share of each class held out for testing in a folder without splits, in [0, 1); in Python also images.
            whitening: standardize, none, zca, pca, cholesky, zca_cor, pca_cor, {name: zca, ...}; None uses the model's.
            augmentations: none, light, standard (crop, and flip except digits), strong, or a list of these and others.
            image_size: Resize all images to this height and width, in pixels; by default keep their size.
            in_channels: 1 converts all images to grey, 3 to colour; by default keep their channels.
            resize: Make images of a folder square: squash (change proportions), crop or pad (add background beside).
            background: Colour behind transparent images of a folder and beside padded ones, such as white or '#808080'.
            progressive_resizing: Start with smaller images: size in pixels -> share of the epochs, {16: 0.5, 24: 0.3}.
            progressive_cropping: The same, but crop the middle.
            split_seed: Seed for the choice of validation images, and of test images of a folder without splits.
            seed: Seed for the order of the images and for the augmentations.
            follow_links: Follow links that lead out of the image folder.
            max_pixels: Refuse images that have more pixels than this.
            sampler: shuffle, or balanced: draws each class equally often, in epochs of the same length.
            train, val: Images as a torch Dataset, a pair of arrays (images, labels), or a Hugging Face Dataset.
            classes: Names of the classes of arrays, of hf:NAME or of `train`, in the order of their labels.

        """
        objects, self.options = sort_options(ImageDataModule.__init__, locals())
        super().__init__()
        self.dataset = find_dataset(self.options, Shaping(image_size, in_channels, resize, background), objects)
        self.batch_size, self.held_out, self.sampler = batch_size, held_out(validation), check_sampler(sampler)
        self.validation = self.held_out.share
        self.augmentations = make_augmentations(augmentations, mirror=self.dataset.mirror)
        self.soft_labels = any(isinstance(augmentation, Mixing) for augmentation in self.augmentations)
        shape = in_channels or self.dataset.in_channels, image_size or self.dataset.image_size
        self.in_channels, self.image_size = shape
        self.resolutions = Resolutions(progressive_resizing, self.image_size, progressive_cropping)
        self.whitening = None if whitening is None else make_whitening(whitening, *shape).spec
        self.classes, self.num_classes = self.dataset.classes, len(self.dataset.classes)
        self._places = torch.arange(self.num_classes)  # label in the data set -> our label
        self.split_seed, self.seed, self._prepared = split_seed, seed, False
        self._images: dict[str, tuple[Images, Tensor]] = {}  # stage -> images, and the positions of those it uses
        self._said: set[str] = set()  # notes about the images
        self._on_device: dict[int, Images] = {}  # copies on an accelerator, by the id of the originals

    def prepare_data(self) -> None:
        """Download or decode missing data; Lightning calls this in one process, before each stage."""
        if not self._prepared:
            self.dataset.prepare()
            self._prepared = True

    def setup(self, stage: str = "fit") -> None:
        """Load the images of a stage ("fit", "validate", "test" or "predict"), unless they are loaded already."""
        if stage in ("fit", "validate") and "train" not in self._images:
            self._load_train()
        if stage == "fit":  # options that do not suit the size of the images fail before training starts
            images, labels, samples = self.some_images(min(2, len(self._images["train"][1])))
            augment(self.augmentations, images, labels, Draws(self.seed, 0, samples), self.num_classes)
            if self.resolutions and self.running is not None:
                end_of(self.running, "progressive_resizing and progressive_cropping need", "leave them out")
            if self.validation == 0:
                self.skip_validation()
        if stage in ("test", "predict") and "test" not in self._images:
            check_test(self.dataset)
            test = self._load("test")
            assert test is not None
            self._images["test"] = (test, torch.arange(len(test.labels)))
            announce(self.dataset, self.in_channels, self.image_size, {"test": len(test.labels)}, self._said)

    def _load_train(self) -> None:
        train = self._load("train")
        assert train is not None
        if (val := self._load("val") if self.validation and not self.held_out.fold else None) is not None:
            kept, out = torch.arange(len(train.labels)), torch.arange(len(val.labels))
        else:
            kept, out = self.held_out.split(self._places.argsort()[train.labels], self.split_seed, self.dataset.classes)
        self._images |= {"train": (train, kept), "val": (val or train, out)}
        counts = {"training": len(kept), "validation": len(out)}
        announce(self.dataset, self.in_channels, self.image_size, counts, self._said)

    def _load(self, split: Any) -> Images | None:
        found = self.dataset.load(split)
        return found and Images(reshape(found.images, self.image_size, self.in_channels), self._places[found.labels])

    def order_as(self, classes: Sequence[str]) -> None:
        """Renumber the classes in this order; the same images stay held out. Raises ValueError for other classes."""
        moved = torch.tensor(places_of(classes, self.classes, self.dataset.title))
        self._places, self.classes, self._on_device = moved[self._places], tuple(classes), {}
        new = {id(data): Images(data.images, moved[data.labels]) for data, _ in self._images.values()}
        self._images = {stage: (new[id(data)], samples) for stage, (data, samples) in self._images.items()}

    def count(self, stage: str) -> int:
        """Count the images that a stage ("train", "val" or "test") uses; they must be loaded."""
        return len(self._images[stage][1])

    def training_images(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, labels, and the positions (M,) of those to train on, without the validation images."""
        if "train" not in self._images:
            self.prepare_data()
            self.setup("fit")
        data, samples = self._images["train"]
        return data.images, data.labels, samples

    def validation_images(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, labels, and the positions (M,) of those that are held out; none if `validation` is 0."""
        self.training_images()  # loads them
        data, samples = self._images["val"]
        return data.images, data.labels, samples

    def fit_whitening(self, spec: dict[str, Any] | str | None = None, *, across_processes: bool = False) -> Whitening:
        """Fit a whitening, by default the one chosen for these data, to the training images.

        With `across_processes` every process of torch's default group must call this, and each reads its share.
        """
        images, _, samples = self.training_images()
        whitening = make_whitening(spec or self.whitening or "standardize", self.in_channels, self.image_size)
        return whitening.fit(images, samples, across_processes=across_processes)

    def plot_whitening(self, images: int = 8) -> Figure:
        """Plot some training images before and after whitening, with its eigenvalues and filters."""
        return self.fit_whitening().plot(self.some_images(images)[0])

    def plot_augmentations(self, images: int = 8, draws: int = 8) -> Figure:
        """Plot some training images, each with its augmented versions in the first `draws` epochs."""
        if draws < 1:
            raise ValueError(f"draw each image at least once, not {draws} times")
        chosen, labels, samples = self.some_images(images)
        epochs = (Draws(self.seed, epoch, samples) for epoch in range(draws))
        drawn = [augment(self.augmentations, chosen, labels, epoch, self.num_classes)[0] for epoch in epochs]
        names = ", ".join(type(each).__name__ for each in self.augmentations) or "none"
        return plot_augmentations(chosen, drawn, f"{self.dataset.title}: {names}")

    def some_images(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return evenly spaced training images with their labels and positions."""
        images, labels, samples = self.training_images()
        if not 1 <= count <= len(samples):
            raise ValueError(f"choose 1 to {len(samples):,} of the training images, not {count}")
        chosen = samples[torch.arange(count) * len(samples) // count]
        return images[chosen], labels[chosen], chosen

    def _loader(self, stage: str, shuffle_seed: int | None = None, *, draw: bool = False) -> TensorLoader:
        if stage not in self._images:
            needed = "test" if stage == "test" else "fit"
            raise ValueError(f"no images are loaded yet; call data.prepare_data() and data.setup({needed!r}) first")
        (data, samples), trainer = self._images[stage], self.running
        samples = samples[EpochPermutation(len(samples), self.split_seed).order()] if draw else samples
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if trainer is not None:
            data = on_accelerator(data, trainer.strategy.root_device, self._on_device)
        options: Any = {"rank": rank, "world_size": world_size, "position": self._position, "fixed": overfits(trainer)}
        options |= {"shuffle_seed": shuffle_seed, "balanced": stage == "train" and self.sampler == "balanced"}
        return TensorLoader(data.images, data.labels, samples, self.batch_size, **options)

    def train_dataloader(self) -> TensorLoader:
        """Return equal batches, shuffled anew in each iteration; for a model with `whole_batches` every image once."""
        whole = self.running is not None and getattr(self.running.lightning_module, "whole_batches", False)
        loader = self._loader("train", None if whole else self.seed, draw=whole and limited(self.running, "train"))
        if loader.images.is_cuda and not (whole or self.soft_labels):  # mixing must not cross batches
            loader.make_ahead(self._augmented)
        return loader

    def val_dataloader(self) -> TensorLoader:
        """Return every validation image once, or the batches to overfit. Raises ValueError if `validation` is 0."""
        if self.validation == 0:
            raise ValueError("validation=0 keeps no images for validation; give a share of the training images")
        if overfits(self.running):
            return self._loader("train", shuffle_seed=self.seed)
        return self._loader("val", draw=limited(self.running, "val"))

    def test_dataloader(self) -> TensorLoader:
        """Return every test image once."""
        return self._loader("test", draw=limited(self.running, "test"))

    def predict_dataloader(self) -> TensorLoader:
        """Return every test image once, in order."""
        return self._loader("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a training batch on its device unless that is done already; return images and labels."""
        if not isinstance(batch, Batch):
            return batch
        if self.trainer is not None and self.trainer.training and not isinstance(batch, Augmented):
            return self._augmented(batch, self.trainer.current_epoch)
        return batch.images, batch.labels

    def _augmented(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Augment a batch, and reduce its images to the size of the epoch."""
        draws = Draws(self.seed, epoch, batch.samples)
        epochs = training_length(self.trainer)[1] if self.trainer is not None and self.resolutions else 0
        images, labels = augment(self.augmentations, batch.images, batch.labels, draws, self.num_classes)
        return self.resolutions.reduce(images, epoch, epochs), labels
