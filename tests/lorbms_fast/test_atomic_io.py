"""Files and folders appear whole or not at all."""

import errno

import pytest

from lorbms_fast.atomic_io import atomic_folder, atomic_write
from lorbms_fast.errors import UserError


def test_file_takes_its_name_only_when_written(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic_write(target) as partial:
        partial.write_text("content")
        assert not target.exists()
    assert target.read_text() == "content"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted():
        with atomic_write(target) as partial:
            partial.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folder_takes_its_name_only_when_filled(tmp_path):
    target = tmp_path / "store"
    with atomic_folder(target) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "a").write_text("content")
        assert not target.exists()
    assert (target / "inner" / "a").read_text() == "content"
    assert list(tmp_path.iterdir()) == [target]


def test_existing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="exists already"), atomic_folder(tmp_path):
        pass


def test_full_disk_is_told_without_a_traceback(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*store: No space left"), atomic_folder(tmp_path / "store"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "absent").read_text()
