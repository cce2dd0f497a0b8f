"""The evaluator: predictor, constraints, ranking, gain over the control arm.

Importing this package costs next to nothing; `sandbox.examination` finds what a network is untrained.

    encoding    what a predictor sees of a candidate: numbers and motifs
    predictors  from encodings to expected scores
    screen      which proposals deserve a training
    earlier     what earlier runs have measured, for the predictor
    similarity  which earlier candidate each is most like; `difference` says what was changed in it, and
                `agreement` how alike both predict
    savings     what was not trained twice
    spending    what models cost, by arm, model and role
    ranking     constraints, order of candidates, Pareto front, leaderboard
    gain        what the arms gained over the control arm
    admission   the cheap steps of a candidate, in order of cost
    scoring     from raw outputs to an evaluation
"""
