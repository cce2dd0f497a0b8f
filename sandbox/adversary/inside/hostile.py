"""A space whose genotypes misbehave on purpose; lives inside sandboxes only, as a plugin."""

from __future__ import annotations

from typing import Any

from torch import nn

from .forging import FORGING
from .networks import NETWORKS, Bomb, Plain
from .reach import REACH
from .resources import RESOURCES, Act

ACTS: dict[str, Act] = {**RESOURCES, **REACH, **FORGING}


class HostileSpace:
    """Genotype: `{"act": name, ...}`; `"when"` is `build` (the default), `training` or `evaluating`."""

    name = "hostile"

    def build(self, genotype: dict[str, Any], signature: Any) -> nn.Module:
        """A network that misbehaves, or a plain one after the act."""
        act, classes = genotype["act"], signature.n_outputs
        if act in NETWORKS:
            return NETWORKS[act](classes, genotype)
        if (when := genotype.get("when", "build")) != "build":
            return Bomb(classes, when, lambda: ACTS[act](genotype))
        made = ACTS[act](genotype)
        return made if isinstance(made, nn.Module) else Plain(classes)
