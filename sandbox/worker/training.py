"""The training loop: one recipe for every candidate, the whole data set in memory, no data loader."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cambrian.search_spaces import Loss, Recipe

EVAL_BATCH = 512
"""Samples per forward pass when no gradients are kept."""
CHECK_EVERY = 16
"""Training steps between looks at the loss; looking makes a GPU wait."""
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1 / 250_000


class CandidateError(Exception):
    """The candidate is at fault and the message says all there is to say."""


@dataclass
class Data:
    """Tensors on the training device; labels of the held-out splits are not among them.

    Attributes:
        ask: gets the inputs of the split `val` or `test`; called once for each, when they are first needed.
        context: constants of the task, such as the graph, by name.
    """

    x_train: Tensor
    y_train: Tensor
    ask: Callable[[str], Tensor]
    context: Mapping[str, Tensor] = field(default_factory=dict)
    _held_out: dict[str, Tensor] = field(default_factory=dict)

    def held_out(self, split: str) -> Tensor:
        """Inputs of the split `val` or `test`."""
        if split not in self._held_out:
            self._held_out[split] = self.ask(split)
        return self._held_out[split]


@dataclass
class History:
    """What was seen epoch by epoch; of equal length unless training broke off.

    Attributes:
        val_epochs: of each epoch, what `seen_of` keeps of the outputs on the validation split.
    """

    train_loss: list[float] = field(default_factory=list)
    epoch_s: list[float] = field(default_factory=list)
    val_epochs: list[NDArray[Any]] = field(default_factory=list)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate of training step `step` (from 0) of `steps`.

    `one-cycle` rises for 30% of the steps from 1/25 of the peak and falls to 1/250,000 of it, both along
    half a cosine (Smith and Topin, Super-Convergence, 2018); `cosine` falls from the peak to 0.
    """
    peak = recipe.learning_rate
    if recipe.schedule == "constant":
        return peak
    if recipe.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * step / steps))
    rise = max(1.0, ONE_CYCLE_RISE * steps)
    if step < rise:
        low, high, share = ONE_CYCLE_START, 1.0, step / rise
    else:
        low, high, share = 1.0, ONE_CYCLE_END, (step - rise) / max(1.0, steps - 1 - rise)
    return peak * (low + (high - low) * 0.5 * (1 - math.cos(math.pi * min(share, 1.0))))


def shift_pixels(input_shape: tuple[int, ...]) -> int:
    """How far the `shift` augmentation moves an image: 2 pixels of 28, and in proportion."""
    return max(1, round(min(input_shape[-2:]) / 14))


def shift(images: Tensor, reach: int, rng: torch.Generator) -> Tensor:
    """Move each image by up to `reach` pixels in both directions; edges are repeated.

    Args:
        images: `(n, channels, height, width)`.
        reach: largest move in pixels.
        rng: a CPU generator.
    """
    n, channels, height, width = images.shape
    device = images.device
    padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate")
    moves = torch.randint(0, 2 * reach + 1, (2, n, 1), generator=rng).to(device)
    rows = moves[0] + torch.arange(height, device=device)
    columns = moves[1] + torch.arange(width, device=device)
    sample = torch.arange(n, device=device).view(n, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, channels, 1, 1)
    return padded[sample, channel, rows.view(n, 1, height, 1), columns.view(n, 1, 1, width)]


