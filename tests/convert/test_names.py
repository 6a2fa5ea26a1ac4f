"""The table of names."""

import pytest
from flax.traverse_util import flatten_dict

from paca_jax.convert import names
from paca_jax.models import list_models
from tests import golden

# Every backbone, and every head on one of each kind: a head's names do not depend on what it stands on.
NAMES = [name for name in list_models() if name.startswith("pacavit_") or name.endswith(("_tiny", "_nano"))]


@pytest.mark.parametrize("name", [*NAMES, *golden.OPTIONS])
def test_every_array_matches_one_row_and_no_two_share_a_key(name):
    keys = [names.match(path).key for path in flatten_dict(golden.shapes(name), sep="/")]
    assert len(set(keys)) == len(keys)


def test_an_array_outside_the_table_is_told():
    with pytest.raises(LookupError, match="matches 0 rows"):
        names.match("params/stage1/block0/attention/gate/kernel")
    with pytest.raises(LookupError, match="matches 0 rows"):
        names.match("batch_stats/stem/norm/mean")


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("head.weight", "head"),
        ("stage1.0.attn.clustering.clustering.4.weight", "clustering"),
        ("stage4.10.attn.cluster_norm.bias", "clustering"),
        ("stage2.1.attn.cluster_pos_enc", "clustering"),
        ("paca_teacher.to_clusters3.bias", "clustering"),
        ("stage1.0.attn.q.weight", None),
        ("header.weight", None),
    ],
)
def test_groups_of_keys(key, group):
    assert names.group_of_key(key) == group
