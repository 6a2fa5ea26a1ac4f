"""The models against the recorded outputs of the official implementation, in float32 at the highest matmul precision."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import convert
from paca_jax.models import PaCaViT
from tests import golden
from tests.golden import Differences

TOO_LONG = "pacavit_convmixer_tiny_100.224x224"  # another size of the same model is in the suite
FILES = [
    pytest.param(file, marks=pytest.mark.campaign if file.stem == TOO_LONG else (), id=file.stem)
    for file in sorted(golden.CLASSIFICATION.glob("*.npz"))
]


def _loss_and_outputs(model: PaCaViT) -> Any:
    def loss(params: Any, rest: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        outputs = model.apply({"params": params, **rest}, images, False, method="outputs")
        scores = jax.nn.log_softmax(outputs.logits)
        return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1)), tuple(outputs)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def _check_features(found: Differences, reference: Any, features: list[jax.Array], tolerance: float) -> None:
    for stage, x in enumerate(features, start=1):
        tokens = np.asarray(x).reshape(x.shape[0], -1, x.shape[-1])
        found.check(f"stage{stage} tokens", tokens[0, :4], reference[f"stage{stage}/first_tokens"], tolerance)
        found.check(f"stage{stage} mean", tokens.mean(1), reference[f"stage{stage}/token_mean"], tolerance)
        found.check(f"stage{stage} std", tokens.std(1), reference[f"stage{stage}/token_std"], tolerance)


def _check_clusters(found: Differences, reference: Any, clusters: dict[str, jax.Array], tolerance: float) -> None:
    ours = {}
    for name, assignment in clusters.items():
        stage, block = name.split("/")
        flat = np.asarray(assignment, np.float64).reshape(*assignment.shape[:2], -1)
        ours[f"{stage}.{block.removeprefix('block')}.attn"] = flat
    assert set(ours) == {key.split("/")[1] for key in reference.files if key.startswith("clusters/")}
    for module, assignment in ours.items():
        entropy = -(assignment * np.log(np.maximum(assignment, 1e-300))).sum(-1)
        found.check(f"{module} clusters", assignment[0, :4], reference[f"clusters/{module}/first"], tolerance)
        found.check(f"{module} entropy", entropy, reference[f"clusters/{module}/entropy"], tolerance)


def _check_gradients(found: Differences, reference: Any, gradients: dict[str, np.ndarray]) -> None:
    assert set(gradients) == set(reference["grad_names"])
    found.check_norms("gradient norm", gradients, reference["grad_names"], reference["grad_norm"], 1e-4)
    for key, norm, first in zip(reference["grad_names"], reference["grad_norm"], reference["grad_first"], strict=True):
        found.check(f"gradient of {key}", gradients[str(key)].flat[0], first, 1e-4 * max(norm, 1e-3))


def _check_training(found: Differences, reference: Any, model: PaCaViT, variables: Any, images: Any, tolerance: float) -> None:
    """Compares one forward pass in training mode and the running statistics after it."""

    def forward(variables: Any, images: jax.Array) -> Any:
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    logits, updates = jax.jit(forward)(variables, images)
    found.check("train logits", logits, reference["train_logits"], tolerance)
    state = convert.to_torch({"params": variables["params"], **updates}, model)
    assert all(state[key] == 1 for key in state if key.endswith("num_batches_tracked"))
    found.check_norms("norm", state, reference["train_running_names"], reference["train_running_norm"], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_outputs_and_gradients_of_the_official_code(file: Any) -> None:
    reference = np.load(file)
    name = file.name.split(".")[0]
    model = golden.model(name, drop_path_rate=0.0)
    variables = convert.from_torch(golden.state_dict(name, int(reference["salt"])), model)
    images = golden.images(int(reference["input_seed"]), tuple(reference["input_shape"]))
    labels = 7 * np.arange(len(images)) + 3
    tolerance = 5e-5 if model.config.teacher else 2e-5
    rest = {key: value for key, value in variables.items() if key != "params"}
    found = Differences()

    with jax.default_matmul_precision("highest"):
        (loss, outputs), gradients = _loss_and_outputs(model)(variables["params"], rest, images, labels)
        logits, features, clusters, _ = outputs
        found.check("logits", logits, reference["logits"], tolerance)
        found.check("loss", loss, reference["loss"], 1e-5)
        _check_features(found, reference, features, tolerance)
        _check_clusters(found, reference, clusters, tolerance)
        _check_gradients(found, reference, convert.to_torch({"params": gradients}, model))
        if "train_logits" in reference:
            _check_training(found, reference, model, variables, images, tolerance)
    assert not found.failures, "\n".join(found.failures)
