import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks.gpu_kernels import assembler, executed, loop_trips, markdown, seconds
from paca_jax.errors import UserError
from paca_jax.planning.gpus import GPUS
from paca_jax.planning.topology import CHIPS

# Three instructions, a loop of two, one more, a loop of three, and the end, which branches to itself.
CODE = """
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   S2R R0, SR_TID.X ;
        /*0020*/                   MOV R2, RZ ;
.L_x_0:
        /*0030*/                   IADD3 R2, R2, 0x1, RZ ;
        /*0040*/              @!P0 BRA `(.L_x_0) ;
        /*0050*/                   MOV R2, RZ ;
.L_x_1:
        /*0060*/                   FFMA R3, R2, R3, R4 ;
        /*0070*/                   ISETP.NE.U32.AND P0, PT, R2, 0x10, PT ;
        /*0080*/               @P0 BRA `(.L_x_1) ;
        /*0090*/                   EXIT ;
.L_x_2:
        /*00a0*/                   BRA `(.L_x_2);
"""


def test_instructions_of_a_loop_count_as_often_as_it_runs():
    assert executed(CODE, (1, 1)) == 11
    assert executed(CODE, (5, 10)) == 11 + 4 * 2 + 9 * 3


def test_the_code_has_the_loops_of_the_kernel():
    with pytest.raises(
        ValueError, match=r"Expected 1 loops one after another, got those of instructions \[\(3, 5\), \(6, 9\)\]"
    ):
        executed(CODE, (5,))


def test_loops_that_run_more_than_once():
    def kernel(x):
        for trips in (3, 1, 7):
            x = jax.lax.fori_loop(0, trips, lambda _, x: x * 2, x)
        return x

    assert loop_trips(jax.make_jaxpr(kernel)(jnp.ones(())).jaxpr) == [3, 7]


def test_the_table():
    row = {"operation": "layer norm", "maps": (7, 7, 384), "kernel": "layer_norm_backward", "programs": 1568, "registers": 72}
    row |= {"spilled_bytes": 0, "warp_instructions": 1_045_440, "bytes": 33_500_000}
    assert seconds(row, GPUS["h100"], CHIPS["h100"]) == pytest.approx((1e-6, 1e-5))
    line = markdown([row], GPUS["h100"], CHIPS["h100"]).splitlines()[-1]
    assert line == "| layer norm | 7x7x384 | `layer_norm_backward` | 1,568 | 72 | 0 | 1.0 | 1 | 10 |"


@pytest.mark.parametrize("installed", [True, False], ids=["in a wheel", "nowhere"])
def test_the_assembler_is_that_of_cudas_wheels(tmp_path, monkeypatch, installed):
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    if installed:
        program = tmp_path / "nvidia" / "cu13" / "bin" / "ptxas"
        program.parent.mkdir(parents=True)
        program.touch()
        assert assembler() == str(program)
    else:
        with pytest.raises(UserError, match="got no ptxas"):
            assembler()
