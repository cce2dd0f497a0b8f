"""The catalogue of hostile candidates."""

from __future__ import annotations

from cambrian.sandbox.adversary.against_machine import endings, reaching, resources
from cambrian.sandbox.adversary.against_score import cheating, results
from cambrian.sandbox.adversary.probe import Probe


def catalogue() -> tuple[Probe, ...]:
    """All probes, in an order that puts long waits early."""
    return (*resources(), *endings(), *reaching(), *results(), *cheating())


def short_suite() -> tuple[Probe, ...]:
    """Those that `cambrian sandbox check` runs unless it is asked for all."""
    return tuple(probe for probe in catalogue() if probe.short)
