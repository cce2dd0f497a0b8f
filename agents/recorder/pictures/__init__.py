"""Pictures of a run that people want to look at: leaderboard, Pareto plot, lineage tree, progress curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cambrian.agents.recorder.pictures.hypervolume import hypervolume
from cambrian.agents.recorder.pictures.leaderboard import leaderboard, markdown, page
from cambrian.agents.recorder.pictures.lineage import lineage
from cambrian.agents.recorder.pictures.pareto import pareto
from cambrian.agents.recorder.pictures.progress import progress
from cambrian.agents.recorder.pictures.scene import Scene
from cambrian.agents.recorder.pictures.style import our_style, save

PICTURES = {
    "pareto": pareto,
    "progress": progress,
    "hypervolume": hypervolume,
    "lineage": lineage,
    "leaderboard": leaderboard,
}
"""Drawing functions by the name of the file they fill."""


def draw_all(
    scene: Scene,
    folder: Path,
    *,
    kinds: tuple[str, ...] = ("png", "svg"),
    drawings: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
) -> list[Path]:
    """Draw everything into `folder`.

    Args:
        scene: the population.
        folder: made when missing; files of the same names are replaced.
        kinds: `png` and `svg`, or one of them.
        drawings: SVGs of architectures by candidate id, for the leaderboard's page.
        links: addresses of candidates by id, for the leaderboard in Markdown.

    Returns:
        The files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with our_style():
        for name, draw in PICTURES.items():
            paths += save(draw(scene), folder / name, kinds=kinds)
    for name, text in (
        ("leaderboard.md", markdown(scene, links=links)),
        ("leaderboard.html", page(scene, drawings or {})),
    ):
        path = folder / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


__all__ = [
    "PICTURES",
    "Scene",
    "draw_all",
    "hypervolume",
    "leaderboard",
    "lineage",
    "markdown",
    "our_style",
    "page",
    "pareto",
    "progress",
    "save",
]
