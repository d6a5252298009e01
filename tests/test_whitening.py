"""Whitening: what it does to the covariance of real images, and that it is exact, kept and undone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses import FakeTensorMode

from cvcc_zoo.data import ImageDataModule, Whitening
from cvcc_zoo.data.contrast import CONTRASTS, fixed_point, normalise_contrast
from cvcc_zoo.data.decorrelation import METHODS
from cvcc_zoo.data.moments import SCOPES, images_of, measure, vectors
from tests.reliability.processes import at_once

EYE = torch.eye(108, dtype=torch.float64)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Real patches (3000, 3, 6, 6) whose channels lie below one another: strongly correlated, of full rank."""
    clothes, _, samples = ImageDataModule().training_images()
    middle = clothes[samples[:3000], 0]
    return torch.stack([middle[:, row : row + 6, 11:17] for row in (5, 11, 17)], 1)


def whitening(method: str, **options: object) -> Whitening:
    return Whitening(method, 3, 6, **options).double()  # type: ignore[arg-type]


def covariance(x: Tensor, scope: str = "all") -> Tensor:
    v = vectors(x.double(), scope)
    v = v - v.mean(1, keepdim=True)
    return v.mT @ v / v.shape[1]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("method", METHODS)
def test_whitened_images_have_the_identity_as_covariance(images: Tensor, method: str, scope: str) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        x = whitening(method, scope=scope).to(dtype).fit(images)(images)
        assert x.dtype == dtype and x.shape == images.shape
        for group in covariance(x, scope):
            assert (group - torch.eye(len(group))).abs().max() < tolerance
        assert vectors(x, scope).mean(1).abs().max() < tolerance


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("method", METHODS)
def test_with_eps_the_covariance_is_smaller_by_eps_w_w(images: Tensor, method: str, scope: str) -> None:
    eps = 0.01
    fitted = whitening(method, scope=scope, eps=eps).fit(images)
    original = covariance(images / 255.0, scope)
    for w, before, after in zip(fitted.matrix, original, covariance(fitted(images), scope), strict=True):
        added = torch.diag(before.diagonal()) if method.endswith("_cor") else torch.eye(len(w))
        assert (after - (torch.eye(len(w)) - eps * w @ added.double() @ w.T)).abs().max() < 1e-7


@pytest.mark.parametrize("method", ["zca", "pca", "zca_cor", "pca_cor"])
def test_with_eps_each_direction_keeps_the_share_l_over_l_plus_eps(images: Tensor, method: str) -> None:
    original = covariance(images.double() / 255)[0]
    if method.endswith("_cor"):
        scale = original.diagonal().rsqrt()
        original = scale[:, None] * original * scale
    values, axes = torch.linalg.eigh(original)
    shares = torch.diag(values / (values + 0.01))
    expected = axes @ shares @ axes.T if method.startswith("zca") else shares.flip(0, 1)
    found = covariance(whitening(method, eps=0.01).fit(images)(images))[0]
    assert torch.allclose(found, expected, atol=1e-10)


def test_zca_is_nearer_to_the_images_than_any_rotation_of_it(images: Tensor) -> None:
    centred = vectors(images.double() / 255, "all")[0]
    centred = centred - centred.mean(0)
    white = vectors(whitening("zca").fit(images)(images), "all")[0]
    distance = (white - centred).square().sum()
    generator = torch.Generator().manual_seed(0)
    for size in (1.0, 1e-2, 1e-4):
        for _ in range(20):
            turn = torch.randn(108, 108, generator=generator, dtype=torch.float64)
            rotation = torch.matrix_exp(size * (turn - turn.T))
            assert (white @ rotation.T - centred).square().sum() > distance


def test_zca_cor_is_more_correlated_with_the_images_than_the_others(images: Tensor) -> None:
    centred = vectors(images.double() / 255, "all")[0]
    centred = (centred - centred.mean(0)) / centred.std(0, correction=0)
    total = {m: float((vectors(whitening(m).fit(images)(images), "all")[0] * centred).sum()) for m in METHODS}
    assert max(total, key=lambda m: total[m]) == "zca_cor"


def test_cholesky_is_the_upper_triangle_whose_square_is_the_inverse_covariance(images: Tensor) -> None:
    w = whitening("cholesky").fit(images).matrix[0]
    assert torch.equal(w, w.triu())
    assert torch.allclose(w.T @ w @ covariance(images.double() / 255)[0], EYE, atol=1e-8)


