"""`cambrian run`, with `--check` and `--replay`, and `cambrian resume`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import yaml

from cambrian.agents.cli.app import emit
from cambrian.agents.errors import RunFileError
from cambrian.agents.runfile import load_run_file, parse_budget
from cambrian.search_spaces.finding import absolute


def overrides_from(budgets: list[str], settings: list[str], llm: str | None = None) -> dict[str, Any]:
    """Dotted overrides from `--budget`, `--llm` and `--set`; values of the latter are read as YAML.

    Raises:
        RunFileError: a setting without `=`, a value that is not YAML, or see `parse_budget`.
    """
    found: dict[str, Any] = {}
    if llm is not None:
        here = "default" if llm == "local" else llm if llm.endswith(".gguf") else None
        found |= {"llm.local": here, "llm.model": None if here else llm}
        if here:
            found["llm.base_url"] = None
    for setting in settings:
        key, sep, value = setting.partition("=")
        if not sep or not key:
            raise RunFileError(f"--set {setting}: no '='", hint="write --set seed=3 or --set task.data=PATH")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RunFileError(f"--set {setting}: the value is not YAML") from error
        if key == "space" and isinstance(found[key], str):
            found[key] = absolute(found[key], Path.cwd())  # here, not where the run file lies
    if budgets:
        found |= parse_budget(",".join(budgets))
    return found


def check_command(
    run_file: Path, budgets: list[str], settings: list[str], as_json: bool, llm: str | None = None
) -> None:
    """Validate a run file, its space, task and data; run nothing."""
    config = load_run_file(run_file, overrides_from(budgets, settings, llm))
    from cambrian.agents.checking import check_run
    from cambrian.search_spaces.tasks import extent

    space, task = check_run(config, str(run_file))
    if as_json:
        emit({"ok": True, "config": config.model_dump(mode="json")})
        return
    limits = "; ".join(map(str, config.constraints)) or "no constraints"
    genes = f" with recipe genes {', '.join(config.recipe_genes)}" if config.recipe_genes else ""
    print(f"{run_file} is fine: space {space.name}{genes}, task {task.name} ({extent(task)}), {limits}")


def run_command(
    run_file: Path,
    budgets: list[str],
    settings: list[str],
    as_json: bool,
    runs: Path | None,
    llm: str | None = None,
) -> None:
    """Launch a run."""
    config = load_run_file(run_file, overrides_from(budgets, settings, llm))
    from cambrian.agents.session import start
    from cambrian.agents.terminal import Terminal
    from cambrian.agents.workspace import Workspace

    with Terminal(quiet=as_json) as terminal:
        _finish(start(config, Workspace(runs), terminal.watch(), str(run_file)), as_json, terminal)


def resume_command(run_id: str, budgets: list[str], as_json: bool, runs: Path | None) -> None:
    """Go on with a run."""
    overrides = overrides_from(budgets, [])
    from cambrian.agents.session import resume
    from cambrian.agents.terminal import Terminal
    from cambrian.agents.workspace import Workspace

    with Terminal(quiet=as_json) as terminal:
        _finish(resume(run_id, Workspace(runs), terminal.watch(), overrides), as_json, terminal)


def replay_command(run_id: str, as_json: bool, runs: Path | None) -> None:
    """Execute a recorded run again."""
    from cambrian.agents.replaying import replay
    from cambrian.agents.workspace import Workspace

    say = (lambda _line: None) if as_json else print
    report = asyncio.run(replay(run_id, Workspace(runs), say))
    if as_json:
        emit(report.model_dump(mode="json"))
    else:
        print("\n".join(report.lines()))


def _finish(work: Coroutine[Any, Any, Any], as_json: bool, terminal: Any) -> None:
    report = asyncio.run(work)
    terminal.stop()
    if as_json:
        emit(report.model_dump(mode="json"))
    else:
        from cambrian.agents.cli.showing import show_brought

        *told, following = report.lines()
        print("\n".join(told))
        show_brought(report)
        print(following)
