"""The worker's training loop, piece by piece, in this process."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cambrian.sandbox.outputs import write_arrays
from cambrian.sandbox.worker.channel import Channel, chunks, pack
from cambrian.sandbox.worker.execute import load_data, one_line, some_samples
from cambrian.sandbox.worker.training import (
    CandidateError,
    Data,
    History,
    augment,
    flip,
    learning_rate,
    make_optimizer,
    predict,
    shift,
    shift_pixels,
    train,
)
from cambrian.search_spaces import Recipe, Splits


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def blobs(n: int = 96, features: int = 4, classes: int = 3) -> Data:
    """Well separated clusters."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=n)
    inputs = (3 * np.eye(classes, features)[labels] + 0.1 * rng.normal(size=(n, features))).astype(np.float32)
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    return Data(x, y, lambda _split: x)


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing() -> None:
    recipe = Recipe(schedule="one-cycle", learning_rate=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1 / 25)
    assert max(rates) == rates[30] == pytest.approx(0.1)
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] == pytest.approx(0.1 / 250_000)


def test_cosine_and_constant_schedules() -> None:
    cosine = Recipe(schedule="cosine", learning_rate=0.1)
    assert learning_rate(cosine, 0, 10) == pytest.approx(0.1)
    assert learning_rate(cosine, 5, 10) == pytest.approx(0.05)
    constant = Recipe(schedule="constant", learning_rate=0.1)
    assert {learning_rate(constant, step, 7) for step in range(7)} == {0.1}


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_schedules_of_few_steps_are_finite_and_positive_at_first(schedule: str, steps: int) -> None:
    recipe = Recipe.model_validate({"schedule": schedule})
    rates = [learning_rate(recipe, step, steps) for step in range(steps)]
    assert rates[0] > 0
    assert all(0 <= rate <= recipe.learning_rate * 1.0001 for rate in rates)


def test_weight_decay_spares_norms_and_biases() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    decayed, spared = make_optimizer(module, Recipe(weight_decay=0.1)).param_groups
    assert all(p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) == 2
    assert len(spared["params"]) == 4
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


def test_decay_of_sgd_is_decoupled() -> None:
    """With a zero gradient a weight shrinks by rate times decay, without touching the momentum."""
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.fill_(1.0)
    data = Data(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), lambda _split: torch.zeros(1, 2))
    recipe = Recipe(optimizer="sgd", learning_rate=0.1, schedule="constant", weight_decay=0.5, batch_size=4)
    train(module, data, recipe, 1, 0, History(), lambda: None)
    assert torch.allclose(module.weight, torch.full((2, 2), 0.95))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_learns(optimizer: str) -> None:
    data, history = blobs(), History()
    recipe = Recipe.model_validate({"optimizer": optimizer, "learning_rate": 0.05, "batch_size": 16})
    steps: list[bool] = []
    outputs = train(nn.Linear(4, 3), data, recipe, 5, 0, history, lambda: steps.append(True))
    assert (outputs.argmax(1) == data.y_train.numpy()).all()
    assert history.train_loss[-1] < 0.5 * history.train_loss[0]
    assert steps == [True]
    assert [classes.dtype for classes in history.val_epochs] == [np.int16] * 5


def test_gradients_are_clipped() -> None:
    moved = []
    for clip in (0.0, 1e-3):
        torch.manual_seed(0)
        module = nn.Linear(4, 3)
        before = module.weight.detach().clone()
        recipe = Recipe(
            optimizer="sgd", learning_rate=1.0, schedule="constant", weight_decay=0, batch_size=96,
            gradient_clip=clip,
        )  # fmt: skip
        train(module, blobs(), recipe, 1, 0, History(), lambda: None)
        moved.append(float((module.weight.detach() - before).norm()))
    assert moved[1] < 0.01 < moved[0]


def test_a_seed_decides_shuffling_and_the_global_generator_does_not() -> None:
    losses = []
    for seed, noise in ((1, 0), (1, 99), (2, 0)):
        torch.manual_seed(0)
        module = nn.Linear(4, 3)
        torch.manual_seed(noise)
        history = History()
        train(module, blobs(), Recipe(batch_size=8), 2, seed, history, lambda: None)
        losses.append(history.train_loss)
    assert losses[0] == losses[1] != losses[2]


