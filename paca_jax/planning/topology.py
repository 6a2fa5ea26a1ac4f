"""TPU chips, slices and GPUs by name, and devices that programs compile for without one."""

import dataclasses
import math
import os
import re

import jax
from jax.experimental import topologies

from paca_jax.errors import UserError
from paca_jax.planning import gpus

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """The specification of one kind of chip.

    All numbers are per device: a v4 or v5p chip joins two cores into one device, and a tpu7x chip is two devices, with half of
    the published numbers each.

    Attributes:
        form: the form of its slices' names.
        usable_hbm_bytes: the part of the main memory (32, 16, 95, 32 and 192 GB a chip as published) that the compiler lets a
            program use; libtpu 0.0.42.1 reports it if a program is too large: "exceeds available HBM (15.75G)".
        bandwidth: of the main memory, in bytes per second, as published.
        links: bytes per second that it can send to its neighbors over all links together: half of the published bidirectional
            bandwidth between chips.
        peak_flops: bfloat16 FLOPs per second, as published.
        clock_hz: `peak_flops` divided by the FLOPs per cycle: two for each cell of its matrix units (8 units of 128 x 128 for
            v4 and v5p, 4 for v5e, 4 units of 256 x 256 for v6e and tpu7x).
        devices: devices of a chip.
        platform: what JAX calls its kind of device.

    Published numbers: https://cloud.google.com/tpu/docs/system-architecture-tpu-vm and its pages v4, v5e, v5p, v6e and tpu7x;
    https://www.nvidia.com/en-us/data-center/ and its pages a100, h100, h200 and b200. A GPU's usable memory is the part that
    JAX takes by default (an H200 reports it, others are in proportion; XLA_PYTHON_CLIENT_MEM_FRACTION changes it); its links
    are NVLink.
    """

    form: str
    usable_hbm_bytes: int
    bandwidth: float
    links: float
    peak_flops: float
    clock_hz: float
    devices: int = 1
    platform: str = "tpu"


CHIPS = {
    "v4": Chip("WxHxD", int(30.75 * GIB), 1228e9, 300e9, 275e12, 1.05e9),
    "v5e": Chip("WxH", int(15.75 * GIB), 819e9, 200e9, 197e12, 1.5e9),
    "v5p": Chip("WxHxD", int(95.74 * GIB), 2765e9, 600e9, 459e12, 1.75e9),
    "v6e": Chip("WxH", int(31.25 * GIB), 1640e9, 400e9, 918e12, 1.75e9),
    "tpu7x": Chip("WxHxD", int(94.75 * GIB), 3690e9, 300e9, 1153.5e12, 2.2e9, devices=2),
    "a100": Chip("N", 63_552_000_000, 2039e9, 300e9, 312e12, 1.41e9, platform="gpu"),
    "h100": Chip("N", 63_435_000_000, 3350e9, 450e9, 990e12, 1.98e9, platform="gpu"),
    "h200": Chip("N", 112_583_507_968, 4800e9, 450e9, 990e12, 1.98e9, platform="gpu"),
    "b200": Chip("N", 143_022_000_000, 8000e9, 900e9, 2250e12, 1.965e9, platform="gpu"),
}
_GPUS_OF_A_HOST = 8
_FORMS = ", ".join(f"{name}:{chip.form}" for name, chip in CHIPS.items())
_QUIET = {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}  # otherwise libtpu warns


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of chips.

    Attributes:
        name: its name, such as `v5e:16x16`.
        chip: the specification of its chips.
        sides: the number of chips along each axis.
    """

    name: str
    chip: Chip
    sides: tuple[int, ...]

    @property
    def num_chips(self) -> int:
        """The number of chips in the slice."""
        return math.prod(self.sides)

    @property
    def num_devices(self) -> int:
        """The number of devices in the slice."""
        return self.num_chips * self.chip.devices


def parse_topology(name: str) -> Topology:
    """Returns the slice of that name.

    Raises:
        UserError: if the kind of chip is unknown, or the sides are not those of a slice.
    """
    kind, _, extent = name.partition(":")
    chip = CHIPS.get(kind)
    sides = (
        tuple(int(side) for side in extent.split("x")) if re.fullmatch(r"[1-9][0-9]{0,2}(x[1-9][0-9]{0,2})*", extent) else ()
    )
    if chip is None or len(sides) != len(chip.form.split("x")):
        raise UserError(f"Expected a topology such as v5e:16x16, got {name!r}. Choose one of the forms {_FORMS}, in chips.")
    if chip.platform == "gpu":
        if sides[0] > _GPUS_OF_A_HOST:
            raise UserError(f"Expected at most {_GPUS_OF_A_HOST} GPUs, those of one host, got {name!r}. Choose fewer.")
    elif math.prod(sides) > 1 and (sides[0] % 2 or sides[1] % 2):
        raise UserError(
            "Expected a topology whose first two sides are even (a host has 2x2 chips) or whose sides are all 1, "
            f"got {name!r}. Choose other sides."
        )
    return Topology(name, chip, sides)


def prepare_environment() -> None:
    """Lets JAX and libtpu start without a TPU; call it before JAX creates an array. Variables already set are kept."""
    for name, value in {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", **_QUIET}.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])


def compile_only_devices(topology: Topology) -> list[jax.Device]:
    """Returns the slice's devices: programs can be compiled for them, but not run.

    Raises:
        UserError: if libtpu, or JAX's CUDA compiler, is not installed, or libtpu is held by another process or does not know
            the slice.
    """
    if topology.chip.platform == "gpu":
        return gpus.compile_only_gpus(topology.name.partition(":")[0], topology.num_chips, topology.chip.bandwidth)
    options: dict[str, object] = {}
    if len(topology.sides) == 3 and topology.chip.devices == 1:
        options["chip_config_name"] = "megacore"  # v4 would otherwise have two devices per chip
    if topology.num_chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options).devices
    except RuntimeError as error:
        message = " ".join(str(error).split())
        if "not installed" in message:
            raise UserError('Expected libtpu to be installed, got none. Install it: pip install "paca-jax[tpu]"') from error
        if "lockfile" in message or "already in use" in message:
            raise UserError(
                "Expected libtpu to be free, got one that another process holds. Wait until that process ends, or set "
                "ALLOW_MULTIPLE_LIBTPU_LOAD=1 if no TPU is attached."
            ) from error
        raise UserError(
            f"Expected a topology that libtpu knows, got {topology.name!r} ({message}). Choose one of the forms {_FORMS}."
        ) from error
