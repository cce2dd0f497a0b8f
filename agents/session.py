"""One run from its configuration to its report: opens the organs, runs the loop, closes them again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from cambrian.agents.analyst.analyst import PATIENCE_S, Analyst
from cambrian.agents.budget import Account
from cambrian.agents.checking import check_run, fitted, with_absolute_paths, with_genes
from cambrian.agents.discovery import Discovery
from cambrian.agents.errors import CambrianError, InfrastructureError
from cambrian.agents.evaluator.admission import Admission
from cambrian.agents.evaluator.earlier import earlier_runs
from cambrian.agents.lifecycle import Lifecycle, Services
from cambrian.agents.planner import Arm
from cambrian.agents.planner.endpoint import endpoint_status
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.planner.kept_prompts import keep_prompts
from cambrian.agents.planner.llm import LLMArm
from cambrian.agents.planner.local_model import local_model
from cambrian.agents.planner.models import Models, taken_for_free
from cambrian.agents.planner.portfolio import build_arms
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.archive import Archive
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.population.view import Population
from cambrian.agents.recorder.mlflow_recorder import MLflowRecorder, RecorderStatus
from cambrian.agents.report import COVERAGE_KEY, PREDICTOR_KEY, EndReport, end_report
from cambrian.agents.review import FolderDesk, MLflowDesk, ReviewDesk
from cambrian.agents.runfile import RunConfig, parse_config
from cambrian.agents.spaces.code import plugins_of
from cambrian.agents.trial import Meter, limits_of
from cambrian.agents.workspace import Workspace, keep_space, kept_space, space_of
from cambrian.sandbox import Sandbox
from cambrian.sandbox.select import machine_cores, open_sandbox
from cambrian.search_spaces import SPACES, Space, Task
from cambrian.search_spaces.tasks import validation_samples

CLOSING_S = 5.0
"""How long the end of a run waits for an MLflow that does not answer; one that does gets a minute."""
LLM_KEY = "llm"
"""Under this key the store keeps how models were asked at last: a local one may have had less room."""
PREDICTOR_LIBRARY = "cambrian.agents.evaluator.predictors.libraries"
Say = Callable[[str], None]


@dataclass
class Watch:
    """Who is told what while a run goes on. All are called from the loop and must return at once."""

    say: Say = print
    started: Callable[[Discovery, PopulationStore], None] = lambda _discovery, _store: None
    landed: Callable[[Candidate], None] = lambda _candidate: None
    recorded: Callable[[RecorderStatus], None] = lambda _status: None


class Stopped(BaseException):
    """A signal asked us to stop; everything in flight is kept for `resume`.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


