"""Predictors of scores, behind one protocol.

    protocol    the `Predictor` protocol, rank correlation
    gp          a Gaussian process over numbers and motifs
    kernel      its covariance, and how its hyper-parameters are learned
    trees       extremely randomised trees
    boosting    gradient boosting
    selection   the best of them by cross-validated Kendall tau
    committee   what trees and boosting share: members that judge each other
    columns     from encodings to arrays
    warping     scores as normal scores

Third parties register a predictor under the entry-point group `cambrian.predictors`. Importing this package
costs nothing; its modules need numpy, and scipy and scikit-learn when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian.search_spaces.registry import Registry

if TYPE_CHECKING:
    from cambrian.agents.evaluator.predictors.protocol import Predictor

_HERE = "cambrian.agents.evaluator.predictors"
AUTO = "auto"
"""Stands for `SelectedPredictor` over `CHOICE`."""
CHOICE = ("gp", "trees", "boosting")

PREDICTORS: Registry[Predictor] = Registry(
    "predictor",
    "cambrian.predictors",
    {
        "boosting": f"{_HERE}.boosting:BoostingPredictor",
        "gp": f"{_HERE}.gp:GaussianProcess",
        "trees": f"{_HERE}.trees:TreePredictor",
    },
)
"""Factories take the keywords `maximize` and `seed`."""


def open_predictor(name: str = AUTO, *, maximize: bool = True, seed: int = 0) -> Predictor:
    """The predictor called `name`, calibrated; `auto` chooses among all shipped ones at each fit.

    Raises:
        UnknownNameError: no such predictor.
    """
    from cambrian.agents.evaluator.predictors.selection import SelectedPredictor

    names = CHOICE if name == AUTO else (name,)
    return SelectedPredictor({n: PREDICTORS.create(n, maximize=maximize, seed=seed) for n in names})
