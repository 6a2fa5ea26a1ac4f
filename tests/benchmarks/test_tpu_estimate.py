import json
import re

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from benchmarks.kernels import kernels
from benchmarks.schedules import cycles
from benchmarks.tpu_estimate import markdown, operations, part
from paca_jax.planning.hlo import parse
from paca_jax.planning.topology import CHIPS
from tests.runs import needs_libtpu, run_for_tpus

# A kernel of 256 steps, whose loop of three rounds is at 0x5 to 0xb; the compiler has moved 0x6 there from after it.
SCHEDULE = """
LB: loop body
= control target key end

     0   :  { %s1 = smov 0  ;;  %s2 = smov 0 } /* End region 162 */
   0x1   :  { %9 = vsyncpa [#allocation8], 0 }
   0x2 LB: > { %s3 = sadd.s32 1, %s1 }
   0x3   : > { %370 = sbr.rel (%p17) target bundleno = 14 (0xe), region = 9 }
   0x4   :  {}
   0x5 LB: >> { %p20_p1 = scmp.ge.s32.totalorder %s20_s3, 3 /* loop exit test */  ;;  %v1 = vld [vmem:[#allocation2] sm:$0xff] }
   0x6   : > { %v2 = vld [vmem:[#allocation3] sm:$0xff] }
   0x7   : >> { %22 = sbr.rel (!%p20_p1) target bundleno = 5 (0x5), region = 66 }
   0x8   :  {}
   0x9   :  {}
   0xa   :  {}
   0xb   : >> { %v3 = vadd.f32 %v1, %v1 }
   0xc   : > { %16062 = dma.vmem_to_hbm [thread:$0]  (%p12), /*vmem=*/%s7
window_bounds: (196, 1)
strides: (196, 1) */ }
   0xd   : > { %p30_p2 = scmp.ge.s32.totalorder %s3, BOUND /* loop exit test */ }
   0xe PF: > { %25 = sbr.rel (!%p30_p2) target bundleno = 2 (0x2), region = 167 }
   0xf   :  {}
  0x10   :  {}
  0x11   :  {}
  0x12   : > { %s4 = smov %s3 } /* End region 3 */
  0x13   :  { %27 = vsyncpa [#allocation8], 1 } /* exit bundle: %depthwise_mlp.1 */
"""


def schedule(bound):
    return SCHEDULE.replace("BOUND", str(bound))


def test_loops_count_as_often_as_they_run():
    step = 17 + 2 * 7  # bundles 2 to 18, of which 5 to 11 run three times
    assert cycles(schedule(258), 256) == 3 + 256 * step
    assert cycles(schedule(130), 256) == 3 + 128 * step, "two cores split the steps"
    assert cycles(schedule(10), 1) == 3 + 10 * step, "a grid of one step has no loop"


def test_schedules_that_cannot_be_parsed_are_rejected():
    with pytest.raises(ValueError, match="256 iterations"):
        cycles(schedule(90), 256)
    with pytest.raises(ValueError, match="loop of bundles 2 to 18"):
        cycles(schedule("%s9"), 256)
    with pytest.raises(ValueError, match="no bundles"):
        cycles("Schedule analysis:\n", 1)


def double(x, name="double", grid=(2,)):
    def kernel(x, y):
        jax.lax.fori_loop(0, 5, lambda i, _: y.__setitem__(..., x[...] * i), None)

    spec = pl.BlockSpec((8, 128), lambda i: (i, 0))
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pl.pallas_call(kernel, grid=grid, in_specs=[spec], out_specs=spec, out_shape=shape, name=name)(x)


def test_kernels_are_found_wherever_they_are_nested():
    def program(x):
        x = jax.jit(lambda y: double(y, "inside_jit"))(x)
        x = jax.lax.scan(lambda y, _: (double(y, "inside_scan"), None), x, None, 3)[0]
        return jax.lax.platform_dependent(x, tpu=lambda y: double(y, "inside_branch"), default=lambda y: y)

    found = kernels(jax.make_jaxpr(program)(jnp.zeros((16, 128))).jaxpr)
    assert [equation.params["name"] for equation in found] == ["inside_jit", "inside_scan", "inside_branch"]


