"""The evaluator: static checks, identity, predictor, constraints, ranking, gain over the control arm.

Importing this package costs next to nothing: names are loaded on first use, since static checks and identity
need torch and the predictor needs scikit-learn.

    static      shapes, parameters, operations and memory of a genotype, before anything is allocated
    identity    functional hash: equal candidates are evaluated once
    predictor   from features to expected scores
    screen      which proposals deserve a training
    ranking     constraints, order of candidates, Pareto front, leaderboard
    gain        what the arms gained over the control arm
    admission   the cheap steps of a candidate, in order of cost
    scoring     from raw outputs to an evaluation
"""
