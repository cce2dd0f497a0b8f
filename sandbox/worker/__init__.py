"""The only code of ours that runs inside a sandbox.

`execute` builds, measures and trains one candidate; `__main__` calls it once in a container; `forkserver`,
`supervisor` and `confine` call it many times on a machine without an engine. Nothing here may import what
an image lacks: torch, numpy, pydantic and safetensors are all there is.
"""
