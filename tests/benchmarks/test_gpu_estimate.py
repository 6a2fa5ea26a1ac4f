import sys

import pytest

from benchmarks.gpu_estimate import launches, markdown
from paca_jax.planning.hlo import parse
from paca_jax.planning.topology import CHIPS
from tests.runs import run_main

# A product, a fusion that takes one operand twice, and a kernel of Pallas in a loop of three rounds.
PROGRAM = """HloModule jit_step, is_scheduled=true

%fused (p: bf16[8,16]) -> bf16[8,16] {
  %p = bf16[8,16]{1,0} parameter(0)
  ROOT %add.1 = bf16[8,16]{1,0} add(%p, %p)
}

ENTRY %main (a: bf16[8,4], b: bf16[4,16]) -> bf16[8,16] {
  %a = bf16[8,4]{1,0} parameter(0)
  %b = bf16[4,16]{1,0} parameter(1)
  %gemm = (bf16[8,16]{1,0}, s8[64]{0}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul", \
metadata={op_name="jit(step)/jvp(PaCaViT)/stage1/block0/mlp/dot_general"}
  %get-tuple-element.1 = bf16[8,16]{1,0} get-tuple-element(%gemm), index=0
  ROOT %fusion.1 = bf16[8,16]{1,0} fusion(%get-tuple-element.1, %get-tuple-element.1), kind=kLoop, calls=%fused, \
metadata={op_name="jit(step)/transpose(jvp(PaCaViT))/stage1/block0/mlp/add"}
}
"""


def test_each_kernel_counts_its_operands_and_results_once():
    assert list(launches(parse(PROGRAM))) == [("mlp", 2 * (32 + 64 + 128) + 64), ("mlp, backward", 2 * (128 + 128))]


def test_the_tables():
    case = {"model": "a", "program": "forward", "batch": 8, "image_size": 224, "kernels": 1200, "bytes": 33_500_000_000}
    costs = {"matrix_flops": 990_000_000_000, "temporary_bytes": 2**30, "compile_seconds": 60.0}
    rows = [{**case, **costs, "operations": {"mlp": 30_000_000_000, "attention": 3_500_000_000}}]
    lines = markdown(rows, CHIPS["h100"], most=1).splitlines()
    assert lines[2] == "| `a` | forward | 8 | 224 | 1,200 | 33.5 | 10.0 | 990 | 1.0 | 1.00 | 60 |"
    assert lines[-1] == "| mlp | 30.00 | 89.6% |"
    assert "attention" not in lines[-1]


@pytest.mark.slow
def test_the_compiler_must_be_installed():
    done = run_main(sys.executable, "-m", "benchmarks.gpu_estimate", "--model", "pacavit_nano", "--batch", "1")
    if done.returncode != 0:
        assert 'pip install "paca-jax[cuda12]"' in done.stderr
        assert len(done.stderr.splitlines()) == 1
    else:
        assert "| `pacavit_nano` | training |" in done.stdout
