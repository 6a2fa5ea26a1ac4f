"""How command lines end: one line and status 2 for an error, 130 for Ctrl-C wherever the main thread is."""

import signal
import subprocess
import sys
import textwrap

import jax
import pytest

from paca_jax.command_line import Parser, command_line
from paca_jax.errors import UserError
from tests.runs import ROOT, run_code

IN_PYTHON = "while True: pass"
IN_C = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # Python's handlers wait for its end
# A shell's background jobs ignore SIGINT. The alarm ends a program that hangs.
SET_UP = """
import hashlib, signal
from paca_jax import command_line
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.alarm(60)
"""
READY = "print('ready', flush=True)"
PATIENT = f"""
signal.signal(signal.SIGINT, lambda number, frame: print("asked", flush=True))
with command_line.patient():
    {READY}
    {IN_PYTHON}
"""


def start(code):
    body = textwrap.indent(code, "    ")
    program = f"{SET_UP}\nwith command_line.command_line('Bye.'):\n{body}"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("code", [IN_PYTHON, IN_C], ids=["in Python", "in a library"])
def test_the_first_interrupt_ends_the_program_with_one_line(code):
    process = start(f"{READY}\n{code}")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "Stopped by Ctrl-C. Bye.\n")


def test_a_program_that_handles_the_first_is_ended_by_the_second():
    process = start(PATIENT)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "Stopped by Ctrl-C. Bye.\n")


@pytest.mark.parametrize(
    ("code", "status"),
    [("signal.signal(signal.SIGUSR1, lambda *_: exit(7))\nsignal.raise_signal(signal.SIGUSR1)", 7), ("pass", 0)],
)
def test_other_signals_and_ends_are_left_alone(code, status):
    assert start(f"{READY}\n{code}").wait() == status


def ended(capsys, error):
    """Returns the output of a command line that raises an error, and its status."""
    with pytest.raises(SystemExit) as exited, command_line():
        raise error
    return capsys.readouterr().err, exited.value.code


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("Expected a cat."), "Expected a cat."),
        (OSError(28, "No space left on device", "a/b"), "reported: No space left on device at a/b."),
        (PermissionError(13, "Permission denied", b"a\xff"), "reported: Permission denied at a\\udcff."),
        (ConnectionError("no route"), "reported: no route."),
        (MemoryError("Unable to allocate 1 TiB\nfor x"), "enough memory, got: Unable to allocate 1 TiB."),
        (MemoryError(), "enough memory, got: none left."),
        (RecursionError("maximum recursion depth exceeded"), "not nested so deeply"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nof it"), "got: RESOURCE_EXHAUSTED: Out of memory."),
    ],
)
def test_errors_that_a_user_can_cause_are_one_line(error, expected, capsys):
    text, status = ended(capsys, error)
    assert status == 2
    assert text.startswith("error: ")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert expected in text


@pytest.mark.parametrize(
    "name", ["a\nerror: forged", "a\rerror: forged", "a\u2028error: forged", "\x1b[2Ka", "a\udcff\x85b\0", "\u202egnp.a"]
)
def test_no_name_forges_a_line(name, capsys):
    text, status = ended(capsys, UserError(f"Expected a file, got {name}."))
    assert status == 2
    assert text.endswith(".\n")
    assert text[:-1].isprintable()


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), jax.errors.JaxRuntimeError("INTERNAL: x"), KeyError("x"), ValueError("x")]
)
def test_faults_of_the_program_keep_their_traceback(error):
    with pytest.raises(type(error)), command_line():
        raise error


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["--flag"], "error: Argument --flag: expected one argument. See paca test --help.\n"),
        (["--flag=b"], "error: Argument --flag: invalid choice: 'b' (choose from 'a'). See paca test --help.\n"),
        (["--number=x\ny"], "error: Argument --number: invalid int value: 'x\\ny'. See paca test --help.\n"),
        (["--numb=3", "x"], "error: There is no flag --numb; the nearest is --number. See paca test --help.\n"),
        (["--n\nerror: y"], "error: There is no flag --n\\nerror: y; the nearest is --number. See paca test --help.\n"),
        (["x\nerror: y"], "error: Expected only flags (--name=value), got 'x\\nerror: y'. See paca test --help.\n"),
    ],
)
def test_a_wrong_flag_is_one_line(line, expected, capsys):
    parser = Parser("paca test", "Tests.")
    parser.add_argument("--flag", choices=("a",))
    parser.add_argument("--number", type=int)
    with pytest.raises(SystemExit) as exited:
        parser.parse_args(line)
    assert (exited.value.code, capsys.readouterr().err) == (2, expected)


def test_output_that_cannot_be_written_is_one_line():
    program = "from paca_jax.command_line import command_line\nwith command_line(): print('x' * 5 + chr(0xdcff))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert "No space left on device" in done.stderr


def test_what_half_made_objects_raise_at_the_end_is_not_printed():
    program = """
        from paca_jax.command_line import command_line
        from paca_jax.errors import UserError

        class HalfMade:
            def __init__(self):
                raise UserError("Expected a cat.")

            def __del__(self):
                self.never_set

        with command_line():
            HalfMade()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: Expected a cat.\n")


def test_what_tasks_that_nobody_asks_for_have_raised_is_not_printed():
    program = """
        import asyncio

        from paca_jax.command_line import command_line
        from paca_jax.errors import UserError

        with command_line():
            loop = asyncio.new_event_loop()
            forgotten = loop.create_future()
            forgotten.set_exception(ValueError("a full disk"))
            raise UserError("Expected a cat.")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: Expected a cat.\n")


def test_output_that_nobody_reads_any_more_ends_the_program_silently():
    program = "from paca_jax.command_line import command_line\nwith command_line():\n    for _ in range(10**5): print('line')"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout.readline() == "line\n"
        running.stdout.close()
        assert (running.wait(), running.stderr.read()) == (1, "")


@pytest.mark.parametrize("name", ["虫.png", "a\u00a0b", "\u3000", "a\u200cb", "👩\u200d🔬"])
def test_names_of_all_languages_are_printed_as_they_are(name, capsys):
    assert name in ended(capsys, UserError(f"Expected a file, got {name}."))[0]


def test_names_that_are_no_text_can_be_printed():
    code = """
        from paca_jax.command_line import command_line
        with command_line():
            print("a" + chr(0xdcff))
    """
    assert run_code(code) == "a\\udcff\n"


@pytest.mark.parametrize("package", ["clu", "ml_collections"])
def test_a_missing_package_of_training_names_the_extra(package):
    code = f"import sys; sys.modules[{package!r}] = None; from paca_jax.cli.main import main; main(['train', '--config=coco'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error:", "Traceback"))]
    assert done.returncode == 2
    assert lines == [
        f"error: Expected the packages for training, got none named {package}. Install them: pip install 'paca-jax[train]'."
    ]
