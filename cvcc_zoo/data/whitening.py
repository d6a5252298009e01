"""Whitening with statistics of the training images, stored in the model, so that weights carry their preprocessing.

`none`         only scale the pixels to [0, 1]
`standardize`  subtract each channel's mean and divide by its standard deviation, over all pixels of all images
`zca`, `pca`, `cholesky`, `zca_cor`, `pca_cor`   make the covariance the identity (`decorrelation.py` has the matrices)

`scope` selects the values that are whitened together, for C channels of H x W pixels:

`all`                 all C H W values of an image: the usual ZCA whitening
`pixels_per_channel`  the H W pixels of each channel; correlations between channels remain
`channel_values`      the C values of a pixel: colours

`standardize` is the default, because convolutional networks do better with it: Wide ResNets lose accuracy under ZCA
(https://github.com/szagoruyko/wide-residual-networks). It leaves neighbouring pixels and channels correlated.
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvcc_zoo.data.contrast import CONTRASTS, normalise_contrast
from cvcc_zoo.data.decorrelation import METHODS as DECORRELATING
from cvcc_zoo.data.decorrelation import PRINCIPAL, decorrelation, pseudo_inverse, warn_of_rank
from cvcc_zoo.data.moments import CHUNK, SCOPES, Moments, images_of, known, measure, vectors
from cvcc_zoo.data.pictures import plot_whitening
from cvcc_zoo.data.pixels import check_dtype
from cvcc_zoo.internals.torch import is_batched
from cvcc_zoo.kinds import as_plain, check_kinds
from cvcc_zoo.plots import Figure
from cvcc_zoo.registry import Spec, as_spec, check_known, check_options, pick

METHODS = ("none", "standardize", *DECORRELATING)
LARGEST = 20_000  # values that may be whitened together: their covariance takes 3.2 GB


class Whitening(nn.Module):
    """Turn raw images, uint8 0..255 or float 0..1, (N, C, H, W), into network inputs, float (N, C, H, W).

    The buffers are NaN or empty until `fit` or `load_state_dict` sets them, in units of pixels in [0, 1] (with
    `contrast`, of normalised pixels). `standardize` has `mean` and `std` (C,). The others have `mean` (G, D), `matrix`
    (G, K, D) and the eigenvalues `spectrum` (G, D) for G groups of D values each, of which K components are kept.
    """

    mean: Tensor
    std: Tensor
    matrix: Tensor
    spectrum: Tensor

    def __init__(
        self,
        method: str = "standardize",
        in_channels: int = 3,
        image_size: int = 32,
        *,
        scope: str = "all",
        eps: float = 0.0,
        components: int | float | None = None,
        contrast: str | None = None,
    ) -> None:
        """Choose a method; the keyword arguments are for the decorrelating methods.

        Args:
            method: none, standardize, zca, pca, cholesky, zca_cor or pca_cor.
            in_channels: Channels of the images.
            image_size: Height and width of the images in pixels.
            scope: all, pixels_per_channel or channel_values.
            eps: Added to the eigenvalues, in units of pixels in [0, 1] (those of CIFAR-10 range from 55 to 2e-6; 0.01
                to 1 are usual) or, for zca_cor and pca_cor, of correlations; 0 makes training images exactly white.
            components: For pca and pca_cor, the number of components to keep, or the share of the variance, in (0, 1].
                The others are zero, so that the output has the size of the images.
            contrast: pylearn2 or coates: first bring each image to mean 0 and the same contrast (needs eps: the
                published CIFAR-10 has pylearn2 and 0.1).

        """
        check_kinds(inspect.signature(Whitening).parameters, locals(), "whitening: ")
        super().__init__()
        check_known("whitening", METHODS, method)
        self.method, self.in_channels, self.image_size = method, in_channels, image_size
        self.shape = (in_channels, image_size, image_size)
        self.scope, self.contrast, self.eps, self.components = scope, contrast, as_plain(eps), as_plain(components)
        self._check()
        self.decorrelates = method in DECORRELATING
        if self.decorrelates:
            for name in ("mean", "matrix", "spectrum"):
                self.register_buffer(name, torch.empty(0))
        else:
            for name, value in (("mean", 0.0), ("std", 1.0)):
                self.register_buffer(name, torch.full((in_channels,), value if method == "none" else torch.nan))
        self.fitted = method == "none"
        self.register_load_state_dict_pre_hook(_expect)  # type: ignore[no-untyped-call]

    @property
    def spec(self) -> str | Spec:
        """The method and its options as plain data, for `make_whitening`."""
        parameters = [p for p in inspect.signature(Whitening).parameters.values() if p.kind is p.KEYWORD_ONLY]
        options = {p.name: getattr(self, p.name) for p in parameters if getattr(self, p.name) != p.default}
        return {"name": self.method, **options} if options else self.method

    def _check(self) -> None:
        if self.method not in DECORRELATING and isinstance(self.spec, dict):
            raise ValueError(f"whitening {self.method} takes no options; {', '.join(DECORRELATING)} do")
        check_known("whitening scope", SCOPES, self.scope)
        if self.contrast is not None:
            check_known("contrast normalisation", CONTRASTS, self.contrast)
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"whitening: eps is added to variances and must be at least 0, got {self.eps}")
        if self.contrast is not None and self.eps == 0:
            raise ValueError("contrast normalisation leaves a direction without variance; give eps > 0 (0.1 is usual)")
        if self.components is not None:
            if self.method not in PRINCIPAL:
                raise ValueError(f"only {' and '.join(PRINCIPAL)} take components; leave it out for {self.method}")
            whole = isinstance(self.components, int)
            if self.components < 1 if whole else not 0 < self.components <= 1:
                raise ValueError(f"components must be at least 1, or a share in (0, 1], got {self.components}")
        size = self.in_channels * self.image_size**2
        if self.method in DECORRELATING and self.scope == "all" and size > LARGEST:
            raise ValueError(
                f"whitening {size:,} values together needs a matrix of {8 * size**2 / 1e9:.0f} GB; "
                "resize the images (--data.image_size=32), or choose scope=channel_values"
            )

    def fit(
        self, images: Tensor, samples: Tensor | None = None, *, chunk: int = CHUNK, across_processes: bool = False
    ) -> "Whitening":
        """Compute the statistics of uint8 images (N, C, H, W), or of those at the positions `samples` (M,).

        Sums are integers, so the result is the same bit for bit in any order and chunking, and on any number of
        processes (`across_processes`: each process of torch's default group reads its share). The images may be
        memory-mapped. A constant channel or pixel is only centred. Issues a UserWarning if directions have no
        variance. Raises ValueError for other types or shapes, and if the method needs eps > 0.
        """
        if self.method == "none":
            return self
        any_size = self._takes_any_size()
        fits = images.shape[1:2] == self.shape[:1] if any_size else images.shape[1:] == self.shape
        if images.dtype != torch.uint8 or images.ndim != 4 or not fits:
            wanted = f"(N, {self.in_channels}, H, W)" if any_size else f"(N, {', '.join(map(str, self.shape))})"
            given = f"{images.dtype} of shape {tuple(images.shape)}; in_channels and image_size are its options"
            raise ValueError(f"whitening is fitted on uint8 images of shape {wanted}, got {given}")
        samples = torch.arange(len(images)) if samples is None else samples
        if len(samples) == 0:
            raise ValueError("whitening needs at least one training image")
        scope = self.scope if self.decorrelates else "channel_values"
        moments = measure(images, samples, scope, self.contrast, chunk=chunk, across_processes=across_processes)
        self._set(moments, len(samples))
        self.fitted = True
        return self

    def _set(self, moments: Moments, images: int) -> None:
        unit = 1.0 if self.contrast else 255.0
        mean, covariance = moments.mean() / unit, moments.covariance().div_(unit**2)
        if not self.decorrelates:
            std = covariance[0].diagonal().sqrt()
            self.mean.copy_(mean[0])
            self.std.copy_(torch.where(std > 0, std, 1.0))
            return
        del moments.products  # 75 MB for CIFAR-10, which the decomposition needs
        found = [decorrelation(c, self.method, self.eps, self.components) for c in covariance]
        warn_of_rank(images, covariance, min(d.rank for d in found), self.eps)
        kept = max(len(d.matrix) for d in found)
        self.mean = mean.to(self.mean)
        self.matrix = torch.stack([F.pad(d.matrix, (0, 0, 0, kept - len(d.matrix))) for d in found]).to(self.mean)
        self.spectrum = torch.stack([d.spectrum for d in found]).to(self.mean)

    def forward(self, images: Tensor) -> Tensor:
        """Whiten images. Raises ValueError if there are no statistics yet, or if the images have the wrong size."""
        self._check_ready(images)
        if not self.decorrelates:
            scale = (self.std * (255.0 if images.dtype == torch.uint8 else 1.0)).reciprocal()
            x = images.to(self.mean.dtype)  # (x - mean) / std = x / std - mean / std
            shared = x is images or is_batched(scale)  # by the caller, or by the models of a vmap
            x = x * scale[:, None, None] if shared else x.mul_(scale[:, None, None])
            return x.sub_((self.mean / self.std)[:, None, None])
        with torch.autocast(images.device.type, enabled=False):  # 16 bits lose the small eigenvalues, and overflow
            pixels = images.to(wide := torch.promote_types(self.mean.dtype, torch.float32))
            if self.contrast is not None:
                pixels = normalise_contrast(pixels if images.dtype == torch.uint8 else 255 * pixels, self.contrast)
            elif images.dtype == torch.uint8:
                pixels = pixels / 255
            centred = vectors(pixels, self.scope) - self.mean[:, None]
            white = F.pad(centred @ self.matrix.mT.to(wide), (0, self.mean.shape[1] - self.matrix.shape[1]))
            return images_of(white, self.scope, images.shape).to(self.mean.dtype)

    def inverse(self, x: Tensor) -> Tensor:
        """Turn network inputs (N, C, H, W) back into images, float in [0, 1] up to rounding, to draw them.

        Lost information is not restored: directions without variance and omitted components become the mean, and with
        `contrast` images keep mean 0.
        """
        self._check_ready(x)
        if not self.decorrelates:
            return x * self.std[:, None, None] + self.mean[:, None, None]
        back = [pseudo_inverse(w, s, self.eps) for w, s in zip(self.matrix, self.spectrum, strict=True)]
        kept = vectors(x, self.scope)[..., : self.matrix.shape[1]]
        return images_of(kept @ torch.stack(back).to(x.dtype).mT + self.mean[:, None], self.scope, x.shape)

    def plot(self, images: Tensor) -> Figure:
        """Plot images (N, C, H, W) before and after, the eigenvalues of the covariance, and some filters."""
        return plot_whitening(self, images, f"whitening: {self.extra_repr().removesuffix(', fitted=True')}")

    def _takes_any_size(self) -> bool:
        return not self.decorrelates or (self.scope == "channel_values" and self.contrast is None)

    def _check_ready(self, images: Tensor) -> None:
        check_dtype(images)
        if not self.fitted and not known(self.mean):  # an average of weights copies the buffers alone
            raise ValueError(
                "this model's whitening has no statistics yet. Load trained weights (cvcc_zoo.load(checkpoint), or "
                "--ckpt_path=... on the command line), train it with an ImageDataModule, call "
                "model.whitening.fit(images) with uint8 training images, or build it with whitening='none'"
            )
        if not self._takes_any_size() and images.shape[1:] != self.shape:
            mine, given = ("x".join(map(str, s)) for s in (self.shape, images.shape[1:]))
            raise ValueError(
                f"this whitening was fitted on images of {mine}, got {given}; resize them "
                f"(--data.image_size={self.image_size}), or whiten with scope=channel_values, which takes any size"
            )

    def extra_repr(self) -> str:
        """Return the method, its options, and whether it is fitted."""
        options = f", {self.scope}, eps={self.eps:g}" if self.decorrelates else ""
        for name in ("components", "contrast"):
            options += "" if getattr(self, name) is None else f", {name}={getattr(self, name)}"
        return f"{self.method}{options}, fitted={self.fitted}"


def _expect(whitening: Whitening, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Before a state is loaded: give the statistics its shapes, and see whether it has any."""
    for name, buffer in whitening.named_buffers():
        if (saved := state.get(prefix + name, buffer)).shape != buffer.shape and whitening.decorrelates:
            setattr(whitening, name, torch.full_like(saved, torch.nan, device=buffer.device, dtype=buffer.dtype))
    whitening.fitted = known(state.get(f"{prefix}mean", whitening.mean))


def make_whitening(spec: str | Mapping[str, Any], in_channels: int, image_size: int) -> Whitening:
    """Build a whitening from a method or `{"name": ..., option: value}`. ValueError suggests the nearest names."""
    options = as_spec("whitening", spec)
    name = pick("whitening", options.pop("name"), METHODS)
    check_options(f"whitening {name}", Whitening, options, skip=("method", "in_channels", "image_size"))
    return Whitening(name, in_channels, image_size, **options)
