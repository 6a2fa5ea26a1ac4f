"""The losses of Mask R-CNN against recorded values of the official implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import convert
from paca_jax.tasks.detection.loss import RegionTargets, box_losses, mask_loss
from tests import golden
from tests.golden import Differences

NAME = "mask_rcnn_tiny"


@pytest.fixture(scope="module")
def reference():
    return np.load(golden.DETECTION / f"{NAME}.192x256.npz")


@pytest.mark.slow
def test_losses_and_gradients_of_the_official_code(reference):
    model = golden.model(NAME, drop_path_rate=0.0)
    variables = convert.from_torch(golden.state_dict(NAME, int(reference["salt"])), model)
    images = golden.images(int(reference["input_seed"]), tuple(reference["input_shape"]))
    rois, labels = reference["rois"], reference["loss_labels"]
    rows = [np.flatnonzero(rois[:, 0] == image) for image in range(2)]
    count = max(map(len, rows))

    def arranged(values, fill=0):
        """Arranges values of all RoIs by image, padded with `fill`."""
        result = np.full((2, count, *values.shape[1:]), fill, values.dtype)
        for image, of_image in enumerate(rows):
            result[image, : len(of_image)] = values[of_image]
        return result

    valid = arranged(np.ones(len(rois), bool))
    boxes, labels = arranged(rois[:, 1:]), arranged(labels, 80)
    first = arranged(np.arange(len(rois)) < 12)
    wanted = np.zeros((len(rois), 28, 28), bool)
    wanted[:12] = reference["loss_mask_targets"]
    positive = valid & (labels < 80)
    deltas = arranged(reference["loss_bbox_targets"])
    targets = RegionTargets(*map(jnp.asarray, (boxes, valid, positive, labels, deltas, np.zeros_like(labels))))

    def losses(params):
        def run(module, images):
            pyramid = module.pyramid(images)
            parts = box_losses(*module.classify(pyramid, targets.boxes, targets.valid), targets)
            masks = module.draw(pyramid, targets.boxes, jnp.asarray(first))
            parts["mask_loss"] = mask_loss(masks, targets.labels, jnp.asarray(arranged(wanted)), jnp.asarray(first))
            return {name: total / count for name, (total, count) in parts.items()}

        found = model.apply({"params": params}, images, method=run)
        return found["class_loss"] + found["box_loss"] + found["mask_loss"], found

    with jax.default_matmul_precision("highest"):
        (_, found), gradients = jax.jit(jax.value_and_grad(losses, has_aux=True))(variables["params"])
    differences = Differences()
    for ours, theirs in (("class_loss", "loss_cls"), ("box_loss", "loss_bbox"), ("mask_loss", "loss_mask")):
        differences.check(ours, found[ours], reference[theirs], 1e-5)
    converted = convert.to_torch(gradients, model)
    differences.check_norms("gradient norm", converted, reference["grad_names"], reference["grad_norm"], 1e-3)
    assert not differences.failures, "\n".join(differences.failures)
