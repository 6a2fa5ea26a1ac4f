import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from paca_jax.sharding import MESH_AXES, by_images, make_mesh, model_shards, target_platform


@pytest.mark.parametrize(("sizes", "images", "own"), [((4, 2, 1), 16, 2), ((2, 2, 2), 8, 2), ((8, 1, 1), 6, 6)])
def test_each_device_computes_its_own_images_and_gradients_are_those_of_all(sizes, images, own):
    seen = []

    def function(x, y, w):
        seen.append((x.shape, y.shape, w.shape))
        return jnp.sin(x @ w) * y

    def loss(x, y, w, run):
        return jnp.sum(run(function, (x, y), (w,)) ** 2)

    x, y, w = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(images, 3), (images, 5), (3, 5)]))
    gradients = jax.value_and_grad(loss, (0, 1, 2))
    expected = gradients(x, y, w, lambda f, mapped, whole: f(*mapped, *whole))
    seen.clear()
    with jax.set_mesh(make_mesh(*sizes, devices=jax.devices())):
        found = jax.jit(lambda *arrays: gradients(*arrays, by_images))(x, y, w)
    assert set(seen) == {((own, 3), (own, 5), (3, 5))}
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_without_a_mesh_the_function_is_called_as_it_is():
    assert by_images(lambda x, w: (x, w), ("images",), ("weights",)) == ("images", "weights")


def test_heads_are_split_over_the_model_axis():
    assert model_shards() == 1
    with jax.set_mesh(make_mesh(2, 1, 4, devices=jax.devices())):
        assert model_shards() == 4


def test_a_program_is_for_the_devices_of_its_mesh():
    assert target_platform() == jax.default_backend()
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        assert target_platform() == jax.devices()[0].platform
    chip = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    with use_abstract_mesh(AbstractMesh((1, 1, 1), MESH_AXES, abstract_device=chip)):
        assert jax.jit(lambda: jax.numpy.zeros(2 if target_platform() == "tpu" else 1)).eval_shape().shape == (2,)
