"""Recipes as genes of any space."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cambrian.search_spaces import (
    SPACES,
    TASKS,
    Genotype,
    HasOperators,
    ProposalError,
    Recipe,
    Signature,
    Space,
    UserError,
)
from cambrian.search_spaces.recipe_genes import DEFAULT_TABLES, make_genes, parse_choice
from cambrian.search_spaces.recipes import (
    WithRecipe,
    architecture_of,
    recipe_changes,
    recipe_for,
    recipe_of,
    split,
    task_in_words,
    with_recipe_genes,
)
from tests.contracts.space import SpaceContract

ALL = dict.fromkeys(DEFAULT_TABLES)


def wrapped(given: dict[str, Any] | None = None, **task: Any) -> WithRecipe:
    space = with_recipe_genes(SPACES.create("convnet"), given or ALL, TASKS.create("digits", **task))
    assert isinstance(space, WithRecipe)
    return space


class TestContract(SpaceContract):
    samples = 300
    built = 9

    @pytest.fixture(scope="class")
    def space(self) -> Space:
        return wrapped()


@pytest.fixture(scope="module")
def space() -> WithRecipe:
    return wrapped()


@pytest.fixture(scope="module")
def members(space: WithRecipe) -> list[Genotype]:
    rng = random.Random(5)
    return [space.sample(rng) for _ in range(200)]


def test_a_run_without_recipe_genes_keeps_its_space() -> None:
    inner = SPACES.create("convnet")
    assert with_recipe_genes(inner, {}, TASKS.create("digits")) is inner
    genotype = inner.sample(random.Random(0))
    assert recipe_of(inner, genotype) == {} and architecture_of(inner, genotype) is genotype


def test_spaces_without_the_method_go_on_working() -> None:
    class Old:
        """A third party's space of before."""

    assert recipe_of(Old(), {"a": 1}) == {}  # type: ignore[arg-type]


def test_the_recipe_is_the_tasks_where_the_genes_say_nothing(
    space: WithRecipe, members: list[Genotype]
) -> None:
    default = TASKS.create("digits").recipe
    for genotype in members:
        recipe = recipe_for(space, genotype, default)
        for name, value in recipe:
            if name not in space.genes:
                assert value == getattr(default, name)
        assert recipe.learning_rate == genotype["recipe"]["learning_rate"]
    narrow = wrapped({"optimizer": None})
    found = recipe_for(narrow, narrow.sample(random.Random(0)), default)
    assert found.model_copy(update={"optimizer": default.optimizer}) == default


def test_augmentations_are_named_together(space: WithRecipe, members: list[Genotype]) -> None:
    base = members[0]
    for name, operations in (("none", ()), ("flip", ("flip",)), ("shift+flip", ("shift", "flip"))):
        genotype = {**base, "recipe": {**base["recipe"], "augment": name}}
        assert recipe_for(space, genotype, Recipe()).augment == operations


def test_the_same_values_written_otherwise_are_the_same_genotype(space: WithRecipe) -> None:
    known = space.baselines()["two-layer-cnn"]
    rate = known["recipe"]["learning_rate"]
    written = {**known["recipe"], "weight_decay": 0, "learning_rate": float(f"{rate:.6g}")}
    assert space.validate({**known, "recipe": written})["recipe"]["weight_decay"] == 0.0
    assert type(space.validate({**known, "recipe": written})["recipe"]["weight_decay"]) is float
    assert space.validate({"architecture": known["architecture"]}) == known
    assert recipe_changes(space, known, TASKS.create("digits").recipe) == {}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"recipe": {}}, "architecture: is missing"),
        ({"architecture": {"stem": 1}, "recipe": {}}, "architecture"),
        ({"recipe": {"learning_rate": 5}}, "recipe.learning_rate: '5' is not one of 0.0003"),
        ({"recipe": {"optimizer": "adam"}}, "recipe.optimizer: 'adam' is not one of adamw, sgd"),
        ({"recipe": {"weight_decay": False}}, "recipe.weight_decay: 'False'"),
        ({"recipe": {"weight_decay": None}}, "recipe.weight_decay: 'None'"),
        ({"recipe": {"lerning_rate": 0.003}}, "recipe.lerning_rate: unknown gene"),
        ({"recipe": [1]}, "recipe: [1] is no object"),
    ],
)
def test_what_is_no_member_is_refused_with_its_place(
    space: WithRecipe, data: dict[str, Any], says: str
) -> None:
    if "recipe" in data and data["recipe"] != {}:
        data = {**space.baselines()["two-layer-cnn"], **data}
    with pytest.raises(ProposalError) as caught:
        space.validate(data)
    assert caught.value.message.startswith(says)


