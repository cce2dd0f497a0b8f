"""Regret over evaluations: the median of each searcher, with the band between its quartiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cambrian.agents.benching.summary import Study
from cambrian.agents.errors import UserError

KINDS = (".png", ".svg")
_COLOURS = (
    "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b4fa3", "#8f98a3", "#1d2530",
    "#b5a500",
)  # fmt: skip


def check_plot(path: Path) -> None:
    """Refuse what no picture can be written to, before anything is searched.

    Raises:
        UserError: another ending, or no such folder.
    """
    if path.suffix.lower() not in KINDS:
        raise UserError(f"--plot: {path.name} ends neither in .png nor in .svg", hint="name it regret.svg")
    if not path.resolve().parent.is_dir():
        raise UserError(f"--plot: there is no folder {path.parent}", hint="make it first")


def plot_regret(study: Study, path: Path) -> None:
    """Draw `study` to a PNG or SVG file.

    Raises:
        UserError: see `check_plot`; or the file cannot be written.
    """
    from cambrian.agents.recorder.pictures import style

    check_plot(path)
    sign = 1.0 if study.maximize else -1.0
    with style.our_style():
        figure, axes = style.new_figure(9.4, 5.4)
        x = np.arange(1, study.evaluations + 1)
        least = np.inf
        for line, colour in zip(study.lines, _cycle(len(study.lines)), strict=True):
            reports = np.array([curve.report for curve in line.curves], dtype=np.float64)
            regrets = sign * (study.best_report - reports)
            known = ~np.isnan(regrets).any(axis=0)
            low, median, high = np.quantile(regrets[:, known], [0.25, 0.5, 0.75], axis=0)
            axes.plot(x[known], median, color=colour, label=line.name, linewidth=1.6)
            axes.fill_between(x[known], low, high, color=colour, alpha=0.13, linewidth=0)
            least = min(least, float(median[median > 0].min(initial=np.inf)))
        if np.isfinite(
            least
        ):  # distances shrink by orders of magnitude: a linear axis would show the first few
            axes.set_yscale("symlog", linthresh=least)
        axes.set_ylim(bottom=0)
        axes.set_xlim(1, study.evaluations)
        axes.set_xlabel("evaluations")
        axes.set_ylabel(f"regret of the incumbent in {study.report}")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        below = f"{study.table}: {study.members} members, {study.seeds} seeds; searched by {study.metric}"
        style.title(axes, "Regret over evaluations: median and quartiles", below)
        try:
            metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
            figure.savefig(path, dpi=144, metadata=metadata, bbox_inches="tight", pad_inches=0.15)
        except OSError as error:
            raise UserError(f"--plot: {path} cannot be written: {error.strerror or error}") from error


def _cycle(n: int) -> list[str]:
    return [_COLOURS[at % len(_COLOURS)] for at in range(n)]
