"""How C++ sources become libraries, and what happens where they cannot."""

import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path
from unittest.mock import patch

import pytest

from lorbms_fast import cpp

SOURCE = 'extern "C" int answer() { return %d; }'


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A source of its own, and a cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "loops" / "native.cpp"
    path.parent.mkdir()
    path.write_text(SOURCE % 42)
    cpp._library.cache_clear()
    cpp._warn_once.cache_clear()
    yield path
    cpp._library.cache_clear()


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.so"))


needs_compiler = pytest.mark.skipif(not cpp.compiler(), reason="no C++ compiler")


@needs_compiler
def test_a_library_is_compiled_once_and_kept_for_its_owner(source, tmp_path):
    loaded = cpp.library(source)
    assert loaded is not None
    assert loaded.answer() == 42
    (path,) = kept(tmp_path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    made = path.stat().st_mtime_ns
    cpp._library.cache_clear()
    assert cpp.library(source) is not None
    assert path.stat().st_mtime_ns == made


@needs_compiler
def test_another_source_is_another_library(source, tmp_path):
    cpp.library(source)
    source.write_text(SOURCE % 43)
    cpp._library.cache_clear()
    loaded = cpp.library(source)
    assert loaded is not None
    assert loaded.answer() == 43
    assert len(kept(tmp_path)) == 2


@needs_compiler
def test_a_source_that_does_not_compile_is_told_and_leaves_nothing(source, tmp_path):
    source.write_text("not C++")
    with (
        pytest.warns(UserWarning, match=r"native\.cpp could not be compiled, slower loops run instead: .*not"),
        patch.object(subprocess, "run", wraps=subprocess.run) as ran,
    ):
        assert cpp.library(source) is None
    assert sum(str(source) in call.args[0] for call in ran.call_args_list) == 1
    assert not kept(tmp_path)
    assert cpp.library(source) is None  # and is told once


@needs_compiler
def test_a_cache_that_others_may_write_is_not_loaded_from(source, tmp_path):
    cpp.library(source)
    (path,) = kept(tmp_path)
    path.parent.chmod(0o777)
    cpp._library.cache_clear()
    path.write_bytes(b"strange")
    with pytest.warns(UserWarning, match="others may write into .*: chmod 700 it"):
        loaded = cpp.library(source)
    assert loaded is not None
    assert loaded.answer() == 42


@needs_compiler
@pytest.mark.parametrize("place", ["a file", "/proc"])
def test_without_a_place_to_keep_it_a_library_is_compiled_for_this_process(place, source, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    if place == "/proc":
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        monkeypatch.setenv("HOME", "/proc")
    with pytest.warns(UserWarning, match="compiled anew by each process: .*XDG_CACHE_HOME"):
        loaded = cpp.library(source)
    assert loaded is not None
    assert loaded.answer() == 42
    assert (tmp_path / "cache").read_text() == "a file"


@needs_compiler
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fault", ["full", "not executable"])
def test_where_a_cache_is_full_or_may_not_be_executed_from(fault, source, tmp_path, monkeypatch):
    """A quota of a home, or a disk mounted `noexec`."""
    load = cpp.CDLL

    def loaded(path):
        if fault == "not executable" and "cache" in path:
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    def full(made, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cpp, "CDLL", loaded)
    if fault == "full":
        monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.warns(UserWarning, match="anew by each process: [^.]*(map|No space)[^.]*XDG_CACHE_HOME"):
        assert cpp.library(source).answer() == 42
    assert len(kept(tmp_path)) == (fault == "not executable")
    source.write_text(SOURCE % 43)
    for _ in range(2):
        cpp._library.cache_clear()
        assert cpp.library(source).answer() == 43  # and a second warning would fail


@needs_compiler
@pytest.mark.parametrize("named", ["env c++", "my compiler"])
def test_a_compiler_may_be_named_with_what_runs_it_or_have_a_space(named, source, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", named)
    if named == "my compiler":
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        (tmp_path / named).symlink_to(shutil.which("c++"))
    loaded = cpp.library(source)
    assert loaded is not None
    assert loaded.answer() == 42


@needs_compiler
def test_other_options_of_a_compiler_are_another_library(source, monkeypatch):
    source.write_text('extern "C" int answer() { return ANSWER; }')
    for answer in (42, 43):
        monkeypatch.setenv("CXX", f"c++ -DANSWER={answer}")
        cpp._library.cache_clear()
        assert cpp.library(source).answer() == answer


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("named", ["there-is-no-such-compiler", "g++ '-O2", ""])
def test_without_a_compiler_it_is_said_once(named, source, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", named)
    cpp._warn_once.cache_clear()
    with pytest.warns(UserWarning, match=r"loops are not built, slower operations run: install g\+\+"):
        assert cpp.library(source) is None
    assert cpp.library(source, tmp_path) is None  # a second warning would fail


def test_switched_off(source, monkeypatch):
    with cpp.native_loops(False):
        assert cpp.library(source) is None
    monkeypatch.setenv(cpp.OFF, "1")
    with patch.object(cpp, "compiler", side_effect=AssertionError):
        assert cpp.library(source) is None
