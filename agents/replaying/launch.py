"""A replay from its run to its report: opens what is needed, without a sandbox, MLflow or a key."""

from __future__ import annotations

import sys
import time

import torch

from cambrian.agents.analyst.analyst import Analyst
from cambrian.agents.checking import check_run, with_genes
from cambrian.agents.errors import UserError
from cambrian.agents.evaluator.admission import Admission
from cambrian.agents.evaluator.earlier import earlier_runs
from cambrian.agents.lifecycle import Lifecycle, Services
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.planner.models import Models
from cambrian.agents.planner.portfolio import build_arms
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.population.view import Population
from cambrian.agents.repeats import NOISE_KEY
from cambrian.agents.replaying.answers import RecordedAnswers
from cambrian.agents.replaying.replay import Replayer, ReplayReport
from cambrian.agents.replaying.trials import Nowhere, RecordedTrials, recorded_evaluations
from cambrian.agents.runfile import RunConfig, parse_config
from cambrian.agents.sections import BudgetSection, LLMSection, MLflowSection
from cambrian.agents.session import LLM_KEY, Say
from cambrian.agents.workspace import Workspace, keep_space, kept_space, space_of
from cambrian.search_spaces import Space, Task


async def replay(run: str, workspace: Workspace, say: Say) -> ReplayReport:
    """Execute a recorded run again from its record; the result is kept like a run.

    Args:
        run: its id, the start of it, or `last`.
        workspace: where it lies.
        say: prints one line for people.

    Raises:
        ReplayMiss: a prompt has changed, so that a model would be asked something else.
        ReplayDiverged: something else has.
        UserError: the run has no journal: it is older than journals.
    """
    torch.set_num_threads(1)
    source = workspace.open(run)
    try:
        if not (journal := source.journal()):
            raise UserError(
                f"run {source.run.run_id} cannot be replayed: it has no journal",
                hint="runs keep one since they can be replayed; this one is older, or has not begun",
            )
        origin = f"run {source.run.run_id}"
        config = parse_config(source.run.config, origin, kept_space=kept_space(source.folder) is not None)
        config = _unlimited(config, source)
        space, task = check_run(config, origin, space_of(source))
        space = with_genes(space_of(source), config, task, origin)
        say(f"replaying {source.run.run_id}: {len(journal)} steps")
        return await _carry_out(config, source, space, task, workspace, say)
    finally:
        source.close()


def _unlimited(config: RunConfig, source: PopulationStore) -> RunConfig:
    """Without limits of what costs nothing now, and without MLflow, which has the run already.

    No answer of the record counts as a failure for which the others would be left unread.
    """
    kept = source.get_meta(LLM_KEY)
    llm = config.llm if kept is None else LLMSection.model_validate_json(kept)
    roles = {
        # no model is asked, so that none has to be there: a local one may lie on another machine
        role: section.model_copy(
            update={"calls": None, "tokens": None, "money": None, "wall_s": None, "model": None}
        )
        for role, section in llm.roles.items()
    }
    changes = {
        "budget": BudgetSection(evaluations=config.budget.evaluations, wall_s=config.budget.wall_s),
        "mlflow": MLflowSection(enabled=False),
        "llm": llm.model_copy(
            update={
                "roles": roles,
                "failures": sys.maxsize,
                "local": None,
                "answers": "changes" if llm.by_changes else "genotype",  # as it was with the local model
            }
        ),
    }
    return config.model_copy(update=changes)


async def _carry_out(
    config: RunConfig, source: PopulationStore, space: Space, task: Task, workspace: Workspace, say: Say
) -> ReplayReport:
    folder = workspace.new_folder(f"{config.name[:33]}-replay")
    keep_space(space, folder)
    changes = {
        "run_id": folder.name,
        "created": time.time(),
        "config": config.model_dump(mode="json"),
        "replay_of": source.run.run_id,
    }
    record = RunRecord.model_validate({**source.run.model_dump(), **changes, "status": "running"})
    store = PopulationStore(folder, create=record)
    try:
        recorded = ExchangeLog(source.folder)
        exchanges = ExchangeLog(folder)
        answers = RecordedAnswers(recorded.all(), exchanges)
        models = Models(config, exchanges, client=answers)
        arms = build_arms(config, models)
        pareto = config.objective.kind == "pareto"
        population = Population(task.maximize, pareto=pareto, timed=config.budget.timed)
        services = Services(
            config=config,
            space=space,
            task=task,
            store=store,
            population=population,
            admission=Admission(
                config, space, task, store, earlier_runs(config, store, space, task, workspace, say)
            ),
            sandbox=Nowhere(),
        )
        services.trials = RecordedTrials(
            config, space, task, source.folder, services.sandbox, evaluations=recorded_evaluations(source)
        )
        if (order := source.get_meta(NOISE_KEY)) is not None:  # tells whose repeats were to measure the noise
            store.set_meta(NOISE_KEY, order)
        lifecycle = Lifecycle(services, folder / "checkpoints.sqlite")
        analyst = Analyst(config, services, models, say)
        await Replayer(source, services, lifecycle, arms, answers, analyst).run()
        store.set_run(status="finished", stop_reason=f"replay of {source.run.run_id}")
        return ReplayReport(
            run_id=folder.name,
            source=source.run.run_id,
            candidates=len(population),
            questions=sum(exchange.response is not None for exchange in exchanges.all()),
        )
    except BaseException as error:
        store.set_run(status="stopped", stop_reason=str(error) or type(error).__name__)
        raise
    finally:
        store.close()
