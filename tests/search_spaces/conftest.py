"""Fixtures of this area: one thread for torch, small data files that look like the real ones."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

torch.set_num_threads(1)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.tobytes())


def clothing(n: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`n` random 28x28 images over ten classes, each class equally often."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 10).astype(np.uint8)
    return rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), labels


@pytest.fixture(scope="session")
def official_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fashion-MNIST's four official files in small."""
    folder = tmp_path_factory.mktemp("official")
    for part, n in (("train", 400), ("t10k", 100)):
        images, labels = clothing(n, seed=n)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `fashion_mnist_12k.npz`, in small."""
    folder = tmp_path_factory.mktemp("small")
    (x_train, y_train), (x_test, y_test) = clothing(400, seed=1), clothing(100, seed=2)
    np.savez(folder / "fashion_mnist_12k.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return folder


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The folder with the real 12k images; skips where there is none."""
    return data_folder("fashion_mnist_12k.npz")


def data_folder(*names: str) -> Path:
    """The folder of CAMBRIAN_DATA that holds these files; skips the test where there is none."""
    for part in os.environ.get("CAMBRIAN_DATA", "").split(os.pathsep):
        if part and all((Path(part) / name).is_file() for name in names):
            return Path(part)
    pytest.skip(f"CAMBRIAN_DATA names no folder with {' and '.join(names)}")
