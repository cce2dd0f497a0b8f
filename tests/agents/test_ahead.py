from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.ahead import AHEAD_KEY, LAST_ANSWER_S, Ahead, Asked, Stock, last_answer_s
from cambrian.agents.discovery import Discovery
from cambrian.agents.errors import ModelUnavailable
from cambrian.agents.planner import ProposalContext
from cambrian.agents.planner.arm import PopulationView
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.population.model import Candidate, CandidateState, Proposal
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.population.view import Population
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import LLMSection, ModelSection
from cambrian.agents.session import Stopped, Watch, resume, start
from cambrian.agents.workspace import Workspace
from cambrian.search_spaces import SPACES
from tests.agents.planner.server import Handler, ModelServer, answer, error, model_server
from tests.agents.planner.world import TinySpace, candidate

MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


def proposing(handler: Handler) -> None:
    """Answers at once, with another member of the space each time, in the form that is asked for."""
    space, asked = SPACES.create("convnet"), handler.seen.schema
    assert asked is not None
    number = next(i for i, seen in enumerate(handler.world.seen) if seen is handler.seen)
    one = {
        "hypothesis": "wider is better",
        "expectation": {"measure": "score", "change": "higher", "by_percent": 1},
        "parents": [],
        "edit": "wider",
        "genotype": space.sample(random.Random(number)),
    }
    several = [one | {"genotype": space.sample(random.Random(f"{number}/{i}"))} for i in range(4)]
    answer(json.dumps({"proposals": several} if "proposals" in asked["properties"] else one))(handler)


def of_model(config: MakeConfig, server: ModelServer, llm: dict[str, Any], **more: Any) -> RunConfig:
    """A run in which the model has most of the weight and nobody else asks it."""
    section = {"model": "test-model", "base_url": server.url, "retries": 0, "repairs": 0, **llm}
    base: dict[str, Any] = {"arms": {"llm": 0.8, "mutation": 0.1, "random": 0.1}, "warmup": 2}
    return config(llm=section, analyst={"lessons": "off"}, **base | more)


def candidates_of(runs: Path) -> list[Candidate]:
    store = Workspace(runs).open("last")
    try:
        return store.candidates()
    finally:
        store.close()


def arms_of(candidates: list[Candidate]) -> list[str]:
    return [candidate.proposal.arm for candidate in candidates]


# -- whole runs ---------------------------------------------------------------------------------------


async def test_slots_go_on_while_the_model_thinks(
    config: MakeConfig, runs: Path, server: ModelServer
) -> None:
    """Its answers are held until eight others have landed: by whom is seen then, and that all are used."""
    told, landed, outstanding = threading.Event(), [], []

    def held(handler: Handler) -> None:
        assert told.wait(60), "no slot went on"
        proposing(handler)

    def note(ended: Candidate) -> None:
        landed.append(ended.proposal.arm)
        if len(landed) == 8:
            outstanding.append(len(server.seen))
            told.set()

    server.says(held)
    made = of_model(config, server, {}, budget={"evaluations": 16})
    report = await start(made, Workspace(runs), Watch(say=lambda _: None, landed=note))
    assert "llm" not in landed[:8] and outstanding == [2], "one question a slot, and nobody waited for it"
    used = arms_of(candidates_of(runs)).count("llm")
    assert used >= 2, "what was held back is used"
    assert used <= len(server.seen) <= used + 2, "at most two were asked for in vain"
    assert report.ledger.calls == len(server.seen) and report.ledger.tokens == server.tokens


async def test_where_nobody_else_may_propose_slots_wait(
    config: MakeConfig, runs: Path, server: ModelServer
) -> None:
    server.says(proposing)
    made = of_model(config, server, {}, arms={"llm": 1.0}, budget={"evaluations": 8})
    await start(made, Workspace(runs), Watch(say=lambda _: None))
    assert arms_of(candidates_of(runs))[2:] == ["llm"] * 6, "the control has no share but the warm-up"


async def test_one_after_the_other_nothing_is_asked_ahead_and_the_run_can_be_repeated(
    config: MakeConfig, tmp_path: Path, server: ModelServer
) -> None:
    server.says(proposing)
    found = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        server.seen.clear()
        await start(
            of_model(config, server, {"ahead": 0}, slots=1, budget={"evaluations": 8}),
            Workspace(folder),
            Watch(say=lambda _: None),
        )
        found.append([(c.proposal.arm, c.genotype) for c in candidates_of(folder)])
        assert arms_of(candidates_of(folder)).count("llm") == len(server.seen) >= 4
    assert found[0] == found[1]


