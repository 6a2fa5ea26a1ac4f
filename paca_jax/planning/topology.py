"""TPU chips and slices by name, and devices of them that programs compile for without any TPU."""

import dataclasses
import math
import os
import re

import jax
from jax.experimental import topologies

from paca_jax.errors import UserError

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What is known of one kind of chip. All numbers are those of a chip; v4 and v5p chips join two cores to one device.

    Attributes:
        form: how its slices are written.
        usable_hbm_bytes: what the compiler lets a program use of the main memory, which is published as 32, 16, 95 and 32 GB
            (libtpu 0.0.42.1 names it where a program is too large: "exceeds available HBM (15.75G)").
        bandwidth: of the main memory, in bytes a second, as published.
        links: bytes a second that it sends to its neighbors, over all links together: half of the published bidirectional
            bandwidth between chips.
        peak_flops: bfloat16 operations a second, as published.
        clock_hz: `peak_flops` over the operations of a cycle: two for each cell of its matrix units (8 units of 128 x 128 for
            v4 and v5p, 4 for v5e, 4 units of 256 x 256 for v6e).

    Published numbers: https://cloud.google.com/tpu/docs/system-architecture-tpu-vm and its pages v4, v5e, v5p and v6e.
    """

    form: str
    usable_hbm_bytes: int
    bandwidth: float
    links: float
    peak_flops: float
    clock_hz: float


CHIPS = {
    "v4": Chip("WxHxD", int(30.75 * _GIB), 1228e9, 300e9, 275e12, 1.05e9),
    "v5e": Chip("WxH", int(15.75 * _GIB), 819e9, 200e9, 197e12, 1.5e9),
    "v5p": Chip("WxHxD", int(95.74 * _GIB), 2765e9, 600e9, 459e12, 1.75e9),
    "v6e": Chip("WxH", int(31.25 * _GIB), 1640e9, 400e9, 918e12, 1.75e9),
}
_FORMS = ", ".join(f"{name}:{chip.form}" for name, chip in CHIPS.items())
_QUIET = {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}  # else libtpu complains of having none


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of chips.

    Attributes:
        name: as it was asked for, `v5e:16x16`.
        chip: what is known of its chips.
        sides: chips along each axis.
    """

    name: str
    chip: Chip
    sides: tuple[int, ...]

    @property
    def num_chips(self) -> int:
        """Chips of the slice."""
        return math.prod(self.sides)


def parse_topology(name: str) -> Topology:
    """Returns the slice of that name.

    Raises:
        UserError: if the kind of chip is not known, or the sides are not those of a slice.
    """
    kind, _, extent = name.partition(":")
    chip = CHIPS.get(kind)
    sides = tuple(int(side) for side in extent.split("x")) if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", extent) else ()
    if chip is None or len(sides) != len(chip.form.split("x")):
        raise UserError(f"A topology is a kind of chip and its sides in chips ({_FORMS}), such as v5e:16x16, but got {name!r}.")
    if math.prod(sides) > 1 and (sides[0] % 2 or sides[1] % 2):
        raise UserError(
            f"The first two sides of a topology are even, for hosts have 2x2 chips, or all sides are 1, but got {name!r}."
        )
    return Topology(name, chip, sides)


def prepare_environment() -> None:
    """Makes JAX and libtpu start without looking for a TPU; call it before JAX makes its first array. What is set stays."""
    for name, value in {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", **_QUIET}.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])


def compile_only_devices(topology: Topology) -> list[jax.Device]:
    """Returns the slice's devices, one a chip: programs compile for them, and none runs there.

    Raises:
        UserError: if libtpu is not installed, is held by another process, or does not know the slice.
    """
    options: dict[str, object] = {}
    if len(topology.sides) == 3:
        options["chip_config_name"] = "megacore"  # whole chips; v4 would otherwise show each of its two cores
    if topology.num_chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options).devices
    except RuntimeError as error:
        message = " ".join(str(error).split())
        if "not installed" in message:
            raise UserError('Planning compiles with libtpu, which is not installed: pip install "paca-jax[tpu]".') from error
        if "lockfile" in message or "already in use" in message:
            raise UserError(
                "Another process holds libtpu: wait until it ends, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1 if no TPU is attached."
            ) from error
        raise UserError(
            f"libtpu does not know the topology {topology.name!r} ({message}); known forms are {_FORMS}."
        ) from error
