"""Zero-cost proxies: what a network's first moments say of how well it may learn, before any training.

    proxy       the `Proxy` protocol, and what a proxy is given
    naswot      how differently a batch switches the rectifiers
    synflow     how much the weights let through, without data
    gradients   SNIP and the norm of the gradient on one batch
    fisher      how much the loss would feel the loss of a channel
    jacobian    how differently the outputs depend on the inputs
    size        parameters and operations

Third parties register a proxy under the entry-point group `cambrian.proxies`. Importing this package costs
nothing; its modules need torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cambrian.search_spaces.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cambrian.sandbox.examination.proxies.proxy import Proxy
    from cambrian.search_spaces import Loss

_HERE = "cambrian.sandbox.examination.proxies"

PROXIES: Registry[Proxy] = Registry(
    "proxy",
    "cambrian.proxies",
    {
        "fisher": f"{_HERE}.fisher:Fisher",
        "flops": f"{_HERE}.size:Flops",
        "grad_norm": f"{_HERE}.gradients:GradNorm",
        "jacob_cov": f"{_HERE}.jacobian:JacobianCovariance",
        "naswot": f"{_HERE}.naswot:Naswot",
        "params": f"{_HERE}.size:Parameters",
        "snip": f"{_HERE}.gradients:Snip",
        "synflow": f"{_HERE}.synflow:SynFlow",
    },
)
"""Factories take no arguments."""


def compute(
    names: Iterable[str], build: Callable[[], nn.Module], inputs: Tensor, targets: Tensor, loss: Loss
) -> dict[str, float]:
    """Proxies of a network at its initialisation; equal arguments give equal numbers.

    Args:
        names: of registered proxies.
        build: gives a freshly initialised module on the CPU, ready to run: it holds the graph if its task
            has one. Called once, with torch's generator at a fixed seed.
        inputs: one small batch of training data, `(n, *input_shape)`; float32, or int64 ids. More samples
            tell more; the papers take 64 or so.
        targets: their classes `(n,)`, or their values `(n, n_outputs)`.
        loss: what training would minimise.

    Returns:
        Finite numbers by name. What cannot be computed for this network is missing, see each proxy.

    Raises:
        UnknownNameError: no such proxy; the hint lists the near ones.
    """
    from cambrian.sandbox.examination.proxies.proxy import compute_all

    proxies = {name: PROXIES.create(name) for name in names}
    return compute_all(proxies, build, inputs, targets, loss)


__all__ = ["PROXIES", "compute"]
