"""Space files that are wrong: each is told by file and place, with what would be right."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cambrian.search_spaces import declarative
from cambrian.search_spaces.declarative.grammar import NOTHING, Options, Record, Repeat, Scalar
from cambrian.search_spaces.declarative.loading import SpaceFileError, load
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.space import DeclarativeSpace
from tests.search_spaces.declarative.folder import write_layout, write_space

FINE = """
network:
  fields:
    width: {log_integer: [8, 64], per_octave: 2, multiple_of: 4}
    rate: {number: [0, 0.5], step: 0.1}
    decay: {log_number: [0.001, 0.1], per_decade: 2}
    deep: {boolean: true, default: false}
    stages: {repeat: stage, min: 0, max: 2, weights: [1, 2, 1]}
    tree: tree
  require:
    - {rule: width > 8 or deep, else: narrow networks must be deep}
  build:
    - ConvNorm: {out: =width}
    - stages
    - tree
    - GlobalPool
    - Linear: {out: =n_outputs}
stage:
  fields: {kernel: [1, 3], skip: {boolean: true, when: kernel == 3, otherwise: true}}
  build:
    - residual: [{ConvNorm: {out: =input.channels, kernel: =kernel}}]
tree:
  options:
    leaf: {weight: 3, build: [Identity]}
    twice: {fields: {first: tree, second: tree}, build: [first, second]}
