import numpy as np
import pytest

from paca_jax.data.codecs.rle import decode, encode_bitmap, run_lengths


@pytest.mark.parametrize(
    "bitmap",
    [
        np.zeros((3, 4), bool),
        np.ones((3, 4), bool),
        np.eye(5, dtype=np.uint8),
        np.random.default_rng(0).random((17, 9)) > 0.5,
        np.zeros((0, 4), bool),
        np.ones((1, 1), np.uint8),
    ],
    ids=lambda bitmap: str(bitmap.shape),
)
def test_counts_in_a_list_are_those_of_the_compressed_form(bitmap):
    counted = run_lengths(bitmap)
    assert sum(counted["counts"]) == bitmap.size
    np.testing.assert_array_equal(decode(counted), bitmap)
    np.testing.assert_array_equal(decode(counted), decode(encode_bitmap(bitmap)))
