"""The evaluator: predictor, constraints, ranking, gain over the control arm.

Importing this package costs next to nothing; `sandbox.examination` finds what a network is untrained.

    predictor   from features to expected scores
    screen      which proposals deserve a training
    ranking     constraints, order of candidates, Pareto front, leaderboard
    gain        what the arms gained over the control arm
    admission   the cheap steps of a candidate, in order of cost
    scoring     from raw outputs to an evaluation
"""
