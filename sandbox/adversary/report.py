"""What a trial found, as data and as a table."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cambrian.sandbox.protocol import Isolation, JobState


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HonestResult(_Data):
    """One thing that an honest candidate must get.

    Attributes:
        name: what.
        ok: whether it did.
        detail: in words.
        wall_s: seconds it took.
    """

    name: str
    ok: bool
    detail: str
    wall_s: float


class ProbeResult(_Data):
    """How one hostile candidate fared.

    Attributes:
        name: of the probe.
        attempt: what it tried, in one sentence.
        state: how it ended; None when it was left out.
        reason: as the outcome has it.
        problems: what was not stopped and not declared; empty when all is well.
        declared: what was not stopped, but is among what the sandbox says that it does not enforce.
        left: what it left behind on this machine or engine.
        unharmed: whether a plain candidate that ran after it got the same weights as before.
        skipped: why it was not run; empty when it was.
        wall_s: seconds.
    """

    name: str
    attempt: str
    state: JobState | None
    reason: str = ""
    problems: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    unharmed: bool = True
    skipped: str = ""
    wall_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Contained or declared, rightly labelled, nothing left, the next one unharmed."""
        return not self.problems and not self.left and self.unharmed

    @property
    def verdict(self) -> str:
        """One word or two."""
        if self.skipped:
            return "left out"
        if not self.ok:
            return "NOT CONTAINED"
        return "declared" if self.declared else "contained"

    @property
    def ending(self) -> str:
        """The state; for a candidate that trained, why that is right."""
        if self.state is JobState.TRAINED and self.ok and not self.declared:
            return f"{self.state}, did no harm"
        return self.state or ""


class TrialReport(_Data):
    """All of a trial.

    Attributes:
        isolation: of the sandbox.
        honest: what honest candidates got.
        probes: how hostile ones fared.
        left: what was still there when the sandbox had been closed.
        wall_s: seconds from the first job to the last.
    """

    isolation: Isolation
    honest: tuple[HonestResult, ...]
    probes: tuple[ProbeResult, ...]
    left: tuple[str, ...] = ()
    wall_s: float

    @property
    def passed(self) -> bool:
        """Whether the sandbox does what it says."""
        return all(h.ok for h in self.honest) and all(p.ok for p in self.probes) and not self.left

    def __rich__(self) -> Group:
        """A table of all, then why what failed did."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("candidate", "what it tried", "result", "state"):
            table.add_column(name, overflow="fold")
        table.add_column("s", justify="right")
        for one in self.honest:
            word = Text("ok", "green") if one.ok else Text("FAILED", "bold red")
            table.add_row("honest", Text(f"{one.name}: {one.detail}"), word, "", f"{one.wall_s:.1f}")
        for probe in self.probes:
            style = "dim" if probe.skipped else "yellow" if probe.declared else "green"
            verdict = Text(probe.verdict, style if probe.ok else "bold red")
            table.add_row(probe.name, Text(probe.attempt), verdict, probe.ending, f"{probe.wall_s:.1f}")
        lines = [Text(f"{name}: {what}", style) for name, what, style in self._remarks()]
        return Group(table, *lines, self._summary())

    def _remarks(self) -> list[tuple[str, str, str]]:
        found = []
        for probe in self.probes:
            found += [(probe.name, problem, "red") for problem in probe.problems]
            found += [(probe.name, f"left {thing}", "red") for thing in probe.left]
            if not probe.unharmed:
                found.append((probe.name, "a plain candidate after it got other weights than before", "red"))
            found += [(probe.name, f"not stopped, as declared: {what}", "yellow") for what in probe.declared]
            if probe.skipped:
                found.append((probe.name, probe.skipped, "dim"))
        return found + [("after closing", f"left {thing}", "red") for thing in self.left]

    def _summary(self) -> Text:
        run = [probe for probe in self.probes if not probe.skipped]
        contained = sum(probe.ok and not probe.declared for probe in run)
        declared = sum(probe.ok and bool(probe.declared) for probe in run)
        counts = f"{contained} of {len(run)} hostile candidates contained"
        counts += f", {declared} declared as not stopped" if declared else ""
        counts += (
            f", {len(run) - contained - declared} NOT CONTAINED" if contained + declared < len(run) else ""
        )
        return Text(
            f"{self.isolation.level}: {counts}, in {self.wall_s:.0f} s", "bold" if self.passed else "bold red"
        )
