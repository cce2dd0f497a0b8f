"""What a run shows in the terminal: a live view on one, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cambrian.agents.discovery import Discovery
from cambrian.agents.population.model import Candidate, CandidateState
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.report import count_text
from cambrian.agents.session import Watch
from cambrian.agents.wording import one_line

REFRESH_PER_S = 4
STYLES = {
    CandidateState.EVALUATED: "green",
    CandidateState.DUPLICATE: "dim",
    CandidateState.SCREENED: "dim",
    CandidateState.FAILED: "red",
    CandidateState.INVALID: "red",
}


class Terminal:
    """Watches one run. Use as a context manager around it.

    Args:
        quiet: print nothing at all (`--json`).
        console: where to print; standard output by default.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self._quiet = quiet
        self._console = console or Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self._live: Live | None = None
        self._discovery: Discovery | None = None
        self._store: PopulationStore | None = None
        self._best: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def watch(self) -> Watch:
        """The callbacks to hand to a session."""
        return Watch(say=self.say, started=self._started, landed=self._landed)

    def say(self, line: str) -> None:
        """Print one line, above the live view where there is one."""
        if not self._quiet:
            self._console.print(Text(line))

    def stop(self) -> None:
        """Take the live view down. Safe to call twice."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _started(self, discovery: Discovery, store: PopulationStore) -> None:
        self._discovery, self._store = discovery, store
        isolation = discovery.services.sandbox.isolation
        weak = f" (cannot stop: {'; '.join(isolation.not_enforced)})" if isolation.not_enforced else ""
        meter = discovery.services.meter
        measured = f"; latency on {meter.name}: {meter.sandbox.isolation.level}" if meter is not None else ""
        self.say(f"run {store.folder.name}: sandbox {isolation.level}{weak}{measured}")
        elite = discovery.services.population.elite(1)
        best = elite[0] if elite else None
        if best is not None and best.score is not None:
            self._best = best.reward(best.score, discovery.services.task.maximize)
        if not self._quiet and self._console.is_terminal:
            self._live = Live(
                get_renderable=self._view,
                console=self._console,
                refresh_per_second=REFRESH_PER_S,
                transient=True,
            )
            self._live.start()

    def _landed(self, candidate: Candidate) -> None:
        if self._quiet or self._discovery is None:
            return
        account = self._discovery.account
        line = Text(f"{time.strftime('%H:%M:%S')} {candidate.id} {candidate.proposal.arm:<9} ")
        line.append(f"{candidate.state:<10} ", style=STYLES.get(candidate.state, "yellow"))
        line.append(" ".join(self._facts(candidate)))
        line.append(f"  [{account.describe()}]", style="dim")
        self._console.print(line)

    def _facts(self, candidate: Candidate) -> list[str]:
        parts: list[str] = []
        metric = self._store.run.metric if self._store else "score"
        if candidate.score is not None:
            parts.append(f"{metric} {candidate.score:.4f}")
            if candidate.rung:
                parts.append(f"rung {candidate.rung}")
        if candidate.latency_ms is not None:
            parts.append(f"{candidate.latency_ms:.2f} ms")
        if candidate.reproduced:
            parts.append("reproduced")
        if candidate.static is not None and candidate.state is CandidateState.EVALUATED:
            parts.append(f"{count_text(candidate.static.parameters)} params")
        if candidate.reason:
            parts.append(one_line(candidate.reason))
        if self._is_best(candidate):
            parts.append("<- best so far")
        return parts

    def _is_best(self, candidate: Candidate) -> bool:
        if self._discovery is None or candidate.score is None or not candidate.feasible:
            return False
        elite = self._discovery.services.population.elite(1)
        maximize = self._discovery.services.task.maximize
        worth = candidate.reward(candidate.score, maximize)
        if not elite or elite[0].id != candidate.id or worth == self._best:
            return False
        better = self._best is None or (worth > self._best) == maximize
        self._best = worth
        return better

    def _view(self) -> Group:
        discovery = self._discovery
        if discovery is None:
            return Group()
        services, account = discovery.services, discovery.account
        counts = services.population.counts()
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text("budget", style="bold"), ProgressBar(total=1.0, completed=1 - account.left(), width=40)
        )
        head.add_row("", Text(account.describe()))
        head.add_row(
            Text("population", style="bold"), Text(", ".join(f"{n} {state}" for state, n in counts.items()))
        )
        best = services.population.elite(1)
        if best:
            head.add_row(
                Text("best", style="bold"),
                Text(f"{best[0].id} {' '.join(self._plain(best[0]))}: {best[0].summary}"),
            )
        for number, doing in enumerate(discovery.slots):
            head.add_row(Text(f"slot {number}", style="bold"), Text(doing, overflow="ellipsis", no_wrap=True))
        arms = {name: status for name, status in discovery.portfolio.status().items() if status != "active"}
        for name, status in arms.items():
            head.add_row(Text(f"arm {name}", style="bold"), Text(status, style="yellow"))
        return Group(Text(""), head)

    def _plain(self, candidate: Candidate) -> list[str]:
        parts = [f"{candidate.score:.4f}"]
        if candidate.latency_ms is not None:
            parts.append(f"{candidate.latency_ms:.2f} ms")
        return parts
