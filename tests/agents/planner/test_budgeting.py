"""Questions that fit a budget of tokens: what is cut, in which order, and what never."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.errors import UserError
from cambrian.agents.planner.arm import ProposalContext
from cambrian.agents.planner.budgeting import PRIORITIES, TokenCounter, fit
from cambrian.agents.planner.client import estimated_tokens
from cambrian.agents.planner.context import prompt_variables
from cambrian.agents.planner.exchange import ExchangeLog, Message, Usage
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import Candidate, CandidateState
from tests.agents.planner.world import TinySpace, candidate, context, convnet, evaluated

CONVNET = Templates("convnet")
FIXED = ("number", "batch", "task", "noise", "space", "cost", "limits", "counts", "focus", "focuses")


def population() -> list[Candidate]:
    space, rng = convnet(), random.Random(1)
    found = evaluated(space, 30)
    for each in found[20:]:
        proposal = each.proposal.model_copy(update={"parents": ("c-0001",), "edit": "the stem is wider"})
        found[each.index] = each.model_copy(update={"proposal": proposal})
    for index, state in enumerate([CandidateState.FAILED, CandidateState.REJECTED] * 8, start=30):
        reason = f"reason {index}: " + "told at length " * 8
        found.append(candidate(index, space.sample(rng), state=state, reason=reason))
    found[3] = found[3].model_copy(update={"comment": "ada: mind the memory"})
    return found


def asked(seed: int = 3) -> ProposalContext:
    notes = [f"lesson {i}: wider is better, most of the time and in most places" for i in range(10)]
    told = [f"width of stage {i}: more is better" for i in range(8)]
    limits = ["latency_ms <= 2"]
    return context(convnet(), population(), seed=seed, notes=notes, predictor_view=told, constraints=limits)


def whole(variables: Mapping[str, Any]) -> str:
    return CONVNET.render("system.j2", variables).text + CONVNET.render("propose.j2", variables).text


def lengths(variables: Mapping[str, Any]) -> dict[str, int]:
    return {name: len(variables[name]) for name, _ in PRIORITIES}


def test_what_fits_is_left_as_it_is() -> None:
    variables = prompt_variables(asked())
    for limit in (None, 100_000):
        fitted, cuts = fit(whole, variables, limit)
        assert fitted == variables and cuts.left_out == {} and cuts.in_words() == ""
        assert cuts.tokens == estimated_tokens(whole(variables))


def test_every_limit_is_kept_and_no_room_is_wasted() -> None:
    variables = prompt_variables(asked())
    full = estimated_tokens(whole(variables))
    before = lengths(variables)
    for limit in range(full - 1, full // 2, -211):
        fitted, cuts = fit(whole, variables, limit)
        assert estimated_tokens(whole(fitted)) == cuts.tokens <= limit
        assert {name: fitted[name] for name in FIXED} == {name: variables[name] for name in FIXED}
        assert set(variables["focus"]["ids"]) <= {c["id"] for c in fitted["best"]}
        assert cuts.left_out == {n: before[n] - k for n, k in lengths(fitted).items() if k < before[n]}
        # nothing that is left out would have fitted beside the rest of what comes after it
        last = next(name for name, _ in reversed(PRIORITIES) if name in cuts.left_out)
        longest = max(len(str(entry)) for entry in variables[last])
        assert limit - cuts.tokens <= longest, "one more entry would not have been too much"
    assert variables == prompt_variables(asked()), "what was given is as it was"


def test_the_least_telling_is_cut_first_and_from_its_end() -> None:
    variables = prompt_variables(asked())
    fitted, cuts = fit(whole, variables, estimated_tokens(whole(variables)) - 1)
    assert cuts.left_out == {"setbacks": 1} and fitted["setbacks"] == variables["setbacks"][:-1]
    assert cuts.in_words() == f"cut to {cuts.limit} tokens: 1 of 8 setbacks"
    order: list[str] = []
    before = lengths(variables)
    for limit in range(estimated_tokens(whole(variables)), 1700, -25):
        left_out = fit(whole, variables, limit)[1].left_out
        order += [name for name in left_out if name not in order]
    first = {
        name: fits[0]
        for name in order
        if (fits := [i for i, (n, k) in enumerate(PRIORITIES) if n == name and k < before[n]])
    }
    wanted = sorted(first, key=lambda name: first[name])
    assert order == wanted and order[:4] == ["setbacks", "effects", "diverse", "predictor_view"]
    assert order.index("rejected") > order.index("notes"), "a person's words go last"


def test_what_is_to_be_changed_is_never_cut() -> None:
    variables = prompt_variables(asked(seed=3))
    (parent,) = variables["focus"]["ids"]
    everything = {name: [] for name, _ in PRIORITIES if name != "best"}
    only = [c for c in variables["best"] if c["id"] == parent]
    least = estimated_tokens(whole(variables | everything | {"best": only}))
    fitted, _ = fit(whole, variables, least)
    assert fitted["best"] == only and fitted["focus"] == variables["focus"]
    assert "latency_ms <= 2" in whole(fitted) and "# Search space: convnet" in whole(fitted)
    # one token less, and there is no room for the parent: something new is asked for instead
    fitted, cuts = fit(whole, variables, least - 1)
    assert fitted["focus"] == {"kind": "explore", "ids": []} == fitted["focuses"][0]
    assert fitted["best"] == [] and cuts.left_out["focus"] == 1
    assert parent not in whole(fitted)


def test_a_limit_that_nothing_can_keep_is_named_with_what_is_needed() -> None:
    variables = prompt_variables(asked())
    with pytest.raises(
        UserError, match=r"llm\.prompt_tokens is 500, but a question needs (\d+) tokens"
    ) as failed:
        fit(whole, variables, 500)
    needed = int(failed.value.message.split("needs ")[1].split()[0])
    assert str(needed) in failed.value.hint
    assert fit(whole, variables, needed)[1].tokens <= needed


@pytest.mark.parametrize(
    "source",
    [
        "{{ best | length }} {{ setbacks | tojson }}",
        "{% for n in range(200) %}{{ notes | join('; ') }}{% endfor %}{{ focus }}",
        "{{ best[0].id if best else 'none' }}{{ knowledge | map(attribute='text') | join(' ') * 9 }}",
    ],
)
def test_it_works_whatever_a_template_does(source: str, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "propose.j2").write_text(source)
    templates = Templates("tiny", tmp_path)

    def render(variables: Mapping[str, Any]) -> str:
        return templates.render("propose.j2", variables).text

    variables = prompt_variables(asked())
    full = estimated_tokens(render(variables))
    for limit in (full, full * 2 // 3, max(full // 10, 40)):
        fitted, cuts = fit(render, variables, limit)
        assert estimated_tokens(render(fitted)) == cuts.tokens <= limit
    shown = {name for name, _ in PRIORITIES if name in source}
    assert set(cuts.left_out) <= shown | {"focus", "best"}, "what it does not show is not cut in vain"


def test_a_parent_of_any_length_ends_no_run() -> None:
    space = TinySpace()
    monster = candidate(0, {"width": "8" * 7000, "depth": 1}, score=0.9).model_copy(
        update={"motifs": {"0|a": 1.0}}
    )

    def render(variables: Mapping[str, Any]) -> str:
        return CONVNET.render("base/propose.j2", variables).text

    variables = prompt_variables(context(space, [monster], seed=1))
    fitted, _ = fit(render, variables, 800)
    assert "8888" not in render(fitted)
    by_changes = prompt_variables(context(space, [monster], seed=1), by_changes=True)
    assert by_changes["answer"] == "changes" and by_changes["changes"]
    fitted, _ = fit(render, by_changes, 800)
    assert "8888" not in render(fitted) and fitted["answer"] == "genotype" and not fitted["changes"]


class Log:
    """Exchanges on disk, as a run leaves them."""

    def __init__(self, folder: Path) -> None:
        self.log = ExchangeLog(folder)

    def add(self, text: str, tokens: int, **more: Any) -> None:
        estimated, role = more.pop("estimated", False), more.pop("role", "propose")
        began = self.log.begin(
            key="k",
            role=role,
            model="m",
            messages=[Message(role="user", content=text)],
            schema_name=more.pop("schema_name", None),
            templates={},
        )
        usage = Usage(prompt_tokens=tokens, completion_tokens=1, estimated=estimated)
        self.log.write(began.model_copy(update={"response": "{}", "usage": usage, "calls": 1} | more))


@pytest.mark.parametrize(
    ("characters", "tokens", "expected"),
    [(3000, 1000, 3.0), (9000, 1000, 4.0), (2600, 1000, 2.6), (1000, 1000, 2.0)],
)
def test_tokens_are_counted_as_the_server_counts_them(
    tmp_path: Path, characters: int, tokens: int, expected: float
) -> None:
    log = Log(tmp_path)
    counter = TokenCounter(log.log)
    assert counter("x" * 4000, "y" * 400) == 1000, "four characters each, while nobody has counted"
    log.add("x" * characters, 7, estimated=True)
    log.add("x" * characters, 7, role="analyse")
    log.add("x" * characters, 7, response=None, error="down")
    assert counter("x" * 4000, "y" * 400) == 1000
    log.add("x" * characters, tokens)
    assert counter("x" * 6000) == round(6000 / expected)
    log.add("x" * characters, tokens * 3)
    assert counter("x" * 6000) == round(6000 / expected), "the first measure stays"
    assert TokenCounter(ExchangeLog(tmp_path))("x" * 6000) == round(6000 / expected), "for a resumed run, too"


def test_a_schema_is_counted_where_the_server_counts_it(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.add("x" * 3000, 2000, schema_name="proposal")  # 3000 characters and a schema of 3000, 3 a token
    counter = TokenCounter(log.log)
    assert counter("x" * 3000, "y" * 3000) == 2000
    assert counter("x" * 9000, "y" * 3000) == 4000


def test_the_measure_waits_for_the_first_answer(tmp_path: Path) -> None:
    """Two slots asked at the start; which of them is answered first must decide nothing."""
    log = Log(tmp_path)
    began = log.log.begin(
        key="k", role="propose", model="m", messages=[Message(role="user", content="x" * 3000)],
        schema_name=None, templates={},
    )  # fmt: skip
    log.log.write(began.model_copy(update={"calls": 1}))
    log.add("x" * 2500, 1000)
    counter = TokenCounter(log.log)
    assert counter("x" * 6000) == 1500
    answer = {"response": "{}", "usage": Usage(prompt_tokens=1000), "calls": 1}
    log.log.write(began.model_copy(update=answer))
    assert counter("x" * 6000) == 2000


def test_notes_of_any_number_are_cut_in_few_renderings() -> None:
    calls = 0

    def render(variables: Mapping[str, Any]) -> str:
        nonlocal calls
        calls += 1
        return whole(variables)

    notes: Sequence[str] = [f"lesson {i}" for i in range(1000)]
    variables = prompt_variables(replace(asked(), notes=lambda: notes))
    fit(render, variables, 3500)
    assert calls < 40


def test_of_the_changes_that_are_offered_the_least_promising_are_cut() -> None:
    variables = next(
        each
        for seed in range(20)
        if (each := prompt_variables(asked(seed), by_changes=True))["focus"]["kind"] == "explore"
    )
    many = len(variables["changes"])
    assert many == 5
    kept = set()
    limit = estimated_tokens(whole(variables))
    with contextlib.suppress(UserError):
        while True:
            fitted, _ = fit(whole, variables, limit)
            if fitted["answer"] == "changes":
                assert fitted["changes"] == variables["changes"][: len(fitted["changes"])]
                kept.add(len(fitted["changes"]))
            limit -= 40
    assert kept >= {many, 2} and min(kept) == 2
