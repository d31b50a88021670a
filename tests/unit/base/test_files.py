"""Files that are written whole or not at all."""

import os
import stat
import threading

import pytest

from manyface.base.errors import WriteError
from manyface.base.files import held, new_file, write_whole, written


def test_a_file_has_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with new_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError), new_file(path) as file:
        file.write("half")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"new", [path])


def test_its_mode_is_that_of_any_other_and_nobody_is_asked_for_the_umask(tmp_path, monkeypatch):
    mask = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("of the whole process"))
        with new_file(tmp_path / "a"):
            pass
    finally:
        monkeypatch.undo()
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_threads_that_write_one_file_leave_a_whole_one(tmp_path):
    def write(number):
        with new_file(tmp_path / "a") as file:
            file.write(b"%d" % number * 100_000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set((tmp_path / "a").read_bytes())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_plain_file_stays_what_it_is(tmp_path, make):
    path = tmp_path / "a"
    make(path)
    before = path.lstat()
    with pytest.raises(WriteError, match="no plain file"), written(path) as file:
        file.write(b"x")
    assert path.lstat().st_ino == before.st_ino
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "a").symlink_to("other")
    with new_file(tmp_path / "a") as file:
        file.write(b"mine")
    assert (tmp_path / "other").read_bytes() == b"other"
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_folders_are_made_or_the_error_says_what_cannot_be_written(tmp_path):
    with written(tmp_path / "x" / "y" / "a") as file:
        file.write(b"1")
    assert (tmp_path / "x" / "y" / "a").read_bytes() == b"1"
    with (
        pytest.raises(WriteError, match=r"cannot write .*/a/b: "),
        written(tmp_path / "x" / "y" / "a" / "b"),
    ):
        pass


def test_a_small_file_may_have_the_longest_name(tmp_path):
    write_whole(tmp_path / ("x" * 255), b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["x" * 255]


def test_a_lock_that_is_a_link_makes_nothing_elsewhere(tmp_path):
    (tmp_path / ".a.lock").symlink_to("elsewhere")
    with pytest.raises(WriteError), held(tmp_path / "a"):
        pass
    assert not (tmp_path / "elsewhere").exists()
