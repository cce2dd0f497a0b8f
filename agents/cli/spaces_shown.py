"""`cambrian spaces list`, `show`, `sample`, `blocks` and `new`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cambrian.agents.cli.app import emit
from cambrian.agents.errors import UserError
from cambrian.agents.spaces.check import reference_of, size_of
from cambrian.agents.spaces.listing import SpaceRow, space_rows
from cambrian.agents.spaces.scaffold import new_space
from cambrian.search_spaces import SPACES, TASKS, Genotype, Signature, Space, near_names
from cambrian.search_spaces.finding import FILE, folder_of, is_path

MIN_WIDTH = 110


def find(name: str) -> Space:
    """The space that a command names: registered, a path, or the name of a folder here."""
    if not is_path(name) and name not in SPACES.names() and (Path(name) / FILE).is_file():
        name = f"./{name}"
    return SPACES.open(name)


def list_command(as_json: bool) -> None:
    """All spaces that a name reaches, and the tasks."""
    rows = space_rows()
    if as_json:
        emit({"spaces": [row.model_dump(mode="json") for row in rows], "tasks": TASKS.names()})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("space", "version", "kind", "what", "tasks", "baselines", "from"):
        table.add_column(column, overflow="fold")
    for row in rows:
        about = f"[red]broken: {escape(row.problem)}[/red]" if row.problem else escape(row.title)
        cells = (row.version, row.kind, about, ", ".join(row.tasks), ", ".join(row.baselines))
        table.add_row(row.name, *cells, _origin(row))
    console = Console()
    (console if console.width >= MIN_WIDTH else Console(width=MIN_WIDTH)).print(table)
    print(f"tasks: {', '.join(TASKS.names())}")
    print("more: cambrian spaces show SPACE; cambrian spaces new NAME writes one")


def _origin(row: SpaceRow) -> str:
    place = f" ({row.folder})" if row.origin in ("yours", "here") else ""
    return f"{row.origin}{place}{f', hides the {row.shadows} one' if row.shadows else ''}"


def show_command(
    name: str, *, page: bool, schema: bool, drawing: Path | None, baseline: str | None, as_json: bool
) -> None:
    """What one space is.

    Raises:
        UserError: there is no such baseline, or the drawing cannot be written.
    """
    space = find(name)
    known = space.baselines()
    if baseline is not None and (baseline not in known or drawing is None):
        problem = (
            f"has no baseline {baseline!r}" if baseline not in known else "--baseline goes with --drawing"
        )
        raise UserError(f"space {space.name!r}: {problem}", hint=near_names(baseline, list(known)))
    if drawing is not None and baseline is not None:
        write(drawing, space.draw(known[baseline], reference_of(space)))
    elif drawing is not None:
        draw_sheet(space, known.items(), reference_of(space), drawing)
    if schema:
        emit(space.schema())
    elif as_json:
        emit(_facts(space))
    elif page:
        print(_page(space))
    elif drawing is not None:
        print(f"wrote {drawing}")
    else:
        print(space.describe())
        print("\nbaselines:")
        for label, genotype in space.baselines().items():
            print(f"  {label}: {space.summarise(genotype)}")


def _facts(space: Space) -> dict[str, object]:
    return {
        "name": space.name,
        "version": space.version,
        "kind": space.kind,
        "folder": folder_of(space),
        "description": space.describe(),
        "schema": space.schema(),
        "baselines": {label: dict(genotype) for label, genotype in space.baselines().items()},
    }


def _page(space: Space) -> str:
    definition = getattr(space, "definition", None)
    if definition is None:
        raise UserError(
            f"space {space.name!r} is no folder of text, so it has no page", hint="without --page"
        )
    from cambrian.search_spaces.declarative.page import page

    return page(definition, f"Size: {size_of(space)}.")


def draw_sheet(
    space: Space, designs: Iterable[tuple[str, Genotype]], signature: Signature, path: Path
) -> None:
    """Draw labelled designs side by side.

    Raises:
        UserError: the file cannot be written.
    """
    from cambrian.search_spaces.declarative.drawing import sheet

    drawings = [
        (f"{label}: {space.summarise(genotype)}", space.draw(genotype, signature))
        for label, genotype in designs
    ]
    write(path, sheet(drawings))


def write(path: Path, text: str) -> None:
    """Write a file and the folders above it.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", hint="name another file") from error


def sample_command(name: str, *, n: int, seed: int, draw: Path | None, as_json: bool) -> None:
    """Random designs, in words and as JSON."""
    space, rng = find(name), random.Random(seed)
    designs = [space.sample(rng) for _ in range(n)]
    files = [draw / f"{space.name}-{seed}-{i}.svg" for i in range(n)] if draw is not None else []
    if files:
        signature = reference_of(space)
        for path, genotype in zip(files, designs, strict=True):
            write(path, space.draw(genotype, signature))
    if as_json:
        emit(
            [
                {"summary": space.summarise(genotype), "genotype": genotype}
                | ({"drawing": str(files[i])} if files else {})
                for i, genotype in enumerate(designs)
            ]
        )
        return
    for i, genotype in enumerate(designs):
        print(space.summarise(genotype) + (f"  ({files[i]})" if files else ""))
        print(f"  {json.dumps(genotype)}")


def blocks_command(as_json: bool) -> None:
    """The catalogue of blocks."""
    from cambrian.search_spaces.declarative.catalogue import REQUIRED, catalogue

    if not as_json:
        from cambrian.search_spaces.declarative.page import blocks_page

        print(blocks_page())
        return
    emit(
        [
            {
                "name": block.name,
                "family": block.family,
                "takes": list(block.takes),
                "about": block.about,
                "arguments": {
                    label: {"type": argument.kind.__name__, "about": argument.about}
                    | ({} if argument.default is REQUIRED else {"default": argument.default})
                    | ({"allowed": list(argument.allowed)} if argument.allowed else {})
                    | ({} if argument.minimum is None else {"minimum": argument.minimum})
                    for label, argument in block.arguments.items()
                },
            }
            for block in catalogue().values()
        ]
    )


def new_command(name: str, source: str | None, place: Path | None, as_json: bool) -> None:
    """Write a new space and say what to do with it."""
    made = new_space(name, source, place)
    if as_json:
        emit(made.model_dump(mode="json"))
        return
    print(f"wrote {made.folder}/ (space {name}) and {made.run_file} (a run on {made.task}). Next:")
    for line in made.commands:
        print(f"  {line}")