def test_a_loss_that_is_not_finite_ends_training_at_its_epoch() -> None:
    class Breaks(nn.Linear):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += self.training
            return super().forward(x) * (math.nan if self.calls > 9 else 1)

    history = History()
    with pytest.raises(CandidateError, match="loss became NaN in epoch 2"):
        train(Breaks(4, 3), blobs(), Recipe(batch_size=16), 9, 0, history, lambda: None)
    assert len(history.train_loss) == 1


def test_a_network_without_parameters_cannot_be_trained() -> None:
    with pytest.raises(CandidateError, match="no trainable parameters"):
        train(nn.Flatten(), blobs(), Recipe(), 1, 0, History(), lambda: None)


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    history = History()
    train(nn.Linear(4, 3), blobs(10), Recipe(batch_size=64), 2, 0, history, lambda: None)
    assert len(history.train_loss) == 2


@pytest.mark.parametrize(("side", "pixels"), [(8, 1), (28, 2), (32, 2), (64, 5)])
def test_shifts_scale_with_the_image(side: int, pixels: int) -> None:
    assert shift_pixels((1, side, side)) == pixels


def test_shift_moves_each_image_by_whole_pixels() -> None:
    images = torch.rand(200, 2, 9, 7)
    moved = shift(images, 2, torch.Generator().manual_seed(0))
    seen = set()
    for before, after in zip(images, moved, strict=True):
        # the middle of the moved image is found, whole, at one place of the old one
        places = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(after[:, 2:7, 2:5], before[:, 2 + dy : 7 + dy, 2 + dx : 5 + dx])
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 25


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = torch.rand(200, 1, 4, 4)
    flipped = flip(images, torch.Generator().manual_seed(0))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(images, flipped, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(images, flipped, strict=True)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


def test_augmentation_of_what_is_no_image_is_refused() -> None:
    with pytest.raises(CandidateError, match=r"'shift' needs images .* shape \(4,\)"):
        augment(torch.zeros(3, 4), Recipe(augment=("shift",)), torch.Generator())


def test_prediction_is_the_same_in_pieces_and_in_eval_mode() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    inputs = torch.rand(1100, 4)
    outputs = predict(module, inputs)
    assert outputs.shape == (1100, 3)
    with torch.no_grad():
        assert np.allclose(outputs, module.eval()(inputs).numpy(), atol=1e-6)


def test_an_error_is_one_line_that_names_its_place() -> None:
    try:
        nn.Linear(4, 3)(torch.rand(2, 5))
    except RuntimeError as error:
        line = one_line(error)
    assert line.startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x5 and 4x3) (")
    assert "sandbox/test_training.py:" in line
    assert line.endswith("in test_an_error_is_one_line_that_names_its_place)")
    assert one_line(CandidateError("loss became NaN")) == "loss became NaN"
    assert len(one_line(ValueError("x" * 5000))) == 2000


def test_regression_learns_and_keeps_the_values_of_each_epoch() -> None:
    x = torch.randn(200, 3)
    y = (x @ torch.tensor([[1.0], [-2.0], [0.5]])) + 0.3
    history = History()
    recipe = Recipe(learning_rate=0.05, batch_size=20, label_smoothing=0.5)  # smoothing is for classes
    outputs = train(
        nn.Linear(3, 1), Data(x, y, lambda _split: x), recipe, 8, 0, history, lambda: None, "squared-error"
    )
    assert history.train_loss[-1] < 0.1 < history.train_loss[0]
    assert np.abs(outputs - y.numpy()).mean() < 0.3
    assert [values.shape for values in history.val_epochs] == [(200, 1)] * 8
    assert np.array_equal(history.val_epochs[-1], outputs)


def test_the_first_loss_of_regression_is_the_mean_square() -> None:
    module = nn.Linear(2, 2)
    x, y = torch.randn(8, 2), torch.randn(8, 2)
    expected = float((module(x) - y).detach().square().mean())
    history = History()
    train(
        module,
        Data(x, y, lambda _split: x),
        Recipe(batch_size=8),
        1,
        0,
        history,
        lambda: None,
        "squared-error",
    )
    assert history.train_loss[0] == pytest.approx(expected, rel=1e-5)


def test_adam_adds_its_penalty_to_the_gradient() -> None:
    """With a zero gradient the penalty is all there is: a step as large as the rate, whatever the decay."""
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.fill_(1.0)
    data = Data(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), lambda _split: torch.zeros(1, 2))
    recipe = Recipe(
        optimizer="adam", learning_rate=0.1, schedule="constant", weight_decay=1e-3, batch_size=4,
        gradient_clip=0,
    )  # fmt: skip
    train(module, data, recipe, 1, 0, History(), lambda: None)
    assert torch.allclose(module.weight, torch.full((2, 2), 0.9), atol=1e-3)


