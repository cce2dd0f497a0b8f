from __future__ import annotations

import json
import math
import shutil
import threading
from pathlib import Path

import pytest

from cambrian.agents.errors import UserError
from cambrian.agents.evaluator.hypervolume import HYPERVOLUME_KEY, Reference
from cambrian.agents.population.model import CandidateState, Nearest
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.recorder.delivery import Delivery
from cambrian.agents.recorder.mlflow_recorder import MLflowRecorder
from cambrian.agents.recorder.pictures import PICTURES
from cambrian.sandbox import Latency
from cambrian.search_spaces import Space, Task
from tests.agents.recorder.making import BEGIN, enter, exchanged, made, measured, population
from tests.agents.recorder.reading import Launch, artifacts, children, closed_port, only, parent


def test_all_of_a_latency_and_of_the_isolation_is_recorded(
    launch: Launch, store: PopulationStore, space: Space
) -> None:
    candidate = made(space, 0, cost=0.5, latency_ratio=1.25, throughput=2000.0, reproduced=True)
    evaluation = measured(candidate)
    latency = evaluation.latency
    assert latency is not None
    extra = {"reference": "conv-1", "reference_ms": 0.4, "ratio": 1.25, "noisy": True, "memory_mb": 3.0}
    extra |= {"throughput": 2000.0, "throughput_batch": 64}
    latency = Latency.model_validate(latency.model_dump() | extra)
    enter(store, candidate, evaluated=False)
    store.add_evaluation(evaluation.model_copy(update={"latency": latency, "device_name": "desk"}), candidate)
    recorder = launch()
    assert recorder.flush(30)
    run = only(recorder, "c-0001")
    metrics, tags = run.data.metrics, run.data.tags
    assert (metrics["latency_ratio"], metrics["throughput"], metrics["latency_memory_mb"]) == (1.25, 2000, 3)
    assert metrics["latency_iqr_ms"] == pytest.approx(0.15) and metrics["latency_reference_ms"] == 0.4
    assert (tags["device"], tags["device_name"]) == ("Test CPU, 1 thread", "desk")
    assert (tags["latency_noisy"], tags["latency_alone"], tags["latency_reference"]) == (
        "yes",
        "no",
        "conv-1",
    )
    assert (tags["isolation"], tags["not_enforced"]) == ("process", "network; reading other files")
    assert tags["reproduced"] == "yes"
    note = tags["mlflow.note.content"]
    for part in ("on desk", "noisy", "not alone", "1.25 times that of conv-1", "2k samples/s", "3 MiB"):
        assert part in note
    assert "which does not stop: network; reading other files" in note
    assert "reproduced from the weights | yes" in note


def test_a_score_that_was_delivered_and_lost_is_no_longer_shown(
    launch: Launch, store: PopulationStore, space: Space
) -> None:
    candidate = made(space, 0, score=0.99)
    enter(store, candidate)
    recorder = launch()
    assert recorder.flush(30)
    assert only(recorder, "c-0001").data.metrics["accuracy"] == 0.99
    lost = candidate.discredited("not-reproduced: other predictions", reproduced=False)
    lost = lost.model_copy(update={"ended_s": BEGIN + 60})
    store.discredit(lost, "not-reproduced", "other predictions")
    assert recorder.flush(30)
    run = only(recorder, "c-0001")
    assert (run.info.status, run.data.tags["state"], run.data.tags["reproduced"]) == (
        "FAILED",
        "failed",
        "no",
    )
    assert run.data.metrics["standing"] == -2
    assert all(math.isnan(run.data.metrics[key]) for key in ("accuracy", "score", "test_accuracy"))
    assert run.info.run_name == "c-0001 mutation failed"


