"""The templates that a run asked with, kept in its folder: to be read, compared and rendered again.

`<run folder>/prompts/NAME@VERSION.j2` holds a template with all that it extends, includes and imports, each
source under a heading; `index.json` tells where each begins, and which versions each start of the run took.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cambrian.agents.errors import InfrastructureError, UserError
from cambrian.agents.planner.templates import Origin, Templates, part_heading, version_of

FOLDER = "prompts"
INDEX = "index.json"


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeptPart(_Data):
    """One source of a template.

    Attributes:
        name: what templates refer to it by, such as `base/propose.j2`.
        origin: where it lay.
        characters: its length in the file.
    """

    name: str
    origin: Origin
    characters: int


class KeptTemplate(_Data):
    """One version of one template; `parts` in the order of the file."""

    name: str
    version: str
    parts: tuple[KeptPart, ...]

    @property
    def file(self) -> str:
        """Its name in the run's folder of prompts."""
        return f"{self.name.removesuffix('.j2')}@{self.version}.j2"


class KeptStart(_Data):
    """One start or resume of the run: the version of each template that it took."""

    created: str
    versions: dict[str, str]


class KeptPrompts(_Data):
    """The index of a run's folder of prompts; `starts` by time."""

    space: str
    starts: tuple[KeptStart, ...] = ()
    templates: tuple[KeptTemplate, ...] = ()

    def find(self, name: str, version: str) -> KeptTemplate | None:
        """That version of that template."""
        return next((t for t in self.templates if (t.name, t.version) == (name, version)), None)


def keep_prompts(templates: Templates, run_folder: Path) -> KeptPrompts:
    """Write the templates that a run starts with into its folder; versions that are there stay as they are.

    Raises:
        UserError: a template cannot be read or parsed.
        OSError: the disk failed.
    """
    index = kept_prompts(run_folder) or KeptPrompts(space=templates.space)
    folder = run_folder / FOLDER
    folder.mkdir(exist_ok=True)
    versions = {name: templates.version(name) for name in templates.names()}
    added = []
    for name, version in versions.items():
        if index.find(name, version) is None:
            parts = tuple(
                KeptPart(name=part, origin=templates.origin(part), characters=len(source))
                for part, source in templates.sources(name).items()
            )
            added.append(KeptTemplate(name=name, version=version, parts=parts))
            _write(folder / added[-1].file, templates.resolved(name))
    if index.starts and index.starts[-1].versions == versions:
        return index
    start = KeptStart(created=datetime.now(UTC).isoformat(timespec="seconds"), versions=versions)
    index = index.model_copy(
        update={"starts": (*index.starts, start), "templates": (*index.templates, *added)}
    )
    _write(folder / INDEX, index.model_dump_json(indent=1))
    return index


def kept_prompts(run_folder: Path) -> KeptPrompts | None:
    """The index of what a run keeps; None of a run that keeps nothing.

    Raises:
        InfrastructureError: it is damaged.
    """
    path = run_folder / FOLDER / INDEX
    try:
        return KeptPrompts.model_validate_json(path.read_bytes()) if path.is_file() else None
    except (OSError, ValidationError) as error:
        raise InfrastructureError(f"{path} cannot be read: it is damaged", hint="restore it") from error


def kept_sources(run_folder: Path, template: KeptTemplate) -> dict[str, str]:
    """The sources of a kept template by name, as `Templates.sources` gave them.

    Raises:
        InfrastructureError: its file is gone or was edited.
    """
    path = run_folder / FOLDER / template.file
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InfrastructureError(f"{path} cannot be read", hint="restore it") from error
    found, at = {}, 0
    for part in template.parts:
        at += len(part_heading(part.name))
        found[part.name] = text[at : at + part.characters]
        at += part.characters
    if at != len(text) or version_of(found.values()) != template.version:
        raise InfrastructureError(
            f"{path} is not what the run kept", hint="restore it: edit templates in a folder of your own"
        )
    return found


def templates_of_run(run_folder: Path) -> Templates:
    """The templates of a run's last start, from its folder alone.

    Raises:
        UserError: the run keeps none.
        InfrastructureError: they are damaged.
    """
    index = kept_prompts(run_folder)
    if index is None or not index.starts:
        raise UserError(
            f"run {run_folder.name} keeps no prompts", hint="it asked no model, or is older than this version"
        )
    kept: dict[str, tuple[str, Origin]] = {}
    for name, version in index.starts[-1].versions.items():
        template = index.find(name, version)
        if template is None:
            raise InfrastructureError(f"run {run_folder.name}: {name}@{version} is not among its prompts")
        origins = {part.name: part.origin for part in template.parts}
        for part, source in kept_sources(run_folder, template).items():
            kept[part] = (source, origins[part])
    return Templates(index.space, kept=kept)


def _write(path: Path, text: str) -> None:
    """Write a file whole, or not at all, with its line ends as they are."""
    draft = path.with_suffix(".tmp")
    draft.write_bytes(text.encode())
    draft.replace(path)
