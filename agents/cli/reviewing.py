"""`cambrian review`: answer for the proposals that wait for a person."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Literal

from cambrian.agents.cli.app import emit
from cambrian.agents.errors import UserError
from cambrian.agents.population.model import Candidate, CandidateState
from cambrian.agents.report import count_text
from cambrian.agents.review import FolderDesk
from cambrian.agents.workspace import Workspace


def review_command(
    run: str, approve: list[str], reject: list[str], reason: str, as_json: bool, runs: Path | None
) -> None:
    """List, decide by option, or ask one by one on a terminal."""
    workspace = Workspace(runs)
    store = workspace.open(run)
    desk = FolderDesk(store.folder / "review")
    answered = {path.stem for path in (store.folder / "review").glob("*.json")}
    waiting = {
        c.id: c for c in store.candidates() if c.state is CandidateState.PARKED and c.id not in answered
    }
    if approve or reject:
        approve = sorted(waiting.keys() - set(reject)) if approve == ["all"] else approve
        for cid in [*approve, *reject]:
            if cid not in waiting:
                raise UserError(
                    f"{cid} does not wait for review in {store.run.run_id}",
                    hint=f"waiting: {', '.join(sorted(waiting)) or 'none'}",
                )
        for cid in approve:
            desk.decide(cid, "approve", reason, by=_who())
        for cid in reject:
            desk.decide(cid, "reject", reason, by=_who())
        if as_json:
            emit({"approved": approve, "rejected": reject})
        else:
            print(f"approved {len(approve)}, rejected {len(reject)}; the run takes it up within seconds")
        return
    if as_json:
        emit([c.model_dump(mode="json") for c in waiting.values()])
        return
    if not waiting:
        print(f"nothing waits for review in {store.run.run_id}")
        return
    for candidate in waiting.values():
        print(_card(candidate))
        if sys.stdin.isatty() and not _ask(desk, candidate):
            return


def _ask(desk: FolderDesk, candidate: Candidate) -> bool:
    """Ask for one decision; False when the reviewer has had enough."""
    while True:
        answer = input("[a]pprove, [r]eject, [s]kip, [q]uit? ").strip().lower()[:1]
        verdicts: dict[str, Literal["approve", "reject"]] = {"a": "approve", "r": "reject"}
        if answer in verdicts:
            reason = input("why? (the planner is told) ").strip() if answer == "r" else ""
            desk.decide(candidate.id, verdicts[answer], reason, by=_who())
            return True
        if answer in {"s", "q"}:
            return answer == "s"


def _card(candidate: Candidate) -> str:
    proposal = candidate.proposal
    lines = [f"{candidate.id} by {proposal.arm}: {candidate.summary}"]
    if candidate.static is not None:
        lines.append(
            f"    {count_text(candidate.static.parameters)} parameters, "
            f"{count_text(candidate.static.flops)} FLOPs"
        )
    if candidate.prediction is not None:
        lines.append(f"    predicted score {candidate.prediction:.4f}")
    if proposal.edit:
        lines.append(f"    {proposal.edit} ({', '.join(proposal.parents) or 'no parents'})")
    if proposal.hypothesis:
        lines.append(f"    {proposal.hypothesis}")
    return "\n".join(lines)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "reviewer"
