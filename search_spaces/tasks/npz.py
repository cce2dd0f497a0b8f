"""A user's own data: one `.npz` file becomes a task by options alone."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cambrian.search_spaces.errors import MissingDataError, UserError
from cambrian.search_spaces.registry import near_names
from cambrian.search_spaces.space import Signature
from cambrian.search_spaces.tasks.classification import ClassificationTask, held_out
from cambrian.search_spaces.tasks.task import Array, Recipe, Rung, Splits

LAYOUTS = ("HW", "HWC", "CHW", "flat", "vector")
_AXES = {"HW": 3, "HWC": 4, "CHW": 4, "flat": 2, "vector": 2}
_CHANNELS = (1, 3, 4)


class NpzTask(ClassificationTask):
    """Classification data in an `.npz` file with `x_train`, `y_train` and, if you like, `x_val`, `x_test`.

    Labels are whole numbers of any values; classes are their sorted distinct values in `y_train`. Splits that
    the file lacks are cut from the training data, stratified. Bytes are divided by 255; then every channel is
    standardised with the mean and deviation of the training split.

    Args:
        path: the file.
        title: the task's name; the file's stem when None.
        layout: how inputs lie in the arrays: `HW` `(n, h, w)`, `HWC` `(n, h, w, c)`, `CHW` `(n, c, h, w)`,
            `flat` `(n, h*w)` or `(n, c*h*w)` together with `shape`, `vector` `(n, features)` kept as they
            are. None takes what the number of axes says, where it is clear.
        shape: `[h, w]` or `[c, h, w]` of flat inputs.
        val_fraction: share of the training data that becomes the validation split, if there is none.
        test_fraction: share of the training data that becomes the test split, if there is none.
        seed: of the splits.
        metric: accuracy, balanced_accuracy, macro_f1 or nll.
        recipe: single fields of the recipe by name.
        rungs: mappings with `epochs` and `promote`.
        train_samples: use only this many training samples.

    Raises:
        MissingDataError: the file is not there or is no `.npz` file.
        UserError: an option or an array is not what it should be; the message names the file and the key.
    """

    def __init__(
        self,
        *,
        path: str | os.PathLike[str],
        title: str | None = None,
        layout: str | None = None,
        shape: Sequence[int] | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        seed: int = 0,
        metric: str = "accuracy",
        recipe: Mapping[str, Any] | None = None,
        rungs: Sequence[Mapping[str, Any]] | None = None,
        train_samples: int | None = None,
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise UserError(f"task npz: path: {path!r} is not a file name")
        self._path = Path(path).expanduser()
        name = title or self._path.stem
        _check_fractions(name, val_fraction, test_fraction)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UserError(f"task {name}: seed: {seed!r} is not a whole number from 0")
        arrays = _read_arrays(self._path)
        layout_of = _Layout.of(self._path, arrays["x_train"], layout, shape)
        self._data = _split(self._path, arrays, layout_of, val_fraction, test_fraction, seed)
        how = f"{layout_of}-{val_fraction}-{test_fraction}-{seed}".encode()
        digest = hashlib.sha256(self._path.read_bytes() + how).hexdigest()[:12]
        x_train, n_classes = self._data.x_train, int(self._data.y_train.max()) + 1
        super().__init__(
            name=name,
            version=f"1-{digest}",
            signature=Signature(input_shape=x_train.shape[1:], n_outputs=n_classes),
            defaults=Recipe(augment=("shift",) if x_train.ndim == 4 else ()),
            default_rungs=(Rung(epochs=3), Rung(epochs=9)),
            metric=metric,
            recipe=recipe,
            rungs=rungs,
            train_samples=train_samples,
        )

    def _read(self) -> Splits:
        return self._data

    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""
        shape = ", ".join(str(side) for side in self.signature.input_shape)
        return (
            "bytes divided by 255 (other numbers as they are), then standardised with mean and deviation of "
            f"each channel of the training split, as float32 of shape (n, {shape})"
        )

    def _subject(self) -> str:
        return f"data of the user's file {self._path.name}."


@dataclass(frozen=True)
class _Layout:
    """How inputs lie in the arrays of one file, after all checks."""

    name: str
    shape: tuple[int, ...] | None

    @classmethod
    def of(cls, path: Path, x: Array, layout: str | None, shape: Sequence[int] | None) -> _Layout:
        if layout is None:
            layout = _guess(path, x, shape)
        known = {name.lower(): name for name in LAYOUTS}
        if str(layout).lower() not in known:
            raise UserError(
                f"task npz: unknown layout {layout!r}", hint=near_names(str(layout), list(LAYOUTS))
            )
        name = known[str(layout).lower()]
        if x.ndim != _AXES[name]:
            raise UserError(
                f"{path}: x_train has shape {x.shape}, but layout {name} means {_AXES[name]} axes",
                hint=f"layouts that fit: {', '.join(n for n in LAYOUTS if _AXES[n] == x.ndim) or 'none'}",
            )
        if name != "flat":
            if shape is not None:
                raise UserError(
                    f"task npz: shape is for flat inputs, not for layout {name}", hint="leave shape out"
                )
            return cls(name, None)
        return cls(name, _image_shape(path, x, shape))

    def apply(self, x: Array) -> Array:
        """Inputs as float32 `(n, c, h, w)`, or `(n, features)` for vectors."""
        if self.name == "HW":
            x = x[:, None]
        elif self.name == "HWC":
            x = x.transpose(0, 3, 1, 2)
        elif self.shape is not None:
            x = x.reshape(len(x), *self.shape)
        scale = 255.0 if x.dtype == np.uint8 else 1.0
        return np.ascontiguousarray(x, dtype=np.float32) / np.float32(scale)


def _guess(path: Path, x: Array, shape: Sequence[int] | None) -> str:
    if x.ndim == 3:
        return "HW"
    if x.ndim == 2 and shape is not None:
        return "flat"
    if x.ndim == 4:
        first, last = x.shape[1] in _CHANNELS, x.shape[3] in _CHANNELS
        if first != last:
            return "CHW" if first else "HWC"
    hint = "flat inputs need shape: [h, w] or [c, h, w]; or set layout: vector" if x.ndim == 2 else ""
    raise UserError(
        f"{path}: x_train has shape {x.shape}, which does not tell how images lie in it",
        hint=hint or f"set layout to one of {', '.join(LAYOUTS)}",
    )


def _image_shape(path: Path, x: Array, shape: Sequence[int] | None) -> tuple[int, ...]:
    if (
        not isinstance(shape, Sequence)
        or len(shape) not in (2, 3)
        or not all(isinstance(side, int) and side > 0 for side in shape)
    ):
        raise UserError(
            f"task npz: shape: {shape!r} is not the shape of an image", hint="such as [28, 28] or [3, 32, 32]"
        )
    full = (1, *shape) if len(shape) == 2 else tuple(shape)
    if int(np.prod(full)) != x.shape[1]:
        raise UserError(
            f"{path}: x_train has {x.shape[1]} values a sample, shape {list(shape)} has {np.prod(full)}",
            hint="correct shape",
        )
    return full


def _check_fractions(task: str, val: float, test: float) -> None:
    for name, value in (("val_fraction", val), ("test_fraction", test)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise UserError(f"task {task}: {name}: {value!r} is not between 0 and 1")
    if val + test >= 1:
        raise UserError(f"task {task}: val_fraction and test_fraction leave nothing to train on")


def _read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of the file that we know, each checked for its type, length and finiteness."""
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file", hint="correct task.path")
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MissingDataError(
            f"{path}: not an .npz file ({error})", hint="write it with numpy.savez"
        ) from error
    if not isinstance(stored, np.lib.npyio.NpzFile):
        raise MissingDataError(f"{path}: one array, not an .npz file", hint="write it with numpy.savez")
    arrays: dict[str, Array] = {}
    with stored:
        for part in ("train", "val", "test"):
            present = [key for key in (f"x_{part}", f"y_{part}") if key in stored]
            if part != "train" and not present:
                continue
            for key in (f"x_{part}", f"y_{part}"):
                arrays[key] = _read_array(path, stored, key)
            _check_pair(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    for key in ("x_val", "x_test"):
        if key in arrays and arrays[key].shape[1:] != arrays["x_train"].shape[1:]:
            raise UserError(
                f"{path}: {key} has samples of shape {arrays[key].shape[1:]}, x_train of "
                f"{arrays['x_train'].shape[1:]}"
            )
        if key in arrays and (arrays[key].dtype == np.uint8) != (arrays["x_train"].dtype == np.uint8):
            raise UserError(
                f"{path}: {key} has type {arrays[key].dtype}, x_train {arrays['x_train'].dtype}",
                hint="only bytes are divided by 255: store both alike",
            )
    return arrays


def _read_array(path: Path, stored: Any, key: str) -> Array:
    if key not in stored:
        raise UserError(
            f"{path}: no array {key}", hint=f"it holds {', '.join(sorted(stored.files)) or 'nothing'}"
        )
    try:
        array: Array = stored[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: {key} cannot be read: {error}", hint="store plain numbers") from error
    return array


def _check_pair(path: Path, part: str, x: Array, y: Array) -> None:
    if x.dtype.kind not in "fiub" or x.ndim < 2:
        raise UserError(f"{path}: x_{part} has shape {x.shape} and type {x.dtype}: not numbers by sample")
    if y.dtype.kind not in "iub" or y.ndim != 1:
        raise UserError(
            f"{path}: y_{part} has shape {y.shape} and type {y.dtype}, not whole numbers of shape (n,)",
            hint="store labels as integers, one a sample: y.astype('int64').ravel()",
        )
    if len(x) != len(y) or len(x) == 0:
        raise UserError(f"{path}: x_{part} has {len(x)} samples, y_{part} {len(y)} labels")
    if not np.isfinite(x).all():
        raise UserError(f"{path}: x_{part} holds values that are not finite", hint="clean or impute them")


def _split(
    path: Path,
    arrays: dict[str, Array],
    layout: _Layout,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> Splits:
    classes, y = np.unique(arrays["y_train"], return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"{path}: y_train has {len(classes)} class; at least 2 are needed")
    lacking = [
        part for part, share in (("val", val_fraction), ("test", test_fraction)) if f"x_{part}" not in arrays
    ]
    shares = {"val": val_fraction, "test": test_fraction}
    sizes = [max(1, round(shares[part] * len(y))) for part in lacking]
    *held, train = held_out(y, sizes, seed=seed)
    rare = np.setdiff1d(np.arange(len(classes)), y[train])
    if len(rare):
        raise UserError(
            f"{path}: y_train: class {classes[rare[0]]} has too few samples to be split",
            hint="add samples, drop the class, or store x_val and x_test",
        )
    x = layout.apply(arrays["x_train"])
    parts = {"train": (x[train], y[train].astype(np.int64))}
    for part, chosen in zip(lacking, held, strict=True):
        parts[part] = (x[chosen], y[chosen].astype(np.int64))
    for part in {"val", "test"} - set(lacking):
        unknown = np.setdiff1d(arrays[f"y_{part}"], classes)
        if len(unknown):
            raise UserError(f"{path}: y_{part} holds {unknown[0]}, a class that y_train lacks")
        labels = np.searchsorted(classes, arrays[f"y_{part}"]).astype(np.int64)
        parts[part] = (layout.apply(arrays[f"x_{part}"]), labels)
    axes = (0, 2, 3) if x.ndim == 4 else (0,)
    mean = parts["train"][0].mean(axis=axes, keepdims=True, dtype=np.float64)
    std = parts["train"][0].std(axis=axes, keepdims=True, dtype=np.float64)
    std[std < 1e-6] = 1.0
    ready = {
        part: (((inputs - mean) / std).astype(np.float32), labels) for part, (inputs, labels) in parts.items()
    }
    return Splits(*ready["train"], *ready["val"], *ready["test"])
