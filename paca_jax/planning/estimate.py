"""From a config and a slice of chips to what the compiler says of its train step."""

import dataclasses
from typing import Any

import jax
from ml_collections import ConfigDict

from paca_jax.planning.collectives import Collective, collectives
from paca_jax.planning.flops import matrix_flops
from paca_jax.planning.hlo import parse
from paca_jax.planning.memory import Memory, memory_of, too_large
from paca_jax.planning.topology import Topology
from paca_jax.train.setup import Run, prepare


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a step of a run needs and takes; all of it computed, nothing measured.

    Attributes:
        topology: the slice.
        chips: of the slice.
        mesh: devices along each of its axes.
        model: its name.
        batch_size: images a step, over all chips.
        accumulate_steps: parts into which the batch is split, one after the other.
        remat: whether blocks are computed anew in the gradient.
        steps: of the whole run.
        epochs: of the whole run.
        memory: a chip's.
        usable_hbm_bytes: what a program may use of a chip's memory.
        matrix_flops: a chip's part of the step's matrix products and convolutions.
        hbm_bytes: a chip's traffic with its main memory in a step.
        cycles: the compiler's estimate of a step without its Pallas kernels.
        cycle_seconds: `cycles` over the clock.
        kernel_seconds: what the kernels take at the chip's peak, as the compiler gives them no cycles.
        peak_seconds: what the chip's peak and its memory's bandwidth allow at best.
        exchange_seconds: what the links between the chips allow at best.
        collectives: what the chips tell each other in a step.
        unknown_loops: where loops of unknown length come from; they count once in `hbm_bytes`, `cycles` and `collectives`.
        peak_flops: a chip's, in bfloat16.
    """

    topology: str
    chips: int
    mesh: dict[str, int]
    model: str
    batch_size: int
    accumulate_steps: int
    remat: bool
    steps: int
    epochs: float
    memory: Memory
    usable_hbm_bytes: int
    matrix_flops: float
    hbm_bytes: int
    cycles: int
    cycle_seconds: float
    kernel_seconds: float
    peak_seconds: float
    exchange_seconds: float
    collectives: list[Collective]
    unknown_loops: tuple[str, ...]
    peak_flops: float

    @property
    def seconds(self) -> float:
        """Of a step, as if computing, memory and exchange hid each other: the longest of the three."""
        return max(self.cycle_seconds + self.kernel_seconds, self.peak_seconds, self.exchange_seconds)

    @property
    def images_per_second(self) -> float:
        """Images that all chips take in a second."""
        return self.batch_size / self.seconds

    @property
    def utilization(self) -> float:
        """Share of the peak that matrix products and convolutions reach."""
        return self.matrix_flops / self.seconds / self.peak_flops

    @property
    def hours(self) -> float:
        """Of the whole run."""
        return self.steps * self.seconds / 3600

    def as_json(self) -> dict[str, Any]:
        """Returns every number by its name."""
        derived = {name: getattr(self, name) for name in ("seconds", "images_per_second", "utilization", "hours")}
        memory = {**dataclasses.asdict(self.memory), "total": self.memory.total}
        return {"fits": True, **dataclasses.asdict(self), "memory": memory, **derived}


def compile_step(run: Run) -> tuple[jax.stages.Traced, jax.stages.Compiled]:
    """Returns a run's train step, traced and compiled for its mesh.

    Raises:
        DoesNotFitError: if it needs more memory than a chip has.
    """
    with jax.set_mesh(run.mesh):
        traced = run.train_step.trace(run.abstract, run.abstract_batch)
        try:
            return traced, traced.lower().compile()
        except jax.errors.JaxRuntimeError as error:
            shortage = too_large(str(error))
            if shortage is None:
                raise
            raise shortage from error


def estimate(config: ConfigDict, topology: Topology, devices: list[jax.Device]) -> Estimate:
    """Compiles a config's train step for a slice and reads from it what it would need.

    Args:
        config: the run's config; published data sets need not be there.
        topology: the slice.
        devices: its chips, from `compile_only_devices`.

    Raises:
        DoesNotFitError: if it needs more memory than a chip has.
        UserError: if the config asks for what does not exist, or the mesh does not fit the slice or the batch.
    """
    run = prepare(config, devices, without_data=True)
    traced, compiled = compile_step(run)
    module = parse(compiled.as_text() or "")
    chip, chips = topology.chip, topology.num_chips
    flops = matrix_flops(traced.jaxpr.jaxpr) / chips
    exchanged = collectives(module, chips)
    return Estimate(
        topology=topology.name,
        chips=chips,
        mesh=dict(run.mesh.shape),
        model=config.model.name,
        batch_size=config.batch_size,
        accumulate_steps=config.accumulate_steps,
        remat=config.remat,
        steps=run.steps.total,
        epochs=run.steps.total / run.steps.per_epoch,
        memory=memory_of(run, compiled),
        usable_hbm_bytes=chip.usable_hbm_bytes,
        matrix_flops=flops,
        hbm_bytes=module.hbm_bytes,
        cycles=module.cycles,
        cycle_seconds=module.cycles / chip.clock_hz,
        kernel_seconds=module.kernel_seconds(chip.peak_flops, chip.bandwidth),
        peak_seconds=max(flops / chip.peak_flops, module.hbm_bytes / chip.bandwidth),
        exchange_seconds=sum(entry.sent_bytes for entry in exchanged) / chip.links,
        collectives=exchanged,
        unknown_loops=module.unknown_loops,
        peak_flops=chip.peak_flops,
    )