def test_everything_of_a_candidate_is_recorded(launch: Launch, store: PopulationStore, space: Space) -> None:
    exchanged(store, 1, response='{"genotype": 1}')
    first = made(space, 0, arm="random", score=0.9, cost=0.4)
    second = made(
        space,
        1,
        arm="llm",
        score=0.95,
        cost=0.5,
        parents=("c-0001",),
        edit="wider stem",
        hypothesis="![x](http://evil.example/x.png) wider is better",
        expected_effect="+1 %",
        exchange="x-0001",
        nearest=Nearest(id="c-0001", similarity=0.94, difference="stem.width 16 -> 24", agreement=0.5),
    )
    enter(store, first)
    enter(store, second)
    recorder = launch()
    assert recorder.flush(30)
    run = only(recorder, "c-0002")
    assert run.info.run_name == "c-0002 llm 95.00 %"
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == ((BEGIN + 3) * 1000, (BEGIN + 8) * 1000)
    params = run.data.params
    assert params["arm"] == "llm" and params["parents"] == "c-0001" and params["edit"] == "wider stem"
    assert params["architecture"] == second.summary
    assert "kernel=" in params["gene.stem"] and "block=" in params["gene.stages.1"]
    metrics = run.data.metrics
    assert metrics["score"] == metrics["accuracy"] == 0.95
    assert metrics["test_accuracy"] == pytest.approx(0.946)
    assert metrics["predicted"] == pytest.approx(0.94)
    assert (metrics["latency_ms"], metrics["latency_q1_ms"], metrics["latency_q3_ms"]) == (0.5, 0.45, 0.6)
    assert metrics["params"] == 9031 and metrics["flops"] == 4e6 and metrics["wall_s"] == 5.0
    curve = recorder.client.get_metric_history(run.info.run_id, "rung0/val_accuracy")
    assert [(point.step, point.value) for point in curve] == [
        (n, pytest.approx(0.95 * (1 - 0.5**n))) for n in (1, 2, 3, 4)
    ]
    assert len(recorder.client.get_metric_history(run.info.run_id, "rung0/train_loss")) == 4
    tags = run.data.tags
    assert tags["mlflow.parentRunId"] == parent(recorder).info.run_id
    assert tags["state"] == "evaluated" and tags["identity"] == second.identity
    assert tags["isolation"] == "process" and tags["not_enforced"] == "network; reading other files"
    assert tags["exchange"] == "x-0001" and tags["arm"] == "llm" and tags["feasible"] == "yes"
    note = tags["mlflow.note.content"]
    assert note.startswith(
        "**95.00 %** accuracy (test 94.60 %) · 0.5 ms · 9.03k parameters · llm from c-0001"
    )
    assert f"runs/{only(recorder, 'c-0001').info.run_id}" in note
    assert "), similarity 0.94, predictions alike 0.50: stem.width 16 -&gt; 24 |" in note
    assert tags["nearest"] == "c-0001" and metrics["similarity"] == 0.94
    assert "wider is better" in note and "evil.example/x.png)" not in note.replace("\\)", "")
    files = artifacts(run)
    assert {*files} == {"architecture.svg", "genotype.json", "source.py", "prompt.md", "answer.json"}
    assert f"get-artifact?path=architecture.svg&run_uuid={run.info.run_id}" in note
    assert json.loads(files["genotype.json"].read_text()) == second.genotype
    assert "def build" in files["source.py"].read_text()
    assert files["prompt.md"].read_text() == "## system\n\nYou design networks.\n\n## user\n\nPropose."
    assert files["answer.json"].read_text() == '{\n "genotype": 1\n}'


