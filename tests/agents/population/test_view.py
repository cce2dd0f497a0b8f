import random

from cambrian.agents.population import Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.population.view import UNPAID_WEIGHT, Population
from cambrian.sandbox.examination.report import StaticFacts


def candidate(index: int, arm: str = "random", **changes: object) -> Candidate:
    made = Candidate(
        id=candidate_id(index),
        index=index,
        proposal=Proposal(arm=arm, genotype={}),
        genotype={},
        state=CandidateState.EVALUATED,
        static=StaticFacts(parameters=1, flops=1, peak_memory_mb=1.0, depth=1),
    )
    return made.model_copy(update=changes)


def scored(index: int, score: float, cost: float, **changes: object) -> Candidate:
    values = {"score": score, "cost": cost, "rung": 0, "tried_rung": 0, "rung_scores": (score,)}
    return candidate(index, **{**values, **changes})


def dominates(a: Candidate, b: Candidate) -> bool:
    assert a.score is not None and b.score is not None and a.cost is not None and b.cost is not None
    return a.score >= b.score and a.cost <= b.cost and (a.score, a.cost) != (b.score, b.cost)


def test_elite_and_front_equal_a_full_scan_after_any_history() -> None:
    rng = random.Random(0)
    population = Population(maximize=True)
    known: dict[str, Candidate] = {}
    for step in range(400):
        ranking = [c for c in known.values() if c.score is not None]
        if ranking and rng.random() < 0.1:  # a score that could not be reproduced
            new = rng.choice(ranking).discredited("other predictions", reproduced=False)
        elif ranking and rng.random() < 0.2:  # a promotion changes a score
            old = rng.choice(ranking)
            new = old.model_copy(update={"score": round(rng.random(), 2), "rung": old.rung + 1})
        else:
            feasible = rng.random() < 0.8
            new = scored(step, round(rng.random(), 2), round(rng.random(), 2), feasible=feasible)
        asked = population.place(new)
        known[new.id] = new
        population.update(new)
        places = [c.id for c in population.elite(1000)]
        assert asked == (places.index(new.id) if new.id in places else None)
    feasible = [c for c in known.values() if c.feasible and c.score is not None]
    ranked = sorted(feasible, key=lambda c: (-c.rung, -(c.score or 0), c.cost, c.index))
    assert [c.id for c in population.elite(1000)] == [c.id for c in ranked]
    front = {(c.score, c.cost) for c in population.front()}
    assert front == {(c.score, c.cost) for c in ranked if not any(dominates(o, c) for o in ranked)}
    assert [c.score for c in population.front()] == sorted(
        (c.score for c in population.front()), reverse=True
    )


def test_minimised_scores_rank_the_other_way() -> None:
    population = Population(maximize=False, candidates=[scored(0, 0.9, 1.0), scored(1, 0.1, 2.0)])
    assert [c.id for c in population.elite(2)] == ["c-0002", "c-0001"]


def test_only_what_ended_well_ranks() -> None:
    population = Population(maximize=True)
    for index, state in enumerate(CandidateState):
        population.update(scored(index, 0.9, 1.0, state=state))
    assert [c.state for c in population.elite(99)] == [CandidateState.EVALUATED]


def test_unpaid_proposals_count_little_and_a_candidate_counts_once() -> None:
    population = Population(maximize=True)
    first = candidate(0, arm="mutation", state=CandidateState.PROPOSED)
    population.update(first)
    population.update(first.model_copy(update={"state": CandidateState.TRAINING}))
    population.update(first.model_copy(update={"state": CandidateState.EVALUATED}))
    population.update(candidate(1, arm="mutation", state=CandidateState.DUPLICATE))
    assert population.spent()["mutation"] == 1 + UNPAID_WEIGHT
    assert population.counts() == {"evaluated": 1, "duplicate": 1}
    assert population.proposed("mutation") == 2


def test_where_time_is_the_limit_who_trains_twice_as_long_pays_double() -> None:
    made = [candidate(n, arm="slow" if n % 2 else "quick", train_s=4.0 if n % 2 else 2.0) for n in range(8)]
    made += [candidate(8, arm="slow", state=CandidateState.DUPLICATE)]
    assert Population(True, made).spent() == {"quick": 4, "slow": 4 + UNPAID_WEIGHT}
    live = Population(True, timed=True)
    for each in made:
        live.update(each.model_copy(update={"state": CandidateState.TRAINING, "train_s": 0.0}))
    assert live.spent() == {"quick": 4, "slow": 5}, "those under way count alike"
    for each in made:
        live.update(each)
    assert live.spent()["slow"] - UNPAID_WEIGHT == 2 * live.spent()["quick"]
    assert sum(live.spent().values()) == 8 + UNPAID_WEIGHT
    assert live.spent() == Population(True, made, timed=True).spent()


