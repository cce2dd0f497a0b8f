from __future__ import annotations

import random
import re
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from cambrian.agents.population.model import Candidate
from cambrian.agents.recorder.pictures import PICTURES, Scene, draw_all, markdown, our_style, page, save
from cambrian.agents.recorder.pictures.forest import lay_out
from cambrian.agents.recorder.pictures.leaderboard import rows
from cambrian.agents.recorder.pictures.lineage import MAX_DRAWN, choose
from cambrian.agents.recorder.pictures.style import ScoreScale, arm_colour, arm_marker
from cambrian.search_spaces import Space
from tests.agents.recorder.making import made, measured, population, run_record


def scene(candidates: list[Candidate], **changes: object) -> Scene:
    return Scene(run_record(**changes), tuple(candidates))


@pytest.mark.parametrize("n", [0, 1, 5, 60])
def test_every_picture_is_well_formed(space: Space, tmp_path: Path, n: int) -> None:
    paths = draw_all(scene(population(space, n)), tmp_path / "new")
    assert {path.name for path in paths} == {
        *(f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")),
        "leaderboard.md",
        "leaderboard.html",
    }
    for path in paths:
        if path.suffix == ".png":
            data = path.read_bytes()
            width, height = struct.unpack(">II", data[16:24])
            assert data.startswith(b"\x89PNG\r\n") and 800 <= width <= 2600 and 250 <= height <= 2600
        elif path.suffix == ".svg":
            root = ET.parse(path).getroot()
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert not re.search(r'href="(?!#|data:image/png)', path.read_text())


def test_equal_populations_give_equal_files(space: Space, tmp_path: Path) -> None:
    with our_style():
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            for name, draw in PICTURES.items():
                save(draw(scene(population(space, 9))), tmp_path / folder / name, kinds=["svg"])
    for name in PICTURES:
        first, second = ((tmp_path / folder / f"{name}.svg").read_bytes() for folder in ("a", "b"))
        assert first == second, name


def test_a_metric_that_is_minimised_has_its_best_at_the_top(space: Space) -> None:
    candidates = [made(space, n, score=0.5 + 0.1 * n) for n in range(5)]
    shown = scene(candidates, metric="loss", maximize=False)
    assert shown.best is not None and shown.best.id == "c-0001"
    with our_style():
        for name in ("pareto", "progress"):
            axes = PICTURES[name](shown).axes[0]
            low, high = axes.get_ylim()
            assert low < high
            ticks = sorted(zip(axes.get_yticks(), axes.get_yticklabels(), strict=True), key=lambda t: t[0])
            labels = [float(label.get_text()) for _, label in ticks]
            assert labels == sorted(labels, reverse=True) and len(labels) > 3


def test_a_large_population_is_drawn_in_part(space: Space) -> None:
    many = population(space, 620)
    shown = scene(many)
    drawn = choose(shown)
    assert len(shown.scored) > MAX_DRAWN >= len(drawn) > MAX_DRAWN - 40
    ids = {candidate.id for candidate in drawn}
    assert shown.best is not None and shown.ancestry(shown.best) <= ids
    with our_style():
        figure = PICTURES["lineage"](shown)
    assert f"the best {len(drawn)} of {len(shown.scored)}" in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize("n", [3, 12, 60, 400])
def test_the_tree_is_layered_and_nothing_overlaps(space: Space, n: int) -> None:
    shown = scene(population(space, n, seed=n))
    layout = lay_out(shown, shown.scored, gap=2.5)
    assert {*layout.places} | {*layout.single} == {candidate.id for candidate in shown.scored}
    kin = {c.id for c in shown.scored if layout.parents[c.id]} | {
        p for ps in layout.parents.values() for p in ps
    }
    assert {*layout.places} == kin and not kin & {*layout.single}
    places = [*layout.places.values()]
    assert len({*places}) == len(places)
    assert all(-0.01 <= y < layout.rows + 0.01 for _, y in places)
    for child, parents in layout.parents.items():
        for parent in parents:
            assert layout.places[parent][0] < layout.places[child][0]
    by_column: dict[float, list[float]] = {}
    for x, y in places:
        by_column.setdefault(x, []).append(y)
    gaps = [b - a for ys in by_column.values() for a, b in zip(sorted(ys), sorted(ys)[1:], strict=False)]
    assert min(gaps, default=1.0) >= 0.999
    assert len({layout.places[cid][1] for cid in layout.spine}) <= 1
    if n >= 60:
        assert shown.best is not None and layout.spine[-1] == shown.best.id and len(layout.spine) > 2


def test_the_front_holds_whatever_nothing_feasible_dominates(space: Space) -> None:
    shown = scene(population(space, 80))
    front = {candidate.id for candidate in shown.front}
    feasible = [c for c in shown.scored if c.feasible]
    for candidate in feasible:
        dominated = any(
            (other.score or 0) >= (candidate.score or 0)
            and (other.cost or 0) <= (candidate.cost or 0)
            and (other.score, other.cost) != (candidate.score, candidate.cost)
            for other in feasible
        )
        assert (candidate.id in front) is not dominated
    assert not front & {c.id for c in shown.scored if not c.feasible}


def test_the_best_so_far_only_rises(space: Space) -> None:
    shown = scene(population(space, 80))
    steps = shown.best_so_far(shown.scored)
    scores = [candidate.score or 0 for _, candidate in steps]
    assert scores == sorted(scores) and scores[-1] == (shown.best.score if shown.best else None)
    assert [place for place, _ in steps] == sorted({place for place, _ in steps})


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
@pytest.mark.parametrize("maximize", [True, False])
def test_a_scale_keeps_the_order_of_scores(metric: str, maximize: bool) -> None:
    rng = random.Random(0)
    scores = [rng.random() for _ in range(50)] + [0.95, 0.99, 0.999, 1.0]
    scale = ScoreScale(scores, metric, maximize)
    placed = sorted(scores, key=scale.place)
    assert placed == sorted(scores, reverse=not maximize)
    for score in (0.2, 0.5, 0.93):
        assert scale.score(scale.place(score)) == pytest.approx(score)
    ticks = scale.ticks()
    assert 3 <= len(ticks) <= 13 and len({scale.text(tick) for tick in ticks}) == len(ticks)
    assert scale.share(max(scores, key=scale.place)) == 1.0


def test_a_few_that_learned_nothing_do_not_flatten_the_rest() -> None:
    scores = [0.60 + 0.002 * n for n in range(40)] + [0.1, 0.1]
    scale = ScoreScale(scores, "accuracy", True)
    assert scale.cut and not scale.shows(0.1) and scale.shows(0.60)
    assert not ScoreScale(scores[:40], "accuracy", True).cut


@pytest.mark.parametrize("scores", [[0.5], [1.0, 1.0], [0.0] * 9, [0.981, 0.982, 0.9821]])
def test_a_scale_of_nearly_equal_scores_has_extent(scores: list[float]) -> None:
    scale = ScoreScale(scores, "accuracy", True)
    assert 0 <= scale.share(scores[0]) <= 1
    assert all(0 <= tick <= 1.01 for tick in scale.ticks())


def test_arms_differ_in_colour_and_shape() -> None:
    arms = ["random", "baseline", "mutation", "llm", "crossover", "predictor"]
    assert len({arm_colour(arm) for arm in arms}) == len({arm_marker(arm) for arm in arms}) == len(arms)
    assert arm_colour("someones-own") == arm_colour("someones-own")


def test_the_leaderboard_compares_with_control_and_baselines(space: Space) -> None:
    shown = scene(population(space, 60))
    table = rows(shown, 5)
    assert [row.rank for row in table[:5]] == ["1", "2", "3", "4", "5"]
    assert {row.candidate.proposal.arm for row in table[5:]} == {"random", "baseline"}
    text = markdown(shown, 5, links={table[0].candidate.id: "#/somewhere"})
    assert f"[{table[0].candidate.id}](#/somewhere)" in text and "two-layer-cnn" in text
    assert len(text.splitlines()) == 2 + len(table) + 2


def test_the_leaderboards_page_loads_and_runs_nothing(space: Space) -> None:
    evil = made(space, 0, score=0.9, summary="<script>alert(1)</script>")
    html = page(scene([evil]), {"c-0001": "<svg xmlns='http://www.w3.org/2000/svg'/>"})
    assert "<script" not in html and "&lt;script&gt;" in html
    assert re.findall(r'src="([^"]{0,26})', html) == ["data:image/svg+xml;base64,"]
    assert "http" not in html


def test_the_leaderboard_shows_what_champions_reached_with_fresh_seeds(space: Space) -> None:
    first, second = made(space, 0, score=0.98), made(space, 1, score=0.97)
    again = [
        measured(c.model_copy(update={"score": score, "test_score": score - 0.01}), seed=seed)
        for c, scores in ((first, (0.92, 0.93)), (second, (0.95, 0.96)))
        for seed, score in enumerate(scores, start=1)
    ]
    evaluations = (measured(first), measured(second), *again)
    shown = Scene(run_record(), (first, second), evaluations, champions=frozenset({"c-0001", "c-0002"}))
    table = rows(shown)
    assert [row.candidate.id for row in table] == ["c-0002", "c-0001"]
    assert table[0].score == pytest.approx(0.955) and table[0].test_score == pytest.approx(0.945)
    half = shown.standings["c-0002"].half_width
    assert half is not None
    text = markdown(shown)
    assert f"**95.50 ± {100 * half:.2f} % (2)** | 94.50 %" in text
    assert "± 95 % of a mean over (n) fresh seeds" in text and "○" not in text
    with our_style():
        drawn = {item.get_text() for item in PICTURES["leaderboard"](shown).axes[0].texts}
    assert any("○ the score that got it chosen" in item for item in drawn)


def test_hypervolume_is_drawn_for_the_run_and_for_random_alone(space: Space) -> None:
    many = population(space, 40)
    shown = Scene(run_record(), tuple(many), tuple(measured(c) for c in many if c.score is not None))
    with our_style():
        axes = PICTURES["hypervolume"](shown).axes[0]
    whole, alone = (shown.hypervolume, shown.hypervolume_of("random"))
    assert whole is not None and alone is not None and whole.share is not None and alone.share is not None
    ends = {line.get_label(): float(line.get_ydata()[-1]) for line in axes.get_lines()}
    assert ends == {
        "the whole run": pytest.approx(whole.share),
        "random alone": pytest.approx(alone.share),
    }
    assert alone.share < whole.share and alone.reference == whole.reference
