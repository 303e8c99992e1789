"""Files and folders appear whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from lorbms_fast.atomic_io import atomic_folder, atomic_write, check_writable
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


def test_files_may_be_read_by_those_whom_the_umask_lets(tmp_path):
    """Whatever wrote them: safetensors makes files for their owner alone."""
    with atomic_write(tmp_path / "a") as partial:
        partial.touch(mode=0o600)
        partial.chmod(0o600)
    with atomic_folder(tmp_path / "b") as partial:
        (partial / "c").touch(mode=0o600)
    (tmp_path / "d").touch()
    assert {path.stat().st_mode for path in (tmp_path / "a", tmp_path / "b/c")} == {(tmp_path / "d").stat().st_mode}


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


def write(path):
    with atomic_write(path) as partial:
        partial.write_text("new")


def test_a_link_stays_one(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write(tmp_path / "link")
    assert (tmp_path / "link").readlink() == Path("file")
    assert (tmp_path / "file").read_text() == "new"


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "pipe")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("name", ["", ".", "folder", "/proc/x", "/proc/x/y", "file/x", "n" * 300])
def test_odd_places_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        write(Path(name))
    with pytest.raises(UserError), atomic_folder(Path(name)):
        pass


@pytest.mark.parametrize("name", ["/proc/x", "file/x", "n" * 300])
def test_where_nothing_can_be_written_is_told_before(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        check_writable(tmp_path / name)


def test_below_a_folder_that_may_not_be_entered_nothing_can_be_written(tmp_path, monkeypatch):
    def exists(path: Path) -> bool:  # root may enter every folder
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", exists)
    with pytest.raises(UserError, match=r"cannot write .*: Permission denied"):
        check_writable(tmp_path / "closed" / "results")
