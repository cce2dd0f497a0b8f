"""Blocks on sequences against the plain way of writing the same thing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import scipy.fft
import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.search_spaces.blocks.mixer import (
    Fourier,
    LinearAttention,
    SelfAttention,
    SequenceConv,
    SpanConv,
    WindowAttention,
    split_heads,
)
from cambrian.search_spaces.blocks.sequence import (
    ClassToken,
    Conv1dBlock,
    FeedForward,
    Positions,
    SequenceDownsample,
    SequencePool,
    TemporalBlock,
    TokenEmbedding,
)
from cambrian.search_spaces.declarative.catalogue.sequences import BLOCKS
from cambrian.search_spaces.declarative.shape import ShapeError, sequence

MIXERS: dict[str, Callable[[], nn.Module]] = {
    "softmax": lambda: SelfAttention(8, heads=2),
    "multiplicative": lambda: SelfAttention(8, heads=2, head_dim=3, similarity="multiplicative"),
    "linear": lambda: LinearAttention(8, heads=2),
    "window": lambda: WindowAttention(8, heads=2, window=3),
    "conv": lambda: SequenceConv(8, kernel=3, dilation=2),
    "span": lambda: SpanConv(8, heads=2, kernel=5),
    "fourier": lambda: Fourier(kind="fourier"),
    "cosine": lambda: Fourier(kind="cosine"),
}


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 25, 8)


def heads(block: nn.Module, x: Tensor) -> list[Tensor]:
    assert isinstance(block.inputs, nn.Linear)
    return [split_heads(part, 2) for part in block.inputs(x).chunk(3, dim=2)]


def projected(block: nn.Module, mixed: Tensor) -> Tensor:
    assert isinstance(block.project, nn.Linear)
    out: Tensor = block.project(mixed.transpose(1, 2).flatten(2))
    return out


def reaches(block: nn.Module, x: Tensor, position: int) -> set[int]:
    """The inputs that an output depends on."""
    x = x.clone().requires_grad_()
    block.eval()(x)[:, position].square().sum().backward()
    assert x.grad is not None
    return set(x.grad.abs().sum((0, 2)).nonzero().flatten().tolist())


@pytest.mark.parametrize("name", MIXERS)
def test_mixers_keep_shape_and_samples_apart(name: str, x: Tensor) -> None:
    torch.manual_seed(0)
    block = MIXERS[name]().eval()
    for length in (1, 2, 7, 25):
        out = block(x[:, :length])
        assert out.shape == (2, length, 8)
        assert torch.allclose(block(x[1:, :length]), out[1:], atol=1e-5)


def test_softmax_attention(x: Tensor) -> None:
    block = SelfAttention(8, heads=2)
    query, key, value = heads(block, x)
    mixed = (query @ key.transpose(2, 3) / 2).softmax(3) @ value
    assert torch.allclose(block(x), projected(block, mixed), atol=1e-5)
    # the learned matrix starts as the identity
    twin = SelfAttention(8, heads=2, similarity="multiplicative")
    twin.load_state_dict(block.state_dict(), strict=False)
    assert torch.allclose(twin(x), block(x), atol=1e-6)


def test_linear_attention_is_the_quadratic_sum(x: Tensor) -> None:
    block = LinearAttention(8, heads=2)
    query, key, value = heads(block, x)
    weights = (functional.elu(query) + 1) @ (functional.elu(key) + 1).transpose(2, 3)
    expected = projected(block, weights / weights.sum(3, keepdim=True) @ value)
    assert torch.allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 9, 10, 12, 25])
def test_windows_are_masked_attention(length: int, x: Tensor) -> None:
    block, x = WindowAttention(8, heads=2, window=3), x[:, :length]
    query, key, value = heads(block, x)
    place = torch.arange(length)
    far = (place.unsqueeze(1) - place).abs() > 3
    weights = (query @ key.transpose(2, 3) / 2).masked_fill(far, -torch.inf).softmax(3)
    assert torch.allclose(block(x), projected(block, weights @ value), atol=1e-5)


def test_who_sees_whom(x: Tensor) -> None:
    torch.manual_seed(0)
    assert reaches(SelfAttention(8, heads=2), x, 10) == set(range(25))
    assert reaches(SelfAttention(8, heads=2, causal=True), x, 10) == set(range(11))
    assert reaches(WindowAttention(8, heads=2, window=3), x, 10) == set(range(7, 14))
    assert reaches(SequenceConv(8, kernel=3, dilation=4), x, 10) == {6, 10, 14}
    assert reaches(SpanConv(8, heads=2, kernel=5), x, 10) == set(range(8, 13))
    assert reaches(Conv1dBlock(8, 8, kernel=3, activation="silu", stride=2), x, 5) == {9, 10, 11}
    assert reaches(TemporalBlock(8, 6, kernel=2, dilation=3, activation="silu"), x, 10) == {4, 7, 10}


def test_span_convolution_weighs_its_window(x: Tensor) -> None:
    block = SpanConv(8, heads=2, kernel=3)
    query, value = block.inputs(x).chunk(2, dim=2)
    weights = block.weigh(query * block.span(x)).reshape(2, 25, 2, 3).softmax(3)
    padded = functional.pad(value, (0, 0, 1, 1)).reshape(2, 27, 2, 4)
    mixed = sum(weights[..., k : k + 1] * padded[:, k : k + 25] for k in range(3))
    assert isinstance(mixed, Tensor)
    assert torch.allclose(block(x), block.project(mixed.flatten(2)), atol=1e-5)


def test_fixed_transforms(x: Tensor) -> None:
    cosine = torch.from_numpy(scipy.fft.dctn(x.numpy(), axes=(1, 2), norm="ortho"))
    assert torch.allclose(Fourier(kind="cosine")(x), cosine, atol=1e-5)
    waves = torch.from_numpy(scipy.fft.fft2(x.numpy(), norm="ortho").real)
    assert torch.allclose(Fourier(kind="fourier")(x), waves, atol=1e-5)


def test_embeddings() -> None:
    table = TokenEmbedding(5, 6)
    ids = torch.tensor([[0, 4, 4]])
    assert torch.equal(table(ids)[0, 1], table.table.weight[4])
    waves = Positions(7, length=9, kind="sinusoidal")
    assert not list(waves.parameters()) and not waves.state_dict()
    out = waves(torch.zeros(2, 9, 7))
    assert torch.allclose(out[0, :, 0], torch.arange(9).sin(), atol=1e-6)
    assert torch.allclose(out[0, :, 1], torch.arange(9).cos(), atol=1e-6)
    # a shorter sequence has the first positions
    assert torch.equal(waves(torch.zeros(2, 4, 7)), out[:, :4])
    learned = Positions(7, length=9, kind="learned")
    assert torch.equal(learned(torch.zeros(1, 9, 7))[0], learned.table)


def test_class_token_comes_first(x: Tensor) -> None:
    block = ClassToken(8)
    out = block(x)
    assert torch.equal(out[:, 1:], x)
    assert torch.equal(SequencePool(8, kind="first")(out), block.token[0].expand(2, 8))


def test_feed_forward(x: Tensor) -> None:
    plain = FeedForward(8, hidden=12, activation="relu")
    assert torch.equal(plain(x), plain.narrow(plain.widen(x).relu()))
    gated = FeedForward(8, hidden=12, activation="silu", gated=True)
    assert gated.gate is not None
    assert torch.equal(gated(x), gated.narrow(functional.silu(gated.widen(x)) * gated.gate(x)))
    deep = FeedForward(8, hidden=12, activation="relu", depth=3)
    assert [type(layer) for layer in deep.deeper] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]


def test_pools(x: Tensor) -> None:
    expected = {
        "mean": x.mean(1),
        "max": x.max(1).values,
        "first": x[:, 0],
        "middle": x[:, 12],
        "last": x[:, 24],
    }
    for kind, value in expected.items():
        assert torch.equal(SequencePool(8, kind=kind)(x), value)
    block = SequencePool(8, kind="attention")
    assert block.score is not None
    weights = block.score(x).squeeze(2).softmax(1)
    assert torch.allclose(block(x), torch.einsum("nl,nlc->nc", weights, x), atol=1e-6)
    nn.init.zeros_(block.score.weight)
    assert torch.allclose(block(x), x.mean(1), atol=1e-6)


def test_downsampling_rounds_up(x: Tensor) -> None:
    mean, most = (SequenceDownsample(factor=4, kind=kind)(x) for kind in ("mean", "max"))
    assert mean.shape == most.shape == (2, 7, 8)
    assert torch.allclose(mean[:, 1], x[:, 4:8].mean(1), atol=1e-6)
    # 25 = 6 * 4 + 1: the last token is alone in its window
    assert torch.allclose(mean[:, 6], x[:, 24]) and torch.equal(most[:, 6], x[:, 24])


def test_uses_that_make_no_sense_are_refused() -> None:
    blocks = {block.name: block for block in BLOCKS}
    shape = sequence(10, 6)
    for name, given, message in (
        ("SelfAttention", {"heads": 4}, "4 heads do not divide 6 channels"),
        ("LinearAttention", {"heads": 4}, "4 heads do not divide 6 channels"),
        ("WindowAttention", {"heads": 4, "window": 2}, "4 heads do not divide 6 channels"),
        ("SpanConv", {"heads": 2, "kernel": 4}, "the kernel is 4; it must be odd"),
        ("Conv1dBlock", {"out": 4, "kernel": 3, "activation": "relu", "groups": 3}, "3 groups do not divide"),
        ("FeedForward", {"activation": "relu", "expansion": 0.01}, "no hidden ones"),
    ):
        with pytest.raises(ShapeError, match=message):
            blocks[name].planned(shape, given)
