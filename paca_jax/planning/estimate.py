"""Estimates of a config's train step on a slice of chips, from the compiled program."""

import dataclasses
from typing import Any

import jax
from ml_collections import ConfigDict

from paca_jax.ops import describe_choices, record_choices
from paca_jax.planning.collectives import Collective, collectives
from paca_jax.planning.flops import matrix_flops
from paca_jax.planning.hlo import parse
from paca_jax.planning.memory import DoesNotFitError, Memory, memory_of, too_large
from paca_jax.planning.topology import Topology
from paca_jax.train.run import Run, prepare


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The resources that a step of a run needs; everything is computed, nothing is measured.

    Attributes:
        topology: the name of the slice.
        platform: what JAX calls its kind of device, "tpu" or "gpu".
        chips: the number of chips in the slice.
        devices: the number of devices in the slice; two per tpu7x chip, one per chip of all other kinds.
        mesh: the number of devices along each axis of the mesh.
        model: the name of the model.
        batch_size: images per step, over all devices.
        accumulate_steps: the number of parts into which the batch is split, computed one after the other.
        remat: whether the backward pass recomputes blocks.
        steps: the number of steps of the whole run.
        epochs: the number of epochs of the whole run.
        memory: the memory of one device.
        usable_hbm_bytes: the bytes of a device's memory that a program may use.
        matrix_flops: FLOPs per device and step of matrix products and convolutions.
        hbm_bytes: bytes per device and step that are read from main memory and written to it.
        cycles: the compiler's estimate of a step without its Pallas kernels; 0 for GPUs, for which it gives none.
        cycle_seconds: `cycles` divided by the clock rate.
        kernel_seconds: the time of the kernels at the device's peak, since the compiler gives no cycles for them.
        peak_seconds: the lower bound that the device's peak and its memory bandwidth set.
        exchange_seconds: the lower bound that the links between chips set.
        collectives: the collectives of a step.
        unknown_loops: the sources of loops of unknown length, which count once in `hbm_bytes`, `cycles` and `collectives`.
        peak_flops: the peak of a device, in bfloat16.
        implementations: for each operation, what computes it, in which blocks, and why not a faster form.
    """

    topology: str
    platform: str
    chips: int
    devices: int
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
    implementations: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """The time of a step if computation, memory traffic and collectives overlap perfectly: the longest of the three."""
        return max(self.cycle_seconds + self.kernel_seconds, self.peak_seconds, self.exchange_seconds)

    @property
    def images_per_second(self) -> float:
        """Images per second, over all devices."""
        return self.batch_size / self.seconds

    @property
    def utilization(self) -> float:
        """The fraction of the peak that matrix products and convolutions reach."""
        return self.matrix_flops / self.seconds / self.peak_flops

    @property
    def hours(self) -> float:
        """The hours of the whole run."""
        return self.steps * self.seconds / 3600

    def as_json(self) -> dict[str, Any]:
        """Returns all numbers by name."""
        derived = {name: getattr(self, name) for name in ("seconds", "images_per_second", "utilization", "hours")}
        memory = {**dataclasses.asdict(self.memory), "total": self.memory.total}
        return {"fits": True, **dataclasses.asdict(self), "memory": memory, **derived}


def compile_step(run: Run) -> tuple[jax.stages.Traced, jax.stages.Compiled]:
    """Returns a run's train step, traced and compiled for its mesh.

    Raises:
        DoesNotFitError: if it needs more memory than a device has.
        KernelDoesNotFitError: if a kernel needs more vector memory than a core has.
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
    """Compiles a config's train step for a slice and returns its estimate.

    Args:
        config: the config of the run; published data sets need not be present.
        topology: the slice.
        devices: its devices, from `compile_only_devices`.

    Raises:
        DoesNotFitError: if it needs more memory than a device has.
        KernelDoesNotFitError: if a kernel needs more vector memory than a core has.
        UserError: if the config is not valid, or the mesh does not fit the slice or the batch.
    """
    run = prepare(config, devices, without_data=True)
    with record_choices() as choices:
        traced, compiled = compile_step(run)
    chip, count = topology.chip, topology.num_devices
    memory = memory_of(run, compiled)
    if memory.total > chip.usable_hbm_bytes:  # which only the TPU's compiler tells by itself
        raise DoesNotFitError(memory.total, chip.usable_hbm_bytes)
    module = parse(compiled.as_text() or "")
    flops = matrix_flops(traced.jaxpr.jaxpr) / count
    exchanges = collectives(module, count)
    return Estimate(
        topology=topology.name,
        platform=topology.chip.platform,
        chips=topology.num_chips,
        devices=count,
        mesh=dict(run.mesh.shape),
        model=config.model.name,
        batch_size=config.batch_size,
        accumulate_steps=config.accumulate_steps,
        remat=config.remat,
        steps=run.steps.total,
        epochs=run.steps.total / run.steps.per_epoch,
        memory=memory,
        usable_hbm_bytes=chip.usable_hbm_bytes,
        matrix_flops=flops,
        hbm_bytes=module.hbm_bytes,
        cycles=module.cycles,
        cycle_seconds=module.cycles / chip.clock_hz,
        kernel_seconds=module.kernel_seconds(chip.peak_flops, chip.bandwidth),
        peak_seconds=max(flops / chip.peak_flops, module.hbm_bytes / chip.bandwidth),
        exchange_seconds=sum(entry.sent_bytes for entry in exchanges) / chip.links,
        collectives=exchanges,
        unknown_loops=module.unknown_loops,
        peak_flops=chip.peak_flops,
        implementations=tuple(describe_choices(choices)),
    )