def test_successive_halving_promotes_the_best_quarter_once() -> None:
    population = Population(maximize=True)
    for index in range(8):
        population.update(scored(index, index / 10, 1.0))
    assert population.promotable(0, 0.25) == "c-0008"
    assert population.promotable(0, 0.25, excluding={"c-0008"}) == "c-0007"
    best = population.get("c-0008")
    promoted = best.model_copy(update={"tried_rung": 1, "rung": 1, "score": 0.95, "rung_scores": (0.7, 0.95)})
    population.update(promoted)
    assert population.promotable(0, 0.25) == "c-0007"
    assert population.promotable(1, 0.25) is None, "a quarter of one is none"
    failed = population.get("c-0007").model_copy(update={"tried_rung": 1})
    population.update(failed)
    assert population.promotable(0, 0.25) is None, "one that failed above is not tried again"


def test_yardsticks_climb_in_leagues_of_their_own() -> None:
    population = Population(maximize=True)
    for index in range(8):
        population.update(scored(index, index / 10, 1.0, proposal=Proposal(arm="mutation", genotype={})))
    for index in range(8, 12):
        population.update(scored(index, 0.01 * index, 1.0))
    population.update(scored(12, 0.0, 1.0, proposal=Proposal(arm="baseline", genotype={})))
    promoted = []
    while (cid := population.promotable(0, 0.25, excluding=promoted)) is not None:
        promoted.append(cid)
    assert promoted == ["c-0013", "c-0008", "c-0007", "c-0012"]


def test_a_view_rebuilt_from_the_store_ranks_alike() -> None:
    candidates = [scored(i, (i * 7 % 11) / 11, (i * 5 % 13) / 13, ended_s=float(-i)) for i in range(40)]
    live = Population(True)
    for c in candidates:
        live.update(c)
    rebuilt = Population(True, candidates)
    assert [c.id for c in live.elite(40)] == [c.id for c in rebuilt.elite(40)]
    assert [c.id for c in live.front()] == [c.id for c in rebuilt.front()]
    assert live.spent() == rebuilt.spent()


def test_who_lost_its_score_is_gone_everywhere() -> None:
    population = Population(True)
    for index in range(8):
        population.update(scored(index, index / 10, 1.0))
    population.update(population.get("c-0008").discredited("not-reproduced: other", reproduced=False))
    assert population.elite(1)[0].id == "c-0007" == population.front()[0].id
    assert "c-0008" not in {c.id for c in population.recent(8)}
    assert [c.reason for c in population.setbacks(1)] == ["not-reproduced: other"]
    assert population.promotable(0, 0.25) == "c-0007"


def test_a_rebuilt_view_knows_who_ended_last_whatever_the_clock_said() -> None:
    ended = [scored(i, 0.5, 1.0, ended_order=i + 1, ended_s=float(-i)) for i in range(5)]
    population = Population(True, reversed(ended))
    assert [c.index for c in population.recent(5)] == [4, 3, 2, 1, 0]
    assert population.next_order() == 6


def test_recent_and_setbacks_are_newest_first() -> None:
    population = Population(True)
    for index in range(5):
        population.update(scored(index, 0.5, 1.0))
    population.update(candidate(5, state=CandidateState.REJECTED, reason="too wide"))
    assert [c.index for c in population.recent(2)] == [4, 3]
    assert [c.reason for c in population.setbacks(3)] == ["too wide"]


def test_a_slow_candidate_ranks_and_climbs_by_what_its_score_is_worth() -> None:
    population = Population(True, pareto=False)
    for index in range(4):
        population.update(scored(index, 0.80 + index / 100, 1.0 + index, latency_factor=1.0 - index / 10))
    assert [c.id for c in population.elite(4)] == ["c-0001", "c-0002", "c-0003", "c-0004"]
    assert population.promotable(0, 0.25) == "c-0001"
    assert population.front() == [], "one number has no front"
    faster = population.get("c-0004").model_copy(update={"latency_factor": 1.0})
    population.update(faster)
    assert population.elite(1)[0].id == population.promotable(0, 0.25) == "c-0004"