def test_the_run_is_the_parent_with_pictures_and_configuration(
    launch: Launch, store: PopulationStore, space: Space
) -> None:
    for candidate in population(space, 12):
        enter(store, candidate.model_copy(update={"proxies": {"synflow": -(candidate.score or 0.0)}}))
    corner = Reference(score=0.5, cost=2.0, reason="for this test")
    store.set_meta(HYPERVOLUME_KEY, corner.model_dump_json())
    enter(store, made(space, 12, state=CandidateState.DUPLICATE, arm="llm", duplicate_of="c-0001"))
    recorder = launch()
    store.set_run(status="finished", stop_reason="12 evaluations are spent")
    recorder.close(60)
    assert recorder.status.pending == 0 and recorder.status.error == ""
    run = parent(recorder)
    experiment = recorder.client.get_experiment(recorder.experiment_id)
    assert experiment.name == "convnet/digits"
    view = json.loads(experiment.tags["mlflow.sharedViewState.candidates"])
    assert view["selectedColumns"][:2] == ["metrics.`accuracy`", "metrics.`test_accuracy`"]
    found = recorder.client.search_runs([recorder.experiment_id], filter_string=view["searchFilter"])
    assert len(found) == 13
    assert (run.info.run_name, run.info.status) == (store.run.run_id, "FINISHED")
    assert run.data.params["budget.wall_s"] == "300" and run.data.params["budget.tokens"] == "none"
    assert run.data.params["constraints"] == "latency_ms <= 2"
    best = max((c for c in store.candidates() if c.score and c.feasible), key=lambda c: c.score or 0)
    assert run.data.metrics["score"] == run.data.metrics["best_accuracy"] == best.score
    rise = recorder.client.get_metric_history(run.info.run_id, "best_accuracy")
    assert [p.value for p in rise] == sorted(p.value for p in rise)
    files = artifacts(run)
    volume = recorder.client.get_metric_history(run.info.run_id, "hypervolume")
    values = [p.value for p in sorted(volume, key=lambda p: p.step)]
    assert values == sorted(values) and values[-1] > 0 and run.data.metrics["hypervolume"] == values[-1]
    taus = [run.data.metrics[f"tau.{name}"] for name in ("predictor", "synflow")]
    assert taus == pytest.approx([1, -1])
    assert run.data.metrics["arm.baseline/proposals"] == 2.0 == run.data.metrics["arm.baseline/evaluated"]
    pictures = {f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")}
    assert {*files} == pictures | {"config.yaml", "leaderboard.md", "leaderboard.html"}
    note = run.data.tags["mlflow.note.content"]
    assert f"[{best.id}](#/experiments/{recorder.experiment_id}/runs/" in note
    assert "path=lineage.png" in note and "12 evaluations are spent" in note
    assert "| arm | proposals |" in note and "path=hypervolume.png" in note
    assert (run.data.metrics["duplicates"], run.data.metrics["saved_s"]) == (1, 5)
    assert "1 of 13 proposals computed what an earlier one does" in note and "1 by llm" in note
    assert "first-light" in files["config.yaml"].read_text()


def test_a_run_that_is_closed_unfinished_was_stopped(launch: Launch, store: PopulationStore) -> None:
    recorder = launch()
    assert recorder.flush(30)
    recorder.close(30)
    assert (parent(recorder).info.status, parent(recorder).data.tags["state"]) == ("KILLED", "stopped")
    again = launch()
    assert again.flush(30)
    for _ in range(100):
        if again.client is not None and parent(again).info.status == "RUNNING":
            break
        threading.Event().wait(0.1)
    assert parent(again).info.status == "RUNNING"


def test_a_candidate_on_its_way_is_one_run(launch: Launch, store: PopulationStore, space: Space) -> None:
    recorder = launch()
    candidate = made(space, 0, arm="llm", state=CandidateState.PARKED, score=0.9)
    enter(store, candidate, evaluated=False)
    assert recorder.flush(30)
    parked = only(recorder, "c-0001")
    assert (parked.info.status, parked.data.tags["review"]) == ("SCHEDULED", "pending")
    assert "Waiting for a reviewer" in parked.data.tags["mlflow.note.content"]
    store.update(candidate.model_copy(update={"state": CandidateState.TRAINING}))
    assert recorder.flush(30)
    training = only(recorder, "c-0001")
    assert (training.info.status, training.data.tags["review"]) == ("RUNNING", "approve")
    ended = made(space, 0, arm="llm", score=0.91)
    store.add_evaluation(measured(ended), ended)
    assert recorder.flush(30)
    promoted = ended.model_copy(update={"score": 0.93, "rung": 1, "rung_scores": (0.91, 0.93)})
    store.add_evaluation(measured(promoted, rung=1, epochs=6), promoted)
    assert recorder.flush(30)
    run = only(recorder, "c-0001")
    assert run.info.run_id == parked.info.run_id
    assert (run.info.run_name, run.info.status) == ("c-0001 llm 93.00 %", "FINISHED")
    assert run.data.metrics["score"] == 0.93 and run.data.metrics["wall_s"] == 10.0
    assert "Waiting" not in run.data.tags["mlflow.note.content"]
    scores = recorder.client.get_metric_history(run.info.run_id, "score")
    assert [(point.step, point.value) for point in scores] == [(0, 0.91), (1, 0.93)]
    assert len(recorder.client.get_metric_history(run.info.run_id, "rung1/val_accuracy")) == 6
    assert len(recorder.client.get_metric_history(run.info.run_id, "rung0/val_accuracy")) == 4


def test_a_delivery_can_be_repeated(launch: Launch, store: PopulationStore, space: Space) -> None:
    recorder = launch()
    candidate = made(space, 0)
    enter(store, candidate)
    assert recorder.flush(30)
    store.update(candidate)
    assert recorder.flush(30) and recorder.status.delivered == 2
    run = only(recorder, "c-0001")
    for key in ("score", "rung0/train_loss"):
        history = recorder.client.get_metric_history(run.info.run_id, key)
        assert len(history) == len({point.step for point in history})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_death_between_making_a_run_and_noting_it_leaves_one_run(
    launch: Launch, store: PopulationStore, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        enter(store, made(space, index))
    note = store.track

    def die_at_the_second(key: str, run_id: str) -> None:
        if key == "c-0002":
            raise SystemExit  # ends the recorder's thread as a kill would, after the run was made
        note(key, run_id)

    monkeypatch.setattr(store, "track", die_at_the_second)
    dying = launch()
    assert not dying.flush(30), "the thread should have died"
    assert [len(runs) for runs in children(dying).values()] == [1, 1]
    assert store.tracked("c-0002") is None
    monkeypatch.undo()
    recorder = launch()
    assert recorder.flush(30)
    found = children(recorder)
    assert {cid: len(runs) for cid, runs in found.items()} == {"c-0001": 1, "c-0002": 1, "c-0003": 1}
    assert only(recorder, "c-0002").data.metrics["score"] == 0.9


def test_a_server_that_is_down_loses_nothing(launch: Launch, store: PopulationStore, space: Space) -> None:
    enter(store, made(space, 0))
    down = launch(f"http://127.0.0.1:{closed_port()}")
    assert not down.flush(4)
    assert down.status.pending == 1 and "Max retries" in down.status.error
    down.close(0.5)
    recorder = launch()
    assert recorder.flush(30)
    assert recorder.status.pending == 0 and recorder.status.error == ""
    assert only(recorder, "c-0001").info.status == "FINISHED"


def test_a_replaced_database_is_filled_again(
    launch: Launch, store: PopulationStore, space: Space, template: Path, tmp_path: Path
) -> None:
    for candidate in population(space, 5):
        enter(store, candidate)
    recorder = launch()
    assert recorder.flush(30)
    recorder.close(0)
    other = tmp_path / "other.db"
    shutil.copy(template, other)
    again = launch(f"sqlite:///{other}")
    again.close(60)
    assert {cid: len(runs) for cid, runs in children(again).items()} == {f"c-000{n}": 1 for n in range(1, 6)}
    assert parent(again).info.run_id != parent(recorder).info.run_id


def test_what_a_person_wrote_or_deleted_stays(launch: Launch, store: PopulationStore, space: Space) -> None:
    recorder = launch()
    for index in range(2):
        enter(store, made(space, index))
    assert recorder.flush(30)
    edited, deleted = only(recorder, "c-0001"), only(recorder, "c-0002")
    recorder.client.set_tag(edited.info.run_id, "mlflow.note.content", "my words")
    recorder.client.delete_run(deleted.info.run_id)
    for index in range(2):
        store.update(made(space, index, score=0.97))
    assert recorder.flush(30)
    run = only(recorder, "c-0001")
    assert run.data.tags["mlflow.note.content"] == "my words" and run.data.metrics["score"] == 0.97
    assert "c-0002" not in children(recorder)


def test_a_candidate_that_mlflow_refuses_does_not_hold_up_the_others(
    launch: Launch, store: PopulationStore, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver = Delivery.deliver

    def refuse(self: Delivery, candidate_id: str) -> None:
        if candidate_id == "c-0001":
            raise ValueError("no such thing")
        deliver(self, candidate_id)

    monkeypatch.setattr(Delivery, "deliver", refuse)
    for index in range(3):
        enter(store, made(space, index))
    recorder = launch()
    assert not recorder.flush(3)
    assert {*children(recorder)} == {"c-0002", "c-0003"}
    assert recorder.status.pending == 1 and recorder.status.error == ""
    monkeypatch.undo()
    recorder.close(0)
    assert launch().flush(30)
    assert len(children(recorder)["c-0001"]) == 1


@pytest.mark.parametrize(
    ("state", "status", "ending"),
    [
        (CandidateState.FAILED, "FAILED", "failed"),
        (CandidateState.INVALID, "KILLED", "invalid"),
        (CandidateState.DUPLICATE, "KILLED", "same as c-0007"),
        (CandidateState.SCREENED, "KILLED", "screened"),
        (CandidateState.REJECTED, "KILLED", "rejected"),
        (CandidateState.INFEASIBLE, "KILLED", "infeasible"),
    ],
)
def test_states_without_a_score(
    store: PopulationStore, space: Space, state: CandidateState, status: str, ending: str
) -> None:
    from cambrian.agents.recorder.entries import candidate_entry

    twin = "c-0007" if state is CandidateState.DUPLICATE else None
    candidate = made(space, 8, state=state, score=None, reason="too\nwide", duplicate_of=twin)
    entry = candidate_entry(candidate, [], store.run)
    assert (entry.status, entry.name) == (status, f"c-0009 mutation {ending}")
    assert entry.end == BEGIN + 29 and entry.tags["reason"] == "too wide"
    assert "score" not in {metric.key for metric in entry.metrics}
    assert ("gene.stem" in entry.params) is (state is not CandidateState.INVALID)


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "./mlruns"])
def test_a_folder_is_refused_at_once(store: PopulationStore, space: Space, task: Task, uri: str) -> None:
    with pytest.raises(UserError, match=r"mlflow\.tracking_uri"):
        MLflowRecorder(store, space, task, uri)
