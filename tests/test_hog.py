"""HOG: scikit-image's numbers, much sooner, and differentiable."""

import time
from typing import Any, get_args

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from matplotlib.collections import LineCollection
from skimage.feature import hog
from torch.utils._python_dispatch import TorchDispatchMode

import cvcc_zoo
from cvcc_zoo.linear import HOG
from cvcc_zoo.linear.hog import Norm
from cvcc_zoo.linear.hog_figure import plot_hog


def real_images(count: int, channels: int = 1) -> torch.Tensor:
    images = cvcc_zoo.ImageDataModule(in_channels=channels).training_images()[0][:count]
    if channels == 3:  # colours that differ
        images = torch.stack([images[:, 0], images[:, 1].roll(3, -1), images[:, 2].flip(-2)], 1)
    return images


def skimage_hog(images: torch.Tensor, **options: object) -> np.ndarray:
    names = {"orientations": "orientations", "norm": "block_norm"}
    given = {names[key]: value for key, value in options.items() if key in names}
    cell, block = options.get("cell", 4), options.get("block", 2)
    found = [
        hog(
            image.permute(1, 2, 0).double().numpy(), pixels_per_cell=(cell, cell), cells_per_block=(block, block),
            channel_axis=-1, **given,
        )
        for image in images
    ]  # fmt: skip
    return np.stack(found)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"norm": "L1"}, {"norm": "L1-sqrt"}, {"norm": "L2"}, {"cell": 8, "block": 1}, {"cell": 5, "block": 3},
        {"orientations": 1}, {"orientations": 6, "cell": 3},
    ],
)  # fmt: skip
def test_it_is_that_of_scikit_image(options: dict[str, object], channels: int) -> None:
    images = real_images(40, channels).double()  # whole numbers, so that two channels tie in both or in neither
    ours = HOG(**options).double()(images)  # type: ignore[arg-type]
    theirs = skimage_hog(images, **{"orientations": 9, "norm": "L2-Hys", **options})
    assert ours.shape == theirs.shape == (40, HOG(**options).size(28, 28))  # type: ignore[arg-type]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("orientations", [4, 8, 9, 12, 16])
def test_exact_diagonals_get_the_bin_of_scikit_image(orientations: int, dtype: type[np.floating[Any]]) -> None:
    generator = np.random.default_rng(0)
    for levels in (8, 256):
        pixels = (generator.integers(0, levels, (20, 16, 16)) * (256 // levels)).astype(np.uint8)
        images = (pixels / dtype(255)).astype(dtype)
        theirs = [hog(image, orientations, (4, 4), (2, 2), block_norm="L2-Hys") for image in images]
        ours = HOG(orientations)(torch.from_numpy(images)[:, None]).numpy()
        np.testing.assert_allclose(ours, np.stack(theirs), atol=1e-5)
        if dtype is np.float32:
            assert (HOG(orientations)(torch.from_numpy(pixels)[:, None]).numpy() == ours).all()


def test_diagonals_have_the_same_bins_in_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 12, (20, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = HOG(12).histograms(images)
    monkeypatch.setattr("torch.onnx.is_in_onnx_export", lambda: True)
    assert torch.equal(HOG(12).histograms(images), expected)


def test_bytes_are_read_as_0_to_1() -> None:
    images = real_images(20)
    theirs = skimage_hog(images.double() / 255, orientations=9, norm="L2-Hys")
    np.testing.assert_allclose(HOG()(images).numpy(), theirs, atol=1e-5)


def test_on_32_pixels_it_has_1764_numbers() -> None:
    assert HOG().size(32, 32) == 1764 == HOG()(torch.zeros(2, 3, 32, 32)).shape[1]


def test_brightness_and_contrast_do_not_matter() -> None:
    images = real_images(20).double() / 255
    torch.testing.assert_close(HOG().double()(images), HOG().double()(0.5 * images + 0.2), atol=1e-3, rtol=0)


def test_the_gradient_of_the_images_is_right() -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(HOG(norm="L2").double(), images)
    for norm in get_args(Norm):  # a square root has no derivative at 0
        flat = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
        HOG(norm=norm)(flat).sum().backward()
        assert flat.grad is not None and torch.isfinite(flat.grad).all()


def test_the_map_of_each_direction_is_in_memory_once() -> None:
    images, maps = torch.rand(4, 1, 16, 16), set()

    class Maps(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor) and found.numel() == 9 * images.numel():
                maps.add(found.untyped_storage().data_ptr())
            return found

    with Maps():  # type: ignore[no-untyped-call]
        HOG()(images)
    assert len(maps) == 1


def test_it_takes_many_images_in_the_time_of_a_few_of_scikit_images() -> None:
    images = real_images(2000)
    features, few = HOG(), images[:50]
    features(few)
    ratios = []
    for _ in range(3):
        begin = time.perf_counter()
        skimage_hog(few, orientations=9, norm="L2-Hys")
        middle = time.perf_counter()
        features(images)
        ratios.append((middle - begin) / len(few) / ((time.perf_counter() - middle) / len(images)))
    assert sorted(ratios)[1] > 8  # more than 20 on quiet cores


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cell": 0}, "cell must be a whole number from 1 to 255, got 0"),
        ({"orientations": 256}, "orientations must be a whole number from 1 to 255, got 256"),
        ({"orientations": 2.5}, "orientations must be a whole number"),
        ({"block": True}, "block must be a whole number"),
        ({"norm": "L3"}, "no norm of HOG named 'L3'; known are: L1, L1-sqrt, L2, L2-Hys"),
    ],
)
def test_wrong_options_are_told(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HOG(**options)  # type: ignore[arg-type]


def test_images_smaller_than_a_block_are_told() -> None:
    with pytest.raises(ValueError, match="takes images of at least 16x16 pixels, not 12x16"):
        HOG(cell=8)(torch.zeros(1, 1, 12, 16))
    with pytest.raises(ValueError, match=r"HOG takes images \(N, C, H, W\), uint8 or float, got torch.int64"):
        HOG()(torch.zeros(1, 1, 16, 16, dtype=torch.int64))


def test_the_picture_draws_edges_as_they_lie_in_the_image() -> None:
    upright = torch.zeros(1, 1, 16, 16)
    upright[..., 8:] = 1
    figure = plot_hog(HOG(), torch.cat([upright, upright.mT]), "two edges")
    images, stars = figure.axes[:2], figure.axes[2:]
    assert len(images) == len(stars) == 2
    lengths = []
    for axes in stars:
        (lines,) = axes.collections
        assert isinstance(lines, LineCollection)
        strongest = lines.get_segments()[-1]  # they are drawn in the order of their strength
        lengths.append(np.abs(strongest[1] - strongest[0]))  # across, down
    assert lengths[0][1] > 5 * lengths[0][0] and lengths[1][0] > 5 * lengths[1][1]


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
@pytest.mark.parametrize("norm", ["L1", "L2-Hys"])
def test_vectors_of_16_bit_images_are_those_of_32_bits_rounded_once(norm: Norm, precision: Any) -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).half()
    images[0] = 0.5  # without gradients
    with HalfPrecision(precision).forward_context():
        vectors = HOG(cell=4, norm=norm)(images)
    assert vectors.dtype == torch.float16
    assert torch.equal(vectors, HOG(cell=4, norm=norm)(images.float()).half())