CODE = """
import json, os, tempfile
from pathlib import Path
with tempfile.TemporaryDirectory() as folder:
    os.environ["LIBTPU_INIT_ARGS"] = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
    import jax
    from benchmarks.kernels import compiled_cycles, kernels
    from paca_jax.planning.topology import compile_only_devices, parse_topology, prepare_environment
    from tests.benchmarks.test_tpu_estimate import double
    prepare_environment()
    device = compile_only_devices(parse_topology("v5e:1x1"))[0]
    found = []
    for steps in (4, 64):
        traced = jax.jit(lambda x: double(x, grid=(steps,))).trace(jax.ShapeDtypeStruct((8 * steps, 128), "float32"))
        found += [compiled_cycles(equation, device, Path(folder)) for equation in kernels(traced.jaxpr.jaxpr)]
print(json.dumps(found))
"""


@pytest.mark.slow
@needs_libtpu
def test_the_compilers_schedules_can_be_parsed():
    few, many = json.loads(run_for_tpus(CODE))
    assert 10 < few / 4 < 1000
    assert 14 < many / few <= 16, "the time per step does not depend on their number"


NAMES = {
    "jit(f)/transpose(jvp(PaCaViT))/PaCaViT.outputs/stage3/block7/mlp/depthwise/conv": "mlp/depthwise, backward",
    "jit(f)/PaCaViT.outputs/stage3/while/body/closed_call/checkpoint/rematted_computation/mlp/cond/branch_1_fun/dot": "mlp",
    "jit(f)/PaCaViT.outputs/stage4/block0/attention/bmn,bnc->bmc/dot_general": "attention",
    "jit(training)/update/mul": "update",
    "jit(f)/add": "rest",
}


@pytest.mark.parametrize("source", NAMES)
def test_operations_are_named_after_their_part_of_the_model(source):
    assert part(source) == NAMES[source]


HLO = """HloModule jit_step, is_scheduled=true

ENTRY %main (x: f32[1024,128]) -> f32[1024,128] {
  %x = f32[1024,128]{1,0:T(8,128)} parameter(0)
  %fusion.1 = f32[1024,128]{1,0:T(8,128)} fusion(%x), kind=kLoop, calls=%fused, METADATA(ViT/mlp/mul)CYCLES(70)
  %a.1 = f32[1024,128]{1,0:T(8,128)} custom-call(%fusion.1), CUSTOM_CALL, METADATA(ViT/slow/pallas_call)
  %b.1 = f32[1024,128]{1,0:T(8,128)} custom-call(%a.1), CUSTOM_CALL, METADATA(ViT/slow/pallas_call)
  ROOT %c.1 = f32[1024,128]{1,0:T(8,128)S(1)} custom-call(%b.1), CUSTOM_CALL, METADATA(ViT/fast/pallas_call)
}

%fused (y: f32[1024,128]) -> f32[1024,128] {
  ROOT %y = f32[1024,128]{1,0:T(8,128)} parameter(0)
}
"""


def test_kernels_take_the_time_of_their_schedule_or_of_their_bytes():
    text = HLO.replace("CUSTOM_CALL", 'custom_call_target="tpu_custom_call"')
    text = re.sub(r"METADATA\((.*?)\)", r'metadata={op_name="jit(f)/\1"}', text)
    text = re.sub(r"CYCLES\((.*?)\)", r', backend_config={"estimated_cycles":"\1"}', text)
    shape, chip = ((1024, 128),), CHIPS["v5e"]
    found = operations(parse(text), chip, {("slow", shape): 5000, ("fast", shape): 10})
    read = 1024 * 128 * 4 / chip.bandwidth * chip.clock_hz  # what it writes stays on the chip
    assert found["mlp"] == 70
    assert found["kernel slow"] == 2 * 5000
    assert found["kernel fast"] == round(read) > 10


def test_the_tables():
    row = {"model": "a", "program": "forward", "batch": 4, "image_size": 64, "compile_seconds": 1.2, "temporary_bytes": 2**30}
    row |= {"cycles": 4000, "kernel_cycles": 1000, "matrix_flops": 4000 * 13133}
    row |= {"operations": {"mlp": 3000, "kernel x": 900, "rest": 100}}
    lines = markdown([row], CHIPS["v5e"], most=2).splitlines()
    assert lines[2] == "| `a` | forward | 4 | 64 | 1,000 | 25% | 13,133 | 10.0% | 1.00 | 1 |"
    assert lines[6:] == ["| mlp | 750 | 75.0% |", "| kernel x | 225 | 22.5% |"]
    assert len(markdown([row], CHIPS["v5e"], most=0).splitlines()) == 3
