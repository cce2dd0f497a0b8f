"""The nearest earlier candidate: who is found, and what is said of it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cambrian.agents.evaluator.agreement import agreement
from cambrian.agents.evaluator.savings import savings
from cambrian.agents.evaluator.similarity import UNEQUAL, Similarity, gene_counts
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation, Proposal, candidate_id
from cambrian.sandbox import Isolation
from cambrian.search_spaces import SPACES, Genotype


def candidate(index: int, genotype: Genotype, **more: Any) -> Candidate:
    values: dict[str, Any] = {"state": CandidateState.PROPOSED, "identity": f"f2:{index}", **more}
    arm = values.pop("arm", "random")
    return Candidate(
        id=candidate_id(index),
        index=index,
        proposal=Proposal(arm=arm, genotype=genotype),
        genotype=genotype,
        **values,
    )


def of_space(name: str) -> tuple[Any, Similarity]:
    space = SPACES.create(name)
    return space, Similarity(lambda genotype: space.structure(genotype).motifs)


@pytest.mark.parametrize("name", ["convnet", "mlp"])
def test_a_mutant_is_nearest_to_its_parent_among_strangers(name: str) -> None:
    space, similarity = of_space(name)
    rng = random.Random(7)
    strangers = [candidate(i, space.sample(rng)) for i in range(150)]
    for stranger in strangers:
        similarity.relate(stranger)
    hits = 0
    for i in range(40):
        parent = rng.choice(strangers)
        mutant = candidate(150 + i, space.mutate(parent.genotype, rng)[0])
        nearest = similarity.relate(mutant)
        assert nearest is not None and 0 <= nearest.similarity <= UNEQUAL
        hits += nearest.id == parent.id
    assert hits >= 34


def test_the_smaller_the_change_the_more_alike() -> None:
    space, _ = of_space("convnet")
    genotype = space.baselines()["two-layer-cnn"]
    other = space.sample(random.Random(1))

    def to(changed: Genotype) -> float:
        _, similarity = of_space("convnet")
        similarity.relate(candidate(0, genotype))
        nearest = similarity.relate(candidate(1, space.validate(changed)))
        assert nearest is not None
        return nearest.similarity

    wider = {**genotype, "stem": {**genotype["stem"], "width": 24}}
    widest = {**wider, "stem": {**wider["stem"], "width": 64, "kernel": 7}}
    assert UNEQUAL >= to(wider) > to(widest) > to(other)
    assert to(wider) > 0.85 and to(other) < 0.6


def test_only_earlier_candidates_count_and_the_first_has_none() -> None:
    similarity = Similarity(lambda _genotype: None)
    assert similarity.relate(candidate(1, {"a": 1})) is None
    assert similarity.relate(candidate(0, {"a": 1})) is None, "entered before the other, came later"
    nearest = similarity.relate(candidate(2, {"a": 1, "b": 2}))
    assert nearest is not None and nearest.id == "c-0001" and nearest.difference == "+b 2"
    again = similarity.relate(candidate(2, {"a": 1, "b": 2}))
    assert again == nearest and len(similarity) == 3, "a step that is done twice changes nothing"


def test_motifs_that_become_known_later_count() -> None:
    """Code is known by its text until the sandbox has run it."""
    similarity = Similarity(lambda _genotype: None)
    text = "x = {}\ny = 1\nz = 1\n"
    similarity.relate(candidate(0, {"source": text.format(1)}), {"conv": 3.0})
    similarity.relate(candidate(1, {"source": text.format(2)}), {"linear": 3.0})
    third = candidate(2, {"source": text.format(2) + "w = 0\n"})
    by_text = similarity.relate(third)
    by_motifs = similarity.relate(third, {"conv": 3.0})
    assert by_text is not None and by_text.id == "c-0002"
    assert by_motifs is not None and by_motifs.id == "c-0001"


def test_a_resumed_run_finds_the_same() -> None:
    space, similarity = of_space("convnet")
    rng = random.Random(2)
    found = []
    for i in range(70):  # more than the table holds at first
        made = candidate(i, space.sample(rng))
        found.append(made.model_copy(update={"nearest": similarity.relate(made)}))
    found.append(candidate(70, found[3].genotype, state=CandidateState.DUPLICATE, duplicate_of="c-0004"))
    invalid = candidate(71, {"never": "seen"}, state=CandidateState.INVALID, identity=None)
    _, resumed = of_space("convnet")
    resumed.rebuild([*found, invalid])
    assert len(resumed) == 70
    new = candidate(80, space.sample(rng))
    assert resumed.relate(new) == similarity.relate(new)


def test_who_turns_out_a_duplicate_is_nobodys_nearest() -> None:
    similarity = Similarity(lambda _genotype: None)
    first, second = candidate(0, {"a": 1, "b": 1}), candidate(1, {"a": 1, "b": 2})
    similarity.relate(first)
    similarity.relate(second)
    said = similarity.equal(second, first)
    assert (said.id, said.similarity, said.difference) == ("c-0001", 1.0, "b 1 -> 2")
    nearest = similarity.relate(candidate(2, {"a": 1, "b": 2}))
    assert nearest is not None and nearest.id == "c-0001"


def test_genes_count_where_they_stand_and_anywhere() -> None:
    counts = gene_counts({"stages": [{"width": 24}, {"width": 24}], "code": "a\n\na\n"})
    assert counts[".stages[].width=24"] == 2 and counts[".stages[1].width=24"] == 1
    assert counts[".stages[1].width~4"] == 1 and counts[".stages#2"] == 1 and counts[".code: a"] == 2


def test_savings_are_what_the_originals_took() -> None:
    def took(cid: str, seconds: float, rung: int = 0, seed: int = 0) -> Evaluation:
        return Evaluation(
            candidate_id=cid, rung=rung, seed=seed, epochs=1, state="trained", wall_s=seconds,
            isolation=Isolation(level="process"),
        )  # fmt: skip

    ended = {"state": CandidateState.EVALUATED}
    equal = {"state": CandidateState.DUPLICATE, "arm": "mutation"}
    candidates = [
        candidate(0, {}, **ended),
        candidate(1, {}, **ended),
        candidate(2, {}, state=CandidateState.INFEASIBLE),
        candidate(3, {}, state=CandidateState.TRAINING),
        candidate(4, {}, **equal, duplicate_of="c-0001"),
        candidate(5, {}, **equal, duplicate_of="c-0003"),  # never trained: nothing was saved
        candidate(6, {}, **{**equal, "arm": "random"}, duplicate_of="c-0004"),
    ]
    evaluations = [
        took("c-0001", 10.0),
        took("c-0002", 20.0),
        took("c-0001", 99.0, seed=5),
        took("c-0001", 70, 1),
    ]
    saved = savings(candidates, evaluations)
    assert saved.proposals == 7 and saved.duplicates == {"mutation": 2, "random": 1}
    assert saved.evaluations == 2 and saved.seconds == pytest.approx(10 + 15)
    assert saved.sentence == (
        "3 of 7 proposals computed what an earlier one does (2 by mutation, 1 by random): "
        "2 trainings, about 0:25, were not made twice"
    )
    assert savings(candidates[:3], evaluations).sentence == ""


def test_agreement_of_predictions(tmp_path: Path) -> None:
    def left(name: str, val: Any, epochs: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        np.savez(folder / "outputs.npz", val=np.float32(val), test=np.float32(val), val_epochs=epochs)
        return folder

    classes = np.zeros((0, 4), dtype=np.int16)
    first = left("a", [[1, 0], [0, 1], [1, 0], [1, 0]], classes)
    second = left("b", [[3, 0], [0, 2], [0, 1], [9, 8]], classes)
    assert agreement(first, second, "cross-entropy") == 0.75
    assert agreement(first, tmp_path / "gone", "cross-entropy") is None
    values = np.zeros((0, 4, 1), dtype=np.float32)
    line, turned = left("c", [[1], [2], [3], [4]], values), left("d", [[8], [6], [4], [2]], values)
    flat = left("e", [[1], [1], [1], [1]], values)
    assert agreement(line, turned, "squared-error") == pytest.approx(1)
    assert agreement(line, flat, "squared-error") is None
