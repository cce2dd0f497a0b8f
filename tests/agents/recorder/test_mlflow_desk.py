from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from cambrian.agents.population.model import CandidateState
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.recorder.mlflow_recorder import MLflowRecorder
from cambrian.agents.review import MLflowDesk
from cambrian.search_spaces import Space, Task
from tests.agents.recorder.making import enter, made, run_record
from tests.contracts.review import PARKED, Decide, ReviewDeskContract, only


@pytest.fixture(scope="module")
def recorder(
    tmp_path_factory: pytest.TempPathFactory, template: Path, space: Space, task: Task
) -> Iterator[MLflowRecorder]:
    """A recorded run in which the candidates wait."""
    runs = tmp_path_factory.mktemp("runs")
    shutil.copy(template, runs / "mlflow.db")
    store = PopulationStore(runs / "first-light", create=run_record())
    for index in range(len(PARKED)):
        enter(store, made(space, index, state=CandidateState.PARKED, arm="llm"), evaluated=False)
    recorder = MLflowRecorder(store, space, task, f"sqlite:///{runs / 'mlflow.db'}", runs / "artifacts")
    recorder.start()
    assert recorder.flush(60)
    yield recorder
    recorder.close(0)
    store.close()


@pytest.fixture
def tags(recorder: MLflowRecorder) -> Iterator[dict[str, dict[str, str]]]:
    """The tags of each run as the recorder left them; put back afterwards."""
    runs = {cid: recorder._store.tracked(cid) for cid in PARKED}
    before = {cid: dict(recorder.client.get_run(run).data.tags) for cid, run in runs.items()}
    yield before
    for cid, run in runs.items():
        now = recorder.client.get_run(run).data.tags
        for key in now.keys() - before[cid].keys():
            recorder.client.delete_tag(run, key)
        for key, value in before[cid].items():
            if now.get(key) != value:
                recorder.client.set_tag(run, key, value)


def set_tag(recorder: MLflowRecorder, candidate_id: str, key: str, value: str) -> None:
    """What MLflow's pages do when a person edits a tag."""
    recorder.client.set_tag(recorder._store.tracked(candidate_id), key, value)


class TestMLflowDesk(ReviewDeskContract):
    @pytest.fixture
    def desk(self, recorder: MLflowRecorder, tags: Any) -> MLflowDesk:
        return MLflowDesk(recorder, recorder._store)

    @pytest.fixture
    def decide(self, recorder: MLflowRecorder, tags: Any) -> Decide:
        def decide(cid: str, verdict: Literal["approve", "reject"], reason: str = "") -> None:
            set_tag(recorder, cid, "review", verdict)
            if reason:
                set_tag(recorder, cid, "review.reason", reason)

        return decide

    @pytest.mark.parametrize(
        ("word", "verdict"), [(" Approve ", "approve"), ("APPROVED", "approve"), ("rejected", "reject")]
    )
    def test_reads_what_people_write(
        self, desk: MLflowDesk, recorder: MLflowRecorder, word: str, verdict: str
    ) -> None:
        set_tag(recorder, "c-0001", "review", word)
        assert only(desk.poll(PARKED)).verdict == verdict

    def test_an_unknown_word_is_reported_once(
        self, desk: MLflowDesk, recorder: MLflowRecorder, caplog: pytest.LogCaptureFixture
    ) -> None:
        set_tag(recorder, "c-0001", "review", "aprove\x1b[2J")
        with caplog.at_level(logging.WARNING):
            assert desk.poll(PARKED) == desk.poll(PARKED) == []
        (record,) = caplog.records
        assert record.getMessage().startswith("c-0001: the tag review is 'aprove[2j' and is ignored")

    def test_a_reason_may_be_written_into_the_description(
        self, desk: MLflowDesk, recorder: MLflowRecorder, tags: dict[str, dict[str, str]]
    ) -> None:
        note = tags["c-0002"]["mlflow.note.content"]
        set_tag(recorder, "c-0002", "mlflow.note.content", f"{note}\n\nToo deep for this data.")
        set_tag(recorder, "c-0002", "review", "reject")
        assert only(desk.poll(PARKED)).reason == "Too deep for this data."

    def test_a_desk_without_a_server_has_no_decisions(
        self,
        desk: MLflowDesk,
        recorder: MLflowRecorder,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def down(_query: str) -> None:
            raise ConnectionError("connection refused")

        monkeypatch.setattr(recorder._tracking, "search", down)
        with caplog.at_level(logging.WARNING):
            assert desk.poll(PARKED) == desk.poll(PARKED) == []
        assert [record.getMessage() for record in caplog.records] == [
            "reviews cannot be read from MLflow: connection refused"
        ]

    def test_a_desk_that_is_not_connected_yet_has_no_decisions(
        self, recorder: MLflowRecorder, space: Space, task: Task
    ) -> None:
        idle = MLflowRecorder(recorder._store, space, task, "sqlite:///unused.db")
        assert MLflowDesk(idle, recorder._store).poll(PARKED) == []
