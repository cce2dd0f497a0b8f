"""Searches on tabular benchmarks: what the arms find, over many seeds, where every result is known already.

    table       parquet files, joined; columns by what they hold
    members     which rows are members of a space, and the spaces that know only these
    flat        a space of a table's own columns
    genotypes   how rows name the members of a space that exists
    benchmark   a table, ready to be searched
    loop        the discovery loop without sandbox, graph and store
    searchers   what `--arms` means; published peers, for comparison
    study       every searcher with every seed, on all cores
    summary     medians, incumbents, tests of significance
    plot        regret over evaluations

The arms, the portfolio, the population, the predictor are those of real runs.
"""
