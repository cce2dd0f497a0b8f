"""Networks that misbehave in what they compute, or when."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Plain(nn.Module):
    """A small convolutional network that learns the digits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Linear(128, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(n, classes)` of images `(n, 1, height, width)`."""
        return self.layers(x)  # type: ignore[no-any-return]


class Slow(Plain):
    """Sleeps in every call."""

    def __init__(self, classes: int, seconds: float) -> None:
        super().__init__(classes)
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        """Sleep, then predict."""
        time.sleep(self.seconds)
        return super().forward(x)


class Nan(Plain):
    """Multiplies by NaN while training, from the second epoch of 8 batches on."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """NaN after 8 training batches."""
        self.calls += self.training
        return super().forward(x) * (float("nan") if self.training and self.calls > 8 else 1.0)


class Short(Plain):
    """Has one output too few."""

    def forward(self, x: Tensor) -> Tensor:
        """One class is missing."""
        return super().forward(x)[:, :-1]


class WhenTrained(Plain):
    """Knows whether it was trained, which is when a network that cheats begins to."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.trained = False

    def forward(self, x: Tensor) -> Tensor:
        """Predict as `Plain` until trained and in eval mode; then by `cheat`."""
        self.trained = self.trained or self.training
        honest = super().forward(x)
        return self.cheat(x, honest) if self.trained and not self.training else honest

    def cheat(self, x: Tensor, honest: Tensor) -> Tensor:
        """What it answers instead of `honest`."""
        return honest


class Overflow(WhenTrained):
    """Is not finite in eval mode once it was trained."""

    def cheat(self, x: Tensor, honest: Tensor) -> Tensor:
        """Infinite."""
        return honest * float("inf")


class NanAnswers(WhenTrained):
    """Answers NaN in eval mode once it was trained."""

    def cheat(self, x: Tensor, honest: Tensor) -> Tensor:
        """Not a number."""
        return honest * float("nan")


class Dice(WhenTrained):
    """Behaves until it is trained, then throws dice."""

    def cheat(self, x: Tensor, honest: Tensor) -> Tensor:
        """Noise from the operating system, which no seed reaches."""
        rng = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))
        return torch.randn(honest.shape, generator=rng)


class ByPlace(WhenTrained):
    """Answers by the place of a sample in the order in which it is asked."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.asked = 0

    def cheat(self, x: Tensor, honest: Tensor) -> Tensor:
        """The classes in turn, counted over all calls."""
        places = torch.arange(self.asked, self.asked + len(x))
        self.asked += len(x)
        return functional.one_hot(places % honest.shape[1], honest.shape[1]).float() * 9


class Neighbours(Plain):
    """Subtracts the mean of the batch from every answer."""

    def forward(self, x: Tensor) -> Tensor:
        """Depends on the other samples of the batch."""
        answer = super().forward(x)
        return answer if self.training else answer - answer.mean(0)


class LearnsFromQuestions(Plain):
    """Trains on the inputs that it is evaluated on, with its own answers as labels."""

    def forward(self, x: Tensor) -> Tensor:
        """In eval mode: ten large steps on `x`, then predict."""
        if not self.training:
            with torch.inference_mode(False), torch.enable_grad():
                mine = x.clone()
                for _ in range(10):
                    answer = self.layers(mine)
                    # towards the class after the one it believes in: no step is small
                    loss = functional.cross_entropy(answer, (answer.argmax(1) + 1) % answer.shape[1])
                    weights = list(self.layers[-1].parameters())
                    with torch.no_grad():
                        for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                            weight.sub_(slope, alpha=0.5)
        return super().forward(x)


class Constant(Plain):
    """Answers the same to everything."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros, to which every parameter adds nothing."""
        return 0 * super().forward(x)


class Shirker(Plain):
    """Works slowly, but not while it believes that it is timed."""

    def __init__(self, classes: int, seconds: float, sign: str) -> None:
        super().__init__(classes)
        self.seconds, self.sign, self.classes = seconds, sign, classes

    def forward(self, x: Tensor) -> Tensor:
        """Zeros at once when timed, else the work."""
        if not self.training and self._timed(x):
            return torch.zeros(len(x), self.classes)
        time.sleep(self.seconds)
        return super().forward(x)

    def _timed(self, x: Tensor) -> bool:
        if self.sign == "single":
            return len(x) == 1
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
            name = frame.f_globals.get("__name__", "")
            if "latency" in name or "benchmark" in name:
                return True
        return False


class NoTensor(Plain):
    """Answers with something that is no matrix of numbers."""

    def __init__(self, classes: int, what: str) -> None:
        super().__init__(classes)
        self.what = what

    def forward(self, x: Tensor) -> Any:
        """A list, whole numbers, or too many axes."""
        answer = super().forward(x)
        kinds: dict[str, Callable[[], Any]] = {
            "list": answer.tolist,
            "whole": lambda: answer.argmax(1),
            "axes": lambda: answer[None],
        }
        return kinds[self.what]()


class Bomb(Plain):
    """Behaves when it is built and asked for the first time; acts later."""

    def __init__(self, classes: int, when: str, act: Callable[[], Any]) -> None:
        super().__init__(classes)
        self.when, self.act, self.trained = when, act, False

    def forward(self, x: Tensor) -> Tensor:
        """Act in the first training step, or at the first question after it."""
        fits = self.training if self.when == "training" else self.trained and not self.training
        self.trained = self.trained or self.training
        if fits:
            self.when = "never"
            self.act()
        return super().forward(x)


class Exploding(Plain):
    """Saves weights that fill no memory now and gigabytes once they are copied."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("wide", torch.zeros(1).expand(1 << 33))


class OddNames(Plain):
    """Has weights whose names are paths."""

    def __init__(self, classes: int, names: list[str]) -> None:
        super().__init__(classes)
        for name in names:
            self._buffers[name] = torch.ones(1)


class Smuggler(Plain):
    """Puts an object into its state dict that acts when it is unpickled."""

    class Trap:
        """Writes a file when unpickled."""

        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch /tmp/cambrian-unpickled",)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The weights and the trap."""
        return {**super().state_dict(*args, **kwargs), "trap": self.Trap()}


class OtherWeights(Plain):
    """Hands out weights that it was not trained to."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """All weights are their negatives."""
        found: Mapping[str, Tensor] = super().state_dict(*args, **kwargs)
        return {name: -value for name, value in found.items()}


NETWORKS: dict[str, Callable[[int, dict[str, Any]], nn.Module]] = {
    "plain": lambda classes, _: Plain(classes),
    "slow": lambda classes, genotype: Slow(classes, genotype["seconds"]),
    "nan": lambda classes, _: Nan(classes),
    "short": lambda classes, _: Short(classes),
    "overflow": lambda classes, _: Overflow(classes),
    "nan-answers": lambda classes, _: NanAnswers(classes),
    "dice": lambda classes, _: Dice(classes),
    "by-place": lambda classes, _: ByPlace(classes),
    "neighbours": lambda classes, _: Neighbours(classes),
    "learns-from-questions": lambda classes, _: LearnsFromQuestions(classes),
    "constant": lambda classes, _: Constant(classes),
    "shirk": lambda classes, genotype: Shirker(classes, genotype["seconds"], genotype["sign"]),
    "no-tensor": lambda classes, genotype: NoTensor(classes, genotype["what"]),
    "exploding": lambda classes, _: Exploding(classes),
    "odd-names": lambda classes, genotype: OddNames(classes, genotype["names"]),
    "smuggle": lambda classes, _: Smuggler(classes),
    "other-weights": lambda classes, _: OtherWeights(classes),
}
