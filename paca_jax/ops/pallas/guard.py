"""An identity beside every kernel that raises, in one sentence, where a kernel cannot go."""

from typing import Any

from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from paca_jax.errors import UserError

_WAY_OUT = "Trace it with implementation='xla'."

_guard = Primitive("kernel_guard")


def guard(x: Array, kernel: str, *, interpreted: bool) -> Array:
    """Returns an operand of a kernel.

    It raises a UserError when the kernel is differentiated (the gradient of a fused operation is a kernel of its own) and,
    unless kernels are interpreted, when it is compiled for another platform than a TPU or, without a mesh, for several devices.
    """
    return _guard.bind(x, kernel=kernel, interpreted=interpreted)


def _same(x: Any, **_: Any) -> Any:
    return x


def _batch(operands: Any, axes: Any, **options: Any) -> Any:
    return _guard.bind(*operands, **options), axes[0]


def _differentiate(*_: Any, kernel: str, **__: Any) -> Any:
    raise UserError(
        f"Expected a first derivative in reverse mode, got another one, which the kernel {kernel} does not have. {_WAY_OUT}"
    )


def _lower_elsewhere(ctx: Any, x: Any, *, kernel: str, interpreted: bool) -> Any:
    if interpreted:
        return [x]
    platforms = ", ".join(ctx.module_context.platforms)
    raise UserError(
        f"Expected a program that is compiled for a TPU alone, got one for {platforms}, which the kernel {kernel} does not run "
        f"on. {_WAY_OUT}"
    )


def _lower_on_a_tpu(ctx: Any, x: Any, *, kernel: str, interpreted: bool) -> Any:
    # Inside of `shard_map`, which a mesh makes the kernel's caller use, the context has no such number.
    devices = getattr(ctx.module_context.axis_context, "num_devices", 1)
    if devices not in (None, 1):
        raise UserError(
            f"Expected a mesh (jax.set_mesh) while a program for {devices} devices is traced, got none, and the kernel "
            f"{kernel} cannot be split without one. Set the mesh, or trace the program with implementation='xla'."
        )
    return [x]


_guard.def_impl(_same)
_guard.def_abstract_eval(_same)
batching.primitive_batchers[_guard] = _batch
ad.primitive_jvps[_guard] = _differentiate
mlir.register_lowering(_guard, _lower_elsewhere)
mlir.register_lowering(_guard, _lower_on_a_tpu, platform="tpu")