def test_pca_sorts_components_and_fixes_their_signs(images: Tensor) -> None:
    fitted = whitening("pca").fit(images)
    assert (fitted.spectrum[0].diff() <= 0).all()
    largest = fitted.matrix[0].gather(1, fitted.matrix[0].abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    centred = vectors(images.double() / 255, "all")[0]
    values = torch.linalg.svdvals(centred - centred.mean(0)).square() / len(images)
    assert torch.allclose(fitted.spectrum[0], values, atol=1e-10)


def test_pca_keeps_some_components_or_a_share_of_the_variance(images: Tensor) -> None:
    whole = whitening("pca").fit(images)
    ten = whitening("pca", components=10).fit(images)
    x = ten(images)
    assert torch.allclose(vectors(x, "all")[0, :, :10], vectors(whole(images), "all")[0, :, :10])
    assert x.shape == images.shape and (vectors(x, "all")[0, :, 10:] == 0).all()
    shares = whole.spectrum[0].cumsum(0) / whole.spectrum[0].sum()
    kept = len(whitening("pca", components=0.95).fit(images).matrix[0])
    assert shares[kept - 1] >= 0.95 > shares[kept - 2]


def test_the_statistics_are_bitwise_the_same_in_any_order_and_chunking(images: Tensor) -> None:
    order = torch.randperm(len(images))
    for method, options in (("standardize", {}), ("zca", {}), ("zca", {"contrast": "pylearn2", "eps": 0.1})):
        for scope in SCOPES if options else ("all",):
            kwargs = {**options, "scope": scope}
            first = Whitening(method, 3, 6, **kwargs).fit(images)  # type: ignore[arg-type]
            second = Whitening(method, 3, 6, **kwargs).fit(images.flip(0), order, chunk=7)  # type: ignore[arg-type]
            for name, value in first.state_dict().items():
                assert torch.equal(value, second.state_dict()[name]), (method, scope, name)


@pytest.mark.parametrize("options", [{}, {"contrast": "coates", "eps": 0.1}])
def test_no_images_are_whitened_to_none(images: Tensor, options: dict[str, Any]) -> None:
    assert Whitening("zca", 3, 6, **options).fit(images)(images[:0]).shape == (0, 3, 6, 6)


def test_moments_are_the_sums_of_integers(images: Tensor) -> None:
    for scope in SCOPES:
        moments = measure(images, torch.arange(len(images)), scope)
        v = vectors(images.long() - 128, scope)
        assert torch.equal(moments.total.long(), v.sum(1))
        assert torch.equal(moments.products.long(), (v.double().mT @ v.double()).long())
        expected = np.cov(vectors(images, scope)[0].numpy().astype(np.float64).T, ddof=0)
        assert np.allclose(moments.covariance()[0].numpy(), expected, rtol=1e-12, atol=1e-9)


def test_sums_stay_exact_where_float32_alone_would_round() -> None:
    images = torch.full((3000, 1, 4, 4), 0, dtype=torch.uint8)  # 3000 * 128^2 > 2^24
    images[::2, :, 1] = 255
    for scope, contrast in (("all", None), ("channel_values", None), ("channel_values", "coates")):
        moments = measure(images, torch.arange(3000), scope, contrast)
        integers = images.double() - 128 if contrast is None else fixed_point(images, contrast)[0]
        v = vectors(integers.long(), scope)
        assert torch.equal(moments.products.long(), (v[..., None] * v[..., None, :]).sum(1))


def test_all_images_alike_become_zero() -> None:
    with pytest.warns(UserWarning, match="has rank 0: 48 of the pixels are the same"):
        fitted = Whitening("zca", 3, 4).fit(torch.full((9, 3, 4, 4), 200, dtype=torch.uint8))
    assert (fitted(torch.full((2, 3, 4, 4), 200, dtype=torch.uint8)) == 0).all()


def test_large_matrices_are_counted_by_blocks_with_the_same_sums() -> None:
    images = torch.randint(0, 256, (40, 3, 20, 20), dtype=torch.uint8)
    moments = measure(images, torch.arange(40), "all")
    v = vectors(images.double() - 128, "all")
    assert torch.equal(moments.products, v.mT @ v)


def _measure_share(rank: int, folder: str) -> None:
    store = dist.FileStore(f"{folder}/store", 2)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    images = torch.load(f"{folder}/images.pt")
    fitted = Whitening("zca", 3, 6).fit(images, across_processes=True)
    torch.save(fitted.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_find_bitwise_what_one_finds(images: Tensor, tmp_path: Path) -> None:
    torch.save(images, tmp_path / "images.pt")
    at_once(2, _measure_share, str(tmp_path))
    one = Whitening("zca", 3, 6).fit(images).state_dict()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.equal(found[name], value) for name, value in one.items())


def test_images_may_be_memory_mapped(images: Tensor, tmp_path: Path) -> None:
    images.numpy().tofile(tmp_path / "pixels")
    mapped = torch.from_file(str(tmp_path / "pixels"), size=images.numel(), dtype=torch.uint8).view(images.shape)
    assert torch.equal(Whitening("zca", 3, 6).fit(mapped).matrix, Whitening("zca", 3, 6).fit(images).matrix)


@pytest.mark.parametrize("contrast", [None, "coates"])
def test_images_may_be_on_a_gpu(contrast: str | None) -> None:
    with FakeTensorMode():
        images = torch.zeros(8, 3, 6, 6, dtype=torch.uint8, device="cuda")
        for samples in (torch.arange(8), torch.arange(8, device="cuda")):
            assert measure(images, samples, "all", contrast).products.device.type == "cpu"


def test_only_the_chosen_samples_count(images: Tensor) -> None:
    chosen = torch.arange(0, 3000, 3)
    for method in ("standardize", "pca"):
        first = Whitening(method, 3, 6).fit(images, chosen)
        assert torch.equal(first.mean, Whitening(method, 3, 6).fit(images[chosen]).mean)


def test_standardize_gives_mean_0_and_variance_1() -> None:
    images = torch.randint(30, 200, (50, 3, 8, 8), dtype=torch.uint8)
    x = Whitening("standardize", 3).fit(images)(images).double()
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(x.var((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("method", ["standardize", "zca"])
def test_uint8_and_float_images_are_the_same_to_the_model(images: Tensor, method: str) -> None:
    fitted = Whitening(method, 3, 6).fit(images)
    assert torch.allclose(fitted(images), fitted(images.float() / 255), atol=1e-3, rtol=1e-4)


def test_a_constant_channel_is_only_centred() -> None:
    images = torch.full((4, 1, 8, 8), 51, dtype=torch.uint8)
    assert torch.allclose(Whitening("standardize", 1).fit(images)(images), torch.zeros(4, 1, 8, 8), atol=1e-7)


@pytest.mark.parametrize("method", ["zca", "pca", "zca_cor", "pca_cor"])
def test_constant_pixels_become_zero_and_are_told(images: Tensor, method: str) -> None:
    framed = images.clone()
    framed[:, :, 0] = 17
    with pytest.warns(
        UserWarning, match="rank 108, and this one has rank 90: 18 of the pixels are the same in all images"
    ):
        fitted = whitening(method).fit(framed)
    found = covariance(fitted(framed))[0]
    assert torch.allclose(found @ found, found, atol=1e-10) and found.trace().item() == pytest.approx(90)
    if method.startswith("zca"):
        assert fitted(framed)[:, :, 0].abs().max() < 1e-10


def test_fewer_images_than_pixels_give_a_projector_and_the_rank(images: Tensor) -> None:
    with pytest.warns(UserWarning, match="rank 108, and this one has rank 49: there are 50 images"):
        fitted = whitening("zca").fit(images[:50])
    found = covariance(fitted(images[:50]))[0]
    assert torch.allclose(found @ found, found, atol=1e-10) and found.trace().item() == pytest.approx(49)


def test_held_out_gaussian_images_are_less_white_by_the_known_factor() -> None:
    generator = torch.Generator().manual_seed(0)
    count, size = 400, 48
    draws = torch.randn(20_000, 3, 4, 4, generator=generator, dtype=torch.float64) * 20 + 128
    images = draws.round().clamp(0, 255).to(torch.uint8)
    fitted = Whitening("zca", 3, 4).double().fit(images[:count])
    held_out = vectors(fitted(images[count:]), "all")[0]
    assert held_out.square().mean().item() == pytest.approx(count / (count - size - 1), rel=0.02)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("method", ["none", "standardize", *METHODS])
def test_the_inverse_gives_the_images_back(images: Tensor, method: str, scope: str) -> None:
    options = {"scope": scope} if method in METHODS else {}
    fitted = whitening(method, **options).fit(images)
    assert torch.allclose(fitted.inverse(fitted(images)), images.double() / 255, atol=1e-7)
    if options:
        smooth = whitening(method, eps=0.1, **options).fit(images)
        assert torch.allclose(smooth.inverse(smooth(images)), images.double() / 255, atol=1e-7)


@pytest.mark.filterwarnings("ignore:whitening 108 values together needs a covariance of rank")
@pytest.mark.parametrize("eps", [0.0, 1e-4, 0.1])
@pytest.mark.parametrize("method", METHODS)
def test_the_inverse_gives_images_with_constant_pixels_back(images: Tensor, method: str, eps: float) -> None:
    if method == "cholesky" and eps == 0:
        pytest.skip("it refuses constant pixels")
    framed = images.clone()
    framed[:, :, 0], framed[:, 1, 3, 3] = 7, 0
    fitted = Whitening(method, 3, 6, eps=eps).fit(framed)
    assert torch.allclose(fitted.inverse(fitted(framed)), framed / 255, atol=1e-5)


@pytest.mark.filterwarnings("ignore:whitening 108 values together needs a covariance of rank")
@pytest.mark.parametrize("method", ["zca", "pca"])
def test_the_inverse_gives_fewer_images_than_pixels_back(images: Tensor, method: str) -> None:
    fitted = Whitening(method, 3, 6).fit(images[:40])
    assert torch.allclose(fitted.inverse(fitted(images[:40])), images[:40] / 255, atol=1e-5)


def test_the_components_of_correlations_are_drawn_also_where_a_pixel_hardly_varies(images: Tensor) -> None:
    framed = images.clone()
    framed[:, :, 0, 0] = 7
    framed[range(3), range(3), 0, 0] = 8
    drawn = [
        axes for axes in Whitening("pca_cor", 3, 6).fit(framed).plot(framed[:2]).axes if "24 comp" in axes.get_title()
    ]
    (picture,) = drawn[0].images
    assert np.abs(np.asarray(picture.get_array()) - 0.5).mean() > 0.2


def test_vectors_and_images_are_two_views_of_the_same(images: Tensor) -> None:
    for scope in SCOPES:
        assert torch.equal(images_of(vectors(images, scope), scope, images.shape), images)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_images_without_contrast_have_a_gradient(contrast: str) -> None:
    black = torch.zeros(1, 3, 4, 4, requires_grad=True)
    normalise_contrast(black, contrast).sum().backward()  # type: ignore[no-untyped-call]
    assert black.grad is not None and black.grad.isfinite().all()


def test_contrast_normalisation_follows_its_two_sources(images: Tensor) -> None:
    pixels = images.double()
    centred = pixels - pixels.mean((1, 2, 3), keepdim=True)
    norm = centred.flatten(1).norm(dim=1)[:, None, None, None]
    assert torch.allclose(normalise_contrast(pixels, "pylearn2"), 55 * centred / norm)
    variance = centred.flatten(1).var(1)[:, None, None, None]
    assert torch.allclose(normalise_contrast(pixels, "coates"), centred / (variance + 10).sqrt())
    for method in ("pylearn2", "coates"):
        integers, unit = fixed_point(images, method)
        assert (integers * unit - normalise_contrast(pixels, method)).abs().max() < 1e-3
    flat = torch.full((1, 3, 6, 6), 9.0)
    assert (normalise_contrast(flat, "pylearn2") == 0).all() and (normalise_contrast(flat, "coates") == 0).all()


@pytest.mark.parametrize("options", [{}, *({"contrast": name} for name in CONTRASTS)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_16_bits_images_are_whitened_as_in_32_up_to_the_rounding_of_the_statistics(
    images: Tensor, options: dict[str, str], dtype: torch.dtype
) -> None:
    fitted = Whitening("zca", 3, 6, eps=0.1, **options).fit(images)  # type: ignore[arg-type]
    expected = fitted(images)
    x = fitted.to(dtype)(images)
    assert x.dtype == dtype
    assert (x - expected).square().mean() < 1e-3 * expected.square().mean()


@pytest.mark.parametrize("contrast", ["pylearn2", "coates"])
def test_the_published_pipeline_of_contrast_and_zca_is_white_up_to_its_eps(images: Tensor, contrast: str) -> None:
    fitted = whitening("zca", contrast=contrast, eps=0.1).fit(images)
    values, axes = torch.linalg.eigh(covariance(normalise_contrast(images.double(), contrast))[0])
    expected = axes @ torch.diag(values / (values + 0.1)) @ axes.T
    assert torch.allclose(covariance(fitted(images))[0], expected, atol=5e-5)  # pixels are rounded to 17 bits


def test_autocast_does_not_touch_the_whitening(images: Tensor) -> None:
    fitted = Whitening("zca", 3, 6).fit(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fitted(images), fitted(images.clone())) and fitted(images).dtype == torch.float32
        inside = fitted(images)
    assert torch.equal(inside, fitted(images))


@pytest.mark.parametrize("scope", SCOPES)
def test_autocast_does_not_touch_the_moments(images: Tensor, scope: str) -> None:
    samples = torch.arange(len(images))
    with torch.autocast("cpu", torch.bfloat16):
        inside = measure(images, samples, scope)
    assert torch.equal(inside.products, measure(images, samples, scope).products)


@pytest.mark.parametrize("options", [{}, {"components": 0.9}, {"scope": "pixels_per_channel"}])
def test_whitening_keeps_its_statistics_in_the_state_dict(images: Tensor, options: dict[str, object]) -> None:
    for method in ("pca",) if options else ("pca", "standardize"):
        fitted = Whitening(method, 3, 6, **options).fit(images)  # type: ignore[arg-type]
        fresh = Whitening(method, 3, 6, **options)  # type: ignore[arg-type]
        fresh.load_state_dict(fitted.state_dict())
        assert fresh.fitted and torch.equal(fresh(images), fitted(images))


def test_whitening_before_it_was_fitted_says_what_to_do() -> None:
    for method in ("standardize", "zca"):
        with pytest.raises(ValueError, match=r"no statistics yet\. Load trained weights"):
            Whitening(method, 3)(torch.zeros(1, 3, 8, 8))


def test_images_of_another_size_are_refused_where_it_matters(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"fitted on images of 3x6x6, got 3x5x5; resize them \(--data.image_size=6\)"):
        Whitening("zca", 3, 6).fit(images)(images[..., :5, :5])
    assert Whitening("zca", 3, 6, scope="channel_values").fit(images)(images[..., :5, :5]).shape[2:] == (5, 5)


@pytest.mark.parametrize(
    ("method", "images", "wanted"),
    [
        ("standardize", torch.zeros(4, 3, 8, 8), r"\(N, 3, H, W\)"),
        ("standardize", torch.zeros(4, 1, 8, 8, dtype=torch.uint8), r"\(N, 3, H, W\)"),
        ("zca", torch.zeros(4, 3, 8, 8, dtype=torch.uint8), r"\(N, 3, 6, 6\)"),
    ],
)
def test_whitening_is_fitted_on_uint8_images_of_its_shape(method: str, images: Tensor, wanted: str) -> None:
    with pytest.raises(ValueError, match=rf"uint8 images of shape {wanted}"):
        Whitening(method, 3, 6).fit(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "zac"}, "no whitening named 'zac'; did you mean zca"),
        ({"scope": "pixel"}, "no whitening scope named 'pixel'; did you mean pixels_per_channel"),
        ({"eps": -1.0}, "eps is added to variances and must be at least 0"),
        ({"eps": float("nan")}, "eps is added to variances"),
        ({"contrast": "pylearn"}, "did you mean pylearn2"),
        ({"contrast": "pylearn2"}, r"give eps > 0 \(0.1 is usual\)"),
        ({"components": 5}, "only pca and pca_cor take components; leave it out for zca"),
        ({"method": "pca", "components": 0}, "at least 1, or a share"),
        ({"method": "pca", "components": 1.5}, r"a share in \(0, 1\]"),
        ({"method": "standardize", "eps": 0.1}, "whitening standardize takes no options"),
        ({"image_size": 224}, r"whitening 150,528 values together needs a matrix of 181 GB; resize the images"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Whitening(**{"method": "zca", "in_channels": 3, "image_size": 6, **options})  # type: ignore[arg-type]


def test_cholesky_without_full_rank_asks_for_eps(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"full rank, and this one has rank 19 of 108; give eps > 0"):
        whitening("cholesky").fit(images[:20])
    x = whitening("cholesky", eps=0.01).fit(images[:20])(images[:20])
    assert torch.isfinite(x).all()


def test_the_progress_bar_shows_only_to_a_terminal(images: Tensor, capfd: pytest.CaptureFixture[str]) -> None:
    Whitening("zca", 3, 6).fit(images)
    assert capfd.readouterr() == ("", "")
