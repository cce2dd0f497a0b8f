"""Everything that can be wrong with a run before anything is started."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cambrian.agents.errors import RunFileError, UserError
from cambrian.agents.examining import check_demands
from cambrian.agents.planner.local_model import DEFAULT, LocalModel, local_model
from cambrian.agents.planner.models import check_models
from cambrian.agents.planner.prompt_check import check_prompts
from cambrian.agents.recorder.tracking import check_tracking_uri
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import RELATIVE, TaskSection
from cambrian.agents.spaces.fit import check_fit
from cambrian.sandbox.select import check_trust, kind_for
from cambrian.search_spaces import SPACES, TASKS, Space, TabularTask, Task, near_names
from cambrian.search_spaces.finding import files_of, folder_of
from cambrian.search_spaces.recipes import with_recipe_genes

PATH_OPTIONS = ("data", "path")
"""Options of tasks that name files or folders."""


def make_task(config: RunConfig, origin: str) -> Task:
    """The run file's task. A wrong option is a `RunFileError` that names it."""
    factory = TASKS.get(config.task.name)
    options = config.task.options()
    known = [name for name in inspect.signature(factory).parameters if name != "self"]
    for option in options:
        if option not in known:
            raise RunFileError(
                f"{origin}: task.{option}: task {config.task.name!r} has no such option",
                hint=near_names(option, known),
            )
    missing = [
        name
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in options and name != "self"
    ]
    if missing:
        raise RunFileError(
            f"{origin}: task.{missing[0]}: task {config.task.name!r} needs it", hint="add it under `task:`"
        )
    return factory(**options)


def check_run(config: RunConfig, origin: str, space: Space | None = None) -> tuple[Space, Task]:
    """Everything that can be wrong with a run before anything is started.

    Args:
        config: the run.
        origin: what it came from, for messages.
        space: of a run that was started already; None finds the one that `config` names.

    Raises:
        UserError: the space cannot be used; of a space file, the message names the place.
        RunFileError: unknown option of the task, a task that the space cannot take, unknown baseline.
        MissingDataError: the task's data are not there.
    """
    task = make_task(config, origin)
    if space is None:
        space = SPACES.open(config.space)
        folder = folder_of(space)
        if folder is not None:
            files_of(folder)  # the run will keep a copy
    kind_for(config.sandbox.kind, task)
    _check_sandboxes(config, space, task, origin)
    check_fit(space, task, origin)
    check_demands(config, task, origin)
    space = with_genes(space, config, task, origin)
    for name in config.baselines:
        known = list(space.baselines())
        if name not in known:
            raise RunFileError(
                f"{origin}: baselines: space {space.name!r} knows no {name!r}", hint=near_names(name, known)
            )
    if config.mlflow.tracking_uri is not None:
        check_tracking_uri(config.mlflow.tracking_uri)
    task.load()
    check_models(config, origin)
    local = local_model(config.llm)
    if "llm" in config.arms and config.arms["llm"].weight > 0:
        with _narrowness(local):
            check_prompts(config if local is None else fitted(config, local), space, task)
    return space, task


def _check_sandboxes(config: RunConfig, space: Space, task: Task, origin: str) -> None:
    """Refuse what the run's sandboxes cannot do, or must not.

    Raises:
        RunFileError: something is to be measured of what is looked up in a table.
        UserError: generated code would run without a container.
    """
    device = config.latency.device
    if isinstance(task, TabularTask):
        relative = next((c.name for c in config.constraints if c.name in RELATIVE), None)
        if relative or config.cost in RELATIVE or device:
            field = "latency.device" if device else "constraints" if relative else "cost"
            raise RunFileError(
                f"{origin}: {field}: task {task.name!r} is a table, where nothing is measured",
                hint="limit 'latency_ms', which the table knows",
            )
        return
    if space.kind != "code" or config.sandbox.trust_generated_code:
        return
    how = "set 'sandbox.trust_generated_code: true' in the run file"
    place = config.sandbox
    needs_engine = place.engine is not None or place.gpu is not None or place.runtime is not None
    if not needs_engine:
        check_trust(place.kind, field=f"{origin}: sandbox.kind", how=how)
    if device is not None:
        found = config.devices[device]
        if found.engine is None and found.gpu is None:
            check_trust(found.kind, field=f"{origin}: devices.{device}.kind", how=how)


def fitted(config: RunConfig, local: LocalModel) -> RunConfig:
    """`config` with questions that `local` has room for."""
    return config.model_copy(update={"llm": local.fitted(config.llm)})


@contextmanager
def _narrowness(local: LocalModel | None) -> Iterator[None]:
    """Say of questions that are too long that the local model is why, where it is."""
    try:
        yield
    except UserError as error:
        if local is None or not local.narrow or "prompt_tokens" not in error.message:
            raise
        raise UserError(
            f"{error.message}, and {local.file.path.name} takes in no more",
            hint=f"use a model that was trained on longer texts than {local.file.context} tokens",
        ) from error


def with_genes(space: Space, config: RunConfig, task: Task, origin: str) -> Space:
    """`space` with the run's recipe genes. A wrong one is a `RunFileError` that names it."""
    try:
        return with_recipe_genes(space, config.recipe_genes, task)
    except UserError as error:
        raise RunFileError(f"{origin}: recipe_genes.{error.message}", hint=error.hint) from None


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """`config` with the files and folders that it names named so that a resume finds them from anywhere."""
    options = {
        key: str(Path(value).absolute()) if key in PATH_OPTIONS and isinstance(value, str) else value
        for key, value in config.task.options().items()
    }
    llm, local = config.llm, config.llm.local
    if local is not None and local != DEFAULT:
        llm = llm.model_copy(update={"local": str(Path(local).expanduser().absolute())})
    return config.model_copy(update={"task": TaskSection(name=config.task.name, **options), "llm": llm})
