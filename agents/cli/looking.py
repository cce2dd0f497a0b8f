"""`cambrian runs`, `cambrian show` and `cambrian export`: looking at what runs have left."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from cambrian.agents.cli.app import emit
from cambrian.agents.cli.showing import console, show_brought, show_candidate, table_of
from cambrian.agents.errors import UnknownNameError, UserError
from cambrian.agents.evaluator.leaderboard import Standing
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.report import PREDICTOR_KEY, EndReport, count_text, end_report, leader_of
from cambrian.agents.wording import one_line
from cambrian.agents.workspace import Workspace, kept_space, space_of
from cambrian.search_spaces import near_names


def runs_command(as_json: bool, runs: Path | None) -> None:
    """List all runs, oldest first."""
    workspace, rows = Workspace(runs), []
    for run_id in workspace.run_ids():
        store = workspace.open(run_id)
        record, best = store.run, leader_of(store)
        rows.append(
            {
                "run_id": run_id,
                "space": record.space,
                "task": record.task,
                "status": _status(store),
                "created": time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created)),
                "candidates": len(store.candidates()),
                "best": None if best is None else best.mean if best.champion else best.score,
                "best_candidate": None if best is None else best.id,
                "metric": record.metric,
            }
        )
        store.close()
    if as_json:
        emit(rows)
        return
    if not rows:
        print(f"no runs in {workspace.root}; start one: cambrian run runs/first-light.yaml")
        return
    table = table_of("run", "space / task", "status", "started", "size", "best")
    for row in rows:
        best_text = (
            "" if row["best"] is None else f"{row['metric']} {row['best']:.4f} ({row['best_candidate']})"
        )
        table.add_row(
            str(row["run_id"]),
            f"{row['space']} / {row['task']}",
            str(row["status"]),
            str(row["created"]),
            str(row["candidates"]),
            best_text,
        )
    console().print(table)


def show_command(name: str, as_json: bool, runs: Path | None) -> None:
    """A run's leaderboard, or one candidate."""
    workspace = Workspace(runs)
    if (found := workspace.split_candidate(name)) is not None:
        store = workspace.open(found[0])
        show_candidate(store, _candidate(store, found[1]), as_json)
        return
    store = workspace.open(name)
    report = report_of(store)
    if as_json:
        emit(report.model_dump(mode="json"))
        return
    print("\n".join(report.lines(top=0)))
    table = table_of(
        "",
        "candidate",
        "arm",
        report.metric,
        "fresh seeds",
        "rung",
        "test",
        "latency",
        "params",
        "front",
        "again",
        "architecture",
    )
    for row in report.leaderboard:
        table.add_row(
            f"{row.place}{'=' if row.tied else ''}",
            row.id,
            row.arm,
            f"{row.score:.4f}{'*' if row.champion else ''}",
            fresh_text(row),
            str(row.rung),
            _number(row.test_mean if row.champion else row.test_score),
            "" if row.latency_ms is None else f"{row.latency_ms:.2f} ms",
            "" if row.parameters is None else count_text(row.parameters),
            "*" if row.on_front else "",
            "*" if row.reproduced else "",
            row.summary,
        )
    console().print(table)
    if report.leaderboard:
        print("front: nobody beats it in score and cost; again: reproduced from its weights")
    if any(row.tied for row in report.leaderboard):
        print("=: differs from the first by no more than the noise (t-test at 5 %)")
    if any(row.champion for row in report.leaderboard):
        print(
            "fresh seeds: mean ± 95 % (trainings); *: got it chosen, which flatters it, so it does not count"
        )
    show_brought(report)


