"""Ctrl-C on a command line: one line and status 130, wherever the main thread is."""

import signal
import subprocess
import sys
import textwrap

import pytest

from tests.runs import ROOT

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
