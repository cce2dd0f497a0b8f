"""What a network is found to be before it is trained: static facts, identity, behaviour, zero-cost proxies.

Used by the host where trusted code builds the network, and inside the sandbox where it does not. Importing
the package costs nothing; its modules need torch, but for `report`.

    report      the data that are asked for and told
    meta        building on the meta device: no memory, initial values known
    rules       what one forward pass shows without real numbers
    static      shapes, parameters, operations and memory, before anything is allocated
    probe       what networks are run on to be told apart
    identity    functional hash: equal candidates are evaluated once
    evidence    what the hash is made of: outputs on two probes, roles of parameters
    network     networks that have to be called for it, since no tape tells all
    canonical   weights that depend on what a parameter is for
    tape        one pass written down, to be played with other weights and samples
    watch       what is seen of a tape while it plays
    recorder    writing the tape of a real module
    calls       what functions of torch do, by name
    motifs      patterns of the computation graph, counted
    behaviour   how the real module behaves on a few samples, see there
    causality   of sequences: whether a later position changes an earlier one
    growth      of sequences: how work, memory and time grow with the length
    counting    what a pass of a real module does, call by call
    proxies     what an estimator may read off an untrained network
"""