def test_edits_of_the_recipe_change_one_gene_and_say_so(space: WithRecipe, members: list[Genotype]) -> None:
    rng = random.Random(1)
    recipes = 0
    for genotype in members * 5:
        child, words = space.mutate(genotype, rng)
        changed = [n for n, v in child["recipe"].items() if v != genotype["recipe"][n]]
        if changed:
            recipes += 1
            assert len(changed) == 1 and child["architecture"] == genotype["architecture"]
            assert words.startswith(f"recipe {changed[0]} ") and " -> " in words
        else:
            assert child["architecture"] != genotype["architecture"]
    assert 0.2 < recipes / 1000 < 0.4


def test_ordered_genes_move_by_single_steps(space: WithRecipe, members: list[Genotype]) -> None:
    rng = random.Random(2)
    values = list(space.genes["learning_rate"].values)
    moves = []
    for genotype in members * 20:
        child, words = space.mutate(genotype, rng)
        if words.startswith("recipe learning_rate"):
            moves.append(
                abs(
                    values.index(child["recipe"]["learning_rate"])
                    - values.index(genotype["recipe"]["learning_rate"])
                )
            )
    assert moves.count(1) / len(moves) > 0.75


def test_children_take_each_gene_from_a_parent(space: WithRecipe, members: list[Genotype]) -> None:
    rng = random.Random(3)
    mixed = 0
    for first, second in zip(members[::2], members[1::2], strict=True):
        child, words = space.crossover(first, second, rng)
        for name, value in child["recipe"].items():
            assert value in (first["recipe"][name], second["recipe"][name])
        mixed += words.endswith("recipe of both")
    assert mixed > 50


def test_features_show_rates_by_their_logarithm(space: WithRecipe) -> None:
    genotype = space.baselines()["two-layer-cnn"]

    def features(**recipe: Any) -> dict[str, float]:
        return space.features({**genotype, "recipe": {**genotype["recipe"], **recipe}})

    assert features(learning_rate=0.003)["recipe.learning_rate"] == pytest.approx(-2.5229, abs=1e-4)
    assert features(weight_decay=0.0)["recipe.weight_decay"] == pytest.approx(-4), "a step below 0.001"
    assert features(batch_size=32)["recipe.batch_size"] == 5
    assert features(optimizer="sgd")["recipe.optimizer=sgd"] == 1
    assert features(augment="shift+flip")["recipe.augment.flip"] == 1
    inner = space.inner.features(genotype["architecture"])
    assert inner.items() <= features().items()


def test_words_name_what_differs_from_the_task(space: WithRecipe) -> None:
    known = space.baselines()["two-layer-cnn"]
    assert space.summarise(known).endswith(" | default recipe")
    rate = next(v for v in space.genes["learning_rate"].values if v != known["recipe"]["learning_rate"])
    other = {**known, "recipe": {**known["recipe"], "learning_rate": rate, "optimizer": "sgd"}}
    assert "lr" in space.summarise(other) and space.summarise(other).endswith("sgd lr 0.0003")
    text = space.describe()
    form, inner = (
        text.index('{"architecture": {...}, "recipe": {...}}'),
        text.index(space.inner.describe().rstrip()),
    )
    assert form < text.index("What architecture is (") < inner < text.index("What recipe is")
    for name in space.genes:
        assert f"- {name} (" in text
    assert text.count("*") >= len(space.genes)