async def start(config: RunConfig, workspace: Workspace, watch: Watch, origin: str = "run file") -> EndReport:
    """Launch a new run and see it to its end.

    Raises:
        CambrianError: as the error tree says; what was done until then is kept.
        Stopped: a signal came.
    """
    config = with_absolute_paths(config)
    space, task = check_run(config, origin)
    folder = workspace.new_folder(config.name)
    resolved = config.model_dump(mode="json")
    try:
        with _plain_infrastructure_errors():
            (folder / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
            keep_space(space, folder)
    except CambrianError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    record = RunRecord(
        run_id=folder.name,
        name=config.name,
        space=space.name,
        task=task.name,
        metric=task.metric,
        maximize=task.maximize,
        cost=config.cost,
        created=time.time(),
        config=resolved,
        validation_samples=validation_samples(task),
    )
    store = PopulationStore(folder, create=record)
    if note := SPACES.find(config.space).note:
        watch.say(note)
    try:
        space = with_genes(space_of(store), config, task, origin)
        return await _carry_out(config, store, space, task, workspace, watch)
    except CambrianError:
        if not _has_candidates(folder):  # nothing was begun: an empty run would only be in the way
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _has_candidates(folder: Path) -> bool:
    store = PopulationStore(folder, readonly=True)
    try:
        return bool(store.candidates())
    finally:
        store.close()


async def resume(
    run: str, workspace: Workspace, watch: Watch, overrides: dict[str, Any] | None = None
) -> EndReport:
    """Go on with a run that was stopped, killed, or has got a larger budget.

    Args:
        run: its id, the start of it, or `last`.
        workspace: where it lies.
        watch: who is told what.
        overrides: changed limits, such as `{"budget.evaluations": 200}`; nothing else may change.
    """
    store = PopulationStore(workspace.folder(run))
    try:
        data = dict(store.run.config)
        for key, value in (overrides or {}).items():
            section, _, name = key.partition(".")
            data[section] = {**data[section], name: value}
        origin = f"run {store.run.run_id}"
        config = parse_config(data, origin, kept_space=kept_space(store.folder) is not None)
        space, task = check_run(config, origin, space_of(store))
        store.set_run(status="running", stop_reason="", config=config.model_dump(mode="json"))
    except BaseException:
        store.close()
        raise
    return await _carry_out(config, store, space, task, workspace, watch)


async def _carry_out(
    config: RunConfig, store: PopulationStore, space: Space, task: Task, workspace: Workspace, watch: Watch
) -> EndReport:
    torch.set_num_threads(1)  # our own checks are tiny: more threads would only fight the trainings
    pareto = config.objective.kind == "pareto"
    population = Population(task.maximize, store.candidates(), pareto=pareto, timed=config.budget.timed)
    exchanges = ExchangeLog(store.folder)
    try:
        with _plain_infrastructure_errors(), _signals() as signals:
            exchanges.settle()
            organs = _organs(config, store, space, task, workspace, watch, population, exchanges)
            try:
                async with organs as discovery:
                    watch.started(discovery, store)
                    stop_reason = await discovery.run()
                    if discovery.analyst is not None:
                        await discovery.analyst.finish(_patience_s(discovery.account))
                    signals.ignore()  # all is done but the closing, which is quick
                    store.set_run(status="finished", stop_reason=stop_reason)
            except asyncio.CancelledError:
                if signals.caught is None:
                    raise
                raise Stopped(signals.caught) from None
        predictor = discovery.predictor_line()
        store.set_meta(PREDICTOR_KEY, predictor)
        store.set_meta(COVERAGE_KEY, Archive.of(population, space).in_words())
        return end_report(store, exchanges, predictor=predictor)
    except BaseException as error:
        _note_stop(store, error)
        raise
    finally:
        store.close()


def _patience_s(account: Account) -> float:
    """How long the end of a run may wait for lessons: not beyond its time budget."""
    limit = account.budget.wall_s
    return PATIENCE_S if limit is None else min(PATIENCE_S, max(limit - account.elapsed_s, 0.0))


@asynccontextmanager
async def _organs(
    config: RunConfig,
    store: PopulationStore,
    space: Space,
    task: Task,
    workspace: Workspace,
    watch: Watch,
    population: Population,
    exchanges: ExchangeLog,
) -> AsyncIterator[Discovery]:
    """Everything that a run needs, opened in order and closed in the reverse order whatever happens."""
    recorder = _recorder(config, store, space, task, workspace)
    if (local := local_model(config.llm)) is not None:
        config = fitted(config, local)
    models = Models(
        config, exchanges, say=watch.say, local=local, time_left=lambda: account.seconds_left()
    )  # nobody asks before the account is opened
    for name in taken_for_free(config):
        watch.say(f"{name} is taken to cost nothing; its `price` in the run file says otherwise")
    models.answered = lambda exchange: store.note("answered", exchange.place)
    store.set_meta(LLM_KEY, config.llm.model_dump_json())
    templates = _templates(config, space, watch.say, store.folder)
    arms = _arms(config, models, templates)
    desks: list[ReviewDesk] = [FolderDesk(store.folder / "review")]
    # The predictors' libraries take seconds to import: now, beside the sandbox, rather than in a slot's way.
    warming = asyncio.create_task(asyncio.to_thread(importlib.import_module, PREDICTOR_LIBRARY))
    sandbox, meter, sandboxes = await _sandboxes(config, store, space, task, watch.say)
    try:
        await warming
        store.set_run(sandbox=sandbox.isolation.level)
        if recorder is not None:
            recorder.start()
            if config.review == "gate":
                desks.append(MLflowDesk(recorder, store))
        earlier = earlier_runs(config, store, space, task, workspace, watch.say)
        if told := str(earlier):
            watch.say(told)
        if len(population):
            store.note("resume", "")
        services = Services(
            config=config,
            space=space,
            task=task,
            store=store,
            population=population,
            admission=Admission(config, space, task, store, earlier),
            sandbox=sandbox,
            meter=meter,
        )
        account = Account(config.budget, evaluations=len(store.evaluations()), elapsed_s=store.run.elapsed_s)
        analyst = Analyst(config, services, models, watch.say, templates)
        async with (
            Lifecycle(services, store.folder / "checkpoints.sqlite") as lifecycle,
            analyst.beside(lifecycle),
        ):
            yield Discovery(
                services,
                lifecycle,
                arms,
                account,
                desks=tuple(desks),
                say=watch.say,
                landed=watch.landed,
                analyst=analyst,
            )
    except BaseException as error:  # before the recorder closes, which records how the run ended
        _note_stop(store, error)
        raise
    finally:
        await sandboxes.aclose()
        for arm in arms.values():
            await arm.close()
        await models.close()
        for desk in desks:
            desk.close()
        if recorder is not None:
            # A server that is down is not waited for: the outbox keeps everything for the next start.
            patience_s = CLOSING_S if recorder.status.error else CLOSING_S * 12
            await asyncio.to_thread(recorder.close, patience_s)
            watch.recorded(recorder.status)
            if recorder.status.pending:
                watch.say(
                    f"MLflow lacks {recorder.status.pending} candidates ({recorder.status.error}); "
                    f"`cambrian resume {store.folder.name}` delivers them"
                )


async def _sandboxes(
    config: RunConfig, store: PopulationStore, space: Space, task: Task, say: Say
) -> tuple[Sandbox, Meter | None, contextlib.AsyncExitStack]:
    """Where candidates are trained, where latency is measured if that is elsewhere, and what closes both."""
    place, name, cores = config.sandbox, config.latency.device, None
    if name is not None and config.devices[name].engine == place.engine:
        cores = await asyncio.to_thread(machine_cores, place.kind, place.engine)
    common: dict[str, Any] = {
        "splits": task.load(),
        "space": kept_space(store.folder),
        "plugins": plugins_of(space),
        "base_image": place.base_image,
        "runtime": place.runtime,
        "generated_code": space.kind == "code",
        "trust_generated_code": place.trust_generated_code,
        "progress": say,
    }
    async with contextlib.AsyncExitStack() as stack:
        sandbox, note = await open_sandbox(
            place.kind,
            run_id=store.folder.name,
            folder=store.folder,
            task=task,
            slots=config.slots,
            engine=place.engine,
            gpu=place.gpu,
            cores=cores,
            limits=limits_of(config),
            **common,
        )
        stack.push_async_callback(sandbox.close)
        if note:
            say(note)
        if name is None:
            return sandbox, None, stack.pop_all()
        device, folder = config.devices[name], store.folder / "devices" / name
        folder.mkdir(parents=True, exist_ok=True)
        measuring, note = await open_sandbox(
            device.kind,
            run_id=f"{store.folder.name}-{name}",  # else it would sweep the other one's as a dead run's
            folder=folder,
            slots=1,
            engine=device.engine,
            gpu=device.gpu,
            cores=cores,
            **common,
        )
        stack.push_async_callback(measuring.close)
        if note:
            say(f"latency on device {name}: {note}")
        return sandbox, Meter(name, measuring, folder, device.threads), stack.pop_all()


def _recorder(
    config: RunConfig, store: PopulationStore, space: Space, task: Task, workspace: Workspace
) -> MLflowRecorder | None:
    if not config.mlflow.enabled:
        return None
    uri = config.mlflow.tracking_uri
    return MLflowRecorder(
        store,
        space,
        task,
        tracking_uri=uri or workspace.tracking_uri,
        artifact_root=None if uri else workspace.artifacts,
    )


def _arms(config: RunConfig, models: Models, templates: Templates) -> dict[str, Arm]:
    arms = build_arms(config, models)
    for arm in arms.values():
        if isinstance(arm, LLMArm):
            arm.templates = templates
    return arms


def _templates(config: RunConfig, space: Space, say: Say, folder: Path) -> Templates:
    """What the run's models are asked with, kept in its folder; files that change meanwhile change nothing.

    One line says so when the LLM arm is wanted and cannot be had.
    """
    templates = Templates.of(space)
    if "llm" in config.arms and config.arms["llm"].weight > 0:
        endpoint = endpoint_status(config.llm)
        if not endpoint.configured and config.llm.local is None and not config.wants_model:
            say(f"{endpoint.detail}; the run goes on with the other arms ({endpoint.hint})")
        keep_prompts(templates, folder)
        shadowed = [name for name in templates.names() if templates.is_users(name)]
        if shadowed:
            say(f"prompts of your own in {templates.user_folder}: {', '.join(shadowed)}")
    return templates


@contextmanager
def _plain_infrastructure_errors() -> Iterator[None]:
    """Say of a full disk or a broken file in our own words."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        full = getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT} or "full" in str(error)
        cause = "the disk is full" if full else str(error)
        raise InfrastructureError(
            f"cannot go on: {cause}", hint="nothing is lost: mend it, then `cambrian resume last`"
        ) from error


def _note_stop(store: PopulationStore, error: BaseException) -> None:
    cancelled = isinstance(error, asyncio.CancelledError | Stopped)
    reason = "stopped by a signal" if cancelled else str(error) or type(error).__name__
    # The disk may be what failed; the error under way says so.
    with contextlib.suppress(Exception):
        store.set_run(status="stopped", stop_reason=reason)


class _Signals:
    """The first SIGINT or SIGTERM cancels the run, so that it stops cleanly; later ones change nothing."""

    def __init__(self) -> None:
        self.caught: int | None = None
        self._task = asyncio.current_task()

    def ignore(self) -> None:
        """From now on signals change nothing."""
        self._task = None

    def handle(self, number: int) -> None:
        """What the event loop calls on a signal."""
        if self._task is not None and self.caught is None:
            self.caught = number
            self._task.cancel()


@contextmanager
def _signals() -> Iterator[_Signals]:
    signals, loop = _Signals(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signals.handle, number)
    try:
        yield signals
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
