"""Size as a proxy: plain, and hard to beat."""

from __future__ import annotations

import copy

import torch

from cambrian.sandbox.examination.counting import count
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

    2 per multiply-add, of convolutions and matrix products; in a graph, of one pass over all nodes. Counted
    on the meta device, or on two real samples where what a network does depends on their values.
    """

    name = "flops"

    def measure(self, specimen: Specimen) -> float | None:
        """See `Proxy`."""
        inputs = specimen.inputs[:2]
        try:
            module, trace = copy.deepcopy(specimen.module).to("meta"), ForwardTrace()
            with torch.no_grad(), trace:
                module(torch.empty_like(inputs, device="meta"))
            flops = trace.flops
        except Exception:  # a module of any author's: what fails there may still run on real numbers
            flops = count(specimen.module, inputs).flops
        return float(flops if specimen.nodes is not None else flops // len(inputs))