def test_the_task_is_told_with_what_is_fixed_and_what_is_a_gene() -> None:
    recipe = {"learning_rate": 0.006, "weight_decay": 0.00001}
    task = TASKS.create("digits", recipe=recipe)
    plain = task_in_words(task, SPACES.create("convnet"))
    assert plain == task.describe() and "All are trained alike: 5, then 15 epochs" in plain
    text = task_in_words(task, wrapped({"learning_rate": None, "optimizer": None}, recipe=recipe))
    assert "alike" not in text and "0.006" not in text and "adamw" not in text
    assert text.startswith(plain[: plain.index("All are")]), "all else stays"
    assert text.endswith(
        "All are trained for 5, then 15 epochs. Genes of the recipe: learning_rate, optimizer; the same for "
        "all: schedule one-cycle, weight_decay 1e-05, batch_size 32, label_smoothing 0, augment none, "
        "gradient_clip 1, precision float32."
    )
    assert task_in_words(task, wrapped()).endswith("gradient_clip, precision.")
    functions = TASKS.create("functions")
    narrow = with_recipe_genes(SPACES.create("mlp"), {"optimizer": None}, functions)
    assert "augment" not in task_in_words(functions, narrow), "means nothing for vectors"


def test_the_exported_file_names_the_recipe(space: WithRecipe) -> None:
    known = space.baselines()["two-layer-cnn"]
    source = space.source(known, Signature(input_shape=(1, 8, 8), n_outputs=10))
    scope: dict[str, Any] = {}
    exec(compile(source, "exported", "exec"), scope)  # noqa: S102  our own text
    assert "Recipe of its training: optimizer adamw, learning_rate" in scope["__doc__"]


def test_the_version_tells_of_the_tables(space: WithRecipe) -> None:
    inner = SPACES.create("convnet")
    one, two = wrapped({"optimizer": None}), wrapped({"optimizer": None, "precision": None})
    assert len({inner.version, one.version, two.version, space.version}) == 4
    assert one.version == wrapped({"optimizer": ["adamw", "sgd"]}).version
    assert one.name == inner.name


def test_a_default_outside_the_table_is_added_in_its_place() -> None:
    space = wrapped(
        {"learning_rate": [0.1, 0.001], "augment": ["none"]},
        recipe={"learning_rate": 0.02, "augment": ["flip", "shift"]},
    )
    assert space.genes["learning_rate"].values == (0.001, 0.02, 0.1)
    assert space.genes["augment"].values == ("none", "flip+shift")


@pytest.mark.parametrize(
    ("name", "own", "values"),
    [
        ("learning_rate", 0.006, (0.0003, 0.00065, 0.0014, 0.003, 0.006, 0.014, 0.03)),
        ("learning_rate", 0.01, (0.0003, 0.00065, 0.0014, 0.003, 0.0065, 0.01, 0.014, 0.03)),
        ("weight_decay", 0.04, (0.0, 0.001, 0.01, 0.04, 0.1)),
        ("weight_decay", 0.0, (0.0, 0.001, 0.01, 0.05, 0.1)),
        ("batch_size", 50, (32, 50, 128)),
        ("batch_size", 96, (32, 64, 96, 128)),
    ],
)
def test_a_default_near_a_value_of_our_tables_stands_for_it(
    name: str, own: float, values: tuple[float, ...]
) -> None:
    found = wrapped({name: None}, recipe={name: own}).genes[name].values
    assert found == pytest.approx(values, rel=0.02) and own in found


def test_a_users_table_keeps_its_values_beside_the_default() -> None:
    space = wrapped({"learning_rate": [0.001, 0.0065]}, recipe={"learning_rate": 0.006})
    assert space.genes["learning_rate"].values == (0.001, 0.006, 0.0065)


