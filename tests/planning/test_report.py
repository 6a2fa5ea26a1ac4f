"""Estimates as text."""

from paca_jax.planning.estimate import Estimate
from paca_jax.planning.memory import Memory
from paca_jax.planning.report import describe


def estimate(platform, cycles):
    memory = Memory(
        parameters=2**30, optimizer_state=0, other_state=0, batch=0, padding=0, temporaries=2**30, outputs=0, program=0
    )
    return Estimate(
        topology="a:8",
        platform=platform,
        chips=8,
        devices=8,
        mesh={"data": 8},
        model="b",
        batch_size=80,
        accumulate_steps=1,
        remat=False,
        steps=3600,
        epochs=2.0,
        memory=memory,
        usable_hbm_bytes=4 * 2**30,
        matrix_flops=1e12,
        hbm_bytes=10**10,
        cycles=cycles,
        cycle_seconds=cycles / 1e9,
        kernel_seconds=0.0,
        peak_seconds=0.05,
        exchange_seconds=0.01,
        collectives=[],
        unknown_loops=(),
        peak_flops=1e14,
        implementations=("attention: cudnn in 8 blocks",),
    )


def test_a_tpus_page_tells_cycles():
    page = describe(estimate("tpu", cycles=200_000_000))
    assert "8 chips, mesh data=8" in page
    assert "the compiler's 200,000,000 cycles" in page
    assert "400 " in page.split("images per second")[1]  # 80 images in 0.2 s
    assert "GPU" not in page


def test_a_gpus_page_tells_bytes_alone_and_says_so():
    page = describe(estimate("gpu", cycles=0))
    assert "8 GPUs, mesh data=8" in page
    assert "cycles" not in page
    assert "time at the GPU's peak, ms" in page
    assert "1,600 " in page.split("images per second")[1]  # 80 images in 0.05 s
    assert "Of a GPU's step only bytes and matrix operations are known" in page
    assert "of 4.000 usable: fits, 50.0%" in page
