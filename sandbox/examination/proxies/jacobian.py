"""Jacobian covariance: outputs that depend on each input in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cambrian.sandbox.examination.proxies.proxy import Specimen

_EPSILON = 1e-5


class JacobianCovariance:
    """Covariance of the Jacobian (Mellor et al. 2020, arXiv:2006.04647v1).

    The gradient of the summed outputs by each sample is a row; the eigenvalues v of the rows' correlations
    give -sum(log(v + k) + 1 / (v + k)), k = 1e-5. At most -n for n samples, reached where no two rows are
    correlated.

    Ids have no gradient: it is taken by their embeddings, and in a graph by the features of the nodes that
    are asked for. Missing where an output does not depend on some sample, and for ids without an embedding.
    """

    name = "jacob_cov"

    def measure(self, specimen: Specimen) -> float | None:
        """See `Proxy`."""
        source = _Source(specimen)
        outputs = source.run()
        if source.leaf is None or not outputs.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(outputs.sum(), source.leaf, allow_unused=True)
        rows = None if gradient is None else specimen.rows(gradient)
        if rows is None or rows.shape[1] < 2:
            return None
        values = rows.double().numpy()
        if not np.isfinite(values).all() or (np.ptp(values, axis=1) == 0).any():
            return None
        spectrum = np.clip(np.linalg.eigvalsh(np.corrcoef(values)), 0, None) + _EPSILON
        return float(-(np.log(spectrum) + 1 / spectrum).sum())


class _Source(TorchFunctionMode):
    """Runs the network with a leaf of the autograd graph where the samples' numbers first appear."""

    def __init__(self, specimen: Specimen) -> None:
        super().__init__()
        self._specimen = specimen
        self.leaf: Tensor | None = None

    def run(self) -> Tensor:
        """The outputs."""
        module, inputs = self._specimen.module, self._specimen.inputs
        if self._specimen.nodes is not None:
            held = [child for child in module.modules() if isinstance(child._buffers.get("features"), Tensor)]
            self.leaf = held[0]._buffers["features"].detach().clone().requires_grad_()  # type: ignore[union-attr]
            for child in held:
                child._buffers["features"] = self.leaf
        elif self._specimen.takes_ids:
            with self:
                outputs: Tensor = module(inputs)
            return outputs
        else:
            self.leaf = inputs = inputs.detach().clone().requires_grad_()
        outputs = module(inputs)
        return outputs

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is functional.embedding and self.leaf is None:
            ids = args[0] if args else kwargs["input"]
            if ids.shape == self._specimen.inputs.shape:
                self.leaf = out = out.detach().requires_grad_()
        return out
