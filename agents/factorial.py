"""The last step of a run with recipe genes: {reference, best architecture} x {task's, best recipe}.

The reference is the first known network of the run file that was evaluated, one at the best candidate's rung
before others; without any, the best candidate of the random arm that has another architecture. All four are
compared at the best candidate's rung, the highest that was reached, with the run's seed. What is not measured
there yet is trained there at once, without the lower rungs: as a candidate of the arm `factorial`, or, where
the pair is in the population already, as one more evaluation of that candidate. So each pair costs one
evaluation at most; the search leaves that many of the budget. When nothing else is left, those that turn out
not to be needed (the best candidate is the reference, or has the task's recipe) go back to the search. Should
it then find a better candidate that needs them, they lack, and the report says so.

Which four is decided once, when the search is over, and kept in the store. All else follows from the store:
a run that is killed here and resumed does the rest. With a larger budget the search goes on, and the four are
chosen anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.parts import GainParts, Scores, not_measured, parts_of_gain
from cambrian.agents.evaluator.ranking import rank_key
from cambrian.agents.population.model import (
    BASELINE_ARM,
    CONTROL_ARM,
    FACTORIAL_ARM,
    Candidate,
    CandidateState,
    Evaluation,
    Proposal,
    candidate_id,
)
from cambrian.agents.population.store import RunRecord
from cambrian.search_spaces import Genotype
from cambrian.search_spaces.recipes import WithRecipe

if TYPE_CHECKING:
    from cambrian.agents.lifecycle import Services

FACTORIAL_KEY = "factorial"
"""Under this key the store keeps the plan."""
LEAST_SHARE = 4
"""Of the budget's evaluations at most one in so many is set aside."""

_DEAD = {
    CandidateState.INVALID,
    CandidateState.INFEASIBLE,
    CandidateState.REJECTED,
    CandidateState.FAILED,
}


class Cell(BaseModel):
    """One architecture with one recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    genotype: dict[str, Any]


class Plan(BaseModel):
    """Which four are compared.

    Attributes:
        budget: of the run when it was made; another budget means another plan.
        search_ended: why.
        problem: why nothing is compared; empty when something is.
        reference: its name, or id.
        cells: in the order of `Scores`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: dict[str, Any]
    search_ended: str
    problem: str = ""
    rung: int = 0
    reference: str = ""
    best: str = ""
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class CellState:
    """How far a cell is.

    Attributes:
        candidate: who stands for it; None when it has to be proposed.
        score: at the plan's rung.
        problem: why there will be none; empty while there may be.
    """

    cell: Cell
    candidate: Candidate | None
    score: float | None = None
    problem: str = ""

    @property
    def open(self) -> bool:
        """Whether it is still to be measured."""
        return self.score is None and not self.problem


@dataclass(frozen=True)
class Step:
    """One evaluation to be made: of a new candidate, or of one that is there."""

    rung: int
    proposal: Proposal | None = None
    candidate: Candidate | None = None


