"""Files and folders appear whole or not at all."""

import errno

import pytest

from lorbms_fast.errors import UserError
from lorbms_fast.files import whole_file, whole_folder


def test_file_takes_its_name_only_when_written(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with whole_file(target) as partial:
        partial.write_text("content")
        assert not target.exists()
    assert target.read_text() == "content"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted():
        with whole_file(target) as partial:
            partial.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folder_takes_its_name_only_when_filled(tmp_path):
    target = tmp_path / "store"
    with whole_folder(target) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "a").write_text("content")
        assert not target.exists()
    assert (target / "inner" / "a").read_text() == "content"
    assert list(tmp_path.iterdir()) == [target]


def test_existing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="exists already"), whole_folder(tmp_path):
        pass


def test_full_disk_is_told_without_a_traceback(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*store: No space left"), whole_folder(tmp_path / "store"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a"):
        (tmp_path / "absent").read_text()
