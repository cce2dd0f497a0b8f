"""What the predictors import when they are first used: importing this module pays for all of it at once."""

import scipy.linalg
import scipy.optimize
import scipy.special
import scipy.stats
import sklearn.ensemble
import sklearn.tree

__all__ = ["scipy", "sklearn"]
