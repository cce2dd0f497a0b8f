from pathlib import Path

import pytest

from cambrian.agents.cli.showing import show_brought
from cambrian.agents.evaluator.arms import arm_markdown, model_markdown
from cambrian.agents.evaluator.noise import sampling_noise
from cambrian.agents.evaluator.spending import ModelUse, money_text
from cambrian.agents.planner.exchange import ExchangeLog, Usage
from cambrian.agents.population import Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.population.archive import Archive
from cambrian.agents.population.model import Evaluation
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.report import COVERAGE_KEY, count_text, end_report
from cambrian.sandbox import Isolation
from cambrian.sandbox.examination.report import StaticFacts

RECORD = RunRecord(
    run_id="r-1", name="r", space="convnet", task="digits", metric="accuracy", maximize=True,
    cost="latency_ms", created=0.0, config={}, validation_samples=400,
)  # fmt: skip


UNPAID = {"state": CandidateState.DUPLICATE, "score": None, "rung_scores": ()}


def scored(index: int, score: float, arm: str = "mutation", **changes: object) -> Candidate:
    made = Candidate(
        id=candidate_id(index),
        index=index,
        proposal=Proposal(arm=arm, genotype={}, edit="two-layer-cnn" if arm == "baseline" else ""),
        genotype={},
        state=CandidateState.EVALUATED,
        score=score,
        test_score=score - 0.01,
        rung=0,
        tried_rung=0,
        rung_scores=(score,),
        latency_ms=0.5,
        cost=0.5,
        static=StaticFacts(parameters=41_200, flops=1, peak_memory_mb=1.0, depth=3),
        summary=f"net {index}",
    )
    return made.model_copy(update=changes)


@pytest.fixture
def store(tmp_path: Path):
    store = PopulationStore(tmp_path / "r-1", create=RECORD)
    for candidate in (
        scored(0, 0.9720, "baseline"),
        *(scored(i, 0.9 + 0.001 * i, "random") for i in range(1, 6)),
        *(scored(i, 0.95 + 0.001 * i) for i in range(6, 20)),
        scored(20, 0.9800),
        scored(21, 0.9999, feasible=False),
        scored(22, 0.0).model_copy(
            update={"state": CandidateState.DUPLICATE, "score": None, "rung_scores": ()}
        ),
    ):
        store.add(candidate)
    yield store
    store.close()


def test_the_report_names_winner_ties_baseline_gain_and_what_was_not_paid_for(store: PopulationStore) -> None:
    report = end_report(store, predictor="Kendall tau 0.50")
    assert [row.id for row in report.leaderboard[:2]] == ["c-0021", "c-0001"], "the infeasible cannot win"
    assert report.baselines == {"two-layer-cnn": 0.972}
    assert report.gain is not None and report.gain.low is not None and report.gain.low > 0
    assert report.ledger.saved == {"duplicate": 1}
    lines = report.lines()
    assert len(lines) <= 10
    text = "\n".join(lines)
    assert "98.00 %" in text and "(test 97.00 %)" in text and "41.2k params" in text
    assert "0 tokens in 0 calls; not paid for" in text and "cambrian export r-1/c-0021" in text


def asked(log: ExchangeLog, role: str, model: str, place: str, tokens: int, money: float | None) -> str:
    """One exchange in the record of a run; returns its id."""
    exchange = log.begin(
        key=place, role=role, place=place, model=model, messages=(), schema_name=None, templates={}
    )
    usage = Usage(prompt_tokens=tokens - 100, completion_tokens=100)
    log.write(exchange.model_copy(update={"usage": usage, "calls": 1, "money": money, "response": "x"}))
    return exchange.id


def test_what_models_cost_is_told_by_arm_model_and_role(store: PopulationStore) -> None:
    log = ExchangeLog(store.folder)
    asked(log, "propose", "small", "d1", 1000, 0.01)
    mended = asked(log, "repair", "small", "d1.2", 500, 0.005)
    asked(log, "propose", "large", "d2", 2000, 0.2)  # led to nothing
    asked(log, "analyse", "large", "c-0024", 300, 0.03)
    own = Proposal(arm="llm", genotype={}, exchange=mended, model="small")
    store.add(scored(23, 0.955, "llm", proposal=own))
    report = end_report(store, ExchangeLog(store.folder))
    assert (report.ledger.calls, report.ledger.tokens) == (4, 3800)
    assert report.ledger.money == pytest.approx(0.245)
    assert report.ledger.models["small"] == ModelUse(calls=2, tokens=1500, money=0.015)
    assert report.ledger.roles["analyse"] == ModelUse(calls=1, tokens=300, money=0.03)
    rows = {row.arm: row for row in report.arms}
    assert rows["llm"].asked == ModelUse(calls=3, tokens=3500, money=0.215), "fruitless questions included"
    assert rows["mutation"].asked is None
    assert (
        "3800 tokens in 4 calls for $0.245 (small 1500 tokens in 2 calls for $0.015, "
        "large 2300 tokens in 2 calls for $0.23)"
    ) in "\n".join(report.lines())
    table = arm_markdown(report.arms, "accuracy")
    assert "| seconds | calls | tokens | money |" in table and "| 0 | 3 | 3500 | $0.215 |" in table
    assert "| 0 | - | - | - |" in table


