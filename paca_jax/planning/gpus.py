"""GPUs that programs compile for without one."""

import dataclasses
import os

import jax
from jax.experimental import topologies

from paca_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What a CUDA compiler asks of a GPU: the figures that XLA keeps of it.

    Attributes:
        name: its full name.
        memory: bytes of its main memory.
        capability: the compute capability, in the form of a protocol buffer.
        multiprocessors: how many.
        lanes: float32 units of a multiprocessor.
        shared: bytes of shared memory of a multiprocessor.
        cache: bytes of its last cache.
        clock: in GHz.
    """

    name: str
    memory: int
    capability: str
    multiprocessors: int
    lanes: int
    shared: int
    cache: int
    clock: float


_HOPPER = "major: 9 feature_extension: ACCELERATED_FEATURES"
_BLACKWELL = "major: 10 feature_extension: ACCELERATED_FEATURES"
GPUS = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", 85_100_068_864, "major: 8", 108, 64, 167_936, 41_943_040, 1.41),
    "h100": Gpu("NVIDIA H100 80GB HBM3", 84_942_979_072, _HOPPER, 132, 128, 233_472, 52_428_800, 1.98),
    "h200": Gpu("NVIDIA H200", 150_754_820_096, _HOPPER, 132, 128, 233_472, 52_428_800, 1.98),
    "b200": Gpu("NVIDIA B200", 191_514_411_008, _BLACKWELL, 148, 128, 233_472, 132_644_864, 1.965),
}
_RESERVED = 1024  # bytes of a multiprocessor's shared memory that a program cannot have
_DESCRIPTION = """
gpu_device_info {{
  name: "{gpu.name}"
  device_memory_size: {gpu.memory}
  memory_bandwidth: {bandwidth}
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {most_shared}
  shared_memory_per_core: {gpu.shared}
  threads_per_core_limit: 2048
  core_count: {gpu.multiprocessors}
  fpus_per_core: {gpu.lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.clock}
  cuda_compute_capability {{ {gpu.capability} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  device_vendor: "NVIDIA Corporation"
  device_address_bits: 64
  pcie_bandwidth: 34359738368
  ecc_enabled: true
  driver_version: "13.0.0"
  runtime_version: "12.9.0"
  compile_time_toolkit_version: "12.9.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{gpu.name}"
"""
# XLA chooses between Triton and cuBLAS for each matrix product by trying both, which takes a GPU. Here all are cuBLAS's, which
# every version of JAX compiles: with 0.10.2, Triton finds no tile sizes for one product of the models.
_FLAG = "--xla_gpu_enable_triton_gemm=false"


def compile_only_gpus(kind: str, count: int, bandwidth: float) -> list[jax.Device]:
    """Returns GPUs of one host: programs can be compiled for them, but not run. Call it before JAX creates an array.

    Matrix products become calls of cuBLAS, unless the environment variable XLA_FLAGS says otherwise.

    Args:
        kind: "a100", "h100", "h200" or "b200".
        count: how many.
        bandwidth: bytes per second of their memory.

    Raises:
        UserError: if JAX's CUDA compiler is not installed.
    """
    os.environ["XLA_FLAGS"] = f"{_FLAG} {os.environ.get('XLA_FLAGS', '')}".strip()
    gpu = GPUS[kind]
    description = _DESCRIPTION.format(gpu=gpu, most_shared=gpu.shared - _RESERVED, bandwidth=int(bandwidth))
    try:
        return topologies.get_topology_desc(platform="cuda", topology=f"1x1x{count}", target_config=description).devices
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"Expected JAX's CUDA compiler, got none ({' '.join(str(error).split())[:80]}). "
            'Install it: pip install "paca-jax[cuda12]", or cuda13.'
        ) from error