class Factorial:
    """What the discovery loop asks about the factorial.

    Args:
        services: of the run; its space has recipe genes.

    Attributes:
        plan: None while the search goes on.
    """

    purpose = "the parts of the gain"

    def __init__(self, services: Services, space: WithRecipe) -> None:
        self._do, self._space = services, space
        self._tried: set[str] = set()
        self.plan = read_plan(services.store.get_meta(FACTORIAL_KEY), self._budget())

    @classmethod
    def of(cls, services: Services) -> Factorial | None:
        """The factorial of a run; None when it has no recipe genes."""
        space = services.space
        return cls(services, space) if isinstance(space, WithRecipe) else None

    def kept(self) -> int:
        """Evaluations that the search has to leave while it may change which four are compared."""
        return 0 if self.plan is not None or self._too_small() else self._needed()

    def missing(self) -> int:
        """Evaluations that the parts need if the search ends now, while nothing is under way."""
        if self._too_small():
            return 0
        store, task = self._do.store, self._do.task
        candidates = store.candidates()
        plan = make_plan(self._space, candidates, task.maximize, budget=self._budget(), search_ended="")
        states = cell_states(plan, candidates, store.evaluations(), task.metric, self._do.config.seed)
        if any(state.problem for state in states):  # then the others say nothing
            return 0
        pairs = [state.cell.genotype for state in states if state.open]
        return sum(pair not in pairs[:index] for index, pair in enumerate(pairs))

    def begin(self, search_ended: str) -> Plan:
        """Decide which four are compared; the search is over, and nothing is under way."""
        made = {"budget": self._budget(), "search_ended": search_ended}
        problem = self._too_small()
        if problem:
            plan = Plan(**made, problem=problem)
        else:
            plan = make_plan(self._space, self._do.store.candidates(), self._do.task.maximize, **made)
        self._do.store.set_meta(FACTORIAL_KEY, plan.model_dump_json())
        self.plan = plan
        return plan

    def step(self) -> Step | None:
        """The next evaluation to start; None when all are made or under way."""
        plan, under_way = self.plan, self._under_way()
        assert plan is not None
        for state in self._states():
            candidate = state.candidate
            if not state.open or (candidate is not None and candidate.id in under_way | self._tried):
                continue
            if candidate is not None:
                self._tried.add(candidate.id)
                return Step(plan.rung, candidate=candidate)
            edit = f"{state.cell.name}, for the parts of the gain"
            proposal = Proposal(arm=FACTORIAL_ARM, genotype=state.cell.genotype, edit=edit)
            return Step(plan.rung, proposal=proposal)
        return None

    def waits_for(self) -> set[str]:
        """Ids of the cells' candidates that are under way."""
        members = {s.candidate.id for s in self._states() if s.candidate is not None}
        return members & self._under_way()

    def _states(self) -> list[CellState]:
        store = self._do.store
        assert self.plan is not None
        return cell_states(
            self.plan, store.candidates(), store.evaluations(), self._do.task.metric, self._do.config.seed
        )

    def _under_way(self) -> set[str]:
        return {cid for cid, _ in self._do.store.inflight()}

    def _budget(self) -> dict[str, Any]:
        return self._do.config.budget.model_dump(mode="json")

    def _needed(self) -> int:
        """Two, where a known network is measured beside the best candidate; else one more."""
        population = self._do.population
        best = population.elite(1)
        known = [
            population.get(candidate_id(i))
            for i in range(min(len(self._do.config.baselines), len(population)))
        ]
        measured = [c for c in known if c.score is not None and best and c.rung == best[0].rung]
        return 2 if measured else 3

    def _too_small(self) -> str:
        limit = self._do.config.budget.evaluations
        least = LEAST_SHARE * self._needed()
        if limit is None or limit >= least:
            return ""
        return f"a budget of {limit} evaluations is too small for it ({least} are needed)"


def make_plan(space: WithRecipe, candidates: Sequence[Candidate], maximize: bool, **made: Any) -> Plan:
    """Choose the best candidate and the reference among `candidates`; see the module."""
    ranked = [
        (key, c)
        for c in candidates
        if c.proposal.arm != FACTORIAL_ARM and (key := rank_key(c, maximize)) is not None
    ]
    if not ranked:
        return Plan(**made, problem="no candidate was evaluated within the limits")
    ranked.sort(key=lambda entry: entry[0])
    best = ranked[0][1]
    known = sorted(
        (c for _, c in ranked if c.proposal.arm == BASELINE_ARM), key=lambda c: (c.rung != best.rung, c.index)
    )
    drawn = [
        c
        for _, c in ranked
        if c.proposal.arm == CONTROL_ARM and c.genotype["architecture"] != best.genotype["architecture"]
    ]
    reference = next(iter([*known, *drawn]), None)
    if reference is None:
        return Plan(**made, problem="there is nothing to compare with: no baseline, no random candidate")
    name = reference.proposal.edit if known else reference.id
    if reference.id == best.id:
        return Plan(**made, problem=f"the best candidate is {name}, the reference itself")
    first, second = reference.genotype, best.genotype
    cells = (
        Cell(name=f"{name}, default recipe", genotype=space.combine(first, None)),
        Cell(name=f"{name}, recipe of {best.id}", genotype=space.combine(first, second)),
        Cell(name=f"{best.id}, default recipe", genotype=space.combine(second, None)),
        Cell(name=best.id, genotype=second),
    )
    return Plan(**made, rung=best.rung, reference=name, best=best.id, cells=cells)


