"""`cambrian prompts list`, and finding what the commands of `prompts` are about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cambrian.agents.cli.app import emit
from cambrian.agents.cli.spaces_shown import find
from cambrian.agents.errors import UserError
from cambrian.agents.planner.client import estimated_tokens
from cambrian.agents.planner.prompt_check import variables_of
from cambrian.agents.planner.prompt_lint import ROLES, parentage
from cambrian.agents.planner.prompt_worlds import World, fullest, task_for
from cambrian.agents.planner.templates import Templates
from cambrian.agents.runfile import RunConfig, load_run_file
from cambrian.search_spaces import SPACES, Space, Task

MIN_WIDTH = 110


@dataclass(frozen=True)
class Subject:
    """What prompts are about: a space, a task that fits it, and the run file that says so, if one does."""

    space: Space
    task: Task
    config: RunConfig | None = None

    @property
    def world(self) -> World:
        """A made-up moment in the middle of a run."""
        return fullest(self.space, self.task, self.config)


def is_run_file(name: str) -> bool:
    """Whether a command's argument names a run file rather than a space."""
    return Path(name).suffix in (".yaml", ".yml") and Path(name).name != "space.yaml"


def subject(name: str) -> Subject:
    """The space or run file that a command names.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    if not is_run_file(name):
        space = find(name)
        return Subject(space, task_for(space))
    config = load_run_file(Path(name), {})
    from cambrian.agents.checking import make_task, with_genes

    task = make_task(config, name)
    return Subject(with_genes(SPACES.open(config.space), config, task, name), task, config)


def list_command(name: str, as_json: bool) -> None:
    """All templates of a space."""
    found = subject(name)
    templates = Templates.of(found.space)
    rows = template_rows(templates, found.world)
    if as_json:
        emit({"space": found.space.name, "user_folder": templates.user_folder, "templates": rows})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("template", "version", "from"):
        table.add_column(column, no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    for row in rows:
        tokens = "" if row["tokens"] is None else f"{row['tokens']:,}"
        table.add_row(row["name"], row["version"], f"{row['origin']}: {row['place']}", tokens)
    print_whole(table)
    print()
    for row in rows:
        said = f"sent to {', '.join(row['roles'])}" if row["roles"] else "a part of others"
        print(f"{row['name']}: {said}")
        for key in ("extends", "overrides"):
            if row[key]:
                print(f"  {key} {', '.join(row[key])}")
    for row in rows:
        if row["problem"]:
            print(f"{row['name']}: {row['problem']}")
    print("tokens: for a made-up population in the middle of a run, four characters each")
    if templates.user_folder is None:
        print(f"ours lie in {templates.shipped}; copy one into prompts/{found.space.name}/ here to edit it")
    else:
        print(f"ours lie in {templates.shipped}, yours in {templates.user_folder}")


def template_rows(templates: Templates, world: World) -> list[dict[str, Any]]:
    """What is known of each template; one that is broken says so in `problem`."""
    rows = []
    for name in templates.names():
        row: dict[str, Any] = {
            "name": name,
            "version": "",
            "roles": list(ROLES.get(name, ())),
            "origin": templates.origin(name),
            "place": templates.place(name),
            "path": templates.path(name),
            "extends": [],
            "overrides": [],
            "blocks": [],
            "draws_on": [],
            "tokens": None,
            "problem": "",
        }
        try:
            row["version"] = templates.version(name)
            row["draws_on"] = list(templates.sources(name))[1:]
            row |= {key: list(value) for key, value in parentage(templates, name)}
            if name in ROLES:
                row["tokens"] = estimated_tokens(templates.render(name, variables_of(world, name)).text)
        except UserError as error:
            row["problem"] = error.message
        rows.append(row)
    return rows


def print_whole(table: Table) -> None:
    """Print a table so that no cell is broken or cut, also where it is wider than the terminal."""
    endless = Console(width=10_000)
    needed = endless.measure(table).maximum
    Console(width=max(needed, 1)).print(table)


def wide_console() -> Console:
    """A console that is wide enough for the tables, whatever the terminal."""
    console = Console()
    return console if console.width >= MIN_WIDTH else Console(width=MIN_WIDTH)