def fresh_text(row: Standing) -> str:
    """Mean over fresh seeds with its interval and the number of trainings; empty without any."""
    if row.mean is None:
        return ""
    width = "" if row.half_width is None else f" ±{row.half_width:.4f}"
    return f"{row.mean:.4f}{width} ({row.seeds})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def export_command(name: str, out: Path | None, as_json: bool, runs: Path | None) -> None:
    """Write `<candidate>.py` and `<candidate>.safetensors`."""
    workspace = Workspace(runs)
    run, cid = workspace.split_candidate(name) or (name, "")
    store = workspace.open(run)
    if not cid:
        best = leader_of(store)
        if best is None:
            raise UserError(f"run {store.run.run_id} has no evaluated candidate", hint="let it run longer")
        cid = best.id
    candidate = _candidate(store, cid)
    if candidate.duplicate_of is not None:
        candidate = _candidate(store, candidate.duplicate_of)
    if candidate.rung < 0:
        raise UserError(
            f"{candidate.id} was not trained ({candidate.state}: {one_line(candidate.reason)})",
            hint="export one that `cambrian show` lists",
        )
    import numpy as np
    from safetensors.numpy import save_file

    from cambrian.agents.checking import make_task, with_genes
    from cambrian.agents.runfile import parse_config

    kept = kept_space(store.folder) is not None
    config = parse_config(store.run.config, f"run {store.run.run_id}", kept_space=kept)
    task = make_task(config, f"run {store.run.run_id}")
    space = with_genes(space_of(store), config, task, f"run {store.run.run_id}")
    source = space.source(candidate.genotype, task.signature)
    heading = [
        f"# {candidate.id} of run {store.run.run_id}, by {candidate.proposal.arm}: {task.metric} "
        f"{candidate.score:.4f} on validation, {candidate.test_score:.4f} on test.",
        f"# Task {task.name}. Inputs: {task.preprocessing()}.",
    ]
    weights = (
        store.folder / "jobs" / f"{candidate.id}-r{candidate.rung}-s{config.seed}" / "weights.safetensors"
    )
    if not weights.exists():
        raise UserError(
            f"the weights of {candidate.id} are gone from {weights.parent}", hint="train it again"
        )
    target = out or Path(f"{store.run.run_id}-{candidate.id}")
    stem = candidate.id.replace("-", "_")
    graph = f"{stem}_graph.safetensors"
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{stem}.py").write_text("\n".join([*heading, source]), encoding="utf-8")
        shutil.copyfile(weights, target / f"{stem}.safetensors")
        if task.signature.graph is not None:  # data that other tasks' networks do without
            context = {name: np.ascontiguousarray(array) for name, array in task.load().context.items()}
            save_file(context, target / graph)
    except OSError as error:
        raise UserError(
            f"cannot write to {target}: {error.strerror}", hint="choose another with --out"
        ) from error
    result = {
        "candidate": candidate.id,
        "source": str(target / f"{stem}.py"),
        "weights": str(target / f"{stem}.safetensors"),
        "score": candidate.score,
        "test_score": candidate.test_score,
    }
    if as_json:
        emit(result)
        return
    print(f"wrote {result['source']} and {result['weights']}")
    print(f"use: from {stem} import build; from safetensors.torch import load_file")
    print(f"     net = build(); net.load_state_dict(load_file('{stem}.safetensors')); net.eval()")
    if task.signature.graph is not None:
        print(
            f"     set_context(net, load_file('{graph}'))  # from {stem} as well: the graph that it works on"
        )


def report_of(store: PopulationStore) -> EndReport:
    """The report of a run that may still be going on."""
    from cambrian.agents.planner.exchange import ExchangeLog

    predictor = store.get_meta(PREDICTOR_KEY) or ""
    report = end_report(store, ExchangeLog(store.folder), predictor=predictor)
    return report.model_copy(update={"status": _status(store)})


def _status(store: PopulationStore) -> str:
    """`running` only while a process really holds the run: a killed one had no time to say so."""
    status = store.run.status
    return "killed" if status == "running" and not store.is_held() else status


def _candidate(store: PopulationStore, cid: str) -> Candidate:
    try:
        return store.candidate(cid)
    except KeyError:
        known = [c.id for c in store.candidates()]
        raise UnknownNameError(
            f"run {store.run.run_id} has no candidate {cid!r}", hint=near_names(cid, known[-50:])
        ) from None
