"""Licences of what we depend on are known and listed, and what is pinned is hashed."""

import re
from pathlib import Path

import pytest

from lorbms_fast.photos import shipped
from tools.licences import EXCUSED, PAGE, UNSTATED, dependencies, licence

ROOT = Path(__file__).parents[1]
FREE = frozenset(
    {
        "0BSD", "3-Clause BSD License", "Apache", "Apache 2.0", "Apache Software License", "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception", "BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
        "FreeBSD", "MIT", "MIT License", "MIT-CMU", "Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0", "PSF-2.0",
        "Python Software Foundation License", "Zlib",
    }
)  # fmt: skip
"""Licences under which anybody may use a package together with ours, as packages write them."""


def is_free(stated):
    """Check that all parts of a licence are among `FREE`."""
    return all(part in FREE or part.strip("()") in FREE for part in re.split(r" (?:AND|OR) ", stated))


def test_every_dependency_has_a_free_licence():
    unknown = {name: licence(package) for name, package in dependencies().items() if not is_free(licence(package))}
    assert unknown.keys() <= EXCUSED.keys(), unknown


@pytest.mark.parametrize(
    ("stated", "free"),
    [
        ("MIT", True),
        ("MIT OR Apache-2.0", True),
        ("BSD-3-Clause AND GPL-3.0-only", False),
        ("Proprietary", False),
        (UNSTATED, False),
    ],
)
def test_what_counts_as_free(stated, free):
    assert is_free(stated) == free


def test_the_page_lists_all_of_them():
    listed = dict(re.findall(r"^\| ([a-z0-9-]+) \| (.*?)(?: \(\d\))? \|$", PAGE.read_text(), re.MULTILINE))
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    # Another torch, of `make test-torch`, and its Triton may state their licences in other words.
    missing = {
        name
        for name, package in dependencies().items()
        if package.version.partition("+")[0] == pinned.get(name, package.version)
        and listed.get(name) != licence(package)
    }
    # The environment comes with a setuptools of its own, which may say less of itself.
    assert missing <= {"lorbms-fast", "setuptools"}, f"run  python -m tools.licences  for {missing}"


def test_every_photograph_has_a_licence_and_its_text():
    for photo in shipped.photos():
        assert photo.licence
        assert photo.author
        assert (shipped.DATA / photo.licence_file).is_file(), photo
        assert photo.path.is_file(), photo


def test_everything_pinned_is_hashed():
    pinned = set(re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    hashed = re.findall(
        r"^([\w.-]+==[\w.]+)(?:\+cpu)? \\\n    --hash=sha256:[0-9a-f]{64}$",
        (ROOT / "constraints-hashed.txt").read_text(),
        re.MULTILINE,
    )

    def normal(names):
        return {re.sub(r"[-_.]+", "-", name.partition("==")[0]).lower() + name[name.index("==") :] for name in names}

    assert normal(hashed) == normal(pinned), "run  make lock"
