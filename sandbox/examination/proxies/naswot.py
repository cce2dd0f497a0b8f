"""NASWOT: networks that tell the samples of a batch apart before training learn better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cambrian.sandbox.examination.proxies.proxy import Specimen

RECTIFIERS: frozenset[Any] = frozenset(
    {
        functional.relu, functional.relu6, functional.leaky_relu, functional.prelu, functional.rrelu,
        functional.elu, functional.selu, functional.celu, functional.gelu, functional.silu, functional.mish,
        functional.hardswish, functional.relu_, functional.leaky_relu_, functional.elu_, functional.selu_,
        functional.celu_, functional.rrelu_, torch.relu, torch.relu_, torch.prelu, torch.selu, torch.celu,
        Tensor.relu, Tensor.relu_, Tensor.prelu,
    }
)  # fmt: skip
"""Activations that are off, or nearly so, below zero and on above it."""


class Naswot:
    """Neural architecture search without training (Mellor et al. 2021, arXiv:2006.04647v3).

    Each sample switches every rectifier on or off. The kernel counts, for each pair of samples, the
    rectifiers that agree; the proxy is the log-determinant of the sum over layers. It grows with the number
    of samples and of rectifiers: compare within one batch only.

    Published for ReLU; here, as others have done, a smooth or leaky one counts as on where its input is
    positive. Missing for networks without rectifiers, and where the codes of the samples are linearly
    dependent, as two equal ones are or any that are more than the rectifiers: the determinant is 0.
    """

    name = "naswot"

    def measure(self, specimen: Specimen) -> float | None:
        """See `Proxy`."""
        codes = _Codes(specimen)
        with torch.no_grad(), codes:
            specimen.module(specimen.inputs)
        if codes.kernel is None:
            return None
        # rounding makes the determinant of a singular kernel some small number: look at the spectrum instead
        spectrum = np.linalg.eigvalsh(codes.kernel.numpy())
        if spectrum[0] <= spectrum[-1] * len(spectrum) * np.finfo(np.float64).eps:
            return None
        return float(np.log(spectrum).sum())


class _Codes(TorchFunctionMode):
    """Adds up, over the rectifiers that run, how many of them agree for each pair of samples."""

    def __init__(self, specimen: Specimen) -> None:
        super().__init__()
        self._specimen = specimen
        self.kernel: Tensor | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in RECTIFIERS:
            given = args[0] if args else kwargs["input"]
            rows = self._specimen.rows(given)
            if rows is not None:
                signs = (rows > 0).double() * 2 - 1
                agreeing = (signs @ signs.T + signs.shape[1]) / 2
                self.kernel = agreeing if self.kernel is None else self.kernel + agreeing
        return func(*args, **kwargs)
