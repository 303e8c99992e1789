"""What a wheel puts into somebody's environment."""

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_every_package_folder_is_listed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {"lorbms_fast." + ".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("[kd][ea]*/**/__init__.py")}
    found |= {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("lorbms_fast/**/__init__.py")}
    assert found == set(settings["packages"])


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
