"""How C++ sources become libraries, and what happens where they cannot."""

import stat
from pathlib import Path

import pytest
import torch

from lorbms_fast.kernels.native import build
from lorbms_fast.kernels.native.maps import lines, same_lines

SOURCE = 'extern "C" int answer() { return %d; }'


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A source of its own, and a cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "loops" / "native.cpp"
    path.parent.mkdir()
    path.write_text(SOURCE % 42)
    build._library.cache_clear()
    yield path
    build._library.cache_clear()


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.so"))


needs_compiler = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")


@needs_compiler
def test_a_library_is_compiled_once_and_kept_for_its_owner(source, tmp_path):
    loaded = build.library(source)
    assert loaded is not None
    assert loaded.answer() == 42
    (path,) = kept(tmp_path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    made = path.stat().st_mtime_ns
    build._library.cache_clear()
    assert build.library(source) is not None
    assert path.stat().st_mtime_ns == made


@needs_compiler
def test_another_source_is_another_library(source, tmp_path):
    build.library(source)
    source.write_text(SOURCE % 43)
    build._library.cache_clear()
    loaded = build.library(source)
    assert loaded is not None
    assert loaded.answer() == 43
    assert len(kept(tmp_path)) == 2


@needs_compiler
def test_a_source_that_does_not_compile_is_told_and_leaves_nothing(source, tmp_path):
    source.write_text("not C++")
    with pytest.warns(UserWarning, match=r"native\.cpp could not be compiled, torch's slower loops run instead: .*not"):
        assert build.library(source) is None
    assert not kept(tmp_path)
    assert build.library(source) is None  # and is told once


@needs_compiler
def test_a_cache_that_cannot_be_written_is_told(source, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(UserWarning, match="could not be compiled"):
        assert build.library(source) is None


def test_without_a_compiler_nothing_is_told(source, monkeypatch):
    monkeypatch.setenv("CXX", "there-is-no-such-compiler")
    assert build.library(source) is None


def test_switched_off(source, monkeypatch):
    with build.native_loops(False):
        assert build.library(source) is None
    monkeypatch.setenv(build.OFF, "1")
    assert build.library(source) is None


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        (torch.empty(2, 5, 3, 4).contiguous(memory_format=torch.channels_last), (60, 5)),
        (torch.empty(2, 9, 3, 4).contiguous(memory_format=torch.channels_last)[:, 2:7], (108, 9)),
        (torch.empty(2, 5, 1, 1), (5, 1)),
        (torch.empty(2, 1, 3, 4), (12, 1)),
        (torch.empty(2, 5, 3, 4), None),
        (torch.empty(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)[..., 1:], None),
        (torch.empty(2, 5, 3, 4).contiguous(memory_format=torch.channels_last).transpose(2, 3), None),
    ],
    ids=["whole", "slice", "one position", "one channel", "contiguous", "a column less", "transposed"],
)
def test_lines(maps, expected):
    found = lines(maps)
    assert (None if found is None else found[1:]) == expected


def test_what_loops_cannot_go_through():
    maps = torch.empty(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)
    assert same_lines(maps, maps)
    assert not same_lines(maps, maps.double())
    assert not same_lines(maps, maps[:, 1:])
    assert not same_lines(maps.half())
    assert not same_lines(maps.to("meta"))
    assert not same_lines(maps.flatten(2))
