"""The life of one candidate, as a LangGraph: one candidate is one thread, checkpointed at every step.

    admit -> examine -> (review) -> evaluate -> judge        analyse

`admit` climbs the steps that need no sandbox: membership, static checks, hard limits, identity. `examine`
finds out what needs one: how the network behaves, and what generated code computes; then the predictor has
its say.
`review` interrupts the graph until a person has decided. `evaluate` runs the sandbox jobs of one rung, see
`agents.trial`; among them the one that reproduces the score of who would enter the first places. `judge`
gives the candidate its place in the population; `analyse` finds out what it taught, in a thread of its own
beside the slots, see `agents.analyst`. A promoted candidate enters its thread again at `evaluate`
with a higher rung; candidates of the arm `factorial` begin at the rung where they are compared. Every node
may run twice after a crash, so each is idempotent: identities are claimed in the store, jobs are keyed by
candidate, rung and seed, evaluations are recorded once.

The graph's state holds ids and short text only; payloads lie in the store and in the run's folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from cambrian.agents.evaluator.admission import Admission
from cambrian.agents.evaluator.agreement import agreement
from cambrian.agents.evaluator.noise import NoiseFloor
from cambrian.agents.evaluator.ranking import broken, soft_latency
from cambrian.agents.examining import examine_spec
from cambrian.agents.population.model import (
    BASELINE_ARM,
    CONTROL_ARM,
    FACTORIAL_ARM,
    Candidate,
    CandidateState,
    Evaluation,
    Lesson,
)
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.population.view import Population
from cambrian.agents.review import Decision
from cambrian.agents.runfile import RunConfig
from cambrian.agents.trial import Meter, Trials
from cambrian.sandbox import JobState, Sandbox
from cambrian.search_spaces import Space, Task

UNSCREENED = {CONTROL_ARM, BASELINE_ARM, FACTORIAL_ARM}
"""Arms whose candidates are yardsticks: no predictor may keep them from being measured."""


LESSON = "/lesson"
"""What the thread of a candidate's analysis is called after its id."""


class LifeState(TypedDict, total=False):
    """What a thread carries from step to step."""

    candidate: str
    step: str
    rung: int
    evaluation_state: str
    evaluation_reason: str


