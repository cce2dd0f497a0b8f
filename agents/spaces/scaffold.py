"""`cambrian spaces new`: a folder that runs as it is, to be changed by its owner."""

from __future__ import annotations

import re
import shutil
from importlib import resources
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from cambrian import prompts
from cambrian.agents.errors import CambrianError, UserError
from cambrian.agents.spaces.fit import fitting_tasks
from cambrian.search_spaces import SPACES, Space
from cambrian.search_spaces.finding import FILE, files_of, folder_of, open_folder
from cambrian.search_spaces.tasks.listing import create_listed, parse_listed

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


class Made(BaseModel):
    """What was written.

    Attributes:
        folder: the space.
        run_file: searches in it.
        files: all of them.
        task: that the run file names.
        commands: what to do next, in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    folder: Path
    run_file: Path
    files: list[Path]
    task: str
    commands: list[str]


def new_space(name: str, source: str | None = None, place: Path | None = None) -> Made:
    """Write the folder of a new space, and a run file beside it; nothing is ever overwritten.

    Args:
        name: of the space, its folder and the run file.
        source: the name or path of a space to copy; None starts from a small one of convolutions.
        place: the folder to write in; None is the working directory.

    Raises:
        UserError: the name is taken or cannot be one, a file is there already, the source has no folder, or
            the place cannot be written.
    """
    if _NAME.fullmatch(name) is None:
        raise UserError(
            f"{name!r} cannot name a space",
            hint="use lower-case letters, digits and hyphens, at most 40, a letter first",
        )
    if name in SPACES.names():
        raise UserError(f"there is a space {name!r} already", hint="choose another name")
    place = place or Path()
    folder, run_file = place / name, place / f"{name}.yaml"
    for path in (folder, run_file):
        if path.exists():
            raise UserError(f"{path} is there already", hint="nothing is overwritten: choose another name")
    files = _template(name, folder) if source is None else _copied(name, source)
    try:
        for relative, text in files.items():
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        space = open_folder(folder)
        task = _task_for(space)
        run_file.write_text(_run_file(space, task, run_file), encoding="utf-8")
    except (OSError, CambrianError) as error:
        shutil.rmtree(folder, ignore_errors=True)  # it was not there before
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write to {place}: {error.strerror}", hint="choose another --in"
            ) from error
        raise
    return Made(
        name=name,
        folder=folder,
        run_file=run_file,
        files=[*(folder / relative for relative in files), run_file],
        task=task,
        commands=[
            f"cambrian spaces check {_as_path(folder)}",
            f"cambrian run --check {run_file}",
            f"cambrian run {run_file}",
        ],
    )


def _template(name: str, folder: Path) -> dict[str, str]:
    values = {"NAME": name, "FOLDER": _as_path(folder)}
    places = {FILE: "space.yaml", "prompts/propose.j2": "propose.j2", "knowledge/notes.md": "notes.md"}
    return {place: _filled(_text(file), values) for place, file in places.items()}


def _copied(name: str, source: str) -> dict[str, str]:
    """The files of another space, under the new name and from version 1 on."""
    space = SPACES.open(source)
    folder = folder_of(space)
    if folder is None:
        raise UserError(
            f"space {source!r} is no folder of text, so it cannot be copied",
            hint="copy one for which `cambrian spaces list` shows a folder",
        )
    files = {place: content.decode("utf-8") for place, content in files_of(folder).items()}
    for key, value in (("version", '"1"'), ("name", name)):
        files[FILE], times = re.subn(rf"(?m)^{key}:.*$", f"{key}: {value}", files[FILE], count=1)
        if not times:
            raise UserError(
                f"{folder / FILE}: no line begins with '{key}:'", hint="write it in a line of its own"
            )
    for path in sorted((Path(str(prompts.__file__)).parent / space.name).glob("*.j2")):
        files.setdefault(f"prompts/{path.name}", path.read_text(encoding="utf-8"))
    defaults = _template(name, Path(name))
    for place in ("prompts/propose.j2", "knowledge/notes.md"):
        if not any(known.startswith(place.split("/")[0] + "/") for known in files):
            files[place] = defaults[place]
    return files


def _task_for(space: Space) -> str:
    """The first fitting task whose data are there, or the first one at all."""
    names = fitting_tasks(space)
    for name in names:
        try:
            create_listed(name).load()
        except CambrianError:
            continue
        return name
    if not names:
        raise UserError(f"no registered task fits the space {space.name!r}", hint="list one under `tasks:`")
    return names[0]


def _run_file(space: Space, task: str, path: Path) -> str:
    name, options = parse_listed(task)
    values = {
        "NAME": space.name,
        "FOLDER": f"./{space.name}",
        "TASK": _in_line({"name": name, **options}) if options else name,
        "BASELINES": _in_line(list(space.baselines())[:2]),
        "RUNFILE": str(path),
    }
    return _filled(_text("run.yaml"), values)


def _in_line(value: object) -> str:
    """YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.strip()


def _as_path(folder: Path) -> str:
    """As a command line would name it, so that it cannot be taken for a name."""
    return str(folder) if len(folder.parts) > 1 else f"./{folder}"


def _text(file: str) -> str:
    return (resources.files("cambrian.agents.spaces") / "template" / file).read_text(encoding="utf-8")


def _filled(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text