"""


def test_what_is_compiled(tmp_path: Path) -> None:
    definition = load(write_space(tmp_path, FINE, max_depth=5))
    start = definition.grammar.start
    assert isinstance(start, Record)
    tables = {f.name: f.domain.values for f in start.fields if isinstance(f.domain, Scalar)}
    assert tables["width"] == (8, 12, 16, 24, 32, 44, 64)
    assert tables["rate"] == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert tables["decay"] == (0.001, 0.0032, 0.01, 0.032, 0.1)
    assert tables["deep"] == (False, True)
    stages, tree = start.by_name["stages"].domain, start.by_name["tree"].domain
    assert isinstance(stages, Repeat) and stages.cumulative == (1, 3, 4)
    assert isinstance(tree, Options) and tree.cumulative == (3, 4)
    assert (tree.height, tree.cases["leaf"].height, tree.cases["twice"].height) == (1, 0, 1)
    assert definition.grammar.recursive == {"tree"}
    assert definition.grammar.max_depth == 5


def test_the_manuals_example_is_a_space(tmp_path: Path) -> None:
    manual = Path(declarative.__file__).parents[1] / "LANGUAGE.md"
    example = manual.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "space.yaml").write_text(example, encoding="utf-8")
    space, rng = DeclarativeSpace(tmp_path), random.Random(0)
    for _ in range(50):
        genotype = space.sample(rng)
        for signature in space.definition.signatures:
            assert plan(space.definition, genotype, signature).params < 3_000_000


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SpaceFileError, match=r"holds no space\.yaml"):
        load(tmp_path / "nowhere")


WRONG = {
    "a key twice": ("kernel: [1, 3]", "kernel: [1, 3], kernel: [1]", "'kernel' stands here twice"),
    "no YAML": ("stages: {repeat", "stages: {{repeat", "is not YAML at line"),
    "a tab": ("  fields:\n    width", "  fields:\n\twidth", "indent with spaces"),
    "no quotes": ("else: narrow networks", "else: narrow: networks", "quote text that holds ': '"),
    "a mapping as key": ("{boolean: true, default: false}", "{{boolean: true}: 1}", "a key is no plain word"),
    "a long list": ("max: 2, weights: [1, 2, 1]", "max: 65", "stages.max: a list has at most 64 items"),
    "unknown key of a rule": ("  require:", "  requires:", "rules.network.requires: unknown key"),
    "unknown key of a choice": ("step: 0.1", "stepp: 0.1", "did you mean step"),
    "two kinds": ("{boolean: true, default", "{boolean: true, integer: [1, 2], default", "exactly one of"),
    "no kind": ("{boolean: true, default: false}", "{about: nothing}", "exactly one of"),
    "misplaced key": ("{boolean: true, def", "{boolean: true, step: 1, def", "step belongs to integer"),
    "when alone": (", otherwise: true", "", "when and otherwise need each other"),
    "unknown rule": ("tree: tree\n", "tree: tre\n", "did you mean tree"),
    "empty range": ("[8, 64]", "[64, 8]", "[64, 8] is empty"),
    "weights": ("weights: [1, 2, 1]", "weights: [1, 2]", "2 weights for 3 values"),
    "bad default": ("default: false", "default: 3", "3 is none of its values"),
    "bad otherwise": ("otherwise: true", "otherwise: maybe", "'maybe' is none of its values"),
    "unknown name in when": ("when: kernel == 3", "when: kernal == 3", "did you mean kernel"),
    "unknown name in a rule": ("rule: width > 8", "rule: widht > 8", "did you mean width"),
    "no expression": ("rule: width > 8", "rule: width >", "is not an expression"),
    "unknown block": ("ConvNorm: {out: =width}", "ConvNrm: {out: =width}", "did you mean ConvNorm"),
    "unknown argument": ("ConvNorm: {out: =width}", "ConvNorm: {out: 4, kernl: 3}", "did you mean kernel"),
    "missing argument": ("ConvNorm: {out: =width}", "ConvNorm: {kernel: 3}", "needs the argument out"),
    "bad argument": ("- GlobalPool", "- GlobalPool: {kind: mean}", "allowed: avg"),
    "a forgotten sign": (
        "{out: =width}", "{out: width}", "ConvNorm.out must be int, not 'width' (did you mean =width?",
    ),
    "a forgotten sign before a sum": ("{out: =width}", "{out: 2 * width}", "did you mean =2 * width?"),
    "a word for a number": ("{out: =width}", "{out: wide}", "must be int, not 'wide'"),
    "a forgotten sign of a word": ("- GlobalPool", "- GlobalPool: {kind: deep}", "did you mean =deep?"),
    "unknown name in a layout": ("{out: =width}", "{out: =witdh}", "did you mean width"),
    "unknown field": ("- stages\n", "- stage\n", "did you mean stages"),
    "an outer field": ("- residual: [", "- tree\n    - residual: [", "tree is a field of an outer record"),
    "a field of a field": ("- tree\n", "- tree.first\n", "only a record's own fields can be placed"),
    "a field that builds nothing": ("- stages\n", "- width\n", "the field width builds nothing"),
    "unknown part": ("- residual: [", "- residul: [", "did you mean residual"),
    "wrong neighbour": ("=kernel}}]", "=kernel}}]\n      merge: sum", "does not go with residual"),
    "no end": ("{weight: 3, build: [Identity]}", "{fields: {next: tree}, build: [next]}", "no finite"),
    "no way there": ("    tree: tree\n", "", "no rule leads there"),
    "nothing built": (
        "  build:\n    - residual: [{ConvNorm: {out: =input.channels, kernel: =kernel}}]\n", "",
        "the field stages builds nothing",
    ),
    "unknown name in a label": ("  require:", "  label: \"{widht}\"\n  require:", "did you mean width"),
    "conditions in a circle": (
        "fields: {kernel: [1, 3],",
        "fields: {kernel: {choice: [1, 3], when: skip, otherwise: 1},",
        "conditions of kernel and skip depend on each other",
    ),
    "a condition on a shared choice": (
        "network:\n  fields:", "network:\n  fields:", "a shared choice has no conditions",
    ),
    "broken label": ("  require:", "  label: \"{width +}\"\n  require:", "rules.network.label: "),
    "reserved name": ("rate: {number", "n_outputs: {number", "has a meaning of its own"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_told(tmp_path: Path, name: str) -> None:
    old, new, words = WRONG[name]
    text = FINE
    if name == "no way there":
        text = text.replace("    - tree\n", "", 1)
    assert old in text
    genes = "{size: {choice: [1, 2], when: size > 1, otherwise: 1}}" if "shared" in name else "{}"
    with pytest.raises(SpaceFileError) as caught:
        load(write_space(tmp_path, text.replace(old, new, 1), genes=genes))
    assert words in str(caught.value)
    assert "space.yaml" in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("sampling", "uniformly", "sampling: weights or uniform (given 'uniformly')"),
        ("limits", "{params: lots}", "limits.params: a number such as 300k or 3M (given 'lots')"),
        ("limits", "{macs: 3.4.5M}", "limits.macs: a number such as 300k or 3M (given '3.4.5M')"),
        ("limits", "{params: 0}", "limits.params: input should be greater than or equal to 1"),
        ("baselines", "{Odd: {genotype: {}}}", "use lower-case letters"),
        ("about", "small: fast", "is not YAML at line"),
    ],
)
def test_values_of_the_top_level_are_told(tmp_path: Path, key: str, value: str, words: str) -> None:
    with pytest.raises(SpaceFileError) as caught:
        load(write_space(tmp_path, FINE, **{key: value}))
    assert words in str(caught.value)


def test_a_shared_choice_brings_its_default(tmp_path: Path) -> None:
    rules = """
    network:
      fields: {first: size, second: {use: size, default: 2}, third: [1, 2]}
      build: [GlobalPool, {Linear: {out: =n_outputs}}]
    """
    start = load(write_space(tmp_path, rules, genes="{size: {choice: [1, 2, 3], default: 3}}")).grammar.start
    assert isinstance(start, Record)
    assert [field.default for field in start.fields] == [3, 2, NOTHING]


def test_baselines_must_be_members(tmp_path: Path) -> None:
    baselines = "{odd: {genotype: {width: 9}}}"
    folder = write_layout(tmp_path, "- ConvNorm: {out: =width}\n- GlobalPool", baselines=baselines)
    with pytest.raises(SpaceFileError, match=r"baselines\.odd: width: 9 is not allowed"):
        load(folder)


def test_a_baseline_at_which_an_expression_fails(tmp_path: Path) -> None:
    body = "- Linear: {out: =16 // (width - 8)}\n- GlobalPool"
    folder = write_layout(tmp_path, body, baselines="{odd: {genotype: {width: 8}}}")
    with pytest.raises(
        SpaceFileError, match=r"baselines\.odd: rules\.network\.build\[0\]\.out: expression .* by zero"
    ):
        load(folder)


def test_options_hold_no_fields_of_their_own(tmp_path: Path) -> None:
    rules = FINE.replace("tree:\n  options:", "tree:\n  fields: {a: [1, 2]}\n  options:")
    with pytest.raises(SpaceFileError, match="belong into each option"):
        load(write_space(tmp_path, rules))
