"""Descriptions in Markdown: what a reader of MLflow is told of a candidate and of a run.

Everything that a model or another person wrote is escaped: see `wording.escape_markdown`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cambrian.agents.evaluator.noise import repeats_by_candidate
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation
from cambrian.agents.population.store import RunRecord
from cambrian.agents.recorder.asked import Asked
from cambrian.agents.recorder.story import GAP, proposal_story, table
from cambrian.agents.wording import (
    escape_markdown,
    finding_facts,
    flatten_genes,
    latency_facts,
    one_line,
    show_cost,
    show_count,
    show_isolation,
    show_nearest,
    show_score,
)

_REVIEW = (
    "> **Waiting for a reviewer.** Set the tag `review` to `approve` or `reject`; write the reason into "
    "the tag `review.reason`, or here.\n"
)


def artifact_link(run_id: str, path: str) -> str:
    """Address of an artifact as MLflow's own pages reach it."""
    return f"get-artifact?path={path}&run_uuid={run_id}"


def run_link(experiment_id: str, run_id: str) -> str:
    """Address of a run's page, relative to MLflow's own, with the menus for training runs."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def view_link(experiment_id: str, view: str) -> str:
    """Address of one of the views that `experiment_tags` saves."""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={view}"


def experiment_tags(run: RunRecord, experiment_id: str) -> dict[str, str]:
    """An experiment's description, kind and two saved views: all candidates, best first, and those to review.

    MLflow's table of runs shows neither metrics nor parameters by itself, and folds children away; a view
    that was shared is a tag of the experiment, which its pages apply when the address names it.
    """
    metrics = [run.metric, f"test_{run.metric}", f"mean_{run.metric}", "epochs", "latency_ms", "params"]
    params = ["architecture", "arm", "parents", "edit"]
    views: dict[str, dict[str, Any]] = {
        "candidates": {
            "orderByKey": "metrics.`standing`",  # as the leaderboard; a view sorts by one key only
            "orderByAsc": False,
            "searchFilter": "tags.arm != ''",
            "selectedColumns": _columns(metrics, params, ["reproduced", "state", "reason"]),
        },
        "review": {
            "orderByKey": "metrics.`predicted`",
            "orderByAsc": not run.maximize,
            "searchFilter": "tags.review = 'pending' and tags.state = 'parked'",
            "selectedColumns": _columns(["predicted", "params", "flops"], params, ["review", "state"]),
        },
    }
    links = {name: view_link(experiment_id, name) for name in views}
    return {
        "mlflow.note.content": (
            f"Architectures of the space **{run.space}**, judged on the task **{run.task}**: "
            f"[candidates, best first]({links['candidates']}), [waiting for review]({links['review']})."
        ),
        # Spares the first visitor a dialogue, and opens the pages for training runs.
        "mlflow.experimentKind": "custom_model_development",
        **{f"mlflow.sharedViewState.{name}": json.dumps(view) for name, view in views.items()},
    }


def _columns(metrics: Sequence[str], params: Sequence[str], tags: Sequence[str]) -> list[str]:
    kinds = (("metrics", metrics), ("params", params), ("tags", tags))
    return [f"{kind}.`{name}`" for kind, names in kinds for name in names]


def candidate_note(
    candidate: Candidate,
    evaluations: Sequence[Evaluation],
    run: RunRecord,
    parents: Sequence[Candidate],
    links: Mapping[str, str],
    picture: str | None,
    asked: Asked | None = None,
) -> str:
    """The description of a candidate's run.

    Args:
        candidate: whose run it is.
        evaluations: all of it, in order.
        run: what the score means.
        parents: of the candidate, those that still exist.
        links: page of a candidate's run by its id.
        picture: address of its drawing.
        asked: what is known of the models that were asked about it.
    """
    proposal = candidate.proposal
    parts = [_headline(candidate, run) + _verdict(candidate, run) + "\n"]
    if candidate.state is CandidateState.PARKED:
        parts.append(_REVIEW)
    if candidate.summary:
        parts.append(f"**{_plain(candidate.summary)}**\n")
    if picture is not None:  # before the table: MLflow shows the beginning only until it is asked for more
        parts.append(f"![architecture of {candidate.id}]({picture})\n")
    story = proposal_story(candidate, parents, run)
    rows = [*_facts(candidate, evaluations, run, links), *(asked.rows if asked is not None else ())]
    # Where somebody had a reason for a proposal, that is what one comes for.
    parts += [story, f"**Facts**\n\n{table(rows)}"] if proposal.hypothesis else [table(rows), story]
    if parents and (changes := _changes(candidate, parents[0])):
        parts.append(f"{GAP}\n**Genes against {parents[0].id}**\n\n{changes}")
    return "\n".join(part for part in parts if part)


def run_note(
    run: RunRecord,
    best: Candidate | None,
    counts: Mapping[str, int],
    board: str,
    pictures: Mapping[str, str],
    links: Mapping[str, str],
    all_candidates: str,
    parts: str = "",
    identity: str = "",
    verified: str = "",
    ranking: str = "",
    more: str = "",
) -> str:
    """The description of a discovery run: how it stands, the leaderboard and the pictures.

    Args:
        run: the run as it stands.
        best: the champion, None while there is none.
        counts: candidates by state.
        board: the leaderboard in Markdown.
        pictures: address by title.
        links: page of a candidate's run by its id.
        all_candidates: page of them all.
        parts: what architecture and recipe each brought, in a sentence; may be empty.
        identity: what duplicates did not cost, in a sentence; may be empty.
        verified: what the champion reached with fresh seeds; may be empty.
        ranking: by what is ranked, and how large the noise is; may be empty.
        more: Markdown that goes before the pictures.
    """
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items(), key=lambda item: -item[1]))
    reason = f" ({_plain(run.stop_reason)})" if run.stop_reason else ""
    paragraphs = []
    if best is not None:
        linked = f"[{best.id}]({links[best.id]})" if best.id in links else best.id
        again = f" · with fresh seeds **{_plain(verified)}**" if verified else ""
        paragraphs.append(f"Best: {linked}, {_headline(best, run)}{again}\n")
    paragraphs.append(
        f"Discovery in **{run.space}** on **{run.task}**, {run.status}{reason}: "
        f"[{sum(counts.values())} candidates]({all_candidates}) ({states}).\n"
    )
    paragraphs += [
        f"{_plain(said[:1].upper() + said[1:], 500)}\n" for said in (ranking, parts, identity) if said
    ]
    if board:
        paragraphs.append(board)
    if more:
        paragraphs.append(more)
    paragraphs += [f"![{title}]({address})\n" for title, address in pictures.items()]
    return "\n".join(paragraphs)


def _verdict(candidate: Candidate, run: RunRecord) -> str:
    expectation, lesson = candidate.proposal.expectation, candidate.lesson
    if expectation is None or lesson is None:
        return ""
    return f" · expected {_plain(expectation.in_words(run.metric))}: **{lesson.verdict.value}**"


def _headline(candidate: Candidate, run: RunRecord) -> str:
    """What one wants to know first: MLflow folds a description after a few lines."""
    proposal = candidate.proposal
    parts = []
    if candidate.score is not None:
        parts.append(f"**{show_score(run.metric, candidate.score)}** {run.metric}")
        if candidate.test_score is not None:
            parts[-1] += f" (test {show_score(run.metric, candidate.test_score)})"
    else:
        parts.append(f"**{candidate.state.value}**")
    if candidate.latency_ms is not None:
        parts.append(show_cost("latency_ms", candidate.latency_ms))
    if candidate.static is not None:
        parts.append(f"{show_count(candidate.static.parameters)} parameters")
    made = _plain(proposal.arm)
    parts.append(f"{made} from {', '.join(proposal.parents)}" if proposal.parents else made)
    return " · ".join(parts)


def _facts(
    candidate: Candidate, evaluations: Sequence[Evaluation], run: RunRecord, links: Mapping[str, str]
) -> list[tuple[str, str]]:
    def linked(candidate_id: str) -> str:
        return f"[{candidate_id}]({links[candidate_id]})" if candidate_id in links else candidate_id

    rows = [*_origin(candidate, linked), *_relatives(candidate, linked)]
    if candidate.score is not None:
        test = (
            f" (test {show_score(run.metric, candidate.test_score)})"
            if candidate.test_score is not None
            else ""
        )
        rows.append((run.metric, f"**{show_score(run.metric, candidate.score)}**{test}"))
    repeats = repeats_by_candidate(evaluations, metric=run.metric, seed=run.config.get("seed", 0))
    fresh = repeats.get((candidate.id, candidate.rung))
    if fresh is not None and fresh.mean is not None:
        spread = "" if fresh.std is None else f", standard deviation {show_score(run.metric, fresh.std)}"
        tested = f" (test {show_score(run.metric, fresh.test_mean)})"
        mean = f"**{show_score(run.metric, fresh.mean)}**{tested}{spread}"
        rows.append((f"mean over {len(fresh.scores)} fresh seeds", mean))
    if candidate.prediction is not None:
        rows.append(("predicted", show_score(run.metric, candidate.prediction)))
    if candidate.reproduced is not None:
        again = "yes" if candidate.reproduced else "no: it has no score"
        rows.append(("predictions reproduced from the weights", again))
    timed = next((e for e in reversed(evaluations) if e.latency is not None), None)
    if timed is not None and timed.latency is not None:
        rows += [(k, _plain(v)) for k, v in latency_facts(timed.latency, timed.device_name)]
    if candidate.static is not None:
        rows.append(("parameters", show_count(candidate.static.parameters)))
        rows.append(("FLOPs", show_count(candidate.static.flops)))
        rows.append(("memory of a step", show_cost("memory_mb", candidate.static.peak_memory_mb)))
    rows += [(k, _plain(v, 500)) for k, v in finding_facts(candidate.findings, candidate.proxies)]
    if not candidate.feasible:
        rows.append(("constraints", "broken: cannot win"))
    if evaluations:
        rows.append(("isolation", _plain(show_isolation(evaluations[-1].isolation), 500)))
    return rows


def _origin(candidate: Candidate, linked: Callable[[str], str]) -> list[tuple[str, str]]:
    proposal = candidate.proposal
    state = candidate.state.value
    if candidate.reason:
        state += f": {_plain(candidate.reason, 500)}"
    made = proposal.arm
    if proposal.parents:
        made += " from " + ", ".join(linked(parent) for parent in proposal.parents)
    if told := [part for part in (proposal.operator, proposal.idea) if part]:
        made += f" ({_plain(', '.join(told))})"
    return [("state", state), ("proposed by", made)]


def _relatives(candidate: Candidate, linked: Callable[[str], str]) -> list[tuple[str, str]]:
    if candidate.duplicate_of:
        return [("same network as", linked(candidate.duplicate_of))]
    nearest = candidate.nearest
    if nearest is None:
        return []
    return [("most like", linked(nearest.id) + _plain(show_nearest(nearest).removeprefix(nearest.id)))]


def _changes(candidate: Candidate, parent: Candidate) -> str:
    if candidate.state is CandidateState.INVALID:
        return ""
    ours, theirs = flatten_genes(candidate.genotype), flatten_genes(parent.genotype)
    keys = [k for k in {**theirs, **ours} if ours.get(k) != theirs.get(k)]
    if not keys:
        return ""
    rows = [f"| {_plain(k)} | {_plain(theirs.get(k, '-'))} | {_plain(ours.get(k, '-'))} |" for k in keys[:20]]
    head = [f"| gene | {parent.id} | {candidate.id} |", "|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _plain(text: str, limit: int = 200) -> str:
    return escape_markdown(one_line(text, limit))