def flip(images: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half."""
    chosen = torch.rand(len(images), generator=rng).to(images.device) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)


def augment(batch: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """Apply the recipe's augmentations in order; they need inputs of shape `(channels, height, width)`."""
    for name in recipe.augment:
        if batch.ndim != 4:
            raise CandidateError(
                f"augmentation {name!r} needs images (channels, height, width), "
                f"the task's inputs have shape {tuple(batch.shape[1:])}"
            )
        reach = shift_pixels(tuple(batch.shape))
        batch = shift(batch, reach, rng) if name == "shift" else flip(batch, rng)
    return batch


def make_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer in two groups: `decay` is applied to matrices and kernels only."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer != "sgd":
        groups = [{**group, "weight_decay": group["decay"]} for group in groups]
        kind = uncompiled(torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam)
        return kind(groups, lr=recipe.learning_rate, fused=True)
    kind = uncompiled(torch.optim.SGD)
    return kind(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True, fused=True)


@functools.cache
def uncompiled(kind: Any) -> Callable[..., torch.optim.Optimizer]:
    """An optimizer's class without the wrappers that import torch's compiler, of which nothing is used here.

    That import costs a CPU second and 90 MB, which every container would pay. What is wrapped stays as it is,
    bit for bit.
    """
    base: Any = torch.optim.Optimizer
    plain = {
        "add_param_group": base.add_param_group.__wrapped__,
        "zero_grad": base.zero_grad.__wrapped__,
        "step": torch.no_grad()(kind.step.__wrapped__),
    }
    made: Callable[..., torch.optim.Optimizer] = type(kind.__name__, (kind,), plain)
    return made


def predict(module: nn.Module, inputs: Tensor, batch: int = EVAL_BATCH) -> NDArray[np.float32]:
    """Raw outputs `(n, n_outputs)` in eval mode, for inputs `(n, *input_shape)`, `batch` at a time."""
    module.eval()
    # inputs without a shape are ids of nodes: any number of them costs one pass over the graph
    size = batch if inputs.ndim > 1 else max(1, len(inputs))
    with torch.inference_mode():
        parts = [module(inputs[i : i + size]) for i in range(0, len(inputs), size)]
        return torch.cat(parts).float().cpu().numpy()


def seen_of(outputs: NDArray[np.float32], loss: Loss) -> NDArray[Any]:
    """What is kept of the outputs `(n, n_outputs)` of an epoch: classes, int16 `(n,)`, or all values."""
    return outputs.argmax(axis=1).astype(np.int16) if loss == "cross-entropy" else outputs


def train(
    module: nn.Module,
    data: Data,
    recipe: Recipe,
    epochs: int,
    seed: int,
    history: History,
    on_first_step: Callable[[], None],
    loss: Loss = "cross-entropy",
) -> NDArray[np.float32]:
    """Train `module` in place and return its raw outputs on the validation split.

    Batches are drawn by a fresh permutation each epoch; the samples that do not fill the last batch are
    left out of that epoch. Shuffling and augmentation have their own generator on the CPU, so that what a
    candidate draws from the global one changes nothing for it and the device makes no difference.

    Args:
        module: on the device of `data`.
        data: tensors of all splits.
        recipe: the same for every candidate of a task.
        epochs: 0 leaves the network as it is.
        seed: of shuffling and augmentation.
        history: filled epoch by epoch, also when training breaks off.
        on_first_step: called once, just before the first step.
        loss: what is minimised.

    Raises:
        CandidateError: the loss is no longer finite, or nothing can be trained.
    """
    if epochs == 0:
        on_first_step()
        return predict(module, data.held_out("val"))
    n, batch_size = len(data.x_train), min(recipe.batch_size, len(data.x_train))
    per_epoch = n // batch_size
    if not any(p.requires_grad for p in module.parameters()):
        raise CandidateError("the network has no trainable parameters")
    rng = torch.Generator().manual_seed(seed)
    optimizer = make_optimizer(module, recipe)
    outputs = np.empty((0, 0), dtype=np.float32)
    for epoch in range(epochs):
        start = time.perf_counter()
        module.train()
        order = torch.randperm(n, generator=rng).to(data.x_train.device)
        total = torch.zeros((), device=data.x_train.device)
        for i in range(per_epoch):
            if epoch == 0 and i == 0:
                on_first_step()
            chosen = order[i * batch_size : (i + 1) * batch_size]
            batch = augment(data.x_train[chosen], recipe, rng)
            rate = learning_rate(recipe, epoch * per_epoch + i, epochs * per_epoch)
            total += _step(module, optimizer, batch, data.y_train[chosen], recipe, rate, loss)
            if (i + 1) % CHECK_EVERY == 0 or i + 1 == per_epoch:
                _check_finite(float(total), epoch)
        outputs = predict(module, data.held_out("val"))
        history.train_loss.append(float(total) / per_epoch)
        history.epoch_s.append(time.perf_counter() - start)
        history.val_epochs.append(seen_of(outputs, loss))
    return outputs


def _step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Tensor,
    targets: Tensor,
    recipe: Recipe,
    rate: float,
    kind: Loss,
) -> Tensor:
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        outputs = module(batch)
    outputs = outputs.float()
    if kind == "cross-entropy":
        loss = functional.cross_entropy(outputs, targets, label_smoothing=recipe.label_smoothing)
    else:
        loss = functional.mse_loss(outputs, targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if recipe.gradient_clip > 0:
        nn.utils.clip_grad_norm_(module.parameters(), recipe.gradient_clip)
    if recipe.optimizer == "sgd":
        # torch's own weight decay of SGD is coupled to the gradient; the recipe promises the decoupled one
        with torch.no_grad():
            for group in optimizer.param_groups:
                if group["decay"]:
                    torch._foreach_mul_(group["params"], 1 - rate * group["decay"])
    optimizer.step()
    return loss.detach()


def _check_finite(total: float, epoch: int) -> None:
    if not math.isfinite(total):
        what = "NaN" if math.isnan(total) else "infinite"
        raise CandidateError(f"loss became {what} in epoch {epoch + 1}")