def read_plan(text: str | None, budget: dict[str, Any]) -> Plan | None:
    """The plan that the store keeps; None when there is none, or when it was made for another budget."""
    plan = None if text is None else Plan.model_validate_json(text)
    return plan if plan is not None and plan.budget == budget else None


def cell_states(
    plan: Plan, candidates: Iterable[Candidate], evaluations: Iterable[Evaluation], metric: str, seed: int
) -> list[CellState]:
    """How far each cell of `plan` is, by what the store holds."""
    by_id = {c.id: c for c in candidates}
    found = {e.candidate_id: e for e in evaluations if e.rung == plan.rung and e.seed == seed}
    states = []
    for cell in plan.cells:
        candidate = _who_is(cell.genotype, by_id)
        evaluation = found.get(candidate.id) if candidate is not None else None
        if evaluation is not None and evaluation.metrics:
            states.append(CellState(cell, candidate, score=evaluation.metrics[metric]))
        elif evaluation is not None:
            why = f"{cell.name}: {evaluation.state}: {evaluation.reason}"
            states.append(CellState(cell, candidate, problem=why))
        elif candidate is not None and candidate.state in _DEAD:
            why = f"{cell.name}: {candidate.state}: {candidate.reason}"
            states.append(CellState(cell, candidate, problem=why))
        else:
            states.append(CellState(cell, candidate))
    return states


def read_parts(
    text: str | None,
    run: RunRecord,
    candidates: Sequence[Candidate],
    evaluations: Sequence[Evaluation],
    noise: float,
) -> GainParts | None:
    """The parts of a run's gain.

    Args:
        text: what the store keeps under `FACTORIAL_KEY`.
        run: its record.
        candidates: all of them.
        evaluations: all of them.
        noise: standard error of the difference of two scores.

    Returns:
        None for a run without recipe genes, and while the search goes on.
    """
    if not run.config.get("recipe_genes"):
        return None
    plan = read_plan(text, run.config["budget"])
    if plan is None:
        return None
    if plan.problem:
        return not_measured(plan.problem)
    states = cell_states(plan, candidates, evaluations, run.metric, run.config["seed"])
    for state in states:
        if state.problem:
            return not_measured(f"because of {state.problem}")
    scores = [state.score for state in states if state.score is not None]
    if len(scores) < len(states):
        missing = len(states) - len(scores)
        ended = "the budget ended before" if run.status == "finished" else "not yet"
        return not_measured(f"{missing} of {len(states)} trainings lack: {ended}")
    named = dict(zip(Scores.model_fields, scores, strict=True))
    return parts_of_gain(
        Scores(**named),
        metric=run.metric,
        maximize=run.maximize,
        noise=noise,
        reference=plan.reference,
        best=plan.best,
        rung=plan.rung,
        same=_shared(states),
    )


def _shared(states: Sequence[CellState]) -> str:
    """What the best candidate shares with the reference: cells that one candidate stands for tell."""
    start, recipe, architecture, both = (s.candidate.id if s.candidate is not None else "" for s in states)
    if both == architecture and recipe == start:
        return "recipe"
    return "architecture" if both == recipe and architecture == start else ""


def _who_is(genotype: Genotype, by_id: dict[str, Candidate]) -> Candidate | None:
    """The candidate that stands for a genotype: who has it, or the one that computes and learns the same."""
    same = [c for c in by_id.values() if c.genotype == genotype]
    own = next((c for c in same if c.duplicate_of is None), None)
    if own is not None or not same:
        return own
    return by_id.get(same[0].duplicate_of or "")
