"""Size as a proxy: plain, and hard to beat."""

from __future__ import annotations

import copy

import torch

from cambrian.sandbox.examination.proxies.proxy import Specimen
from cambrian.sandbox.examination.rules import ForwardTrace


class Parameters:
    """Trained parameters, as the static check counts them. Never missing."""

    name = "params"

    def measure(self, specimen: Specimen) -> float | None:
        """See `Proxy`."""
        return float(sum(each.numel() for each in specimen.module.parameters() if each.requires_grad))


class Flops:
    """Operations of one sample, as the static check counts them.

    2 per multiply-add, of convolutions and matrix products; in a graph, of one pass over all nodes.

    Missing where a network cannot run on the meta device, because what it does depends on values.
    """

    name = "flops"

    def measure(self, specimen: Specimen) -> float | None:
        """See `Proxy`."""
        samples = 2
        module = copy.deepcopy(specimen.module).to("meta")
        inputs = torch.empty_like(specimen.inputs[:samples], device="meta")
        trace = ForwardTrace()
        with torch.no_grad(), trace:
            module(inputs)
        return float(trace.flops if specimen.nodes is not None else trace.flops // len(inputs))
