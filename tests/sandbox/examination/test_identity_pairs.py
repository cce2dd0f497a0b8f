"""Known pairs, equal and different: how often identity merges falsely, how often it splits falsely."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.sandbox.examination.identity import identity, identity_inside
from cambrian.search_spaces import SPACES, ProposalError, Signature
from tests.benchmarks.identity.__main__ import all_cells, chosen, mistakes
from tests.benchmarks.identity.symbolic import symbolic
from tests.sandbox.examination.conftest import Apply, ToySpace

ROW = Signature(input_shape=(6,), n_outputs=10)
PICTURE = Signature(input_shape=(3, 6, 6), n_outputs=10)
Make = Callable[[], nn.Module]


def toy(make: Make, signature: Signature) -> str:
    return identity(ToySpace(it=make), {"of": "it"}, signature)


def branches(forward: Callable[[nn.Module, Tensor], Tensor], *names: str) -> Make:
    """Equal convolutions by name, made in this order, and a classifier."""

    def make() -> nn.Module:
        parts = {name: nn.Conv2d(3, 3, 3, padding=1) for name in names}
        return Apply(lambda m, x: m.out(forward(m, x).mean((2, 3))), out=nn.Linear(3, 10), **parts)

    return make


def pool(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def square(kernel: int) -> Make:
    def make() -> nn.Module:
        if kernel:
            return nn.Sequential(nn.Conv2d(3, 10, kernel), nn.Flatten())
        return nn.Sequential(nn.Flatten(), nn.Linear(108, 10))

    return make


def ends(cut: Callable[[Tensor], Tensor]) -> Make:
    return lambda: Apply(lambda m, x: m.out(cut(m.a(x))), a=nn.Linear(6, 8), out=nn.Linear(8, 10))


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class Rounding(nn.Module):
    def __init__(self, straight: bool) -> None:
        super().__init__()
        self.straight, self.a, self.out = straight, nn.Linear(6, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.out(Straight.apply(x) if self.straight else x.sign())


def bare(transposed: bool) -> Make:
    """A layer as torch writes it, and by hand."""
    if not transposed:
        return lambda: Apply(lambda m, x: m.b(m.a(x).relu()), a=nn.Linear(6, 8), b=nn.Linear(8, 10))
    return lambda: Apply(
        lambda m, x: (x @ m.a.weight.t() + m.a.bias).clamp(min=0) @ m.b.weight.t() + m.b.bias,
        b=nn.Linear(8, 10),
        a=nn.Linear(6, 8),
    )


EQUAL: dict[str, tuple[Signature, list[Make]]] = {
    "names and order of creation": (
        PICTURE,
        [
            branches(lambda m, x: m.a(m.b(x).relu()), "a", "b"),
            branches(lambda m, x: m.a(m.b(x).relu()), "b", "a"),
        ],
    ),
    "sums of equal layers, commuted": (
        PICTURE,
        [
            branches(lambda m, x: pool(m.a(x)) + m.b(x), "a", "b"),
            branches(lambda m, x: m.a(x) + pool(m.b(x)), "a", "b"),
            branches(lambda m, x: m.b(x) + pool(m.a(x)), "a", "b"),
        ],
    ),
    "dead and zero branches, identities": (
        PICTURE,
        [
            branches(lambda m, x: m.a(x), "a"),
            branches(lambda m, x: [m.a(x), m.b(x)][0], "a", "b"),
            branches(lambda m, x: m.a(x) + m.b(x) * 0, "a", "b"),
            branches(lambda m, x: nn.Identity()(m.a(x)) + 0 * m.b(m.c(x).relu()), "c", "b", "a"),
            branches(lambda m, x: m.a(x), "unused", "a"),
        ],
    ),
    "linear steps, split and merged": (
        PICTURE,
        [
            branches(lambda m, x: pool(m.a(x) + m.b(x).relu()), "a", "b"),
            branches(lambda m, x: pool(m.b(x).relu()) + pool(m.a(x)), "a", "b"),
        ],
    ),
    "a kernel of the whole input and a matrix": (PICTURE, [square(0), square(6)]),
    "source": (ROW, [bare(False), bare(True)]),
    "gradients that are cut": (
        ROW,
        [
            ends(Tensor.detach),
            ends(lambda x: x.detach() + x - x),
            lambda: Apply(
                lambda m, x: m.out(torch.no_grad()(m.a)(x)), a=nn.Linear(6, 8), out=nn.Linear(8, 10)
            ),
        ],
    ),
    "constants": (
        ROW,
        [
            lambda: Apply(lambda m, x: m.out(x * 0), out=nn.Linear(6, 10)),
            lambda: Apply(lambda m, x: m.out((m.a(x) * 0).relu()), a=nn.Linear(6, 6), out=nn.Linear(6, 10)),
        ],
    ),
}
DIFFERENT: dict[str, tuple[Signature, list[Make]]] = {
    "one layer twice, and two layers": (
        PICTURE,
        [
            branches(lambda m, x: m.a(x) + m.b(x), "a", "b"),
            branches(lambda m, x: m.a(x) + m.a(x), "a"),
            branches(lambda m, x: m.a(x), "a"),
        ],
    ),
    "which of two goes where": (
        PICTURE,
        [
            branches(lambda m, x: m.c(m.a(x).relu()) + pool(m.b(x)), "a", "b", "c"),
            branches(lambda m, x: m.c((m.a(x) + pool(m.b(x))).relu()), "a", "b", "c"),
            branches(lambda m, x: m.c(m.a(x).relu()) + pool(m.a(x)) + 0 * m.b(x), "a", "b", "c"),
            branches(lambda m, x: pool(m.c(m.a(x).relu())) + m.b(x), "a", "b", "c"),
        ],
    ),
    "rings of four and of two, on sums of equal layers": (
        PICTURE,
        [
            branches(
                lambda m, x, pairs=pairs: sum(
                    m.get_submodule(f"o{n}")((m.get_submodule(a)(x) + m.get_submodule(b)(x)).relu())
                    for n, (a, b) in enumerate(pairs)
                ),
                *(f"{kind}{n}" for kind in "io" for n in range(4)),
            )
            for pairs in (
                (("i0", "i1"), ("i1", "i2"), ("i2", "i3"), ("i3", "i0")),
                (("i0", "i1"), ("i0", "i1"), ("i2", "i3"), ("i2", "i3")),
            )
        ],
    ),
    "gradients that are cut or made": (
        ROW,
        [
            ends(lambda x: x),
            ends(Tensor.detach),
            ends(lambda x: x + (x.round() - x).detach()),
            ends(torch.round),
            lambda: Rounding(True),
            lambda: Rounding(False),
        ],
    ),
    "two matrices and their product": (
        ROW,
        [lambda: nn.Linear(6, 10), lambda: nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 10))],
    ),
    "a factor before a norm": (
        PICTURE,
        [
            branches(lambda m, x: functional.batch_norm(m.a(x), None, None, training=True), "a"),
            branches(lambda m, x: functional.batch_norm(2 * m.a(x), None, None, training=True), "a"),
        ],
    ),
}


@pytest.mark.parametrize("case", EQUAL)
def test_equal(case: str) -> None:
    signature, makers = EQUAL[case]
    found = [toy(make, signature) for make in makers]
    assert all(text.startswith("f2:") for text in found)
    assert len(set(found)) == 1, [found.index(text) for text in found]


@pytest.mark.parametrize("case", DIFFERENT)
def test_different(case: str) -> None:
    signature, makers = DIFFERENT[case]
    found = [toy(make, signature) for make in makers]
    assert all(text.startswith("f2:") for text in found)
    assert len(set(found)) == len(found), [found.index(text) for text in found]


def test_exact_on_a_part_of_nasbench201() -> None:
    """The benchmark `identity` does so for all 15,625 cells; dead ones and whole classes are in this part."""
    rng = random.Random(4)
    cells = rng.sample(all_cells(), 800)
    forms = [symbolic(cell) for cell in cells]
    taken = chosen(cells, forms, 50)
    space, signature = SPACES.create("cell"), Signature(input_shape=(3, 8, 8), n_outputs=10)
    hashes = [identity(space, space.validate(dict(cells[i])), signature) for i in taken]
    assert mistakes([forms[i] for i in taken], hashes) == (0, 0)
    assert len(set(hashes)) < len(hashes) - 5
    assert all(text.startswith("f2:") for text in hashes)


class Coded(ToySpace):
    kind = "code"


class TestInside:
    """Code, where it may run."""

    def test_function_counts_not_text(self) -> None:
        texts = {
            identity_inside(Coded(it=make), {"of": "it", "source": f"{number}"}, ROW)
            for number, make in enumerate((bare(False), bare(True)))
        }
        assert len(texts) == 1
        assert texts.pop().startswith("f2:")

    def test_what_looks_at_numbers_is_known_by_its_syntax(self) -> None:
        def make() -> nn.Module:
            return Apply(lambda m, x: m.out(x if x.sum() > 0 else -x), out=nn.Linear(6, 10))

        sources = ("def f(x):\n    return 1", "def f(x):  # one\n\n    return  1", "def f(x):\n    return 2")
        found = [identity_inside(Coded(it=make), {"of": "it", "source": text}, ROW) for text in sources]
        assert all(text.startswith("g2:") for text in found)
        assert found[0] == found[1] != found[2]

    def test_what_does_not_run_is_refused(self) -> None:
        with pytest.raises(ProposalError):
            identity_inside(Coded(it=lambda: nn.Linear(7, 10)), {"of": "it"}, ROW)


def test_cells_by_hand() -> None:
    """The judge of the benchmark, on pairs that need no judge."""
    none, skip, one, three, mean = "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"

    def form(*operations: str) -> str:
        return symbolic(dict(zip(("e01", "e02", "e12", "e03", "e13", "e23"), operations, strict=True)))

    assert form(one, none, skip, none, none, skip) == form(one, none, none, none, skip, none)
    assert form(skip, mean, none, none, mean, skip) == form(skip, none, mean, mean, none, skip)
    assert form(three, three, none, none, skip, skip) == form(three, none, none, three, skip, none)
    assert form(three, none, none, none, skip, none) != form(three, skip, none, none, skip, skip)
    assert form(none, none, three, one, three, one) == form(none, none, none, one, none, none)
    assert form(three, none, skip, none, mean, skip) != form(three, three, none, none, mean, skip)
    assert len({form(*made) for made in itertools.product((none, skip, three), repeat=6)}) < 729
