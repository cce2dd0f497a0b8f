"""What a network is found to be before it is trained: static facts, identity, behaviour, zero-cost proxies.

Used by the host where trusted code builds the network, and inside the sandbox where it does not. Importing
the package costs nothing; its modules need torch, but for `report`.

    report      the data that are asked for and told
    meta        building on the meta device: no memory, initial values known
    rules       what one forward pass shows without real numbers
    static      shapes, parameters, operations and memory, before anything is allocated
    probe       what networks are run on to be told apart
    identity    functional hash: equal candidates are evaluated once
    motifs      patterns of the computation graph, counted
    behaviour   how the real module behaves on a few samples, see there
    causality   of sequences: whether a later position changes an earlier one
    growth      of sequences: how work, memory and time grow with the length
    counting    what a pass of a real module does, call by call
    proxies     what an estimator may read off an untrained network
"""
