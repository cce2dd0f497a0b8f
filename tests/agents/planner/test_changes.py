"""Answers as changes of a parent: what can be changed, and what comes of it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from cambrian.agents.checking import with_genes
from cambrian.agents.errors import ProposalError
from cambrian.agents.planner.changes import REMOVE, REPEAT, Change, Gene, changed, changes_schema, genes
from cambrian.search_spaces import SPACES, TASKS, Genotype, Space
from cambrian.search_spaces.recipe_genes import ABOUT
from tests.agents.planner.world import TinySpace, config, convnet


def spaces() -> list[Space]:
    """Those with genes, the last with a recipe's beside its own."""
    found = [SPACES.create(name) for name in SPACES.names()]
    found = [space for space in found if space.kind == "declarative"]
    settings = config(space="convnet", task={"name": "digits"}, recipe_genes=list(ABOUT))
    return [*found, TinySpace(), with_genes(convnet(), settings, TASKS.create("digits"), "test")]


SPACES_WITH_GENES = pytest.mark.parametrize(
    "space", spaces(), ids=lambda space: f"{type(space).__name__}-{space.name}"
)


def place(genotype: Any, path: str) -> Any:
    """What stands at `path`."""
    for step in path.replace("[", ".").replace("]", "").split("."):
        genotype = genotype[int(step) if isinstance(genotype, list) else step]
    return genotype


def draw(schema: Mapping[str, Any], space: Space, rng: random.Random, depth: int = 0) -> Any:
    """Any value of a schema."""
    if "$ref" in schema:
        definitions = space.schema()["$defs"]
        return draw(definitions[schema["$ref"].removeprefix("#/$defs/")], space, rng, depth + 1)
    if "anyOf" in schema:
        cases = schema["anyOf"]
        return draw(rng.choice(cases[:3] if depth > 3 else cases), space, rng, depth + 1)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if schema["type"] == "object":
        return {name: draw(below, space, rng, depth + 1) for name, below in schema["properties"].items()}
    return [draw(schema["items"], space, rng, depth + 1) for _ in range(schema.get("minItems", 0))]


@SPACES_WITH_GENES
def test_each_single_value_can_become_each_other_one(space: Space) -> None:
    """A change gives exactly what is written, or says why the result is no member."""
    rng = random.Random(1)
    made = 0
    for _ in range(5):
        parent = space.sample(rng)
        for gene in genes(space, parent):
            assert place(parent, gene.path) == gene.now
            if isinstance(gene.now, dict | list):
                continue
            values = gene.values
            assert values and gene.now not in [v for v in values if type(v) is type(gene.now)]
            for value in values:
                try:
                    child = changed(space, parent, [Change(gene=gene.path, to=value)])
                except ProposalError as error:
                    assert len(str(error)) > 10
                    continue
                made += 1
                assert child == space.validate(child) != parent
    assert made >= 20


@SPACES_WITH_GENES
def test_whatever_the_schema_allows_is_a_member_or_a_complaint(space: Space) -> None:
    rng = random.Random(2)
    members = 0
    for _ in range(40):
        parent = space.sample(rng)
        before = repr(parent)
        found = genes(space, parent)
        schema = changes_schema(found)["items"]
        cases = schema.get("anyOf", [schema])
        wanted = []
        for case in rng.choices(cases, k=rng.randint(1, 3)):
            properties = case["properties"]
            gene = rng.choice(properties["gene"]["enum"])
            wanted.append(Change(gene=gene, to=draw(properties["to"], space, rng)))
        try:
            child = changed(space, parent, wanted)
        except ProposalError:
            pass
        else:
            members += 1
            assert space.validate(child) == child != parent
        assert repr(parent) == before, "the parent stays as it is"
    assert members >= 10


def test_every_gene_of_the_cell_is_listed_with_its_other_operations() -> None:
    space = SPACES.create("cell")
    parent = next(iter(space.baselines().values()))
    found = genes(space, parent)
    assert [gene.path for gene in found] == ["e01", "e02", "e12", "e03", "e13", "e23"]
    assert all(len(gene.values or ()) == 4 and gene.now not in (gene.values or ()) for gene in found)


