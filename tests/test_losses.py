import math

import pytest
import torch
import torch.nn.functional as F

from cvcc_zoo.losses import make_loss

LOGITS = torch.tensor([[3.0, 1.0, -2.0, 0.5]], dtype=torch.float64)
LABEL = torch.tensor([1])


@pytest.mark.parametrize(
    ("spec", "value", "gradient"),
    [
        ("hinge", 3.5, [1, -2, 0, 1]),
        ({"name": "hinge", "power": 2}, 9.25, [6, -7, 0, 1]),
        ("squared_error", 13.25, [6, 0, -4, 1]),
        ("cross_entropy", 2.202253447679, [0.816888, -0.889446, 0.005504, 0.067054]),
        (
            {"name": "cross_entropy", "label_smoothing": 0.1},
            2.239753447679,
            [0.791888, -0.814446, -0.019496, 0.042054],
        ),
    ],
)
def test_values_and_gradients_are_those_of_the_definition(spec: object, value: float, gradient: list[float]) -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = make_loss(spec)(logits, LABEL)  # type: ignore[arg-type]
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(value, abs=1e-11)
    assert logits.grad is not None
    assert torch.allclose(logits.grad[0], torch.tensor(gradient, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("power", [1, 2])
def test_the_hinge_is_the_sum_where_torch_takes_the_mean_over_the_classes(power: int) -> None:
    logits, labels = torch.randn(16, 10, dtype=torch.float64), torch.randint(10, (16,))
    ours = make_loss({"name": "hinge", "power": power})(logits, labels)
    assert torch.allclose(ours, 10 * F.multi_margin_loss(logits, labels, p=power))


def test_uniform_logits_cost_the_logarithm_of_the_number_of_classes() -> None:
    assert make_loss("cross_entropy")(torch.zeros(4, 10), torch.arange(4)).item() == pytest.approx(math.log(10))


def test_an_unknown_loss_or_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no loss named 'cross_entrpy'; did you mean cross_entropy"):
        make_loss("cross_entrpy")
    with pytest.raises(ValueError, match="no option of loss hinge named 'margn'; did you mean margin"):
        make_loss({"name": "hinge", "margn": 2})
