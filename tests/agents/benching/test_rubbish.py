from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from pathlib import Path

import numpy as np

from cambrian.agents.benching.loop import Clock, TableLoop
from cambrian.agents.benching.rubbish import Rubbish
from cambrian.agents.benching.searchers import parse_arms, run_config, search
from cambrian.agents.errors import ProposalError
from cambrian.agents.planner.answers import parse_answers
from cambrian.agents.planner.client import ModelRequest, ScriptedClient
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.planner.models import Models
from cambrian.agents.planner.portfolio import build_arms
from tests.agents.benching.tables import flat_benchmark

QUESTION = ModelRequest(role="propose", messages=())


def test_rubbish_is_of_all_kinds_and_always_the_same(tmp_path: Path) -> None:
    space = flat_benchmark(tmp_path).space
    said, again = (
        [answers(QUESTION) for _ in range(60)] for answers in (Rubbish(space, 3), Rubbish(space, 3))
    )
    assert said == again != [Rubbish(space, 4)(QUESTION) for _ in range(60)]
    usable = []
    for text in said:
        try:
            usable.append(parse_answers(text, space)[0][0][1])
        except ProposalError:
            continue
    assert 15 < len(usable) < 50, "some of it is members, some is not"
    shapes = [json.dumps(genotype) for genotype in usable]
    assert max(map(shapes.count, shapes)) > 3, "one of them comes again and again"
    assert any("previous instructions" in text for text in said) and "" in said


def test_a_search_with_a_useless_model_goes_on_and_can_be_repeated(tmp_path: Path) -> None:
    bench = flat_benchmark(tmp_path)
    _, asking = parse_arms("random+mutation+llm", ["rubbish"])
    config = run_config(asking, 1, 40, warmup=None, predictor=False)
    first, second = (asyncio.run(search(bench, asking, config)) for _ in range(2))
    assert first.rows == second.rows and first.arms == second.arms
    assert len(first.rows) == 40 and not first.ended
    assert first.calls > 3 and first.tokens > 0 and first.barren["llm"] > 0
    assert first.arms.count("llm") < 8, "a third of the weight, far less of the evaluations"


def test_a_prompt_knows_no_result_that_was_not_looked_up(tmp_path: Path) -> None:
    bench = flat_benchmark(tmp_path)
    results = 4000.0 + np.random.default_rng(0).permutation(bench.space.size)  # each is told from all others
    bench = dataclasses.replace(bench, metric=results, report=results)
    _, asking = parse_arms("random+llm", ["rubbish"])
    config = run_config(asking, 1, 12, warmup=None, predictor=False)
    exchanges = ExchangeLog(tmp_path)
    client = ScriptedClient(Rubbish(bench.space, 1), exchanges)
    arms = build_arms(config, Models(config, exchanges, client))
    trace = asyncio.run(TableLoop(bench, config, arms, Clock()).run())
    asked = "".join(message.content for request in client.requests for message in request.messages)
    told = {float(number) for number in re.findall(r"\b4\d{3}\.0\b", asked)}
    assert told and told <= {results[row] for row in trace.rows}
