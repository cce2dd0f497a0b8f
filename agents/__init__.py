"""Those who decide: planner, evaluator, population, recorder, the life of a candidate, the command line."""
