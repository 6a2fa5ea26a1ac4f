"""A few of the mutations of the campaign `fuzz`, which has ten thousand."""

import pytest

from tests.proof.fuzz import fuzz
from tests.proof.hostile.readers import readers

SHARE = 25  # one of this many mutations of each reader


@pytest.fixture(scope="module")
def all_readers(tmp_path_factory):
    pytest.importorskip("torch")
    return list(readers(tmp_path_factory.mktemp("fuzz")))


def test_the_campaign_has_ten_thousand_mutations(all_readers):
    assert sum(reader.mutations for reader in all_readers) >= 10_000


def test_every_mutation_is_read_or_refused_in_one_sentence(all_readers):
    outcomes = [row for reader in all_readers for row in fuzz(reader, 0, 0, reader.mutations // SHARE)]
    assert [row for row in outcomes if row["outcome"] not in ("read", "refused")] == []
    assert {row["outcome"] for row in outcomes} == {"read", "refused"}