def test_the_rows_add_up_to_all_that_was_asked_of_models(store: PopulationStore) -> None:
    log = ExchangeLog(store.folder)
    ours = asked(log, "propose", "small", "d1", 1000, 0.01)
    theirs = asked(log, "propose", "large", "d2", 2000, 0.2)
    asked(log, "repair", "large", "d3.2", 700, 0.07)  # led to nothing
    for place in ("c-0003", "c-0004"):
        asked(log, "analyse", "small", place, 300, 0.03)
    damaged = asked(log, "propose", "small", "d4", 900, 0.01)
    (log.folder / f"{damaged}.json").write_text('{"id": ', encoding="utf-8")
    for n, (arm, exchange) in enumerate((("llm", ours), ("thinker", theirs))):
        store.add(scored(23 + n, 0.9, arm, proposal=Proposal(arm=arm, genotype={}, exchange=exchange)))
    report = end_report(store, ExchangeLog(store.folder))
    assert [row.arm for row in report.arms][-4:] == ["mutation", "thinker", "analyst", "unreadable"]
    rows = {row.arm: row.asked for row in report.arms}
    assert rows["analyst"] == ModelUse(calls=2, tokens=600, money=0.06)
    assert rows["unreadable"] == ModelUse(calls=1), "whose tokens nobody knows any more"
    assert [row.model for row in report.models] == ["large", "small", "unreadable"]
    for uses in (rows.values(), [row.asked for row in report.models]):
        told = [use for use in uses if use is not None]
        assert sum(use.calls for use in told) == report.ledger.calls == 6
        assert sum(use.tokens for use in told) == report.ledger.tokens == 4300
        assert sum(use.money or 0.0 for use in told) == pytest.approx(report.ledger.money)


def test_what_each_model_brought_is_told(store: PopulationStore, capsys: pytest.CaptureFixture[str]) -> None:
    log = ExchangeLog(store.folder)
    asked(log, "propose", "large", "d1", 2000, 0.2)
    asked(log, "propose", "small", "d2", 1000, 0.01)
    large, small = (Proposal(arm="llm", genotype={}, model=name) for name in ("large", "small"))
    for n, (score, of) in enumerate(((0.95, large), (0.96, large), (0.97, large), (0.85, small))):
        store.add(scored(23 + n, score, "llm", proposal=of))
    ended = (
        CandidateState.DUPLICATE, CandidateState.FAILED, CandidateState.INVALID, CandidateState.REJECTED
    )  # fmt: skip
    for n, state in enumerate(ended):
        store.add(scored(27 + n, 0.0, "llm", proposal=small).model_copy(update=UNPAID | {"state": state}))
    report = end_report(store, log)
    by_model = {row.model: row for row in report.models}
    assert by_model.keys() == {"large", "small"}, "and no row for those that no model proposed"
    first, second = by_model["large"], by_model["small"]
    assert (first.proposals, first.evaluated, first.duplicates, first.failed) == (3, 3, 0, 0)
    assert (second.proposals, second.evaluated, second.duplicates, second.failed) == (5, 1, 1, 2)
    assert (first.best, second.best) == (0.97, 0.85)
    mean = sum(0.9 + 0.001 * i for i in range(1, 6)) / 5
    assert first.gain == pytest.approx(100 * (0.96 / mean - 1)) and second.gain is None
    assert second.asked == ModelUse(calls=1, tokens=1000, money=0.01)
    assert "| small | 5 | 1 | 2 | 1 | 85.00 % | - | 0 | 1 | 1000 | $0.01 |" in model_markdown(
        report.models, "accuracy"
    )
    assert not model_markdown(report.models[:1], "accuracy"), "one model is its arm"
    show_brought(report)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["small", "5", "1", "2", "1", "0.8500", "0:00", "1", "1000", "$0.01"] in rows
    assert next(row[1:6] for row in rows if row[0] == "large") == ["3", "0", "0", "3", "0.9700"]


def test_an_unknown_price_is_unknown_and_arms_are_told_apart(store: PopulationStore) -> None:
    log = ExchangeLog(store.folder)
    failed = asked(log, "propose", "m", "d1", 1000, None)
    own, other = (asked(log, "repair", "m", f"d{n}.2", 400, None if n == 1 else 0.1) for n in (1, 2))
    for n, (arm, exchange) in enumerate((("llm", own), ("thinker", other))):
        store.add(scored(23 + n, 0.9, arm, proposal=Proposal(arm=arm, genotype={}, exchange=exchange)))
    assert failed != own
    report = end_report(store, log)
    rows = {row.arm: row.asked for row in report.arms if row.asked is not None}
    assert rows == {
        "llm": ModelUse(calls=2, tokens=1400, money=None), "thinker": ModelUse(calls=1, tokens=400, money=0.1)
    }  # fmt: skip
    assert report.ledger.money is None
    assert "1800 tokens in 3 calls at an unknown price (propose 1000, repair 800)" in "\n".join(
        report.lines()
    )
    assert "| 2 | 1400 | unknown |" in arm_markdown(report.arms, "accuracy")


