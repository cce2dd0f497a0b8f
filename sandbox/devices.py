"""Devices that latency is measured on: named entries of a run file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

SCHEMES = ("unix://", "tcp://", "ssh://")
CONTEXT = "context:"
"""What stands before the name of one of Docker's own contexts."""


def check_engine(address: str) -> str:
    """`address`, if it can be the address of an engine.

    Raises:
        ValueError: it is of none of the known forms.
    """
    for start in (*SCHEMES, CONTEXT):
        if address.startswith(start) and address != start:
            return address
    raise ValueError(
        f"{address!r} is no address of an engine: write unix://..., tcp://..., ssh://... or context:NAME"
    )


def _gpu(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


EngineAddress = Annotated[str, AfterValidator(check_engine)]
GpuId = Annotated[str, BeforeValidator(_gpu), Field(min_length=1)]
"""As the engine knows the GPU: its number or its UUID."""
DeviceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]


class Device(BaseModel):
    """One place where latency is measured: a number of cores, a GPU, another machine.

    Attributes:
        kind: of the sandbox; `auto` takes Docker where an engine answers, else a process.
        threads: of torch, and cores that the measurement gets.
        gpu: number or UUID of a GPU; None measures on the CPU.
        engine: address of the engine; None takes the one that the environment names, or the local one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["auto", "docker", "process"] = "auto"
    threads: int = Field(default=1, ge=1)
    gpu: GpuId | None = None
    engine: EngineAddress | None = None

    @model_validator(mode="after")
    def _engines_and_gpus_need_containers(self) -> Device:
        if self.kind == "process" and (self.gpu is not None or self.engine is not None):
            raise ValueError("'gpu' and 'engine' need a container: set 'kind: docker'")
        return self
