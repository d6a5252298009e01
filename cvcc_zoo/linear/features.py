"""A list of names and options becomes features, one after the other: images to vectors."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from cvcc_zoo.linear.hog import HOG
from cvcc_zoo.linear.patches import Patches
from cvcc_zoo.linear.pca import PCA
from cvcc_zoo.linear.pretrained import Pretrained, read_pretrained
from cvcc_zoo.linear.standardize import Standardize
from cvcc_zoo.registry import FAMILIES, Spec, as_spec, check_options, pick

GIVEN = {"Patches": ("in_channels",), "Standardize": ("size",)}
"""Parameters that follow from the images."""
OF_IMAGES: dict[str, type[nn.Module]] = {"HOG": HOG, "Patches": Patches, "Pretrained": Pretrained}
OF_VECTORS: dict[str, type[nn.Module]] = {"PCA": PCA, "Standardize": Standardize}
Batches = Callable[[], Iterable[Tensor]]
"""Makes a new pass over images."""


class Features(nn.Sequential):
    """Images (N, C, H, W) to vectors (N, out_features), by several features one after the other.

    `specs` is what it was made from, as plain data: what is only known after `fit` is filled in there, so that
    `Features(specs, ...)` takes its tensors.
    """

    def __init__(self, specs: Sequence[str | Mapping[str, Any]], in_channels: int, image_size: int) -> None:
        """For images of this size.

        `specs` holds names or {name: ..., option: value}: HOG, Patches and Pretrained take images, and so one of them
        can be the first; PCA and Standardize take vectors, or all pixels. Raises ValueError for other names, options,
        orders and sizes.
        """
        super().__init__()
        if not isinstance(specs, list | tuple):
            like = f"[{specs}]" if isinstance(specs, str | Mapping) else "[HOG, PCA]"
            raise ValueError(f"features is a list of names, like {like}, not {specs!r}")
        self.specs: list[Spec] = []
        shape: tuple[int, ...] = (in_channels, image_size, image_size)
        for number, each in enumerate(specs):
            options = as_spec("feature", each)
            name = pick("feature", options.pop("name"), OF_IMAGES | OF_VECTORS)
            if name in OF_IMAGES and number:
                raise ValueError(f"features: {name} takes images; put it first, not after {self.specs[-1]['name']}")
            module, size, spec = _make(name, options, shape)
            self.append(module)
            self.specs.append(spec)
            shape = (size,)
        self.out_features = torch.Size(shape).numel()

    @property
    def fitted(self) -> bool:
        """Whether all of them have seen what they have to see."""
        return all(getattr(module, "fitted", True) for module in self)

    def fit(self, batches: Batches) -> None:
        """Take from training images, whitened (N, C, H, W), what they need; each reads them once.

        Raises ValueError where there are too few images for it.
        """
        for number, module in enumerate(self):
            if getattr(module, "fitted", True):
                continue
            cast(Any, module).fit(self._before(number, batches))
            if isinstance(module, PCA):
                self.out_features = len(module.basis)
                if isinstance(module.components, float):
                    self.specs[number]["kept"] = self.out_features
                self._make_room_after(number)

    def _before(self, number: int, batches: Batches) -> Iterator[Tensor]:
        """What a module gets of the batches."""
        with torch.no_grad():
            for x in batches():
                for module in list(self)[:number]:
                    x = module.to(x.device)(_as_wanted(module, x))  # what was fitted on a CPU
                yield _as_wanted(self[number], x)

    def _make_room_after(self, number: int) -> None:
        """The modules after a PCA with a share get vectors of its size, which is known only now."""
        for later in range(number + 1, len(self)):
            options = {key: value for key, value in self.specs[later].items() if key != "name"}
            self[later], self.out_features, self.specs[later] = _make(
                self.specs[later]["name"], options, (self.out_features,)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Images to vectors. Raises ValueError before they are fitted."""
        for module in self:
            x = module(_as_wanted(module, x))
        return x.flatten(1)


def _as_wanted(module: nn.Module, x: Tensor) -> Tensor:
    return x.flatten(1) if type(module) in OF_VECTORS.values() else x


def _make(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> tuple[nn.Module, int, Spec]:
    """The module, the size of its vectors, and its whole specification."""
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
            raise ValueError(f"PCA: {pca.components} components of vectors of {size:,} numbers; ask for fewer")
        kept = pca.components
    if kept is None:
        return pca, size, spec  # as many at most
    if not isinstance(kept, int) or not 1 <= kept <= size:
        raise ValueError(f"PCA: kept is filled in when it is fitted; leave it out, not {kept!r}")
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