def test_the_archive_is_told_once_the_run_has_said_it(store: PopulationStore) -> None:
    assert not any("archive" in line for line in end_report(store).lines())
    store.set_meta(
        COVERAGE_KEY, Archive.among([store.candidate("c-0021"), store.candidate("c-0001")]).in_words()
    )
    lines = end_report(store).lines()
    assert len(lines) <= 10
    assert any(line.endswith("; archive: 1 of 1 cells, 1 family by 1 bin of cost") for line in lines)


def test_an_arm_whose_questions_led_to_nothing_has_a_row(store: PopulationStore) -> None:
    log = ExchangeLog(store.folder)
    asked(log, "propose", "m", "d1", 1000, 0.0)
    row = next(row for row in end_report(store, log).arms if row.arm == "llm")
    assert (row.proposals, row.evaluated, row.best, row.gain) == (0, 0, None, None)
    assert row.asked == ModelUse(calls=1, tokens=1000, money=0.0)
    assert "1000 tokens in 1 call; not paid" in "\n".join(end_report(store, log).lines())


def test_money_has_three_digits() -> None:
    told = [money_text(money) for money in (0.0, 0.000123456, 0.0456, 1.239, 250.4)]
    assert told == ["$0", "$0.000123", "$0.0456", "$1.24", "$250"]


def test_the_report_says_what_was_reproduced_and_what_it_ran_in(store: PopulationStore) -> None:
    best = store.candidate("c-0021")
    gaps = Isolation(level="process", not_enforced=("the network",))
    for cid, isolation in (("c-0021", gaps), ("c-0020", gaps), ("c-0019", Isolation(level="docker"))):
        candidate = store.candidate(cid).model_copy(update={"reproduced": True})
        evaluation = Evaluation(
            candidate_id=cid, rung=0, seed=0, epochs=1, state="trained", isolation=isolation
        )
        store.add_evaluation(evaluation, candidate)
    store.update(store.candidate("c-0018").discredited("not-reproduced: other", reproduced=False))
    report = end_report(store, predictor="Kendall tau 0.50")
    lines = report.lines()
    assert len(lines) <= 10 and best.id in lines[1]
    assert any(line.startswith("cost: 3 evaluations, ") for line in lines)
    once = report.model_copy(update={"ledger": report.ledger.model_copy(update={"evaluations": 1})})
    assert any(line.startswith("cost: 1 evaluation, ") for line in once.lines())
    assert "not reproduced yet" not in lines[1] and "not reproduced yet" in lines[2]
    said = next(line for line in lines if line.startswith("reproduced"))
    assert "3 of the first 10, 1 lost their score (c-0018)" in said
    assert "isolation: process, which does not stop: the network (2), docker (1)" in said


def test_a_difference_inside_the_sampling_noise_is_a_tie(store: PopulationStore) -> None:
    noise = sampling_noise(store.candidates(), RECORD)
    assert noise == pytest.approx((2 * 0.98 * 0.02 / 400) ** 0.5), "by the best that may win"
    board = end_report(store).leaderboard
    for row in board:
        assert row.tied == (row.place > 1 and 0.98 - row.score <= noise)
    assert board[1].tied and not all(row.tied for row in board[1:])


def test_without_a_random_arm_no_gain_is_claimed(tmp_path: Path) -> None:
    store = PopulationStore(tmp_path / "r-1", create=RECORD)
    store.add(scored(0, 0.97))
    report = end_report(store)
    assert report.gain is None
    assert "gain over random unknown: the random arm was off" in report.lines()
    store.close()


def test_every_arm_has_a_row(store: PopulationStore) -> None:
    rows = {row.arm: row for row in end_report(store).arms}
    assert list(rows) == ["baseline", "random", "mutation"]
    mutation = rows["mutation"]
    assert (mutation.proposals, mutation.duplicates, mutation.evaluated) == (17, 1, 16)
    assert mutation.best == 0.98, "the infeasible have no best"
    ours, theirs = [0.95 + 0.001 * i for i in range(6, 20)] + [0.98], [0.9 + 0.001 * i for i in range(1, 6)]
    expected = 100 * ((sum(ours) / len(ours)) / (sum(theirs) / len(theirs)) - 1)
    assert mutation.gain == pytest.approx(expected)
    assert mutation.low is not None and 0 < mutation.low < expected
    assert rows["random"].gain is None and rows["baseline"].gain is None
    text = arm_markdown(end_report(store).arms, "accuracy")
    assert f"| mutation | 17 | 1 | 0 | 16 | 98.00 % | {expected:+.2f} % (" in text


def test_metrics_that_are_no_shares_have_no_sampling_noise(store: PopulationStore) -> None:
    record = RECORD.model_copy(update={"metric": "nll"})
    assert sampling_noise(store.candidates(), record) == 0.0


@pytest.mark.parametrize(
    ("n", "text"), [(940, "940"), (41_200, "41.2k"), (1_300_000, "1.3M"), (2.5e9, "2.5G")]
)
def test_count_text(n: float, text: str) -> None:
    assert count_text(n) == text
