"""`paca push`."""

import json
import os
import sys

import pytest

from paca_jax.cli.push import main
from tests.checkpoints.hub.conftest import hub, written  # noqa: F401, fixtures
from tests.checkpoints.hub.fake_hub import TOKEN
from tests.runs import environment, run


def failure(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_writes_a_folder_and_uploads_nothing(written, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    out = tmp_path / "out"
    main([str(written["classifier"][0]), "me/net", f"--to={out}", "--license=mit", f"--class-names={tmp_path / 'names.txt'}"])
    assert f"Wrote {out}: pacavit_nano; README.md (" in capsys.readouterr().out
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "a", "1": "b", "2": "c"}
    assert "license" in (out / "README.md").read_text()
    assert "Expected a new or empty folder" in failure(capsys, str(written["classifier"][0]), "me/net", f"--to={out}")
    told = failure(capsys, str(written["classifier"][0]), "me/net", "--to=new", "--private")
    assert "Expected --private without --to" in told


def test_pushes(hub, written, capsys):  # noqa: F811
    main([str(written["classifier"][0]), "me/net", "--private", "--branch=b", "--message=Mine"])
    repository = hub.repositories["me/net"]
    assert repository.private
    assert repository.messages[-1] == "Mine"
    assert f"Pushed {hub.address}/me/net/commit/{repository.branches['b']}: pacavit_nano; README.md" in capsys.readouterr().out


def test_without_a_token_nothing_is_read(hub, capsys, monkeypatch):  # noqa: F811
    monkeypatch.delenv("HF_TOKEN")
    assert "Run hf auth login, or set HF_TOKEN" in failure(capsys, "no such file", "me/net")


@pytest.mark.slow
def test_the_address_and_token_are_those_of_the_environment(hub, written, tmp_path):  # noqa: F811
    settings = environment() | {
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": os.getcwd(),
    }
    push = [sys.executable, "-m", "paca_jax", "push", str(written["classifier"][0]), "me/net"]
    done = run(push, settings)
    assert done.returncode == 0, done.stderr
    assert hub.repositories["me/net"].messages[-1].startswith("Upload pacavit_nano with paca-jax ")
    convert = [sys.executable, "-m", "paca_jax", "convert", "hf://me/net", str(tmp_path / "w.safetensors")]
    done = run(convert, settings)
    assert done.returncode == 0, done.stderr
    done = run(push, settings | {"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.returncode == 2
    assert "error: Expected to reach http://127.0.0.1:9 for me/net" in done.stderr
    assert "Traceback" not in done.stderr
