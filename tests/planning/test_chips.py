"""A program of known size, compiled for every kind of chip."""

import json

import pytest

from paca_jax.planning.topology import CHIPS
from tests.runs import needs_libtpu, run_for_tpus

SIDE = 8192
CODE = f"""
import json
import jax
from jax.sharding import SingleDeviceSharding
from paca_jax.planning.hlo import parse
from paca_jax.planning.topology import compile_only_devices, parse_topology, prepare_environment

prepare_environment()
found = {{}}
for name in ("v4:2x2x2", "v5e:1x1", "v5p:2x2x2", "v6e:16x16", "tpu7x:2x2x1"):
    topology = parse_topology(name)
    devices = compile_only_devices(topology)
    assert len(devices) == topology.num_devices, name
    matrix = jax.ShapeDtypeStruct(({SIDE}, {SIDE}), "bfloat16", sharding=SingleDeviceSharding(devices[-1]))
    module = parse(jax.jit(lambda a, b: a @ b).lower(matrix, matrix).compile().as_text())
    found[name] = [module.cycles, module.hbm_bytes]
print(json.dumps(found))
"""


@pytest.mark.slow
@needs_libtpu
def test_a_large_matrix_product_takes_most_of_the_peak_and_moves_three_matrices():
    for name, (cycles, hbm_bytes) in json.loads(run_for_tpus(CODE)).items():
        chip = CHIPS[name.partition(":")[0]]
        fraction = 2 * SIDE**3 / (cycles / chip.clock_hz) / chip.peak_flops
        assert 0.6 < fraction <= 1, f"{name}: {fraction:.2f} of the peak"
        assert hbm_bytes == pytest.approx(3 * 2 * SIDE**2, rel=0.01), name
