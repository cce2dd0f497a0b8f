"""The discovery loop on a table: a real run's parts, without sandbox, graph and store.

As in `agents.discovery` with one slot: the portfolio chooses the arm, the arm drafts, the predictor chooses
among the drafts; what is known already is refused, what the predictor sees no chance for is not looked up,
and the rest is looked up at the price of one evaluation. Which arm proposes and with which random numbers is
a function of seed and population alone, as there.
"""

from __future__ import annotations

import functools
import random
import time
from dataclasses import dataclass, field

from cambrian.agents.benching.benchmark import Benchmark
from cambrian.agents.errors import LimitReached, ModelUnavailable, ProposalError
from cambrian.agents.evaluator.encoding import encode
from cambrian.agents.evaluator.screen import Screen
from cambrian.agents.planner import Arm, ProposalContext
from cambrian.agents.planner.portfolio import Portfolio
from cambrian.agents.population.model import Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.population.view import Population
from cambrian.agents.runfile import RunConfig

DRAW_S = 10.0
"""Seconds that a proposal and its training stand for."""
FRUITLESS_LIMIT = 200
"""Proposals in a row that led to no evaluation, after which the table counts as exhausted, as in a run."""


@dataclass
class Trace:
    """What one search did.

    Attributes:
        rows: looked up, in order; each cost one evaluation.
        arms: who proposed each of them.
        proposals: all of them, whatever became of them.
        duplicates: proposals that were known already and cost nothing, by arm.
        screened: proposals that the predictor refused.
        refused: proposals that were no member, or were known to break a limit.
        calls: requests to a model.
        tokens: of its prompts and answers.
        barren: times that an arm had no usable draft, by arm.
        seconds: of processor time that the search took.
        ended: why it ended early; empty when all evaluations were spent.
    """

    rows: list[int] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)
    proposals: int = 0
    duplicates: dict[str, int] = field(default_factory=dict)
    screened: int = 0
    refused: int = 0
    calls: int = 0
    tokens: int = 0
    barren: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    ended: str = ""


class Clock:
    """The time of a search, in seconds: a training would take `DRAW_S` where a table answers at once.

    By it arms and models are left alone that fail, the same in each search.
    """

    def __init__(self) -> None:
        self.draws = 0

    def __call__(self) -> float:
        """Seconds since the search began."""
        return self.draws * DRAW_S


