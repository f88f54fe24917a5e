"""Extension modules of minigrad; everything else about the package is in pyproject.toml."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
DEBUG = os.environ.get("MINIGRAD_DEBUG", "") not in ("", "0")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": not DEBUG,
    "linetrace": DEBUG,
}
# The two -fno flags only drop errno and floating-point traps, which nobody reads here. Results stay those of
# IEEE arithmetic, and the instruction set is chosen at run time: a wheel must run on any machine.
COMPILE = ["-std=c11", "-fno-math-errno", "-fno-trapping-math"]
COMPILE += ["-O1", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-g0"]
LINK = ["-Wl,-s"] if not DEBUG and sys.platform != "darwin" else []
MACROS = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")] + [("CYTHON_TRACE_NOGIL", "1")] * DEBUG


def generate_kernels() -> list[str]:
    """Write the C loops of the elementwise page and return their paths.

    The generator is loaded by path: importing the package would need the extensions that it serves.
    """
    spec = importlib.util.spec_from_file_location("minigrad_generate", ROOT / "minigrad/kernels/generate.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    return [os.path.relpath(path, ROOT) for path in generator.main()]


def flavour_file() -> str:
    """Record whether this is a debug build in a file that changes only when the answer does.

    The extensions depend on it, so switching ``MINIGRAD_DEBUG`` recompiles them.
    """
    path, flavour = ROOT / "build/flavour", "debug" if DEBUG else "release"
    if not path.exists() or path.read_text() != flavour:
        path.parent.mkdir(exist_ok=True)
        path.write_text(flavour)
    return os.path.relpath(path, ROOT)


class BuildExtensions(build_ext):
    """Generate, translate, compile: only when extensions are built, so an sdist carries sources alone."""

    def finalize_options(self) -> None:
        """Keep the output of builds in place."""
        if self.inplace or self.editable_mode:
            # An editable install would build in a temporary folder, and so compile everything each time.
            self.build_lib = "build/inplace"
        super().finalize_options()

    def build_extensions(self) -> None:
        """Bring every extension from Cython to a compiled module."""
        flavour, kernels = flavour_file(), generate_kernels()
        gcc_like = self.compiler.compiler_type == "unix"
        for extension in self.extensions:
            # Outside the package, so that no generated C can find its way into an archive or a wheel.
            translated = cythonize(
                [extension],
                build_dir=f"build/cython-{Path(flavour).read_text()}",
                compiler_directives=DIRECTIVES,
                force=self.force,
                quiet=True,
            )
            extension.sources = translated[0].sources
            extension.depends += [flavour, *(kernels if extension.name == "minigrad._cpu" else [])]
            extension.define_macros += MACROS
            extension.extra_compile_args += COMPILE if gcc_like else []
            extension.extra_link_args += LINK if gcc_like else []
        super().build_extensions()


HEADERS = sorted(os.path.relpath(path, ROOT) for path in ROOT.glob("minigrad/kernels/*.h"))

setup(
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=[
        Extension("minigrad._core", ["minigrad/_core.pyx"], depends=["minigrad/_core.pxd"]),
        Extension(
            "minigrad._cpu",
            ["minigrad/_cpu.pyx", "minigrad/kernels/cpu.c", "minigrad/kernels/pool.c", "minigrad/kernels/recurrent.c"],
            include_dirs=[np.get_include(), "minigrad/kernels"],
            depends=["minigrad/_core.pxd", *HEADERS],
        ),
    ],
)
