"""The evaluator: static checks, identity, predictor, constraints, ranking, gain over the control arm."""
