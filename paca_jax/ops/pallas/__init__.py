"""The parts that kernels share: register sizes, memory limits, block specs, and passes over patches or rows of maps."""
