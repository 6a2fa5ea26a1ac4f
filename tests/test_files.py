"""Files that users name: only regular ones are read and replaced, and those are written whole."""

import os
import stat

import pytest

from paca_jax.errors import UserError
from paca_jax.files import parse_json, read_file, read_json, write_file


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_any_other(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_file(tmp_path / "folder" / "new", "text")
        (tmp_path / "other").write_text("text")
    finally:
        os.umask(before)
    assert mode(tmp_path / "folder" / "new") == mode(tmp_path / "other") == 0o666 & ~umask
    assert os.listdir(tmp_path / "folder") == ["new"]


def test_a_replaced_file_keeps_its_permissions_and_a_link_to_it(tmp_path):
    (tmp_path / "file").write_text("before")
    (tmp_path / "file").chmod(0o600)
    (tmp_path / "link").symlink_to("file")
    write_file(tmp_path / "link", b"after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "after"
    assert mode(tmp_path / "file") == 0o600


def test_a_link_to_nothing_gets_its_file(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write_file(tmp_path / "link", "text")
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.parametrize("use", [read_file, lambda path: write_file(path, "text")])
def test_what_is_no_regular_file_is_neither_read_nor_replaced(tmp_path, use):
    os.mkfifo(tmp_path / "pipe")
    for path, told in [(tmp_path / "pipe", "a pipe"), (tmp_path, "a folder"), ("/dev/null", "a device")]:
        with pytest.raises(UserError, match=f"Expected a file at .*, got {told}"):
            use(path)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    write_file(tmp_path / "file", "before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_file(tmp_path / "file", "after")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "before"


@pytest.mark.parametrize("text", ["", "[]", "3", '{"a"', "[" * 100_000, b"\xff\xfe"])
def test_only_objects_are_read_as_such(tmp_path, text):
    write_file(tmp_path / "a.json", text)
    with pytest.raises(UserError, match=r"Expected a JSON object in .*a\.json, got"):
        read_json(tmp_path / "a.json")


def test_arrays_are_read_where_they_are_expected():
    assert parse_json("[1, 2]", "there", list) == [1, 2]
    with pytest.raises(UserError, match="a JSON array in there, got dict"):
        parse_json("{}", "there", list)
