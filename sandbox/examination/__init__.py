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
"""
