"""Where candidates stand in the lineage tree: the champion's line straight, branches packed around it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cambrian.agents.population.model import Candidate
from cambrian.agents.recorder.pictures.scene import Scene


@dataclass(frozen=True)
class Layout:
    """Places in the lineage tree; `x` counts generations, `y` rows from the top.

    Attributes:
        places: by candidate id, of those with kin.
        parents: parents that are drawn; the first is the one whose branch the child stands on.
        spine: the champion's line, oldest first.
        single: ids of those without parents or children, which belong to no generation, in order of entry.
        rows: how many rows there are.
        generations: how many generations there are.
    """

    places: Mapping[str, tuple[float, float]]
    parents: Mapping[str, tuple[str, ...]]
    spine: tuple[str, ...]
    single: tuple[str, ...]
    rows: float
    generations: int


@dataclass
class _Branch:
    """A subtree placed with its root at row 0; `edges` are its least and greatest row by generation."""

    rows: dict[str, float]
    edges: dict[int, tuple[float, float]]

    def moved(self, by: float) -> _Branch:
        return _Branch(
            {cid: row + by for cid, row in self.rows.items()},
            {g: (low + by, high + by) for g, (low, high) in self.edges.items()},
        )

    def take(self, other: _Branch) -> None:
        self.rows |= other.rows
        for g, (low, high) in other.edges.items():
            mine = self.edges.get(g, (low, high))
            self.edges[g] = (min(mine[0], low), max(mine[1], high))

    def room_below(self, other: _Branch) -> float:
        """How far `other` must be moved down to stand clear beneath this."""
        both = self.edges.keys() & other.edges.keys()
        return max((self.edges[g][1] + 1.0 - other.edges[g][0] for g in both), default=-math.inf)

    def room_above(self, other: _Branch) -> float:
        """How far `other` must be moved (a negative number) to stand clear above this."""
        both = self.edges.keys() & other.edges.keys()
        return min((self.edges[g][0] - 1.0 - other.edges[g][1] for g in both), default=math.inf)


def lay_out(scene: Scene, drawn: Sequence[Candidate], *, gap: float = 2.0) -> Layout:
    """Place `drawn`.

    Args:
        scene: tells the champion and who is the better parent.
        drawn: the candidates to be placed.
        gap: rows kept free above the champion's line, for labels.
    """
    by_id = {c.id: c for c in sorted(drawn, key=lambda c: c.index)}
    parents = {
        cid: tuple(
            sorted(
                {p for p in c.proposal.parents if p in by_id and p != cid},
                key=lambda p: (-scene.worth(by_id[p]), by_id[p].index),
            )
        )
        for cid, c in by_id.items()
    }
    # Parents entered earlier than their children: one pass in order of entry knows every generation.
    generation: dict[str, int] = {}
    children: dict[str, list[str]] = {cid: [] for cid in by_id}
    joined: set[str] = set()
    for cid, above in parents.items():
        generation[cid] = 1 + max((generation.get(p, 0) for p in above), default=-1)
        if above:
            children[above[0]].append(cid)
            joined.update((cid, *above))
    spine = _spine(scene, by_id, parents) if scene.best is not None and scene.best.id in joined else ()
    forest = _Branch({}, {})
    if spine:
        forest = _around_spine(
            spine, _branches(by_id, children, generation, spine), children, generation, gap
        )
    whole = _branches(by_id, children, generation, ())
    roots = [cid for cid in by_id if not parents[cid] and cid in joined and cid not in forest.rows]
    for root in sorted(roots, key=lambda cid: (-len(whole[cid].rows), by_id[cid].index)):
        branch = whole[root]
        floor = max((high for _, high in forest.edges.values()), default=0.0)
        room = forest.room_below(branch)
        forest.take(branch.moved(room if math.isfinite(room) else floor - branch.edges[0][0]))
    top = min(forest.rows.values(), default=0.0)
    places = {cid: (float(generation[cid]), row - top) for cid, row in forest.rows.items()}
    rows = max((y for _, y in places.values()), default=-1.0) + 1.0
    generations = 1 + max(generation.values(), default=0)
    single = tuple(cid for cid in by_id if cid not in joined)
    return Layout(places, parents, spine, single, rows, generations)


def _spine(
    scene: Scene, by_id: Mapping[str, Candidate], parents: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """The champion's line along the better parent of each, oldest first."""
    assert scene.best is not None
    line = [scene.best.id]
    while above := parents[line[-1]]:
        line.append(above[0])
    return tuple(reversed(line))


def _branches(
    by_id: Mapping[str, Candidate],
    children: Mapping[str, Sequence[str]],
    generation: Mapping[str, int],
    spine: Sequence[str],
) -> dict[str, _Branch]:
    """The subtree of every candidate outside the spine; a parent stands amid its children."""
    on_spine = set(spine)
    found: dict[str, _Branch] = {}
    for cid in reversed(list(by_id)):  # children entered later: they are ready before their parents
        if cid in on_spine:
            continue
        together = _Branch({}, {})
        for child in children[cid]:
            room = together.room_below(found[child])
            together.take(found[child].moved(room if math.isfinite(room) else 0.0))
        rows = [together.rows[child] for child in children[cid]]
        middle = (min(rows) + max(rows)) / 2 if rows else 0.0
        branch = together.moved(-middle)
        branch.take(_Branch({cid: 0.0}, {generation[cid]: (0.0, 0.0)}))
        found[cid] = branch
    return found


def _around_spine(
    spine: Sequence[str],
    branches: Mapping[str, _Branch],
    children: Mapping[str, Sequence[str]],
    generation: Mapping[str, int],
    gap: float,
) -> _Branch:
    """The branches of the champion's line above and below it, the youngest nearest: so none cross."""
    forest = _Branch(
        {cid: 0.0 for cid in spine},
        {g: (1.0 - gap, 0.0) for g in range(max(generation.values()) + 1)},
    )
    for cid in reversed(spine):
        for child in children[cid]:
            if child in forest.rows or child not in branches:
                continue
            branch = branches[child]
            down, up = forest.room_below(branch), forest.room_above(branch)
            forest.take(branch.moved(down if down <= -up else up))
    return forest