def stages(parent: Genotype) -> list[Any]:
    return list(parent["stages"])


def test_entries_of_lists_are_removed_and_repeated_by_their_place_in_the_parent() -> None:
    space = convnet()
    rng = random.Random(0)
    drawn = (space.sample(rng) for _ in range(1000))
    parent = next(p for p in drawn if len(p["stages"]) == 3 and p["stages"][1]["downsample"] == "none")
    first, second, third = stages(parent)
    removed = changed(space, parent, [Change(gene="stages[0]", to=REMOVE)])
    assert stages(removed) == [second, third]
    both = [Change(gene="stages[0]", to=REMOVE), Change(gene="stages[2]", to=REMOVE)]
    assert stages(changed(space, parent, both)) == [second] == stages(changed(space, parent, both[::-1]))
    width = next(gene for gene in genes(space, parent) if gene.path == "stages[1].width").values
    assert width is not None
    wider = [Change(gene="stages[0]", to=REMOVE), Change(gene="stages[1].width", to=width[0])]
    assert stages(changed(space, parent, wider)) == [second | {"width": width[0]}, third]
    repeated = changed(space, parent, [Change(gene="stages[1]", to=REPEAT)])
    assert stages(repeated) == [first, second, second, third]
    with pytest.raises(ProposalError, match=r"stages\[0\].width is a part of stages\[0\]"):
        changed(space, parent, [Change(gene="stages[0]", to=REMOVE), Change(gene="stages[0].width", to=8)])


def test_a_list_is_not_made_shorter_or_longer_than_it_may_be() -> None:
    class Listed(TinySpace):
        def schema(self) -> dict[str, Any]:
            item = {"type": "integer", "enum": [1, 2]}
            layers = {"type": "array", "items": item, "minItems": 1, "maxItems": 2}
            return {"type": "object", "properties": {"layers": layers}, "required": ["layers"]}

    def verbs(n: int) -> list[Any]:
        return next(
            g.values or [] for g in genes(Listed(), {"layers": [1] * n}) if isinstance(g.values, list)
        )

    assert verbs(1) == [REPEAT] and verbs(2) == [REMOVE]


def test_of_several_changes_of_one_gene_the_last_counts() -> None:
    made = changed(
        TinySpace(),
        {"width": 8, "depth": 1},
        [Change(gene="width", to=16), Change(gene="depth", to=2), Change(gene="width", to=32)],
    )
    assert made == {"width": 32, "depth": 2}


def test_what_cannot_be_changed_is_told_by_name() -> None:
    parent = {"width": 8, "depth": 1}
    with pytest.raises(ProposalError, match="no gene 'widht' to change; near are width"):
        changed(TinySpace(), parent, [Change(gene="widht", to=16)])
    with pytest.raises(ProposalError, match="stays what it is"):
        changed(TinySpace(), parent, [Change(gene="width", to=8)])
    with pytest.raises(ProposalError, match="width: 9 is not allowed"):
        changed(TinySpace(), parent, [Change(gene="width", to=9)])
    with pytest.raises(ProposalError, match="stays what it is"):
        changed(TinySpace(), parent, [])


def test_truth_values_are_not_taken_for_numbers() -> None:
    schema = {"type": "boolean", "enum": [False, True]}

    class Flag(TinySpace):
        def schema(self) -> dict[str, Any]:
            number = {"type": "integer", "enum": [0, 1, 2]}
            return {"type": "object", "properties": {"flag": schema, "number": number}}

    found = {gene.path: gene.values for gene in genes(Flag(), {"flag": True, "number": 1})}
    assert found == {"flag": [False], "number": [0, 2]} and found["flag"][0] is False  # type: ignore[index]


def test_genes_that_may_become_the_same_share_a_case() -> None:
    same = {"type": "string", "enum": ["a", "b"]}
    listed = [Gene("x", "c", same), Gene("y", "c", same), Gene("z", "a", {"type": "string", "enum": ["b"]})]
    cases = changes_schema(listed)["items"]["anyOf"]
    assert [case["properties"]["gene"]["enum"] for case in cases] == [["x", "y"], ["z"]]
