import json
import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from cambrian.agents.errors import InfrastructureError, RunBusyError, UnknownNameError, UserError
from cambrian.agents.population import Candidate, CandidateState, Evaluation, Proposal, candidate_id
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.sandbox import Isolation

RECORD = RunRecord(
    run_id="r", name="r", space="convnet", task="digits", metric="accuracy", maximize=True,
    cost="params", created=0.0, config={},
)  # fmt: skip


def candidate(index: int, **changes: object) -> Candidate:
    made = Candidate(
        id=candidate_id(index),
        index=index,
        proposal=Proposal(arm="random", genotype={"n": index}),
        genotype={"n": index},
        state=CandidateState.PROPOSED,
    )
    return made.model_copy(update=changes)


def evaluation(cid: str, rung: int = 0, score: float = 0.5) -> Evaluation:
    return Evaluation(
        candidate_id=cid, rung=rung, seed=0, epochs=1, state="trained",
        metrics={"accuracy": score}, isolation=Isolation(level="process"),
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path):
    store = PopulationStore(tmp_path / "run", create=RECORD)
    yield store
    store.close()


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    store = PopulationStore(tmp_path, create=RECORD)
    store.add(candidate(0), draws=3)
    store.update(candidate(0, state=CandidateState.EVALUATED, score=0.9))
    store.add_evaluation(evaluation("c-0001"), candidate(0, score=0.9))
    store.close()
    again = PopulationStore(tmp_path)
    assert again.candidate("c-0001").score == 0.9
    assert [e.metrics for e in again.evaluations("c-0001")] == [{"accuracy": 0.5}]
    assert again.get_meta("draws") == "3"
    assert again.run == RECORD
    again.close()


def test_of_two_that_claim_one_identity_the_second_becomes_its_duplicate(store: PopulationStore) -> None:
    for index in (0, 1):
        store.add(candidate(index))
    first = store.claim(candidate(0), "f1:abc")
    second = store.claim(candidate(1), "f1:abc")
    assert first.state is CandidateState.PROPOSED and first.duplicate_of is None
    assert second.state is CandidateState.DUPLICATE and second.duplicate_of == first.id
    assert store.claim(first, "f1:abc").duplicate_of is None, "claiming again after a crash changes nothing"


def test_the_database_itself_refuses_a_second_owner(store: PopulationStore) -> None:
    store.add(candidate(0, identity="f1:abc"))
    with pytest.raises(sqlite3.IntegrityError):
        store.add(candidate(1, identity="f1:abc"))


def test_an_evaluation_is_recorded_once(store: PopulationStore) -> None:
    store.add(candidate(0))
    store.add_evaluation(evaluation("c-0001", score=0.5), candidate(0))
    store.add_evaluation(evaluation("c-0001", score=0.7), candidate(0))
    assert [e.metrics["accuracy"] for e in store.evaluations()] == [0.5]


def test_in_flight_until_landed(store: PopulationStore) -> None:
    for index in (0, 1, 2):
        store.add(candidate(index))
    store.land("c-0002")
    store.launch("c-0003", 1)
    assert store.inflight() == [("c-0001", 0), ("c-0003", 1)]


def test_outbox_keeps_a_candidate_that_changed_while_it_was_delivered(store: PopulationStore) -> None:
    store.add(candidate(0))
    store.add(candidate(1))
    items = store.outbox(10)
    assert [item.candidate_id for item in items] == ["c-0001", "c-0002"]
    store.update(candidate(0, state=CandidateState.TRAINING))
    store.delivered(items)
    assert [item.candidate_id for item in store.outbox(10)] == ["c-0001"]
    assert store.outbox_size() == 1


def test_a_second_process_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    release, ready = context.Event(), context.Event()
    process = context.Process(target=_hold_store, args=(str(tmp_path), ready, release))
    process.start()
    try:
        assert ready.wait(30)
        with pytest.raises(RunBusyError, match="another process") as caught:
            PopulationStore(tmp_path)
        assert str(process.pid) in caught.value.message
        reader = PopulationStore(tmp_path, readonly=True)
        assert reader.is_held()
        with pytest.raises(InfrastructureError):
            reader.set_meta("x", "1")
        reader.close()
    finally:
        release.set()
        process.join(30)
    PopulationStore(tmp_path).close()


def _hold_store(folder: str, ready, release) -> None:
    store = PopulationStore(Path(folder), create=RECORD)
    ready.set()
    release.wait(30)
    store.close()


def test_missing_damaged_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no run"):
        PopulationStore(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "population.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(UserError, match="cannot be read"):
        PopulationStore(tmp_path / "bad")
    store = PopulationStore(tmp_path / "old", create=RECORD)
    store.set_meta("version", "999")
    store.close()
    with pytest.raises(UserError, match="another version"):
        PopulationStore(tmp_path / "old")


def test_a_full_disk_is_infrastructure_and_loses_nothing(store: PopulationStore) -> None:
    store.add(candidate(0))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(InfrastructureError, match="full"):
        for index in range(1, 2000):
            store.add(candidate(index, reason="x" * 1000))
    store._db.execute("PRAGMA max_page_count = 100000")
    survivors = store.candidates()
    assert [c.index for c in survivors] == list(range(len(survivors)))
    assert json.loads(survivors[0].model_dump_json())["id"] == "c-0001"
