import dataclasses

import jax
import pytest

from benchmarks.programs import Case
from benchmarks.tpu_memory import estimate, images, markdown
from paca_jax.planning.topology import CHIPS

CASE = Case("pacavit_nano", 4, 32, "float32")
GIB = 2**30


def row(**changed):
    found = {"batch": 8, "state_bytes": 2 * GIB, "temporary_bytes": 3 * GIB, "total_bytes": 6 * GIB}
    return dataclasses.asdict(CASE) | found | {"matrix_flops": 16e9} | changed


def test_images_fill_the_memory_that_the_state_leaves():
    assert images(row(), CHIPS["v5e"]) == 27, "13.75 GiB at half a GiB each"


def test_the_table_has_the_memory_per_image():
    head, _, line = markdown([row(remat=True)], CHIPS["v5e"]).splitlines()
    assert "images in 15.75 GiB" in head
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "`pacavit_nano`", "recomputed", "32", "2.0", "8", "3.00", "512.0", "27",
    ]  # fmt: skip


@pytest.mark.slow
def test_recomputed_blocks_take_more_operations_and_the_same_state():
    kept, recomputed = (estimate(dataclasses.replace(CASE, remat=remat), jax.devices()[0]) for remat in (False, True))
    assert recomputed["matrix_flops"] > 1.1 * kept["matrix_flops"]
    assert recomputed["state_bytes"] == kept["state_bytes"]
    for found in (kept, recomputed):
        assert found["state_bytes"] < found["total_bytes"] - found["temporary_bytes"]
