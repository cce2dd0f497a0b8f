"""What is believed of the files that a job leaves behind, and how the host writes and removes files.

Every result was made by code that we do not trust. It is read from a regular file, with a cap on its size,
into a type that can hold nothing but data; whatever does not fit is an `OutputError`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import re
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.protocol import CONTEXT
from cambrian.search_spaces import CambrianError, Loss, Splits

ARRAYS = ("x_train", "y_train")
"""What a sandbox gets of a task's `Splits` beside the context: nothing that is held out."""
OUTPUTS_BYTES = 1 << 30


class OutputError(CambrianError, ValueError):
    """What a job left behind is not what a worker writes."""


@dataclass(frozen=True)
class Outputs:
    """Raw outputs of a trained network.

    Attributes:
        val: float32 `(n_val, n_outputs)`.
        test: float32 `(n_test, n_outputs)`.
        val_epochs: what was predicted after each epoch: classes, int16 `(epochs, n_val)`, or for squared
            error values, float32 `(epochs, n_val, n_outputs)`.
    """

    val: NDArray[np.float32]
    test: NDArray[np.float32]
    val_epochs: NDArray[Any]


_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<size>..)"
    rb"\{'descr': '(?P<dtype><f4|<i2)', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[0-9]{1,9}(?:, [0-9]{1,9}){1,2})\), \} *\n",
    re.DOTALL,
)
"""What numpy writes before an array of two or three axes, to the letter; nothing else is parsed."""


def read_outputs(job_folder: Path, loss: Loss = "cross-entropy") -> Outputs:
    """The outputs of a job that was trained by `loss`.

    Raises:
        OutputError: missing, malformed, or not finite.
    """
    content = read_regular(job_folder / "outputs.npz", OUTPUTS_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = sorted(archive.namelist())
            if names != ["test.npy", "val.npy", "val_epochs.npy"]:
                raise OutputError(f"outputs.npz holds {len(names)} files, expected val, test and val_epochs")
            val, test = (_read_array(archive, name, "<f4", 2) for name in ("val", "test"))
            kind = ("<i2", 2) if loss == "cross-entropy" else ("<f4", 3)
            return Outputs(val, test, _read_array(archive, "val_epochs", *kind))
    except OutputError:
        raise
    except Exception as error:  # whatever a forged archive makes of its reader
        raise OutputError(f"outputs.npz is not an archive of arrays: {type(error).__name__}") from error


def _read_array(archive: zipfile.ZipFile, name: str, dtype: str, axes: int) -> NDArray[Any]:
    """One array, whose header is believed only as far as there are bytes to back it."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise OutputError(f"outputs.npz: {name} is compressed")
    content = archive.read(info)
    header = _HEADER.match(content)
    if header is None or header.end() != 10 + int.from_bytes(header["size"], "little"):
        wanted = "matrix" if axes == 2 else f"array of {axes} axes"
        raise OutputError(f"outputs.npz: {name} is not a {np.dtype(dtype)} {wanted} as numpy writes it")
    shape = tuple(int(size) for size in header["shape"].split(b", "))
    found, body = header["dtype"].decode(), memoryview(content)[header.end() :]
    if found != dtype or len(shape) != axes or len(body) != math.prod(shape) * np.dtype(dtype).itemsize:
        wanted = "matrix" if axes == 2 else f"array of {axes} axes"
        described = f"{np.dtype(found)} of shape {shape}"
        raise OutputError(f"outputs.npz: {name} is {described}, expected a {np.dtype(dtype)} {wanted}")
    array = np.frombuffer(body, dtype=dtype).reshape(shape)
    if found == "<f4" and not np.isfinite(array).all():
        raise OutputError(f"outputs on {name} are not finite")
    return array


def check_weights(path: Path) -> None:
    """See that `path` is a safetensors file: data that loads nothing but tensors, with an honest header.

    Raises:
        OutputError: it is missing or something else.
    """
    from safetensors import SafetensorError, safe_open

    with _open_regular(path) as (_, size):
        if size < 8:
            raise OutputError("weights.safetensors is empty")
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise OutputError(f"weights.safetensors is not a safetensors file: {error}") from error


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file with no second name: a link could stand for any file of the host.

    Raises:
        OutputError: missing, no regular file, or over `limit` bytes.
    """
    with _open_regular(path) as (file, size):
        if size > limit:
            raise OutputError(f"{path.name} has {size} bytes, allowed are {limit}")
        return file.read(limit)


@contextlib.contextmanager
def _open_regular(path: Path) -> Iterator[tuple[io.FileIO, int]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise OutputError(f"{path.name} is missing") from error
    except OSError as error:
        raise OutputError(f"{path.name} cannot be opened: {error.strerror}") from error
    with io.FileIO(fd) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise OutputError(f"{path.name} is not a plain file")
        yield file, status.st_size


@contextlib.contextmanager
def disk(what: str) -> Iterator[None]:
    """Turn a disk that fails into an `InfrastructureError` that says `what` could not be done."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InfrastructureError(
            f"cannot {what}: {error.strerror or error}",
            hint="free some disk space, then resume" if full else "check the run folder and its permissions",
        ) from error


def write_arrays(folder: Path, splits: Splits) -> list[Path]:
    """Write what a sandbox gets of `splits` as `.npy` files, and return them.

    Raises:
        InfrastructureError: the disk failed.
    """
    arrays = {name: getattr(splits, name) for name in ARRAYS}
    arrays |= {f"{CONTEXT}{name}": array for name, array in splits.context.items()}
    written = [folder / f"{name}.npy" for name in arrays]
    with disk(f"write the task's data to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for path, array in zip(written, arrays.values(), strict=True):
            np.save(path, np.ascontiguousarray(array), allow_pickle=False)
    return written


def remove_tree(path: Path) -> None:
    """Remove a folder that a candidate wrote in, however deep and with whatever permissions."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*command, "--", str(path)], check=False, capture_output=True)
        if path.exists():
            raise OSError(errno.EACCES, f"{path} cannot be removed") from None