class TableLoop:
    """One search by a portfolio.

    Args:
        benchmark: what is searched.
        config: weights, warm-up, predictor, seed, and the number of evaluations.
        arms: by name.
        clock: goes on with each draw.
    """

    def __init__(
        self, benchmark: Benchmark, config: RunConfig, arms: dict[str, Arm], clock: Clock | None = None
    ) -> None:
        self._bench, self._config, self._clock = benchmark, config, clock or Clock()
        self._portfolio = Portfolio(config, arms, self._clock)
        self._population = Population(benchmark.maximize)
        self._screen = Screen(
            config.predictor, benchmark.space, maximize=benchmark.maximize, seed=config.seed
        )
        self._encode = functools.partial(encode, benchmark.space)
        self._first_of: dict[str, str] = {}
        self._trace = Trace()

    async def run(self) -> Trace:
        """Search until the evaluations are spent, or nothing new comes up."""
        began = time.process_time()
        trace, most = self._trace, self._config.budget.evaluations or 0
        fruitless = 0
        while len(trace.rows) < min(most, self._bench.space.size):
            before = len(trace.rows)
            proposal = await self._ask_arms()
            if proposal is None:
                trace.ended = "no arm could propose"
                break
            self._take(proposal)
            fruitless = 0 if len(trace.rows) > before else fruitless + 1
            if fruitless >= FRUITLESS_LIMIT:
                trace.ended = f"the last {fruitless} proposals led to no evaluation"
                break
        for arm in self._portfolio.arms.values():
            await arm.close()
        trace.seconds = time.process_time() - began
        return trace

    async def _ask_arms(self) -> Proposal | None:
        """Ask the arm whose turn it is; when it cannot, the next one, until all have been asked."""
        draw = self._clock.draws
        self._clock.draws += 1
        bench, config, population = self._bench, self._config, self._population
        excluded: set[str] = set()
        while True:
            rng = random.Random(f"{config.seed}/{draw}")
            arm = self._portfolio.choose(population.spent(), population, rng, exclude=excluded)
            if arm is None:
                return None
            context = ProposalContext(
                index=draw,
                rng=random.Random(f"{config.seed}/{draw}/{arm.name}"),
                space=bench.space,
                task=bench.task,
                signature=bench.task.signature,
                population=population,
                cost=bench.options.cost or config.cost,
                budget_left=1.0 - len(self._trace.rows) / (config.budget.evaluations or 1),
                encode=self._encode,
                predictor_view=self._screen.what_matters,
            )
            n = config.predictor.pool if arm.cheap and not arm.control and self._screen.trusted else 1
            try:
                drafts = await arm.propose(context, n)
            except ProposalError as error:
                self._portfolio.failed(arm.name, error.message)
                excluded.add(arm.name)
                self._trace.barren[arm.name] = self._trace.barren.get(arm.name, 0) + 1
            except LimitReached as error:
                self._portfolio.retire(arm.name, error.message)
            except ModelUnavailable as error:
                self._portfolio.pause(arm.name, error.message)
            else:
                self._portfolio.succeeded(arm.name)
                return drafts[self._screen.choose([draft.genotype for draft in drafts])]

    def _take(self, proposal: Proposal) -> None:
        """The way of one candidate: membership, known limits, identity, predictor, look-up."""
        bench, trace = self._bench, self._trace
        trace.proposals += 1
        index = len(self._population)
        candidate = Candidate(
            id=candidate_id(index),
            index=index,
            proposal=proposal,
            genotype=proposal.genotype,
            state=CandidateState.PROPOSED,
        )
        try:
            genotype = bench.space.validate(proposal.genotype)
        except ProposalError as error:
            trace.refused += 1
            self._end(candidate, CandidateState.INVALID, reason=error.message)
            return
        row = bench.space.row_of(genotype)
        assert row is not None  # or `validate` had refused it
        candidate = candidate.model_copy(update={"genotype": genotype})
        if bench.known_before[row]:
            trace.refused += 1
            self._end(candidate, CandidateState.INFEASIBLE, feasible=False, reason="breaks a limit")
            return
        identity = bench.identity(row)
        first = self._first_of.setdefault(identity, candidate.id)
        if first != candidate.id:
            arm = proposal.arm
            trace.duplicates[arm] = trace.duplicates.get(arm, 0) + 1
            why = {"duplicate_of": first, "reason": f"computes the same as {first}"}
            self._end(candidate, CandidateState.DUPLICATE, identity=identity, **why)
            return
        screening = self._screen.verdict(genotype)
        said = {"identity": identity, "prediction": screening.predicted}
        if not screening.keep and not self._portfolio.arms[proposal.arm].control:
            trace.screened += 1
            self._end(candidate, CandidateState.SCREENED, reason=screening.reason, **said)
            return
        trace.rows.append(row)
        trace.arms.append(proposal.arm)
        score, feasible = float(bench.metric[row]), bool(bench.feasible[row])
        cost = None if bench.cost is None or bench.cost[row] != bench.cost[row] else float(bench.cost[row])
        measured = {"score": score, "cost": cost, "rung": 0, "tried_rung": 0, "rung_scores": (score,)}
        self._end(candidate, CandidateState.EVALUATED, feasible=feasible, **measured, **said)
        self._screen.observe(genotype, score, screening.predicted)

    def _end(self, candidate: Candidate, state: CandidateState, **changes: object) -> None:
        changes |= {"state": state, "ended_order": self._population.next_order(), "ended_s": 0.0}
        self._population.update(candidate.model_copy(update=changes))