class Recorder(nn.Module):
    """A linear classifier that notes the type of its intermediate values."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 3)
        self.seen: list[tuple[bool, torch.dtype]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self.map(x)
        self.seen.append((self.training, outputs.dtype))
        return outputs


def test_bfloat16_is_for_training_steps_only() -> None:
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        module, history = Recorder(), History()
        recipe = Recipe.model_validate({"precision": precision, "learning_rate": 0.05, "batch_size": 16})
        outputs = train(module, blobs(), recipe, 3, 0, history, lambda: None)
        assert {seen for training, seen in module.seen if training} == {dtype}
        assert {seen for training, seen in module.seen if not training} == {torch.float32}
        assert outputs.dtype == np.float32 and module.map.weight.dtype is torch.float32
        assert history.train_loss[-1] < history.train_loss[0]


class Rows(nn.Module):
    """A network for the nodes of a graph: ids in, rows out."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.map = nn.Linear(4, 3)
        self.register_buffer("features", torch.zeros(nodes, 4), persistent=False)
        self.passes: list[int] = []

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.passes.append(len(ids))
        rows: torch.Tensor = self.map(self.features)[ids]
        return rows


def test_all_nodes_of_a_split_are_predicted_in_one_pass() -> None:
    module = Rows(2000)
    predict(module, torch.arange(1500))
    assert module.passes == [1500]


def test_a_batch_that_holds_all_nodes_is_one_step_an_epoch() -> None:
    module = Rows(60)
    ids = torch.arange(50)
    data = Data(ids, ids % 3, lambda _split: ids)
    train(module, data, Recipe(batch_size=140), 2, 0, History(), lambda: None)
    assert module.passes == [50] * 4  # a step and a look at the validation split, twice


def test_samples_are_repeated_where_there_are_too_few() -> None:
    few = torch.arange(6).view(2, 3)
    assert torch.equal(some_samples(few, 5), few[[0, 1, 0, 1, 0]])
    assert torch.equal(some_samples(few, 1), few[:1])
    assert some_samples(torch.arange(3), 1).shape == (1,)


def test_held_out_inputs_are_asked_for_once_and_when_they_are_needed() -> None:
    asked: list[str] = []
    source = blobs()

    def ask(split: str) -> torch.Tensor:
        asked.append(split)
        return source.x_train

    data = Data(source.x_train, source.y_train, ask)
    steps: list[int] = []
    module = nn.Linear(4, 3)
    module.register_forward_hook(lambda m, _i, _o: steps.append(len(asked)) if m.training else None)
    train(module, data, Recipe(batch_size=32), 2, 0, History(), lambda: None)
    assert asked == ["val"]
    assert steps == [0, 0, 0, 1, 1, 1], "not before the first epoch has ended"


def test_data_with_constants_are_read_as_they_were_written(tmp_path: Path) -> None:
    ids = np.arange(4)
    context = {"features": np.eye(4, dtype=np.float32), "edges": np.array([[0, 1], [1, 0]])}
    written = write_arrays(tmp_path, Splits(ids, ids % 2, ids, ids % 2, ids, ids % 2, context=context))
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
    assert {path.stem for path in written} == {"x_train", "y_train", "context_features", "context_edges"}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        data = load_data(tmp_path, torch.device("cpu"), Channel(theirs))
        assert set(data.context) == set(context)
        assert torch.equal(data.context["features"], torch.eye(4))
        assert data.context["edges"].dtype == torch.int64 and data.x_train.dtype == torch.int64
        header = {"give": "val", "dtype": "<f4", "shape": [2, 3]}
        for frame in chunks(header, np.arange(6, dtype=np.float32).tobytes()):
            ours.sendall(pack(frame))
        assert torch.equal(data.held_out("val"), torch.arange(6.0).view(2, 3))
        assert b'"ask": "val"' in ours.recv(1000)


@pytest.mark.parametrize("shape", [(3, 4), (3,), ()])
def test_augmentation_names_the_shape_of_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(CandidateError) as caught:
        augment(torch.zeros(2, *shape), Recipe(augment=("flip",)), torch.Generator())
    assert str(caught.value).endswith(f"have shape {shape}")
