"""Proxies of the first gradient: SNIP, and its norm."""

from __future__ import annotations

import math

from cambrian.sandbox.examination.proxies.proxy import Specimen


class Snip:
    """SNIP (Lee et al. 2019, arXiv:1810.02340) as a proxy (Abdelfattah et al. 2021, arXiv:2101.08134).

    The sum over all weights of |weight times gradient| of the loss on the batch: by how much it would change,
    to first order, if each connection were cut. Biases and scales are left out. Missing where no weight has
    a gradient.
    """

    name = "snip"

    def measure(self, specimen: Specimen) -> float | None:
        """See `Proxy`."""
        pairs = specimen.gradients
        # fsum: exact, so that the order of the parameters does not show
        return math.fsum(float((w.detach() * g).abs().sum()) for w, g in pairs) if pairs else None


class GradNorm:
    """Norm of the gradient (Abdelfattah et al. 2021, arXiv:2101.08134).

    The sum over weight tensors of the Euclidean norm of the gradient of the loss on the batch. Biases and
    scales are left out. Missing where no weight has a gradient.
    """

    name = "grad_norm"

    def measure(self, specimen: Specimen) -> float | None:
        """See `Proxy`."""
        pairs = specimen.gradients
        return math.fsum(float(g.norm()) for _, g in pairs) if pairs else None
