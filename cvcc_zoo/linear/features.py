"""Features of images, built from a list of names and options and applied one after the other."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from cvcc_zoo.kinds import as_plain
from cvcc_zoo.linear.hog import HOG
from cvcc_zoo.linear.patches import Patches
from cvcc_zoo.linear.pca import PCA, Standardize
from cvcc_zoo.linear.pretrained import Pretrained, read_pretrained
from cvcc_zoo.registry import FAMILIES, Spec, as_spec, check_options, pick

GIVEN = {"Patches": ("in_channels",), "Standardize": ("size",)}
"""Parameters that are set from the images."""
OF_IMAGES: dict[str, type[nn.Module]] = {"HOG": HOG, "Patches": Patches, "Pretrained": Pretrained}
OF_VECTORS: dict[str, type[nn.Module]] = {"PCA": PCA, "Standardize": Standardize}
Batches = Callable[[], Iterable[Tensor]]
"""A function that starts a new pass over the images."""


class Features(nn.Sequential):
    """Images (N, C, H, W) to vectors (N, out_features), by several features one after the other.

    `specs` are the names and options as plain data. `fit` fills in sizes that depend on the images, so that the
    state_dict fits `Features(specs, ...)`.
    """

    def __init__(self, specs: Sequence[str | Mapping[str, Any]], in_channels: int, image_size: int) -> None:
        """Build features for images of this size.

        `specs` is a list of names or {name: ..., option: value}. HOG, Patches and Pretrained take images, so only the
        first can be one of them; PCA and Standardize take vectors, or all pixels. Raises ValueError for invalid names,
        options, orders and sizes.
        """
        super().__init__()
        if not isinstance(specs, list | tuple):
            like = f"[{specs}]" if isinstance(specs, str | Mapping) else "[HOG, PCA]"
            raise ValueError(f"features is a list of names, like {like}, not {specs!r}")
        self.specs: list[Spec] = []
        shape: tuple[int, ...] = (in_channels, image_size, image_size)
        for number, each in enumerate(specs):
            options = as_plain(as_spec("feature", each))
            name = pick("feature", options.pop("name"), OF_IMAGES | OF_VECTORS)
            if name in OF_IMAGES and number:
                raise ValueError(f"features: {name} takes images; put it first, not after {self.specs[-1]['name']}")
            module, size, spec = _make(name, options, shape)
            self.append(module)
            self.specs.append(spec)
            shape = (size,)
        self.out_features = torch.Size(shape).numel()

    @property
    def of_images(self) -> bool:
        """True if the first feature takes images in 0..1, not whitened ones; False if all take vectors."""
        return bool(self.specs) and self.specs[0]["name"] in OF_IMAGES

    @property
    def fitted(self) -> bool:
        """True if all features that have to be fitted are."""
        return all(getattr(module, "fitted", True) for module in self)

    def fit(self, batches: Batches) -> None:
        """Fit all features to whitened training images (N, C, H, W); each feature makes one pass over them.

        Raises ValueError if a feature needs more images.
        """
        for number, module in enumerate(self):
            if getattr(module, "fitted", True):
                continue
            cast(Any, module).fit(self._inputs(number, batches))
            if isinstance(module, PCA):
                self.out_features = len(module.basis)
                if isinstance(module.components, float):
                    self.specs[number]["kept"] = self.out_features
                self._rebuild_after(number)

    def _inputs(self, number: int, batches: Batches) -> Iterator[Tensor]:
        """Yield the inputs of a module for all batches."""
        with torch.no_grad():
            for x in batches():
                for module in list(self)[:number]:
                    x = module.to(x.device)(_flat_for(module, x))  # features are fitted on the CPU
                yield _flat_for(self[number], x)

    def _rebuild_after(self, number: int) -> None:
        """Rebuild the modules after a PCA that keeps a share of the variance: its output size is known only now."""
        for later in range(number + 1, len(self)):
            options = {key: value for key, value in self.specs[later].items() if key != "name"}
            self[later], self.out_features, self.specs[later] = _make(
                self.specs[later]["name"], options, (self.out_features,)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors (N, out_features) of images. Raises ValueError for an unfitted PCA."""
        for module in self:
            x = module(_flat_for(module, x))
        return x.flatten(1)


def _flat_for(module: nn.Module, x: Tensor) -> Tensor:
    """Flatten the input of a module that takes vectors."""
    return x.flatten(1) if isinstance(module, tuple(OF_VECTORS.values())) else x


def _make(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> tuple[nn.Module, int, Spec]:
    """Return the module, the size of its output vectors, and its complete spec."""
    spec: Spec = {"name": name, **options}
    if name == "Pretrained":
        return _make_pretrained(options, shape)
    kept = options.pop("kept", None) if name == "PCA" else None
    check_options(f"feature {name}", (OF_IMAGES | OF_VECTORS)[name], options, skip=GIVEN.get(name, ()))
    size = torch.Size(shape).numel()
    try:
        if name == "HOG":
            hog = HOG(**options)
            return hog, hog.size(*shape[1:]), spec
        if name == "Patches":
            patches = Patches(shape[0], **options)
            return patches, patches.out_features(*shape[1:]), spec
        if name == "Standardize":
            return Standardize(size), size, spec
        pca = PCA(**options)
    except TypeError as error:
        raise ValueError(f"feature {name} does not take {options}: {error}") from error
    if isinstance(pca.components, int):
        if pca.components > size:
            raise ValueError(f"PCA: {pca.components} components of vectors of {size:,} numbers; choose fewer")
        kept = pca.components
    if kept is None:
        return pca, size, spec  # an upper limit until it is fitted
    if not isinstance(kept, int) or not 1 <= kept <= size:
        raise ValueError(f"PCA: `fit` sets kept; leave it out, got {kept!r}")
    pca.make_room(size, kept)
    return pca, kept, spec


def _make_pretrained(options: dict[str, Any], shape: tuple[int, ...]) -> tuple[nn.Module, int, Spec]:
    tensors = None
    if "weights" in options:
        found, tensors = read_pretrained(options.pop("weights"), shape)
        options = {**found, **options}
    if options.get("family") not in FAMILIES:
        raise ValueError("Pretrained needs weights: {name: Pretrained, weights: resnet20.cifar10}")
    check_options("feature Pretrained", Pretrained, options)
    module = Pretrained(**options)
    if tensors is not None:
        module.load_state_dict({key: value for key, value in tensors.items() if key in module.state_dict()})
    with torch.device("meta"):
        like = Pretrained(**options)
        like.whitening.to_empty(device="meta")
        like.whitening.fitted = True
        size = like(torch.empty(1, *shape)).shape[1]
    return module, size, {"name": "Pretrained", **options}
