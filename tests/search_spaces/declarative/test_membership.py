"""What is a member: what is refused and in which words, what is filled in and folded."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from cambrian.search_spaces import ProposalError, UserError
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.membership import complaint, copy_of, fold, validate
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.sampling import sample
from tests.search_spaces.declarative.spaces import flat, stages, trees


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Definition:
    return stages(tmp_path_factory.mktemp("stages"))


def genotype(**stage: Any) -> dict[str, Any]:
    return {
        "stem": 8,
        "stages": [
            {"block": "conv", "width": 8, "activation": "relu"},
            {"block": "inverted", "width": 16, "expansion": 4, "activation": "silu", **stage},
        ],
        "head": {"dropout": 0.0, "wide": False},
    }


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("stages", 1, "width"), 33, "stages[1].width: 33 is not allowed; allowed: 4, 8, 16, 32"),
        (("stages", 1, "width"), "16", "stages[1].width: '16' is not allowed"),
        (("stages", 1, "depth"), True, "stages[1].depth: True is not allowed; allowed: 1, 2, 3"),
        (("stages", 1, "depth"), None, "stages[1].depth: None is not allowed"),
        (("stages", 1, "depth"), [3], "stages[1].depth: [3] is not allowed"),
        (("stages", 1, "depth"), float("nan"), "stages[1].depth: nan is not allowed"),
        (("stages", 1, "halve"), 1, "stages[1].halve: 1 is not allowed; allowed: False, True"),
        (("stages", 0, "block"), "dense", "'dense' is not allowed; allowed: conv, inverted"),
        (("stages", 0, "widht"), 8, "stages[0].widht: no such gene; did you mean width?"),
        (("stages", 1), 3, "stages[1]: must be an object, not 3"),
        (("stages",), "conv", "stages: must be a list, not 'conv'"),
        (("stages",), [], "stages: needs 1 to 3 items, not 0"),
        (("stages",), [3] * 9, "stages: needs 1 to 3 items, not 9"),
        (("head",), [1] * 100, "head: must be an object, not a list of 100"),
        (("head", "dropout"), 0.31, "head.dropout: 0.31 is not allowed; allowed: 0.0, 0.3"),
        (("heads",), {}, "heads: no such gene; did you mean head?"),
    ],
)
def test_the_message_names_gene_value_and_choice(
    space: Definition, path: tuple[Any, ...], value: object, message: str
) -> None:
    data = genotype()
    *way, last = path
    part: Any = data
    for step in way:
        part = part[step]
    part[last] = value
    with pytest.raises(ProposalError) as caught:
        validate(space, data)
    assert message in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("data", [None, 3, "text", [], True])
def test_only_objects_are_genotypes(space: Definition, data: object) -> None:
    with pytest.raises(ProposalError, match="object with stem, stages and head, not"):
        validate(space, data)


def test_missing_genes_are_named(space: Definition) -> None:
    with pytest.raises(ProposalError) as caught:
        validate(space, {"stages": [{"width": 8, "activation": "relu"}], "head": {}})
    assert caught.value.message == "stages[0].block: missing; head.wide: missing"


def test_five_mistakes_are_told_and_the_others_counted(space: Definition) -> None:
    wrong = {"block": 1, "width": 1, "depth": 9, "expansion": 9, "halve": 9, "activation": 9, "more": 9}
    with pytest.raises(ProposalError) as caught:
        validate(space, {"stages": [wrong], "head": {"wide": True}})
    assert caught.value.message.count("stages[0]") == 5
    assert caught.value.message.endswith("; and 2 more")


def test_values_are_matched_as_numbers_and_brought_to_their_type(space: Definition) -> None:
    found = validate(space, {**genotype(width=16.0), "head": {"dropout": 0, "wide": True}})
    assert type(found["stages"][1]["width"]) is int
    assert type(found["head"]["dropout"]) is float


def test_numbers_that_arithmetic_made_count_as_those_of_the_table(space: Definition) -> None:
    data = genotype()
    data["head"]["dropout"] = 0.1 + 0.2
    assert validate(space, data)["head"]["dropout"] == 0.3


def test_defaults_are_filled_in_and_keys_are_in_the_order_of_the_file(space: Definition) -> None:
    data = {
        "head": {"wide": True},
        "stages": [{"activation": "gelu", "width": 4, "block": "conv"}],
    }
    assert json.dumps(validate(space, data)) == json.dumps({
        "stem": 8,
        "stages": [
            {"block": "conv", "width": 4, "depth": 1, "expansion": 1, "halve": False, "activation": "gelu"}
        ],
        "head": {"dropout": 0.0, "wide": True},
    })  # fmt: skip


def test_inactive_genes_are_folded_and_may_be_missing(space: Definition) -> None:
    data = genotype(block="conv")
    assert validate(space, data)["stages"][1]["expansion"] == 1
    del data["stages"][1]["expansion"]
    assert validate(space, data)["stages"][1]["expansion"] == 1
    data["stages"][1]["block"] = "inverted"
    with pytest.raises(ProposalError, match=r"^stages\[1\].expansion: missing$"):
        validate(space, data)


def test_the_input_is_left_alone_and_shares_nothing(space: Definition) -> None:
    data = genotype(block="conv")
    before = copy.deepcopy(data)
    found = validate(space, data)
    assert data == before
    found["stages"][0]["width"] = found["head"]["wide"] = "spoiled"
    assert data == before


def test_broken_rules_are_told_with_their_place(space: Definition) -> None:
    with pytest.raises(ProposalError) as caught:
        validate(space, genotype(width=32, depth=3))
    assert caught.value.message == "stages[1]: stages of width 32 have at most 2 blocks"
    data = genotype(halve=True)
    data["stages"] = [{**data["stages"][1]} for _ in range(3)]
    with pytest.raises(ProposalError, match=r"^at most 2 stages may halve$"):
        validate(space, data)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("{params: 2k}", r"^\d+\.\dk parameters on a 3x12x10 input; at most 2k .*: reduce stages\[1\], the"),
        ("{macs: 100k}", r"k multiply-accumulates on a 3x12x10 input; at most 100k .*: reduce stages\[1\]"),
        ("{depth: 4}", r"^6 layers with weights on the longest path; at most 4 .*: reduce stages\[1\]"),
    ],
)  # fmt: skip
def test_what_exceeds_a_limit_is_told_with_the_heaviest_part(
    tmp_path: Path, limits: str, message: str
) -> None:
    with pytest.raises(ProposalError, match=message):
        validate(stages(tmp_path, limits=limits), genotype(depth=3))


def test_sizes_that_look_equal_in_short_are_told_in_full(tmp_path: Path, space: Definition) -> None:
    size = plan(space, validate(space, genotype(depth=3)), space.file.reference).params
    with pytest.raises(ProposalError, match=f"^{size:,} parameters .* at most {size - 1:,} are allowed"):
        validate(stages(tmp_path, limits=f"{{params: {size - 1}}}"), genotype(depth=3))


def test_typing_is_checked_at_every_signature(tmp_path: Path) -> None:
    conv, wide = {"kind": "conv", "width": 4}, {"kind": "conv", "width": 8}
    equal, other = ({"body": {"kind": "add", "left": conv, "right": right}} for right in (conv, wide))
    space = trees(tmp_path / "one")
    assert validate(space, equal)
    with pytest.raises(ProposalError, match="body"):
        validate(space, other)
    also = trees(tmp_path / "two", also_fits="[{input_shape: [7], n_outputs: 2}]")
    with pytest.raises(ProposalError, match="vector 7"):
        validate(also, equal)


def test_numbers_of_thousands_of_digits_are_refused_in_words(space: Definition) -> None:
    with pytest.raises(ProposalError, match="depth: a huge int is not allowed"):
        validate(space, genotype(depth=10**5000))


def test_options_need_a_known_kind(tmp_path: Path) -> None:
    space = trees(tmp_path)
    with pytest.raises(ProposalError, match=r"^body.kind: missing; one of conv, chain, add$"):
        validate(space, {"body": {"width": 4}})
    with pytest.raises(ProposalError, match=r"^body.kind: 'cone' is not allowed; allowed: conv, chain, add$"):
        validate(space, {"body": {"kind": "cone", "width": 4}})
    with pytest.raises(ProposalError, match=r"^body.left: no such gene of conv; known: width$"):
        validate(space, {"body": {"kind": "conv", "width": 4, "left": 1}})
    found = validate(space, {"body": {"width": 4, "kind": "conv"}})
    assert list(found["body"]) == ["kind", "width"]


def test_rules_nest_no_deeper_than_the_file_says(tmp_path: Path) -> None:
    space = trees(tmp_path, depth=4)
    body: dict[str, Any] = {"kind": "conv", "width": 4}
    for _ in range(2):
        body = {"kind": "chain", "first": body, "second": {"kind": "conv", "width": 4}}
    assert validate(space, {"body": body})
    deeper = {"kind": "chain", "first": body, "second": body}
    with pytest.raises(ProposalError, match=r"body.first.first.first: .*too deep; at most 4 rules"):
        validate(space, {"body": deeper})


def test_data_nested_by_the_thousand_are_refused_in_words(tmp_path: Path) -> None:
    body: Any = {"kind": "conv", "width": 4}
    lists: Any = []
    for _ in range(5000):
        body = {"kind": "chain", "first": body, "second": body}
        lists = [lists]
    space = trees(tmp_path)
    for data in ({"body": body}, {"body": lists}):
        with pytest.raises(ProposalError) as caught:
            validate(space, data)
        assert len(caught.value.message) < 1000


def test_conditions_are_decided_in_the_order_of_need(tmp_path: Path) -> None:
    """`a` stands before what decides over it; folding twice changes nothing."""
    space = flat(
        tmp_path,
        """
        a: {choice: [0, 1, 2], when: b == 1, otherwise: 0}
        b: {choice: [0, 1], when: c, otherwise: 0}
        c: {boolean: true}
        d: {choice: [x, y, z], when: d != 'z' or c, otherwise: y}
        """,
    )
    assert validate(space, {"a": 2, "b": 1, "c": False, "d": "z"}) == {"a": 0, "b": 0, "c": False, "d": "y"}
    assert validate(space, {"c": True, "b": 1, "a": 2, "d": "z"}) == {"a": 2, "b": 1, "c": True, "d": "z"}
    assert validate(space, {"c": False, "d": "x"}) == {"a": 0, "b": 0, "c": False, "d": "x"}


def test_conditions_may_look_outwards(tmp_path: Path) -> None:
    space = flat(
        tmp_path,
        """
        parts: {repeat: {fields: {inner: {choice: [1, 2], when: mode == 'on', otherwise: 1}}}, min: 2, max: 2}
        mode: [on_, 'on']
        """,
    )
    parts = [{"inner": 2}, {"inner": 2}]
    assert validate(space, {"mode": "on", "parts": parts})["parts"] == parts
    assert validate(space, {"mode": "on_", "parts": parts})["parts"] == [{"inner": 1}] * 2


def test_conditions_in_a_circle_are_refused(tmp_path: Path) -> None:
    fields = """
        a: {choice: [0, 1], when: b == 1, otherwise: 0}
        b: {choice: [0, 1], when: a == 1, otherwise: 0}
        """
    with pytest.raises(UserError, match="conditions of a and b depend on each other"):
        flat(tmp_path, fields)


def test_members_are_their_own_canonical_form(space: Definition) -> None:
    rng = random.Random(0)
    for _ in range(200):
        member = sample(space, rng)
        assert validate(space, json.loads(json.dumps(member))) == member
        assert fold(space, copy_of(member)) == member
        assert complaint(space, member) is None
