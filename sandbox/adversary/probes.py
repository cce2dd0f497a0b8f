"""The catalogue of hostile candidates."""

from __future__ import annotations

from cambrian.sandbox.adversary.against_machine import endings, reaching, resources
from cambrian.sandbox.adversary.against_score import cheating, examinations, results
from cambrian.sandbox.adversary.probe import BRIEF, Probe


def catalogue() -> tuple[Probe, ...]:
    """All probes; those that wait for the end of their time come last, because they share other limits."""
    probes = (*resources(), *endings(), *reaching(), *results(), *examinations(), *cheating())
    return tuple(sorted(probes, key=lambda probe: probe.limits.wall_s == BRIEF.wall_s))


def short_suite() -> tuple[Probe, ...]:
    """Those that `cambrian sandbox check` runs unless it is asked for all."""
    return tuple(probe for probe in catalogue() if probe.short)
