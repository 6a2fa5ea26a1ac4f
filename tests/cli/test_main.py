"""`paca` and `python -m paca_jax`: the list of commands, and the same help by every name."""

import importlib
import sys

import pytest

from paca_jax.cli.main import COMMANDS, main
from paca_jax.version import __version__
from tests.runs import run_code, run_main

MODULES = {
    "predict": "paca_jax.predict",
    "explore": "paca_jax.explore",
    "convert": "paca_jax.convert",
    "export": "paca_jax.export",
    "plan": "paca_jax.plan",
    "prepare": "paca_jax.data.prepare",
    "convert-records": "paca_jax.data.convert_records",
}


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_help_lists_every_command(capsys):
    lines = help_of(capsys).splitlines()
    for name, command in COMMANDS.items():
        assert sum(line.split()[:1] == [name] and line.endswith(command.help) for line in lines) == 1


def test_the_help_needs_neither_jax_nor_a_data_library():
    code = """
        import sys
        from paca_jax.cli import main, train
        main._parser().format_help(), train._parser().format_help()
        print([name for name in ("jax", "numpy", "tensorflow", "clu", "orbax") if name in sys.modules])
    """
    assert run_code(code).strip() == "[]"


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"paca-jax {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help(name, capsys):
    first, *rest = help_of(capsys, name).splitlines()
    assert first.startswith("usage: paca ")
    assert any(f"paca {name} " in line for line in rest)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module"), MODULES.items())
def test_a_module_is_its_command(name, module, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    done = run_main(sys.executable, "-m", module, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout == help_of(capsys, name)


def test_main_py_is_the_command_train(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    done = run_main(sys.executable, "main.py", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout == help_of(capsys, "train")


def test_evaluate_is_train_with_a_mode(monkeypatch):
    calls = []
    monkeypatch.setattr(importlib.import_module("paca_jax.cli.train"), "main", calls.append)
    main(["evaluate", "--workdir=DIR", "--config.batch_size=8"])
    assert calls == [["--mode=eval", "--workdir=DIR", "--config.batch_size=8"]]


def test_an_unknown_command_names_the_known_ones(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert "'convert-records'" in capsys.readouterr().err
