"""GPUs that programs compile for without one."""

import os

import jax
from jax.experimental import topologies

from paca_jax.errors import UserError

# What JAX's CUDA compiler is told of a GPU: the figures that XLA reports for an H100, with the memory of the one that is meant.
_DESCRIPTION = """
gpu_device_info {{
  name: "{name}"
  device_memory_size: {memory}
  memory_bandwidth: {bandwidth}
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability 9.0a"
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
device_description_str: "{name}"
"""
# One matrix product of the models finds no tile sizes when its kernel is chosen without a GPU to try it on.
_FLAG = "--xla_gpu_enable_triton_gemm=false"


# The full name of each GPU and the bytes of its memory.
_GPUS = {"h100": ("NVIDIA H100 80GB HBM3", 84_942_979_072), "h200": ("NVIDIA H200", 150_754_820_096)}


def compile_only_gpus(kind: str, count: int, bandwidth: float) -> list[jax.Device]:
    """Returns GPUs of one host: programs can be compiled for them, but not run. Call it before JAX creates an array.

    Args:
        kind: "h100" or "h200".
        count: how many.
        bandwidth: bytes per second of their memory.

    Raises:
        UserError: if JAX's CUDA compiler is not installed.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()
    name, memory = _GPUS[kind]
    description = _DESCRIPTION.format(name=name, memory=memory, bandwidth=int(bandwidth))
    try:
        return topologies.get_topology_desc(platform="cuda", topology=f"1x1x{count}", target_config=description).devices
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"Expected JAX's CUDA compiler, got none ({' '.join(str(error).split())[:80]}). "
            'Install it: pip install "paca-jax[cuda12]", or cuda13.'
        ) from error
