"""Models as programs that run without this library: StableHLO for JAX, ONNX for other runtimes."""

from paca_jax.export.certification.certificate import Certificate
from paca_jax.export.certification.comparison import Rounding
from paca_jax.export.onnx_format import onnx
from paca_jax.export.stablehlo_format import stablehlo

__all__ = ["Certificate", "Rounding", "onnx", "stablehlo"]
