"""What leaves the house: the sdist, a wheel made from it alone, and the flags both are compiled with."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

# One worker takes the whole file: the archive and the wheel are built once.
pytestmark = pytest.mark.xdist_group("packaging")

ROOT = Path(__file__).parents[1]
UNTRACKED = [".*", "build", "dist", "demo", "generated", "_build", "htmlcov"]
UNTRACKED += ["*.egg-info", "*.so", "__pycache__"]
# Spelt in pieces, so that this file does not say them either.
UNPORTABLE = re.compile("|".join(["march=" + "native", "fast-" + "math", "-O" + "fast"]))


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    line = [sys.executable, *map(str, command)]
    done = subprocess.run(line, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_files() -> list[Path]:
    names = ["setup.py", "Makefile", "pyproject.toml", ".ci/run"]
    patterns = ["*.pyx", "*.pxd", "kernels/*.[ch]", "kernels/*.py"]
    return [ROOT / name for name in names] + [p for q in patterns for p in (ROOT / "minigrad").glob(q)]


def test_one_build_for_every_machine() -> None:
    files = build_files()
    assert len(files) > 6
    assert [path.name for path in files if UNPORTABLE.search(path.read_text())] == []


@pytest.mark.parametrize("flag", ["-march=" + "native", "-ffast-" + "math", "-O" + "fast"])
def test_an_unportable_flag_would_be_seen(flag: str) -> None:
    assert UNPORTABLE.search(f'COMPILE = ["{flag}"]')


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source archive made from the files of a fresh clone, with nothing built among them."""
    folder = tmp_path_factory.mktemp("sdist")
    clone = shutil.copytree(ROOT, folder / "clone", ignore=shutil.ignore_patterns(*UNTRACKED))
    run("-c", "from setuptools import build_meta; build_meta.build_sdist('..')", cwd=clone)
    [archive] = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made from the archive alone, in an empty folder and without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    flags = ["--no-build-isolation", "--no-deps", "--no-index", "--no-cache-dir", "--quiet"]
    run("-m", "pip", "wheel", *flags, "--wheel-dir", folder, sdist, cwd=folder)
    [built] = folder.glob("*.whl")
    return built


def packaged(*suffixes: str) -> set[str]:
    """The files of the package with these endings that a clone has, as paths from the repository's root."""
    paths = (p for suffix in suffixes for p in (ROOT / "minigrad").rglob(f"*{suffix}") if p.is_file())
    return {p.relative_to(ROOT).as_posix() for p in paths if "generated" not in p.parts}


@pytest.mark.slow
def test_sdist_has_every_source_and_nothing_generated(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert packaged(".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".cu", "py.typed") <= names
    assert {"tests/test_packaging.py", "Makefile", "LICENSE", "README.md", "setup.py"} <= names
    made = re.compile(r"\.(so|pyc)$|minigrad/\w+\.c$|/generated/|^build/|^\.venv/")
    assert [name for name in names if made.search(name)] == []


@pytest.mark.slow
def test_wheel_has_what_runs_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = packaged(".py", ".pxd", ".pyi", "py.typed")
    cuda = packaged(".cu")  # compiled where the GPU is
    assets = {name for name in packaged("") if name.startswith("minigrad/render/assets/")}
    compiled = {name for name in names if name.endswith((".so", ".pyd"))}
    assert {name.split(".")[0] for name in compiled} == {"minigrad/_core", "minigrad/_cpu"}
    assert names - compiled == {n for n in sources if not n.startswith("minigrad/kernels/")} | assets | cuda


@pytest.mark.slow
def test_wheel_installs_and_computes(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    flags = ["--no-deps", "--no-index", "--no-cache-dir", "--quiet"]
    run("-m", "pip", "install", *flags, "--target", target, wheel, cwd=tmp_path)
    program = "import minigrad as mg; print(mg.__file__, mg.tanh(mg.tensor([0.5])).item())"
    path, value = run("-c", program, cwd=tmp_path, PYTHONPATH=str(target)).split()
    assert Path(path).parent == target / "minigrad"
    assert float(value) == pytest.approx(0.46211715726, rel=1e-6)


def test_the_package_names_the_version_it_was_installed_as() -> None:
    printed = run("-c", "import minigrad; print(minigrad.__version__)", cwd=ROOT)
    assert printed.strip() == importlib.metadata.version("minigrad-tape")
