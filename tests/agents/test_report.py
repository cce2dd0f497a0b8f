from pathlib import Path

import pytest

from cambrian.agents.evaluator.arms import arm_markdown
from cambrian.agents.evaluator.noise import sampling_noise
from cambrian.agents.population import Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.population.model import Evaluation
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.report import count_text, end_report
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
    report = end_report(store, calls=3, tokens=1200, predictor="Kendall tau 0.50")
    assert [row.id for row in report.leaderboard[:2]] == ["c-0021", "c-0001"], "the infeasible cannot win"
    assert report.baselines == {"two-layer-cnn": 0.972}
    assert report.gain is not None and report.gain.low is not None and report.gain.low > 0
    assert report.ledger.saved == {"duplicate": 1}
    lines = report.lines()
    assert len(lines) <= 10
    text = "\n".join(lines)
    assert "98.00 %" in text and "(test 97.00 %)" in text and "41.2k params" in text
    assert "1200 tokens in 3 calls" in text and "cambrian export r-1/c-0021" in text


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
    report = end_report(store, calls=0, tokens=0, predictor="Kendall tau 0.50")
    lines = report.lines()
    assert len(lines) <= 10 and best.id in lines[1]
    assert "not reproduced yet" not in lines[1] and "not reproduced yet" in lines[2]
    said = next(line for line in lines if line.startswith("reproduced"))
    assert "3 of the first 10, 1 lost their score (c-0018)" in said
    assert "isolation: process, which does not stop: the network (2), docker (1)" in said


def test_a_difference_inside_the_sampling_noise_is_a_tie(store: PopulationStore) -> None:
    noise = sampling_noise(store.candidates(), RECORD)
    assert noise == pytest.approx((2 * 0.98 * 0.02 / 400) ** 0.5), "by the best that may win"
    board = end_report(store, calls=0, tokens=0).leaderboard
    for row in board:
        assert row.tied == (row.place > 1 and 0.98 - row.score <= noise)
    assert board[1].tied and not all(row.tied for row in board[1:])


def test_without_a_random_arm_no_gain_is_claimed(tmp_path: Path) -> None:
    store = PopulationStore(tmp_path / "r-1", create=RECORD)
    store.add(scored(0, 0.97))
    report = end_report(store, calls=0, tokens=0)
    assert report.gain is None
    assert "gain over random unknown: the random arm was off" in report.lines()
    store.close()


def test_every_arm_has_a_row(store: PopulationStore) -> None:
    rows = {row.arm: row for row in end_report(store, calls=0, tokens=0).arms}
    assert list(rows) == ["baseline", "random", "mutation"]
    mutation = rows["mutation"]
    assert (mutation.proposals, mutation.duplicates, mutation.evaluated) == (17, 1, 16)
    assert mutation.best == 0.98, "the infeasible have no best"
    ours, theirs = [0.95 + 0.001 * i for i in range(6, 20)] + [0.98], [0.9 + 0.001 * i for i in range(1, 6)]
    expected = 100 * ((sum(ours) / len(ours)) / (sum(theirs) / len(theirs)) - 1)
    assert mutation.gain == pytest.approx(expected)
    assert mutation.low is not None and 0 < mutation.low < expected
    assert rows["random"].gain is None and rows["baseline"].gain is None
    text = arm_markdown(end_report(store, calls=0, tokens=0).arms, "accuracy")
    assert f"| mutation | 17 | 1 | 16 | 98.00 % | {expected:+.2f} % (" in text


def test_metrics_that_are_no_shares_have_no_sampling_noise(store: PopulationStore) -> None:
    record = RECORD.model_copy(update={"metric": "nll"})
    assert sampling_noise(store.candidates(), record) == 0.0


@pytest.mark.parametrize(
    ("n", "text"), [(940, "940"), (41_200, "41.2k"), (1_300_000, "1.3M"), (2.5e9, "2.5G")]
)
def test_count_text(n: float, text: str) -> None:
    assert count_text(n) == text
