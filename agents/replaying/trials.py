"""Measurements from the records of a run, in place of a sandbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from cambrian.agents.errors import UserError
from cambrian.agents.population.journal import JournalEntry
from cambrian.agents.population.model import Candidate, Evaluation
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.population.view import Population
from cambrian.agents.trial import EXAMINE, Trials
from cambrian.sandbox import Isolation, Job, JobState, Outcome
from cambrian.sandbox.examination.report import ExamineSpec
from cambrian.search_spaces import Splits


def recorded_evaluations(store: PopulationStore) -> dict[tuple[str, int, int], Evaluation]:
    """By candidate, rung and seed, as they were before any of them lost its score."""
    found = {(e.candidate_id, e.rung, e.seed): e for e in store.evaluations()}
    for entry in store.journal():
        for lost in entry.data.get("lost", ()) if entry.kind == "discredit" else ():
            evaluation = Evaluation.model_validate(lost)
            found[evaluation.candidate_id, evaluation.rung, evaluation.seed] = evaluation
    return found


@dataclass(frozen=True)
class RecordedTrials(Trials):
    """Tells what the run measured.

    Attributes:
        evaluations: see `recorded_evaluations`.
        current: the line of the journal that is done again.
    """

    evaluations: dict[tuple[str, int, int], Evaluation] = field(default_factory=dict)
    current: list[JournalEntry] = field(default_factory=list)

    async def run(self, candidate: Candidate, rung: int) -> Evaluation:
        """See `Trials.run`."""
        return self.evaluations[candidate.id, rung, self.config.seed]

    async def examine(self, candidate: Candidate, spec: ExamineSpec) -> Outcome:
        """See `Trials.examine`.

        Raises:
            UserError: the run has not kept what was found.
        """
        path = self._examination(candidate)
        try:
            return Outcome.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"the examination of {candidate.id} cannot be read: {path}") from error

    async def reproduce(self, candidate: Candidate, rung: int, seed: int | None = None) -> str:
        """See `Trials.reproduce`: what the run found."""
        evaluation = self.evaluations.get((candidate.id, rung, self.config.seed if seed is None else seed))
        if evaluation is not None and evaluation.state == JobState.NOT_REPRODUCED:
            return evaluation.reason
        return ""

    def enters_top(self, candidate: Candidate, population: Population) -> bool:
        """Whether the run had it reproduced at this moment: others may have landed while it did."""
        entry = self.current[-1]
        evaluation = self.evaluations[candidate.id, entry.data["rung"], entry.data["seed"]]
        return entry.data["reproduced"] is not None or evaluation.state == JobState.NOT_REPRODUCED

    def _examination(self, candidate: Candidate) -> Path:
        return self.folder / "jobs" / f"{candidate.id}{EXAMINE}" / "outcome.json"


class Nowhere:
    """Implements `Sandbox` for a replay, which never runs a job."""

    isolation = Isolation(level="table", not_enforced=())

    async def open(
        self, run_id: str, folder: Path, splits: Splits, slots: int, space: Path | None = None
    ) -> None:
        """Nothing to open."""

    async def run(self, job: Job) -> Outcome:
        """Refused: a replay that came here would measure instead of looking it up."""
        raise AssertionError(f"a replay has run the job {job.id}")

    async def close(self) -> None:
        """Nothing to close."""
