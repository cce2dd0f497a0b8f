"""A space whose genotypes misbehave on purpose; lives inside sandboxes only, as a plugin."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn


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
        return self.layers(x)


class Slow(Plain):
    """Sleeps in every call."""

    def __init__(self, classes: int, seconds: float) -> None:
        super().__init__(classes)
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return super().forward(x)


class Nan(Plain):
    """Multiplies by NaN while training, from the second epoch of 8 batches on."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return super().forward(x) * (float("nan") if self.training and self.calls > 8 else 1.0)


class Short(Plain):
    """Has one output too few."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :-1]


class Overflow(Plain):
    """Is not finite in eval mode once it was trained."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.trained = False

    def forward(self, x: Tensor) -> Tensor:
        self.trained = self.trained or self.training
        return super().forward(x) * (float("inf") if self.trained and not self.training else 1.0)


class Found(RuntimeError):
    """Carries to the test what a candidate found out."""


def found(**facts: Any) -> None:
    raise Found(json.dumps(facts, sort_keys=True))


def look_for(secret: str) -> list[str]:
    """Places where `secret` can be read: our environment, and that of every process there is."""
    places = ["own"] if any(secret in value for value in os.environ.values()) else []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            for name in ("environ", "cmdline"):
                try:
                    content = (entry / name).read_bytes()
                except OSError:
                    continue
                if secret.encode() in content:
                    places.append(f"{entry.name}/{name}")
    return places


def connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def writes(path: str) -> bool:
    try:
        Path(path).write_text("was here")
    except OSError:
        return False
    return True


def signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False
    return True


def hide(marker: str, seconds: int = 300) -> None:
    """Start a process that leaves our session, our group and our parentage, and ignores what it can."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            code = f"import time; time.sleep({seconds})"
            os.execve(sys.executable, [sys.executable, "-S", "-c", code, marker], {})
        os._exit(0)
    os.wait()


def bomb() -> None:
    while True:
        try:
            if os.fork() == 0:
                continue
        except OSError:
            time.sleep(0.01)


def eat(mb: int) -> None:
    kept = []
    for _ in range(mb // 16):
        kept.append(bytearray(os.urandom(1)) * (16 << 20))
        time.sleep(0.002)
    time.sleep(60)


def own_folder() -> Path:
    """The folder of our own job: the worker's arguments, found on the stack."""
    frame = sys._getframe()
    while "job_folder" not in frame.f_locals:
        assert frame.f_back is not None
        frame = frame.f_back
    return Path(frame.f_locals["job_folder"])


def forge_report(folder: Path) -> None:
    """Claim a training that never was, and try to have the host read a file of its own."""
    report = {"status": "trained", "train_loss": [0.1], "epoch_s": [0.1], "parameters": 1}
    (folder / "outcome.json").write_text(json.dumps({"job_id": "x", "state": "trained"}))
    (folder / "outputs.npz").symlink_to("/etc/passwd")
    (folder / "weights.safetensors").symlink_to("/etc/passwd")
    (folder / "extra").mkdir()
    (folder / "report.json").write_text(json.dumps(report))
    os._exit(0)


class HostileSpace:
    """Genotype: `{"act": name, ...}`."""

    name = "hostile"

    def build(self, genotype: dict[str, Any], signature: Any) -> nn.Module:
        act, classes = genotype["act"], signature.n_outputs
        if act in ("plain", "slow", "nan", "short", "overflow"):
            kinds = {"plain": Plain, "nan": Nan, "short": Short, "overflow": Overflow}
            return Slow(classes, genotype["seconds"]) if act == "slow" else kinds[act](classes)
        ACTS[act](genotype)
        return Plain(classes)


def fail(genotype: dict[str, Any]) -> None:
    raise ValueError("kernel of 9 is larger than the image")


def send_signal(genotype: dict[str, Any]) -> None:
    os.kill(os.getpid(), genotype["number"])
    time.sleep(60)


def look(genotype: dict[str, Any]) -> None:
    found(
        secret=look_for(genotype["head"] + genotype["tail"]),
        connects=[a for a in genotype["addresses"] if connects(a, genotype["port"])],
        writes=[p for p in genotype["paths"] if writes(p)],
        signals=signals(genotype["pid"]),
        environment=sorted(os.environ),
        uid=os.getuid(),
    )


def hide_and_wait(genotype: dict[str, Any]) -> None:
    hide(genotype["marker"])
    time.sleep(genotype["seconds"])


ACTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "raise": fail,
    "quit": lambda genotype: sys.exit(5),
    "signal": send_signal,
    "exit": lambda genotype: os._exit(genotype["code"]),
    "look": look,
    "hide": hide_and_wait,
    "bomb": lambda genotype: bomb(),
    "eat": lambda genotype: eat(genotype["mb"]),
    "grab": lambda genotype: bytearray(genotype["mb"] << 20),
    "chat": lambda genotype: print("x" * (genotype["kb"] << 10), flush=True),
    "write": lambda genotype: Path("big").write_bytes(b"0" * (genotype["mb"] << 20)),
    "forge": lambda genotype: forge_report(own_folder()),
}
