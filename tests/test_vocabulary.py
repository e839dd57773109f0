"""The loss in pieces against PyTorch's own, values and gradients."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from speechft.adapt import vocabulary


@pytest.fixture
def few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vocabulary.CELLS_AT_ONCE, "cpu", 3 * 50)


@pytest.mark.usefixtures("few_rows_at_once")
@pytest.mark.parametrize("taught", [False, True])
def test_value_and_gradients_are_pytorchs(taught: bool) -> None:
    torch.manual_seed(1)
    hidden, weight = torch.randn(11, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    labels, rows = torch.randint(0, 50, (11,)), slice(7)  # more than a chunk, and not a whole number of them
    old, old_weight = torch.randn(7, 8), torch.randn(50, 8)
    logits = hidden @ weight.T
    wanted = nn.functional.cross_entropy(logits, labels)
    if taught:
        own, base = logits[rows].log_softmax(-1), (old @ old_weight.T).log_softmax(-1)
        wanted = wanted + 0.7 * nn.functional.kl_div(own, base, log_target=True, reduction="batchmean")
    expected = torch.autograd.grad(3 * wanted, (hidden, weight))
    teacher = vocabulary.Teacher(hidden=old, weight=old_weight, shares=torch.full((7,), 0.7 / 7)) if taught else None
    value = vocabulary.loss(hidden, weight, labels, shares=torch.full((11,), 1 / 11), teacher=teacher)
    torch.testing.assert_close(value, wanted)
    for own, other in zip(torch.autograd.grad(3 * value, (hidden, weight)), expected, strict=True):
        torch.testing.assert_close(own, other)


def test_half_precision_is_as_close_as_pytorchs() -> None:
    torch.manual_seed(1)
    hidden, weight, labels = torch.randn(40, 64), torch.randn(500, 64) / 8, torch.randint(0, 500, (40,))

    def gradients(call, precision: torch.dtype) -> list[torch.Tensor]:
        inputs = hidden.to(precision).requires_grad_(), weight.clone().requires_grad_()
        return [g.float() for g in torch.autograd.grad(call(*inputs), inputs)]

    exact = gradients(lambda h, w: nn.functional.cross_entropy(h @ w.T, labels), torch.float32)
    theirs = gradients(
        lambda h, w: nn.functional.cross_entropy((h @ w.to(h.dtype).T).float(), labels), torch.bfloat16
    )  # fmt: skip
    ours = gradients(lambda h, w: vocabulary.loss(h, w, labels, shares=torch.full((40,), 1 / 40)), torch.bfloat16)
    for own, other, true in zip(ours, theirs, exact, strict=True):
        assert (own - true).norm() <= 1.5 * (other - true).norm() + 1e-6


def test_gradients_of_thousands_of_labels_are_not_lost_in_half_precision() -> None:
    """A share of 1/3000 in fp16 would leave nothing of a token's small gradients, whatever the loss is scaled by."""
    torch.manual_seed(1)
    hidden, weight, labels = torch.randn(64, 32), torch.randn(2000, 32) / 8, torch.randint(0, 2000, (64,))
    found = []
    for precision in (torch.float32, torch.float16):
        inputs = hidden.to(precision).requires_grad_(), weight.clone().requires_grad_()
        value = vocabulary.loss(*inputs, labels, shares=torch.full((64,), 1 / 3000))
        found.append([g.float() for g in torch.autograd.grad(65536 * value, inputs)])
    for exact, half in zip(*found, strict=True):
        assert (half - exact).norm() <= 3e-3 * exact.norm()


@pytest.mark.usefixtures("few_rows_at_once")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_logits_of_all_labels_never_exist_at_once(precision: torch.dtype) -> None:
    """Only their gradient does, in the precision of the products; everything else is of a few rows."""
    large: list[tuple[str, torch.dtype]] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and tuple(made.shape) in ((11, 50), (7, 50)):
                large.append((func.__name__, made.dtype))
            return made

    hidden = torch.randn(11, 8, dtype=precision, requires_grad=True)
    weight, labels = torch.randn(50, 8, requires_grad=True), torch.randint(0, 50, (11,))
    teacher = vocabulary.Teacher(hidden=torch.randn(7, 8), weight=torch.randn(50, 8), shares=torch.ones(7))
    with Watch():
        vocabulary.loss(hidden, weight, labels, shares=torch.ones(11), teacher=teacher).backward()
    assert [made for made in large if made[0] != "detach.default"] == [("new_empty.default", precision)]