@dataclass
class Services:
    """What the steps work with.

    Attributes:
        activity: told what is done for a candidate.
        notes: what the run has learned so far, one line each.
        noise: what two scores of one network differ by, as far as that is known.
        analyse: asks what a candidate taught, and notes it.
    """

    config: RunConfig
    space: Space
    task: Task
    store: PopulationStore
    population: Population
    admission: Admission
    sandbox: Sandbox
    meter: Meter | None = None
    activity: Callable[[str, str], None] = field(default=lambda _candidate, _doing: None)
    notes: Callable[[], Sequence[str]] = tuple
    noise: Callable[[], NoiseFloor | None] = field(default=lambda: None)
    analyse: Callable[[str], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self.trials = Trials(self.config, self.space, self.task, self.store.folder, self.sandbox, self.meter)

    def save(self, candidate: Candidate, step: str) -> Candidate:
        """Write a candidate's new state, which `step` has brought, to the store, then to the view."""
        candidate = self.with_lesson(self._stamped(candidate))
        self.store.update(candidate, step)
        self.population.update(candidate)
        return candidate

    def teach(self, candidate_id: str, lesson: Lesson, step: str) -> None:
        """Write what a candidate taught, whatever a slot is doing with it meanwhile."""
        candidate = self.population.get(candidate_id).model_copy(update={"lesson": lesson})
        self.store.update(candidate, step)
        self.population.update(candidate)

    def with_lesson(self, candidate: Candidate) -> Candidate:
        """The candidate with its latest lesson, which may have come while a slot worked on it."""
        lesson = self.population.get(candidate.id).lesson
        return candidate if candidate.lesson is lesson else candidate.model_copy(update={"lesson": lesson})

    def discredit(self, candidate: Candidate, state: JobState, reason: str) -> Candidate:
        """End a candidate whose scores are not believed any more: it has none from now on."""
        reproduced = False if state is JobState.NOT_REPRODUCED else candidate.reproduced
        candidate = self.with_lesson(self._stamped(candidate.discredited(f"{state}: {reason}", reproduced)))
        self.store.discredit(candidate, state, reason)
        self.population.update(candidate)
        self.admission.relearn()
        return candidate

    def _stamped(self, candidate: Candidate) -> Candidate:
        if not candidate.state.ended or candidate.ended_s is not None:
            return candidate
        stamp = {"ended_s": time.time(), "ended_order": self.population.next_order()}
        return candidate.model_copy(update=stamp)


class Lifecycle:
    """Runs candidates through the graph. Use as an async context manager.

    Args:
        services: what the steps work with.
        checkpoints: SQLite file of the graph's checkpoints.
    """

    def __init__(self, services: Services, checkpoints: Path) -> None:
        self._do = services
        self._path = checkpoints
        self._db: aiosqlite.Connection | None = None
        self._graph: Any = None

    async def __aenter__(self) -> Lifecycle:
        self._db = await aiosqlite.connect(self._path, timeout=30)  # as the store waits for a lock
        # Survives the death of this process at any moment, as the population store does.
        await self._db.execute("PRAGMA journal_mode=WAL")
        await self._db.execute("PRAGMA synchronous=NORMAL")
        self._saver = AsyncSqliteSaver(self._db)
        self._graph = self._compile(self._saver)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._db is not None:
            # A step that was cancelled half-way may have left a transaction open, and closing alone keeps its
            # lock for as long as somebody holds on to a cursor. Nobody may write in between.
            async with self._saver.lock:
                with contextlib.suppress(sqlite3.Error):
                    await self._db.rollback()
                await self._db.close()

    async def advance(self, candidate_id: str, rung: int) -> Literal["ended", "parked"]:
        """Take the candidate as far as it goes: to an end, or to a reviewer's desk.

        Works for a new candidate, a promoted one, and one that a dead process left half-way: that one goes
        on from its last checkpoint.
        """
        config = self._thread(candidate_id)
        snapshot = await self._graph.aget_state(config)
        unfinished = bool(snapshot.next) and snapshot.values.get("rung") == rung
        if unfinished and any(task.interrupts for task in snapshot.tasks):
            return "parked"
        candidate = self._do.population.get(candidate_id)
        if not unfinished and candidate.state.ended and not self._goes_on(candidate, rung):
            return "ended"  # we died after the last step, before the loop noted that it had landed
        entry = None if unfinished else {"candidate": candidate_id, "rung": rung}
        return self._ending(await self._graph.ainvoke(entry, config, durability="sync"))

    async def decide(self, decision: Decision) -> Literal["ended", "parked"]:
        """Hand a reviewer's decision to a parked candidate and take it on from there."""
        config = self._thread(decision.candidate_id)
        answer: Command[str] = Command(resume=decision.model_dump(mode="json"))
        return self._ending(await self._graph.ainvoke(answer, config, durability="sync"))

    async def confirm(self, candidate_id: str) -> None:
        """Reproduce the score of a candidate that was judged before; any number of times without harm."""
        candidate = self._do.population.get(candidate_id)
        if candidate.score is None or candidate.reproduced:
            return
        self._do.activity(candidate_id, f"reproducing (rung {candidate.rung})")
        problem = await self._do.trials.reproduce(candidate, candidate.rung)
        if problem:
            self._do.discredit(candidate, JobState.NOT_REPRODUCED, problem)
        else:
            self._do.save(candidate.model_copy(update={"reproduced": True}), "confirm")

    async def step(
        self, name: Literal["admit", "examine", "evaluate", "judge"], state: LifeState
    ) -> LifeState:
        """Take one step alone, outside of the graph and without a checkpoint: for replays."""
        steps = {
            "admit": self._admit,
            "examine": self._examine,
            "evaluate": self._evaluate,
            "judge": self._judge,
        }
        return await steps[name](state)

    async def analyse(self, candidate_id: str) -> None:
        """Find out what a candidate taught; goes on where a dead process left it.

        A thread beside the candidate's own, which may climb a rung meanwhile.

        Raises:
            CambrianError: as `Services.analyse`; another call tries again.
        """
        config = self._thread(f"{candidate_id}{LESSON}")
        unfinished = bool((await self._graph.aget_state(config)).next)
        entry = None if unfinished else {"candidate": candidate_id, "step": "analyse"}
        await self._graph.ainvoke(entry, config, durability="sync")

    # -- the steps ----------------------------------------------------------------------------------

    async def _admit(self, state: LifeState) -> LifeState:
        candidate = self._candidate(state)
        self._do.activity(candidate.id, "checking")
        self._do.save(await asyncio.to_thread(self._do.admission.admit, candidate), "admit")
        return {}

    async def _examine(self, state: LifeState) -> LifeState:
        candidate, do = self._candidate(state), self._do
        if (spec := examine_spec(do.config, do.space, do.task)) is not None:
            do.activity(candidate.id, "examining")
            outcome = await do.trials.examine(candidate, spec)
            candidate = await asyncio.to_thread(do.admission.examined, candidate, outcome)
        if not candidate.state.ended:
            may_end = candidate.proposal.arm not in UNSCREENED
            candidate = await self._screened(candidate, may_end)
        do.save(candidate, "examine")
        return {}

    async def _review(self, state: LifeState) -> LifeState:
        candidate = self._candidate(state)
        if candidate.state is not CandidateState.PARKED:
            candidate = self._do.save(candidate.model_copy(update={"state": CandidateState.PARKED}), "park")
        decision = Decision.model_validate(
            interrupt({"candidate": candidate.id, "question": "train this proposal?"})
        )
        approved = decision.verdict == "approve"
        self._do.save(
            candidate.model_copy(
                update={
                    "state": CandidateState.TRAINING if approved else CandidateState.REJECTED,
                    "reason": "" if approved else f"rejected by {decision.by}: {decision.reason}",
                    # whoever reviews may say what to do next, also of what they let through
                    "comment": f"{decision.by or 'a reviewer'}: {decision.reason}"
                    if approved and decision.reason
                    else "",
                }
            ),
            "decide",
        )
        return {}

    async def _evaluate(self, state: LifeState) -> LifeState:
        candidate, rung = self._candidate(state), state["rung"]
        do, epochs = self._do, self._do.task.rungs[rung].epochs
        do.activity(candidate.id, f"training, {epochs} epochs (rung {rung})")
        if not candidate.state.ended and candidate.state is not CandidateState.TRAINING:
            candidate = do.save(candidate.model_copy(update={"state": CandidateState.TRAINING}), "train")
        for made in do.store.evaluations(candidate.id):
            if (made.rung, made.seed) == (rung, do.config.seed):  # we died just after it was recorded
                return {"evaluation_state": made.state, "evaluation_reason": made.reason}
        evaluation = await do.trials.run(candidate, rung)
        changed = self._with_evaluation(candidate, evaluation)
        if changed.rung == rung != candidate.rung and do.trials.enters_top(changed, do.population):
            # Before its score is anywhere to be seen: nobody ranks, or is bred from, on a forged one.
            do.activity(candidate.id, f"reproducing (rung {rung})")
            if problem := await do.trials.reproduce(changed, rung):
                evaluation = evaluation.struck(JobState.NOT_REPRODUCED, problem)
                changed = self._with_evaluation(candidate, evaluation)
            else:
                changed = changed.model_copy(update={"reproduced": True})
        changed = do.with_lesson(changed)
        do.store.add_evaluation(evaluation, changed)
        do.population.update(changed)
        do.admission.measured(changed, evaluation)
        return {"evaluation_state": evaluation.state, "evaluation_reason": evaluation.reason}

    async def _judge(self, state: LifeState) -> LifeState:
        candidate, rung = self._candidate(state), state["rung"]
        ended, reason = JobState(state["evaluation_state"]), state["evaluation_reason"]
        if ended is JobState.NOT_REPRODUCED or (self._is_suspect(ended) and candidate.score is not None):
            if candidate.state is not CandidateState.FAILED:
                self._do.discredit(candidate, ended, reason)
            return {}
        changes: dict[str, Any] = {}
        if rung > 0 and candidate.rung_scores:  # that of a lower rung stands, whatever became of this one
            changes["reason"] = "" if ended is JobState.TRAINED else f"rung {rung}: {ended}: {reason}"
        elif ended is JobState.TRAINED:
            faults = broken(self._do.config.constraints, candidate.values())
            changes = {
                "state": CandidateState.EVALUATED,
                "feasible": not faults,
                "reason": "; ".join(faults),
            }
        elif ended is JobState.OVER_LIMIT:
            changes = {"state": CandidateState.INFEASIBLE, "feasible": False, "reason": reason}
        else:
            changes = {"state": CandidateState.FAILED, "reason": f"{ended}: {reason}"}
        candidate = candidate.model_copy(update=changes)
        if rung == 0 and candidate.score is not None:
            candidate = await asyncio.to_thread(self._compared, candidate)
        candidate = self._do.save(candidate, "judge")
        if rung == 0 and candidate.score is not None:
            self._do.admission.learn(candidate)
        return {}

    async def _analyse(self, state: LifeState) -> LifeState:
        if self._do.analyse is not None:
            await self._do.analyse(state["candidate"])
        return {}

    def _is_suspect(self, ended: JobState) -> bool:
        """Whether a job that ended so takes away what its candidate had at lower rungs.

        Of networks that trusted code builds it does not: a longer training may well take too long or diverge.
        Generated code that behaves at one rung and has to be contained at the next is believed nowhere.
        """
        return self._do.space.kind == "code" and ended is not JobState.TRAINED

    # -- inside -------------------------------------------------------------------------------------

    async def _screened(self, candidate: Candidate, may_end: bool) -> Candidate:
        """The candidate with what is expected of it by all that is known when this returns.

        A score that another slot brings meanwhile stands before it in the journal.
        """
        admission = self._do.admission
        while True:
            known = admission.learned
            screened = await asyncio.to_thread(admission.screened, candidate, may_end)
            if admission.learned == known:
                return screened

    def _with_evaluation(self, candidate: Candidate, evaluation: Evaluation) -> Candidate:
        candidate = candidate.with_latency(evaluation.latency)
        changes: dict[str, Any] = {"tried_rung": max(candidate.tried_rung, evaluation.rung)}
        if evaluation.rung == 0:
            changes["train_s"] = evaluation.wall_s
        if evaluation.metrics and evaluation.rung > candidate.rung:
            metric = self._do.task.metric
            climbed = (evaluation.metrics[metric],) if evaluation.rung == len(candidate.rung_scores) else ()
            changes |= {
                "score": evaluation.metrics[metric],
                "test_score": evaluation.test_metrics[metric],
                "rung": evaluation.rung,
                "reproduced": None,
                "rung_scores": (*candidate.rung_scores, *climbed),
            }
        changed = candidate.model_copy(update=changes)
        config = self._do.config
        factor = soft_latency(changed.latency_ms, config.target_ms, config.objective.exponent)
        values = {"cost": changed.values().get(config.cost), "latency_factor": factor}
        return changed.model_copy(update=values)

    def _compared(self, candidate: Candidate) -> Candidate:
        """The candidate with how far it predicts what its nearest does, where both are trained."""
        do, nearest = self._do, candidate.nearest
        if nearest is None or not do.population.get(nearest.id).rung_scores:
            return candidate
        ours, theirs = (do.trials.folder_of(cid, 0) for cid in (candidate.id, nearest.id))
        found = nearest.model_copy(update={"agreement": agreement(ours, theirs, do.task.loss)})
        return candidate.model_copy(update={"nearest": found})

    def _compile(self, saver: AsyncSqliteSaver) -> Any:
        graph = StateGraph(LifeState)
        graph.add_node("admit", self._admit)
        graph.add_node("examine", self._examine)
        graph.add_node("review", self._review)
        graph.add_node("evaluate", self._evaluate)
        graph.add_node("judge", self._judge)
        graph.add_node("analyse", self._analyse)
        graph.add_conditional_edges(START, self._enter, ["admit", "evaluate", "analyse"])
        graph.add_conditional_edges("admit", self._after_admit, ["examine", END])
        graph.add_conditional_edges("examine", self._after_examine, ["review", "evaluate", END])
        graph.add_conditional_edges("review", self._after_review, ["evaluate", END])
        graph.add_edge("evaluate", "judge")
        graph.add_edge("judge", END)
        graph.add_edge("analyse", END)
        return graph.compile(checkpointer=saver)

    def _enter(self, state: LifeState) -> str:
        if state.get("step") == "analyse":
            return "analyse"
        return "admit" if self._candidate(state).state is CandidateState.PROPOSED else "evaluate"

    def _after_admit(self, state: LifeState) -> str:
        return END if self._candidate(state).state.ended else "examine"

    def _after_examine(self, state: LifeState) -> str:
        if self._candidate(state).state.ended:
            return END
        return "review" if self._do.config.review == "gate" else "evaluate"

    def _after_review(self, state: LifeState) -> str:
        return END if self._candidate(state).state.ended else "evaluate"

    def _candidate(self, state: LifeState) -> Candidate:
        return self._do.population.get(state["candidate"])

    @staticmethod
    def _goes_on(candidate: Candidate, rung: int) -> bool:
        """Whether a candidate that has reached an end is to be trained at `rung` as well."""
        return candidate.state is CandidateState.EVALUATED and candidate.tried_rung < rung

    @staticmethod
    def _thread(candidate_id: str) -> RunnableConfig:
        return {"configurable": {"thread_id": candidate_id}, "recursion_limit": 16}

    @staticmethod
    def _ending(result: dict[str, Any]) -> Literal["ended", "parked"]:
        return "parked" if "__interrupt__" in result else "ended"
