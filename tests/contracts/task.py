"""What every `Task` must do: inherit `TaskContract` and give it a `make` fixture."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from cambrian.search_spaces import Recipe, Rung, Splits, Task, UserError

Make = Callable[..., Task]


class TaskContract:
    """Subclasses override the fixture `make`: a factory that takes the options of all tasks."""

    @pytest.fixture(scope="class")
    def make(self, tmp_path_factory: pytest.TempPathFactory) -> Make:
        raise AssertionError("a subclass gives the factory")

    @pytest.fixture(scope="class")
    def task(self, make: Make) -> Task:
        return make()

    @pytest.fixture(scope="class")
    def splits(self, task: Task) -> Splits:
        return task.load()

    def test_says_what_it_is(self, task: Task) -> None:
        assert isinstance(task, Task)
        assert task.name and task.version
        assert isinstance(task.recipe, Recipe)
        assert task.rungs and all(isinstance(rung, Rung) for rung in task.rungs)
        epochs = [rung.epochs for rung in task.rungs]
        assert epochs == sorted(epochs)
        assert "float32" in task.preprocessing() and "\n" not in task.preprocessing()
        text = task.describe()
        assert task.name in text and task.metric in text

    def test_arrays(self, task: Task, splits: Splits) -> None:
        for part in ("train", "val", "test"):
            x, y = getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}")
            assert x.dtype == np.float32 and x.shape == (len(y), *task.signature.input_shape)
            assert y.dtype == np.int64 and y.shape == (len(x),)
            assert len(x) > 0
            assert np.isfinite(x).all()
            assert y.min() >= 0 and y.max() < task.signature.n_outputs
            assert x.flags.c_contiguous and x.flags.writeable
        assert set(splits.y_train) == set(range(task.signature.n_outputs))
        assert abs(splits.x_train.mean()) < 1.0 and 0.1 < splits.x_train.std() < 2.0

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

    def test_loading_again_is_cheap(self, task: Task, splits: Splits) -> None:
        start = time.process_time()
        for _ in range(100):
            assert task.load() is splits
        assert time.process_time() - start < 0.1

    def test_perfect_and_chance_scores(self, task: Task, splits: Splits) -> None:
        labels = {"val": splits.y_val, "test": splits.y_test}
        for split in ("val", "test"):
            perfect = np.zeros((len(labels[split]), task.signature.n_outputs), dtype=np.float32)
            perfect[np.arange(len(perfect)), labels[split]] = 20.0
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
        few = 5 * task.signature.n_outputs
        limited = make(train_samples=few)
        assert limited.version != task.version
        found = limited.load()
        assert len(found.x_train) == len(found.y_train) == few
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
