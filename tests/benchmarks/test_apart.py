import os

import pytest

from benchmarks.apart import apart
from paca_jax.errors import UserError


def writing(folder, what):
    def write():
        (folder / what).write_text(str(os.getpid()))

    return {"write": write, ("leave", 3): lambda: os._exit(3), "refuse": refusing}


def refusing():
    raise UserError("Expected one thing, got another; do a third.")


def test_calls_run_in_their_own_process_and_end_with_it(tmp_path):
    with apart(writing, tmp_path, "one") as one, apart(writing, tmp_path, "two") as two:
        one["write"]()
        two["write"]()
        pids = [int((tmp_path / name).read_text()) for name in ("one", "two")]
    assert len({os.getpid(), *pids}) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_errors_of_users_come_back_and_a_death_is_told(tmp_path):
    with pytest.raises(UserError, match="do a third"), apart(refusing):
        pass
    with pytest.raises(UserError, match="do a third"), apart(writing, tmp_path, "one") as calls:
        calls["refuse"]()
    with pytest.raises(UserError, match="has ended"), apart(writing, tmp_path, "one") as calls:
        calls["leave", 3]()
