import copy

import pytest

from benchmarks.against_torch import compare, markdown, torch_calls
from benchmarks.official import build_official
from benchmarks.programs import FORWARD, TRAINING, Case
from paca_jax.errors import UserError
from paca_jax.models import create_model


def test_ratios_are_computed_per_round():
    ours, theirs = compare({"paca_jax": [1.0, 2.0, 4.0], "eager": [3.0, 4.0, 4.0]}, batch=8)
    assert (ours["images_per_second"], theirs["images_per_second"]) == (4, 2)
    assert ours["ratio"] is None
    assert theirs["ratio"] == {"low": 1.5, "median": 2, "high": 2.5}


def test_the_table():
    case = {"model": "a", "program": "forward", "batch": 8, "image_size": 64}
    rows = [{**case, **row} for row in compare({"paca_jax": [0.01] * 3, "compiled": [0.02] * 3}, batch=8)]
    assert markdown(rows).splitlines()[2:] == [
        "| `a` | forward | paca_jax | 8 | 64 | 10.0 (10.0 to 10.0) | 800.0 |  |",
        "| `a` | forward | PyTorch, compiled | 8 | 64 | 20.0 (20.0 to 20.0) | 400.0 | 2.00 (2.00 to 2.00) |",
    ]


def test_another_folder_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"models/paca_vit\.py"):
        build_official(tmp_path, "pacavit_nano", create_model("pacavit_nano").config)


@pytest.mark.parametrize("setting", ["eager", "channels_last"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pytorch_runs_inference_and_training(setting, dtype):
    torch = pytest.importorskip("torch")
    seen = []

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 1000, 8)

        def forward(self, x):
            y = self.conv(x).flatten(1)
            last = x.is_contiguous(memory_format=torch.channels_last)
            seen.append((self.training, last, str(y.dtype), self.conv.bias.detach().clone()))
            return y

    network = Network()
    before = copy.deepcopy(network.state_dict())
    calls = torch_calls(Case("a", 2, 8, dtype), network, setting)
    for _ in range(2):
        calls[FORWARD]()
        calls[TRAINING]()
    expected = (setting == "channels_last", f"torch.{dtype}")
    assert [one[:3] for one in seen] == 2 * [(False, *expected), (True, *expected)]
    biases = [one[3] for one in seen]
    assert torch.equal(biases[0], biases[2]), "inference does not change weights"
    assert not torch.equal(biases[1], biases[3]), "training does"
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