async def test_the_rest_of_a_batch_is_used_after_a_resume(
    config: MakeConfig, runs: Path, server: ModelServer
) -> None:
    server.says(proposing)
    landed: list[str] = []

    def interrupt(ended: Candidate) -> None:
        landed.append(ended.id)
        if len(landed) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    made = of_model(config, server, {"ahead": 0, "batch": 4}, slots=1, budget={"evaluations": 8})
    with pytest.raises(Stopped):
        await start(made, Workspace(runs), Watch(say=lambda _: None, landed=interrupt))
    store = Workspace(runs).open("last")
    kept = Stock.model_validate_json(store.get_meta(AHEAD_KEY) or "").ready
    store.close()
    assert kept, "the model was asked for four, and not all had a place yet"
    await resume("last", Workspace(runs), Watch(say=lambda _: None))
    by_model = [c for c in candidates_of(runs) if c.proposal.arm == "llm"]
    entered = [c.proposal for c in by_model]
    assert all(ready.proposal in entered for ready in kept)
    assert len(server.seen) == -(-len(by_model) // 4), "asked again only when all were used"


async def test_a_run_that_wants_its_model_stops_without_it_and_goes_on_with_it(
    config: MakeConfig, runs: Path, server: ModelServer
) -> None:
    server.says(error(401, "wrong key"))
    made = of_model(config, server, {}, arms={"llm": 0.9, "random": 0.1}, budget={"evaluations": 8})
    with pytest.raises(ModelUnavailable, match=r"none can be asked: .*wrong key") as caught:
        await start(made, Workspace(runs), Watch(say=lambda _: None))
    assert caught.value.exit_code == 4
    before = candidates_of(runs)
    assert before and all(c.state.ended for c in before), "what had begun came to its end"
    assert len(before) < 8
    server.says(proposing)
    report = await resume("last", Workspace(runs), Watch(say=lambda _: None))
    assert report.ledger.evaluations == 8 and "llm" in arms_of(candidates_of(runs))


async def test_a_run_that_wants_its_model_ends_when_its_budget_is_spent(
    config: MakeConfig, runs: Path, server: ModelServer
) -> None:
    server.says(proposing)
    made = of_model(config, server, {}, arms={"llm": 1.0}, budget={"evaluations": 30, "calls": 3})
    await start(made, Workspace(runs), Watch(say=lambda _: None))
    store = Workspace(runs).open("last")
    assert store.run.status == "finished" and "budget of 3 calls" in store.run.stop_reason
    store.close()
    arms = arms_of(candidates_of(runs))
    assert arms.count("llm") == len(server.seen) == 3 and len(arms) == 5, "what was paid for was used"


@pytest.mark.parametrize("local", [True, False], ids=["local", "paid"])
async def test_the_end_waits_for_an_answer_that_is_paid_for_but_for_no_other(
    config: MakeConfig, runs: Path, server: ModelServer, local: bool
) -> None:
    """The server answers when the search is over. What the model is was told to the loop alone."""
    told = threading.Event()

    def held(handler: Handler) -> None:
        assert told.wait(20) or local, "the run never ended"
        proposing(handler)

    discoveries: list[Discovery] = []

    def note(discovery: Discovery, _store: PopulationStore) -> None:
        discoveries.append(discovery)
        if local:
            services = discovery.services
            llm = services.config.llm.model_copy(update={"local": "default"})
            services.config = services.config.model_copy(update={"llm": llm})

    def tell(_ended: Candidate) -> None:
        if not local and discoveries[0].account.evaluations == 5:
            told.set()

    server.says(held)
    made = of_model(config, server, {}, budget={"evaluations": 5}, slots=1)
    await start(made, Workspace(runs), Watch(say=lambda _: None, started=note, landed=tell))
    told.set()
    (exchange,) = ExchangeLog(Workspace(runs).folder("last")).all()
    assert (exchange.error, exchange.response is None) == (
        ("cancelled while waiting for the answer", True) if local else (None, False)
    )


def test_no_answer_is_waited_for_beyond_the_time_of_the_run() -> None:
    paid, local = LLMSection(), LLMSection(local="default")
    both = LLMSection(local="default", models=(ModelSection(model="paid"),))
    assert last_answer_s(paid, 0, math.inf) == last_answer_s(both, 0, math.inf) == LAST_ANSWER_S
    assert last_answer_s(local, 0, math.inf) == 0 and last_answer_s(local, 2, math.inf) == LAST_ANSWER_S
    assert last_answer_s(paid, 0, 4.5) == 4.5 and last_answer_s(local, 2, -1.0) == 0


# -- what is kept -------------------------------------------------------------------------------------


class Slow:
    """An arm that answers what it is told to, once it is let."""

    name, control, cheap = "llm", False, False

    def ready(self, population: PopulationView) -> bool:
        return True

    async def propose(self, context: ProposalContext, n: int) -> list[Proposal]:
        raise AssertionError("it is asked through Ahead")

    async def close(self) -> None:
        return


class Desk:
    """An `Ahead` over a store of its own, whose arm answers when it is let."""

    def __init__(self, folder: Path, candidates: list[Candidate] | None = None) -> None:
        self.store = PopulationStore(folder, create=_record() if candidates is not None else None)
        for each in candidates or []:
            self.store.add(each)
        self.population = Population(True, self.store.candidates())
        self.answers: asyncio.Queue[list[Proposal]] = asyncio.Queue()
        self.woken = 0
        self.ahead = Ahead(self.store, self.population, TinySpace(), self._ask, self._changed)

    def enter(self, proposal: Proposal) -> None:
        index = len(self.population)
        made = candidate(index, proposal.genotype, score=0.5)
        made = made.model_copy(update={"proposal": proposal})
        self.store.add(made)
        self.population.update(made)

    async def _ask(self, arm: object, draw: int, n: int) -> list[Proposal]:
        return await self.answers.get()

    async def _changed(self) -> None:
        self.woken += 1


def _record() -> RunRecord:
    return RunRecord(
        run_id="r",
        name="r",
        space="tiny",
        task="toy",
        metric="accuracy",
        maximize=True,
        cost="params",
        created=0.0,
        config={},
    )


def proposal(width: int, depth: int, exchange: str = "x-0001") -> Proposal:
    return Proposal(arm="llm", genotype={"width": width, "depth": depth}, exchange=exchange)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    return made


async def answered(desk: Desk, draw: int, *proposals: Proposal) -> None:
    desk.ahead.start(Slow(), draw, len(proposals))
    desk.answers.put_nowait(list(proposals))
    await desk.ahead.finish(10)


async def test_what_is_ready_outlives_a_kill_and_is_used_once(folder: Path) -> None:
    desk = Desk(folder, [])
    await answered(desk, 4, proposal(8, 1), proposal(8, 2), proposal(8, 3))
    assert desk.woken == 1 and desk.ahead.ready("llm") == 3
    taken = desk.ahead.take("llm")
    assert taken is not None and taken.draw == 4
    desk.enter(taken.proposal)
    desk.store.close()  # killed before it was struck out
    again = Desk(folder)
    assert again.ahead.draws == 5, "no number is given twice"
    kept = [again.ahead.take("llm") for _ in range(3)]
    assert [None if ready is None else ready.proposal for ready in kept] == [
        proposal(8, 2),
        proposal(8, 3),
        None,
    ]
    again.store.close()


async def test_a_question_that_was_not_waited_for_is_remembered(folder: Path) -> None:
    desk = Desk(folder, [])
    desk.ahead.start(Slow(), 9, 2)
    assert desk.ahead.under_way("llm") == 2 and desk.ahead.take("llm") is None
    await desk.ahead.finish(0)
    desk.store.close()
    again = Desk(folder)
    assert again.ahead.unanswered == (Asked(draw=9, arm="llm", n=2, known=0),)
    assert again.ahead.ready("llm") == again.ahead.under_way("llm") == 0
    again.store.close()


async def test_who_could_know_enters_a_duplicate_and_who_could_not_is_spared(folder: Path) -> None:
    known = candidate(0, {"width": 8, "depth": 1}, score=0.5, state=CandidateState.EVALUATED)
    desk = Desk(folder, [known])
    desk.ahead.start(Slow(), 1, 3)
    desk.enter(Proposal(arm="mutation", genotype={"width": 16, "depth": 2}))
    desk.answers.put_nowait([proposal(16, 2), proposal(8, 1), proposal(32, 3)])
    await desk.ahead.finish(10)
    taken = [desk.ahead.take("llm") for _ in range(3)]
    genotypes = [None if ready is None else ready.proposal.genotype for ready in taken]
    assert genotypes == [{"width": 8, "depth": 1}, {"width": 32, "depth": 3}, None]
    desk.store.close()


@pytest.mark.parametrize(
    "trouble",
    [{"budget": {"evaluations": 20, "tokens": 3000}}, {"says": "rubbish"}, {"says": "down"}],
)
async def test_a_run_that_wants_its_model_never_fills_up_with_random(
    config: MakeConfig, runs: Path, server: ModelServer, trouble: dict[str, Any]
) -> None:
    """Neither when the next question does not fit, nor while a model that answers nothing is found out."""
    says = trouble.get("says")
    server.says(answer("rubbish") if says == "rubbish" else error(500) if says else proposing)
    made = config(
        arms={"random": 0.2, "llm": 0.8},
        warmup=2,
        llm={"model": "m", "base_url": server.url, "retries": 0, "repairs": 0, "failures": 2, "probe_s": 0.2},
        budget=trouble.get("budget", {"evaluations": 20}),
        analyst={"lessons": "off"},
    )
    lines: list[str] = []
    with contextlib.suppress(ModelUnavailable):
        report = await start(made, Workspace(runs), Watch(say=lines.append))
        assert "tokens" in report.stop_reason and "next question" in report.stop_reason
    store = Workspace(runs).open("last")
    arms = Counter(c.proposal.arm for c in store.candidates())
    assert arms["random"] <= max(2, math.ceil(0.2 * (sum(arms.values()) + 1)))
    assert not [line for line in lines if "other arms go on" in line], "there are none"
    store.close()
