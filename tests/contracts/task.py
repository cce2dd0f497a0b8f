"""What every `Task` must do: inherit `TaskContract` and give it a `make` fixture.

A task that is a table inherits `TabularContract`, which has what is left when there are no samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cambrian.search_spaces import (
    ProposalError,
    Recipe,
    Rung,
    Splits,
    TableRow,
    TabularTask,
    Task,
    UserError,
)
from cambrian.search_spaces.tasks import extent, validation_samples

Make = Callable[..., Task]


class AnyTask:
    """Subclasses override the fixture `make`: a factory that takes the options of all tasks."""

    @pytest.fixture(scope="class")
    def make(self, tmp_path_factory: pytest.TempPathFactory) -> Make:
        raise AssertionError("a subclass gives the factory")

    @pytest.fixture(scope="class")
    def task(self, make: Make) -> Task:
        return make()

    def test_says_what_it_is(self, task: Task) -> None:
        assert isinstance(task, Task)
        assert task.name and task.version
        assert task.loss in ("cross-entropy", "squared-error")
        assert isinstance(task.recipe, Recipe)
        assert task.rungs and all(isinstance(rung, Rung) for rung in task.rungs)
        epochs = [rung.epochs for rung in task.rungs]
        assert epochs == sorted(epochs)
        kind = "float32" if task.signature.n_ids is None else "int64"
        assert kind in task.preprocessing() and "\n" not in task.preprocessing()
        text = task.describe()
        assert task.name in text and task.metric in text
        assert validation_samples(task) > 0
        assert extent(task)


class TaskContract(AnyTask):
    """The suite of tasks with data.

    Attributes:
        all_classes: whether every class occurs in every training split.
    """

    all_classes = True

    @pytest.fixture(scope="class")
    def splits(self, task: Task) -> Splits:
        return task.load()

    def test_has_samples_rather_than_a_table(self, task: Task, splits: Splits) -> None:
        assert not isinstance(task, TabularTask)
        assert validation_samples(task) == len(splits.x_val)
        assert f"{len(splits.x_train)} train" in extent(task)

    def test_arrays(self, task: Task, splits: Splits) -> None:
        for part in ("train", "val", "test"):
            x, y = getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}")
            assert len(x) > 0
            assert x.shape == (len(y), *task.signature.input_shape)
            assert x.flags.c_contiguous and x.flags.writeable
            if task.signature.n_ids is None:
                assert x.dtype == np.float32
                assert np.isfinite(x).all()
            else:
                assert x.dtype == np.int64
                assert 0 <= x.min() <= x.max() < task.signature.n_ids
            if task.loss == "cross-entropy":
                assert y.dtype == np.int64 and y.shape == (len(x),)
                assert y.min() >= 0 and y.max() < task.signature.n_outputs
            else:
                assert y.dtype == np.float32 and y.shape == (len(x), task.signature.n_outputs)
                assert np.isfinite(y).all()
        if task.signature.n_ids is None:
            assert abs(splits.x_train.mean()) < 1.0 and 0.1 < splits.x_train.std() < 2.0
        if task.loss == "squared-error":
            assert np.allclose(splits.y_train.mean(axis=0), 0, atol=1e-4)
            assert np.allclose(splits.y_train.std(axis=0), 1, atol=1e-4)
        elif self.all_classes:
            assert set(splits.y_train) == set(range(task.signature.n_outputs))

    def test_context_is_that_of_the_signature(self, task: Task, splits: Splits) -> None:
        graph, context = task.signature.graph, splits.context
        if graph is None:
            assert not context
            return
        assert set(context) == {"features", "edges"}
        features, edges = context["features"], context["edges"]
        assert features.shape == (graph.nodes, graph.features) and features.dtype == np.float32
        assert np.isfinite(features).all()
        assert edges.shape == (2, graph.edges) and edges.dtype == np.int64
        assert 0 <= edges.min() <= edges.max() < graph.nodes
        pairs = set(map(tuple, edges.T.tolist()))
        assert len(pairs) == graph.edges, "each edge once"
        assert all(source != target and (target, source) in pairs for source, target in pairs)

    def test_splits_have_no_common_sample(self, splits: Splits) -> None:
        """Identical inputs across splits would leak labels; a few equal images may occur in real data."""
        seen = {row.tobytes() for row in splits.x_train}
        for held in (splits.x_val, splits.x_test):
            common = sum(row.tobytes() in seen for row in held)
            assert common <= 0.005 * len(held)

    def test_loading_is_deterministic(self, make: Make, splits: Splits) -> None:
        again = make().load()
        for name in ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"):
            assert np.array_equal(getattr(again, name), getattr(splits, name))

    def test_loading_again_reads_nothing(self, task: Task, splits: Splits) -> None:
        assert task.load() is splits

    def test_perfect_and_chance_scores(self, task: Task, splits: Splits) -> None:
        targets = {"val": splits.y_val, "test": splits.y_test}
        for split in ("val", "test"):
            perfect = targets[split]
            if task.loss == "cross-entropy":
                perfect = np.zeros((len(targets[split]), task.signature.n_outputs), dtype=np.float32)
                perfect[np.arange(len(perfect)), targets[split]] = 20.0
            best = task.score(perfect, split)
            worst = task.score(-perfect, split)
            assert task.metric in best
            assert (best[task.metric] > worst[task.metric]) == task.maximize
            assert all(type(value) is float and np.isfinite(value) for value in best.values())

    def test_bad_outputs_are_refused(self, task: Task, splits: Splits) -> None:
        good = np.zeros((len(splits.y_val), task.signature.n_outputs), dtype=np.float32)
        for bad in (good[1:], good[:, 1:], good.ravel(), np.full_like(good, np.nan), good + np.inf):
            with pytest.raises(ValueError):
                task.score(bad, "val")

    def test_recipe_fields_can_be_set(self, make: Make, task: Task) -> None:
        other = make(recipe={"batch_size": 17})
        assert other.recipe == task.recipe.model_copy(update={"batch_size": 17})
        assert other.version != task.version
        assert make(recipe={}).version == task.version

    def test_rungs_can_be_set(self, make: Make, task: Task) -> None:
        other = make(rungs=[{"epochs": 1, "promote": 0.5}, {"epochs": 2}])
        assert other.rungs == (Rung(epochs=1, promote=0.5), Rung(epochs=2))
        assert other.version != task.version

    def test_training_data_can_be_limited(self, make: Make, task: Task, splits: Splits) -> None:
        few = max(5 * task.signature.n_outputs, 20)
        limited = make(train_samples=few)
        assert limited.version != task.version
        found = limited.load()
        assert len(found.x_train) == len(found.y_train) == few
        if task.loss == "cross-entropy" and self.all_classes:
            assert set(found.y_train) == set(splits.y_train)
        assert np.array_equal(found.y_val, splits.y_val)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"recipe": {"learningrate": 1}}, "learning_rate"),
            ({"recipe": {"learning_rate": -1}}, "recipe.learning_rate"),
            ({"recipe": {"optimizer": "lamb"}}, "adamw"),
            ({"recipe": 3}, "recipe"),
            ({"rungs": []}, "rungs"),
            ({"rungs": "3"}, "rungs"),
            ({"rungs": [{"epoch": 3}]}, "epochs"),
            ({"rungs": [{"epochs": "many"}]}, r"rungs\[0\].epochs"),
            ({"train_samples": 0}, "train_samples"),
            ({"train_samples": "all"}, "train_samples"),
        ],
    )
    def test_bad_options_are_named(self, make: Make, options: dict[str, object], words: str) -> None:
        with pytest.raises(UserError, match=words):
            make(**options)


class TabularContract(AnyTask):
    """The suite of tables; subclasses also give some genotypes that are in it, and some that are not."""

    members: tuple[dict[str, Any], ...]
    strangers: tuple[dict[str, Any], ...]

    @pytest.fixture(scope="class")
    def table(self, task: Task) -> TabularTask:
        assert isinstance(task, TabularTask)
        return task

    def test_there_is_nothing_to_train_on(self, table: TabularTask) -> None:
        splits = table.load()
        for part in ("train", "val", "test"):
            assert getattr(splits, f"x_{part}").shape == (0, *table.signature.input_shape)
            assert len(getattr(splits, f"y_{part}")) == 0
        assert table.load() is splits
        assert f"a table of {table.rows}" in extent(table)
        with pytest.raises(ValueError, match="table"):
            table.score(np.zeros((1, table.signature.n_outputs), dtype=np.float32), "val")

    def test_every_rung_can_be_looked_up(self, table: TabularTask) -> None:
        for genotype in self.members:
            rows = [table.lookup(genotype, rung.epochs, 0) for rung in table.rungs]
            for row in rows:
                assert isinstance(row, TableRow)
                assert table.metric in row.metrics and row.metrics.keys() == row.test_metrics.keys()
                assert row.device or row.latency_ms is None
            assert len({row.latency_ms for row in rows}) == 1
            seconds = [row.train_s for row in rows]
            assert seconds == sorted(seconds) and seconds[0] > 0
            assert table.lookup(genotype, table.rungs[0].epochs, 0) == rows[0]

    def test_what_is_not_in_the_table_is_refused(self, table: TabularTask) -> None:
        for genotype in self.strangers:
            with pytest.raises(ProposalError):
                table.lookup(genotype, table.rungs[0].epochs, 0)
        with pytest.raises(ProposalError, match="epochs"):
            table.lookup(self.members[0], 7, 0)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"rungs": []}, "rungs"),
            ({"rungs": [{"epoch": 3}]}, "epochs"),
            ({"rungs": [{"epochs": 7}]}, "7 epochs"),
        ],
    )
    def test_bad_options_are_named(self, make: Make, options: dict[str, object], words: str) -> None:
        with pytest.raises(UserError, match=words):
            make(**options)
