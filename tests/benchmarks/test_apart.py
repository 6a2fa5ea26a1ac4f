import os

import pytest

from benchmarks.apart import apart
from paca_jax.errors import UserError


def writing(folder, what):
    def write():
        (folder / what).write_text(str(os.getpid()))

    return {"write": write, ("leave", 3): lambda: os._exit(3), "fail": failing}


def failing():
    raise UserError("Expected one thing, got another. Do a third.")


def test_calls_run_in_their_own_process_and_end_with_it(tmp_path):
    with apart(writing, tmp_path, "one") as one, apart(writing, tmp_path, "two") as two:
        one["write"]()
        two["write"]()
        pids = [int((tmp_path / name).read_text()) for name in ("one", "two")]
    assert len({os.getpid(), *pids}) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_user_errors_are_raised_and_a_lost_process_is_reported(tmp_path):
    with pytest.raises(UserError, match="Do a third"), apart(failing):
        pass
    with pytest.raises(UserError, match="Do a third"), apart(writing, tmp_path, "one") as calls:
        calls["fail"]()
    with pytest.raises(UserError, match="got its end"), apart(writing, tmp_path, "one") as calls:
        calls["leave", 3]()
