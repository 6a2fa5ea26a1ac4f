import os

import jax
import pytest

from paca_jax.errors import UserError
from paca_jax.planning import topology
from paca_jax.planning.topology import CHIPS, compile_only_devices, parse_topology

SLICES = {"v4:2x2x2": 8, "v5e:16x16": 256, "v5p:2x2x1": 4, "v6e:1x1": 1, "v6e:4x8": 32, "h100:8": 8, "b200:3": 3}
FORMS = "v4:WxHxD, v5e:WxH, v5p:WxHxD, v6e:WxH, tpu7x:WxHxD, a100:N, h100:N, h200:N, b200:N"
WRONG = ("", "v5e", "v5e:", "v9:2x2", "v5e:2x2x2", "v4:2x2", "v5e:2x-2", "v5e:0x2", "v5e:2x2 ", "V5E:2x2", "h100", "h100:2x2")


@pytest.mark.parametrize(("name", "chips"), SLICES.items())
def test_a_slice_counts_its_chips(name, chips):
    assert parse_topology(name).num_chips == parse_topology(name).num_devices == chips


def test_a_chip_of_the_seventh_generation_is_two_devices():
    assert (parse_topology("tpu7x:2x2x1").num_chips, parse_topology("tpu7x:2x2x1").num_devices) == (4, 8)


@pytest.mark.parametrize("name", WRONG)
def test_an_unknown_name_lists_the_known_forms(name):
    with pytest.raises(UserError, match=f"got .* Choose one of the forms {FORMS}"):
        parse_topology(name)


@pytest.mark.parametrize("name", ["v5e:3x4", "v6e:2x1", "v4:1x2x2"])
def test_sides_that_no_host_has_are_rejected(name):
    with pytest.raises(UserError, match="even"):
        parse_topology(name)


def test_gpus_are_those_of_one_host():
    with pytest.raises(UserError, match="at most 8 GPUs"):
        parse_topology("h100:16")


@pytest.mark.parametrize("error", [NotImplementedError("platform cuda not registered"), RuntimeError("no such thing")])
def test_without_a_cuda_compiler_a_message_names_what_to_install(monkeypatch, error):
    def refuse(**_):
        assert os.environ["XLA_FLAGS"].split() == ["--xla_gpu_enable_triton_gemm=false", "--xla_of_the_user"]  # the last wins
        raise error

    monkeypatch.setattr(topology.topologies, "get_topology_desc", refuse)
    monkeypatch.setenv("XLA_FLAGS", "--xla_of_the_user")
    with pytest.raises(UserError, match=r'pip install "paca-jax\[cuda12\]"'):
        compile_only_devices(parse_topology("h100:8"))


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        ("JAX TPU support not installed; cannot generate TPU topology.", r'pip install "paca-jax\[tpu\]"'),
        (
            'ABORTED: Internal error when accessing libtpu multi-process lockfile. Run "$ sudo rm /tmp/libtpu_lockfile".',
            "ALLOW_MULTIPLE_LIBTPU_LOAD=1",
        ),
        ("INVALID_ARGUMENT: Topology layout is not divisible", "Expected a topology that libtpu knows, got 'v5e:2x2'"),
    ],
)
def test_errors_of_libtpu_become_messages_for_users(monkeypatch, cause, message):
    def refuse(**_):
        raise jax.errors.JaxRuntimeError(cause)

    monkeypatch.setattr(topology.topologies, "get_topology_desc", refuse)
    with pytest.raises(UserError, match=message):
        compile_only_devices(parse_topology("v5e:2x2"))


def test_clocks_and_peaks_agree():
    cells = {"v4": 8 * 128**2, "v5e": 4 * 128**2, "v5p": 8 * 128**2, "v6e": 4 * 256**2, "tpu7x": 4 * 256**2}
    for kind, chip in ((kind, chip) for kind, chip in CHIPS.items() if chip.platform == "tpu"):
        assert 2 * cells[kind] * chip.clock_hz == pytest.approx(chip.peak_flops, rel=0.01)
