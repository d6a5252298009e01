"""PCA: an exact factorisation, in any batching."""

import pytest
import torch

from cvcc_zoo.linear import PCA


def vectors(count: int = 500, size: int = 20) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(count, size) @ torch.randn(size, size) + 100 * torch.randn(size)


def test_components_are_uncorrelated_and_have_the_variances_of_the_spectrum() -> None:
    x = vectors()
    pca = PCA(20).fit([x])
    z = pca(x).double()
    covariance = z.T.cov(correction=0)
    assert torch.allclose(covariance, pca.spectrum.double().diag(), atol=1e-3 * float(pca.spectrum[0]) / 10)
    assert torch.equal(pca.spectrum, pca.spectrum.sort(descending=True).values)


def test_they_are_the_singular_vectors_of_the_centred_data() -> None:
    x = vectors().double()
    _, singular, right = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    pca = PCA(5).fit([x])
    torch.testing.assert_close(pca.spectrum.double(), singular**2 / len(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((pca.basis.double() * right[:5]).sum(1).abs(), torch.ones(5).double(), atol=1e-6, rtol=0)
    largest = pca.basis.gather(1, pca.basis.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_batches_do_not_matter_and_a_large_mean_takes_no_digits_away() -> None:
    x = vectors() + 1e4
    one, many = PCA(20).fit([x]), PCA(20).fit(torch.split(x, 7))
    torch.testing.assert_close(one.spectrum, many.spectrum, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.spectrum, PCA(20).fit([x - 1e4]).spectrum, rtol=1e-2, atol=1e-3)


def test_all_components_give_the_vectors_back() -> None:
    x = vectors()
    pca = PCA(20).fit([x])
    torch.testing.assert_close(pca(x) @ pca.basis + pca.mean, x, atol=1e-3, rtol=0)


def test_whitened_components_have_variance_one() -> None:
    x = vectors()
    z = PCA(5, whiten=True).fit([x])(x)
    torch.testing.assert_close(z.T.cov(correction=0), torch.eye(5), atol=1e-3, rtol=0)


def test_autocast_does_not_touch_them() -> None:
    x = vectors()
    pca = PCA(20, whiten=True).fit([x])
    with torch.autocast("cpu", torch.bfloat16):
        inside = pca(x)
    assert torch.equal(inside, pca(x))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_share_takes_as_few_components_as_keep_it(share: float) -> None:
    pca = PCA(share).fit([vectors()])
    shares = pca.spectrum.cumsum(0) / pca.spectrum.sum()
    kept = len(pca.basis)
    assert shares[kept - 1] >= share - 1e-6 and (kept == 1 or shares[kept - 2] < share)


def test_it_is_kept_with_the_weights() -> None:
    pca, other = PCA(3).fit([vectors()]), PCA(3)
    for name, tensor in pca.state_dict().items():
        setattr(other, name, tensor)
    assert torch.equal(pca(vectors()), other(vectors()))


@pytest.mark.parametrize("components", [0, -1, 0.0, 1.0, 1.5, True, "all", None])
def test_wrong_components_are_told(components: object) -> None:
    with pytest.raises(ValueError, match="PCA: components must be at least 1, or a share"):
        PCA(components)  # type: ignore[arg-type]


def test_more_components_than_directions_are_told() -> None:
    with pytest.raises(ValueError, match="PCA: 9 components of vectors that vary in 4 directions; choose at most 4"):
        PCA(9).fit([vectors(5)])
    with pytest.raises(ValueError, match="PCA needs at least two vectors, got 1"):
        PCA(1).fit([vectors(1)])


def test_wrong_use_is_told() -> None:
    with pytest.raises(ValueError, match="this PCA is not fitted"):
        PCA(3)(vectors())
    with pytest.raises(ValueError, match="takes vectors of 20 numbers, got 19"):
        PCA(3).fit([vectors()])(vectors()[:, :19])
