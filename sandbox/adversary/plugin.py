"""Lays out the hostile candidates as a plugin that sandboxes load."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

SPACE_NAME = "hostile"
METADATA = f"Metadata-Version: 2.1\nName: cambrian-{SPACE_NAME}\nVersion: 1.0\n"
ENTRY_POINTS = f"[cambrian.spaces]\n{SPACE_NAME} = {SPACE_NAME}.hostile:HostileSpace\n"


def lay_out(folder: Path) -> Path:
    """Write into `folder` what an installed package that registers the space `hostile` looks like.

    Returns:
        `folder`, to be given to a sandbox as one of its `plugins`.
    """
    package = folder / SPACE_NAME
    package.mkdir(parents=True)
    for source in (resources.files("cambrian.sandbox.adversary") / "inside").iterdir():
        if source.name.endswith(".py"):
            (package / source.name).write_bytes(source.read_bytes())
    about = folder / f"cambrian_{SPACE_NAME}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(METADATA)
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder
