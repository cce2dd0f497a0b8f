"""What the planner of a run would be told now, or would have been told, from the run's folder alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from cambrian.agents.cli.prompts_shown import Subject
from cambrian.agents.planner.arm import ProposalContext
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.population.view import Population
from cambrian.agents.workspace import Workspace, kept_space, space_of

if TYPE_CHECKING:  # heavy, and not needed for --help
    from cambrian.agents.analyst.analyst import Analyst
    from cambrian.agents.lifecycle import Services


def open_run(store: PopulationStore) -> Subject:
    """Space, task and configuration of a run."""
    from cambrian.agents.checking import make_task, with_genes
    from cambrian.agents.runfile import parse_config

    origin = f"run {store.run.run_id}"
    config = parse_config(store.run.config, origin, kept_space=kept_space(store.folder) is not None)
    task = make_task(config, origin)
    return Subject(with_genes(space_of(store), config, task, origin), task, config)


def context_of(
    store: PopulationStore,
    found: Subject,
    workspace: Workspace,
    candidates: list[Candidate] | None = None,
    draw: int | None = None,
) -> ProposalContext:
    """What the LLM arm of a run would be told; nothing is written.

    Args:
        store: of the run, read only.
        found: what the run is about.
        workspace: where runs lie.
        candidates: the population; None takes all that the run has.
        draw: number of the draw; None takes the next.
    """
    from cambrian.agents.asking import proposal_context
    from cambrian.agents.budget import Account

    assert found.config is not None
    services, _ = _looking(store, found, workspace, store.candidates() if candidates is None else candidates)
    evaluations, elapsed_s = len(store.evaluations()), store.run.elapsed_s
    account = Account(found.config.budget, evaluations=evaluations, elapsed_s=elapsed_s)
    number = int(store.get_meta("draws") or 0) if draw is None else draw
    return proposal_context(services, number, "llm", account.left())


def lesson_question_of(
    store: PopulationStore, found: Subject, workspace: Workspace, candidate: Candidate
) -> ModelRequest:
    """What the analyst of a run would ask about a candidate with a score; nothing is written.

    Raises:
        UserError: the prompt template cannot be rendered.
    """
    return _looking(store, found, workspace, store.candidates())[1].question(candidate)[1]


def _looking(
    store: PopulationStore, found: Subject, workspace: Workspace, known: list[Candidate]
) -> tuple[Services, Analyst]:
    """A run's services and analyst, which know this population and write nothing."""
    from cambrian.agents.analyst.analyst import Analyst
    from cambrian.agents.evaluator.admission import Admission
    from cambrian.agents.evaluator.earlier import KEY, Earlier, earlier_runs
    from cambrian.agents.lifecycle import Services

    class Looking(Services):
        """Services that write nothing."""

        def teach(self, candidate_id: str, lesson: Any, step: str) -> None:
            """Lessons are shown as the run has them."""

    config, space, task = found.config, found.space, found.task
    assert config is not None
    told = store.get_meta(KEY) is not None
    earlier = earlier_runs(config, store, space, task, workspace) if told else Earlier()
    services = Looking(
        config=config,
        space=space,
        task=task,
        store=store,
        population=Population(task.maximize, known, pareto=config.objective.kind == "pareto"),
        admission=Admission(config, space, task, store, earlier),
        sandbox=cast("Any", None),  # nothing is run
    )
    analyst = Analyst(config, services, cast("Any", None), say=lambda _: None)
    for candidate in known:
        if candidate.state.ended:
            analyst.look_at(candidate.id)
    return services, analyst