def test_weights_make_values_likelier() -> None:
    space = wrapped({"optimizer": {"choice": ["adamw", "sgd"], "weights": [9, 1]}})
    rng = random.Random(0)
    drawn = [space.sample(rng)["recipe"]["optimizer"] for _ in range(500)]
    assert 0.85 < drawn.count("adamw") / 500 < 0.95


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"lerning_rate": None}, "lerning_rate: a recipe has no such part (did you mean learning_rate?)"),
        ({"learning_rate": {"log_number": [0.1, 0.001]}}, "learning_rate.log_number: [0.1, 0.001] is empty"),
        ({"learning_rate": {"log_numer": [0.1, 0.001]}}, "learning_rate.log_numer"),
        ({"learning_rate": {"choice": [0.1], "number": [0, 1]}}, "learning_rate: needs exactly one of"),
        ({"learning_rate": [0.1, 0]}, "learning_rate: 0 is not possible: input should be greater than 0"),
        ({"learning_rate": ["fast"]}, "learning_rate: 'fast' is not possible"),
        ({"learning_rate": [1, 1.0]}, "learning_rate: a value stands there twice"),
        ({"learning_rate": {"choice": [0.1, 1], "weights": [1, 2]}}, "learning_rate: the task's own value"),
        ({"optimizer": ["adamw"]}, "optimizer: adamw is the only value"),
        ({"optimizer": ["adamw", "lion"]}, "optimizer: 'lion' is not possible"),
        ({"optimizer": "sgd"}, "optimizer: 'sgd' is no choice"),
        ({"precision": {"boolean": True}}, "precision: a boolean is no table"),
        ({"batch_size": [32, 0]}, "batch_size: 0 is not possible"),
        ({"augment": ["shift+shift"]}, "augment: 'shift+shift' names one augmentation twice"),
        ({"augment": ["blur"]}, "augment: 'blur' is not possible"),
        ({"schedule": {"choice": ["cosine"], "when": "x", "otherwise": 1}}, "schedule: a condition"),
    ],
)
def test_bad_tables_are_refused_with_their_place(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        wrapped(given)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_genes_that_mean_nothing_for_the_task_are_refused() -> None:
    class Vectors:
        name, loss = "vectors", "squared-error"
        signature = Signature(input_shape=(8,), n_outputs=1)
        recipe = Recipe()

    for name in ("augment", "label_smoothing"):
        with pytest.raises(UserError, match=f"^{name}: is for"):
            make_genes({name: None}, Vectors())  # type: ignore[arg-type]
    assert make_genes({"optimizer": None}, Vectors()).keys() == {"optimizer"}  # type: ignore[arg-type]


def test_every_default_table_can_be_parsed() -> None:
    assert set(DEFAULT_TABLES) == set(Recipe.model_fields)
    for name in DEFAULT_TABLES:
        assert parse_choice(name, None).about == ""


def test_the_two_parts_can_be_told_from_the_form() -> None:
    genotype = wrapped().sample(random.Random(0))
    assert split(genotype) == (genotype["architecture"], genotype["recipe"])
    assert split(genotype["architecture"]) is None
    assert split({"architecture": 1, "recipe": {}}) is None


def test_an_edit_of_the_recipe_is_a_kind_of_its_own() -> None:
    space = wrapped()
    inner = space.inner
    assert isinstance(inner, HasOperators)
    usual, genotype = space.operators(), space.sample(random.Random(0))
    assert {*usual} == {*inner.operators(), "recipe"} and sum(usual.values()) == pytest.approx(1.0)
    for seed in range(20):
        child, words, kind = space.mutate_by(genotype, random.Random(seed), usual)
        assert (child, words) == space.mutate(genotype, random.Random(seed))
        assert (kind == "recipe") == (child["recipe"] != genotype["recipe"])
    never = {**usual, "recipe": 0.0}
    assert all(space.mutate_by(genotype, random.Random(n), never)[2] != "recipe" for n in range(20))
