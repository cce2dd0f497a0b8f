"""What earlier runs of the same space have measured, for the predictor of a new one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from cambrian.agents.errors import CambrianError, UserError
from cambrian.agents.evaluator.screen import Known, Observation
from cambrian.agents.population.model import Candidate, Evaluation
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.runfile import RunConfig
from cambrian.agents.workspace import Workspace, space_of
from cambrian.search_spaces import Genotype, ProposalError, Space, Task
from cambrian.search_spaces.recipes import with_recipe_genes

KEY = "earlier_runs"
"""Under this key a run's store keeps which runs its predictor learned from, and how much of each."""


class _Unfit(Exception):
    """Why a run tells nothing about this one."""


class _Seen(NamedTuple):
    observation: Observation
    candidate: Candidate
    evaluation: Evaluation


class Earlier(NamedTuple):
    """What was found.

    Attributes:
        observations: oldest run first.
        measured: the candidates and evaluations behind them, for what was measured beside the score.
        runs: how many of each.
    """

    observations: tuple[Observation, ...] = ()
    measured: tuple[tuple[Candidate, Evaluation], ...] = ()
    runs: Mapping[str, int] = MappingProxyType({})

    def __str__(self) -> str:
        told = ", ".join(f"{n} from {run}" for run, n in self.runs.items())
        return f"the predictors learn from earlier runs too: {told}" if told else ""


def earlier_runs(
    config: RunConfig,
    store: PopulationStore,
    space: Space,
    task: Task,
    workspace: Workspace,
    say: Callable[[str], None] = lambda _said: None,
) -> Earlier:
    """Scores of the lowest rung from earlier runs, as `predictor.earlier_runs` allows.

    A run counts if space and version, recipe genes, task with its options, metric and epochs are the same.
    What is found at the start is kept by name and number, so that a resumed run learns from the same.

    Args:
        config: of the run.
        store: of the run.
        space: with the run's recipe genes.
        task: of the run.
        workspace: where the earlier runs lie.
        say: told when a resumed run finds one no more.

    Raises:
        UserError: a run that is named is not there, or not of this kind.
    """
    wanted = config.predictor.earlier_runs
    if not wanted or not config.predictor.enabled:
        return Earlier()
    kept = store.get_meta(KEY)
    most: dict[str, int | None] = dict.fromkeys(_names(wanted, store, workspace))
    if kept is not None:
        most = json.loads(kept)
    found: list[_Seen] = []
    runs: dict[str, int] = {}
    for run, number in most.items():
        try:
            seen = _observations(run, config, space, task, workspace)[:number]
        except (_Unfit, CambrianError) as error:
            if kept is not None:
                say(f"the predictor does without run {run}: {error}")
            elif wanted is not True:
                hint = error.hint if isinstance(error, CambrianError) else "take it out of the list"
                raise UserError(f"predictor.earlier_runs: run {run}: {error}", hint=hint) from None
            continue
        found += seen
        if seen:
            runs[run] = len(seen)
    if kept is None:
        store.set_meta(KEY, json.dumps(runs))
    measured = tuple((each.candidate, each.evaluation) for each in found)
    return Earlier(tuple(each.observation for each in found), measured, runs)


def _names(wanted: bool | tuple[str, ...], store: PopulationStore, workspace: Workspace) -> Iterator[str]:
    if isinstance(wanted, bool):
        yield from (run for run in workspace.run_ids() if run != store.run.run_id)
    else:
        yield from wanted


def _observations(run: str, config: RunConfig, space: Space, task: Task, workspace: Workspace) -> list[_Seen]:
    """What a run has measured, in its order.

    Raises:
        _Unfit: it was of another kind.
        CambrianError: it cannot be read.
    """
    store = workspace.open(run)
    try:
        record = store.run
        if record.replay_of:
            raise _Unfit(f"does {record.replay_of} again, it measured nothing")
        theirs = with_recipe_genes(space_of(store), record.config.get("recipe_genes", {}), task)
        pairs = (
            ("space", record.space, space.name),
            ("version of the space", theirs.version, space.version),
            ("task", record.config.get("task"), config.model_dump(mode="json")["task"]),
            ("metric", record.metric, task.metric),
        )
        for what, there, here in pairs:
            if there != here:
                raise _Unfit(f"has another {what}")
        seed = record.config.get("seed", 0)
        by_id = {c.id: c for c in store.candidates()}
        found = []
        for each in store.evaluations():
            candidate = by_id[each.candidate_id]
            if each.rung or each.seed != seed or each.epochs != task.rungs[0].epochs:
                continue
            if task.metric in each.metrics and _is_member(space, candidate.genotype):
                known = Known(candidate.proxies, candidate.motifs)
                seen = Observation(candidate.genotype, each.metrics[task.metric], None, known)
                found.append(_Seen(seen, candidate, each))
        return found
    finally:
        store.close()


def _is_member(space: Space, genotype: Genotype) -> bool:
    try:
        return space.validate(genotype) == genotype
    except ProposalError:
        return False
