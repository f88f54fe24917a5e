"""Every instruction set that this CPU has computes the same page."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("isa_values.py")
KNOWN = ("base", "avx2", "avx512")


def run(path, isa):
    environment = {**os.environ, "MINIGRAD_ISA": isa}
    return subprocess.run([sys.executable, SCRIPT, path], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("isa") / "array.npz"
    done = run(path, "array lane")  # no such set: the script turns the compiled lane off
    assert done.returncode == 0, done.stderr
    return np.load(path)


@pytest.mark.parametrize("isa", KNOWN)
def test_values_and_gradients(isa, reference, tmp_path):
    path = tmp_path / "values.npz"
    done = run(path, isa)
    if "does not have" in done.stderr:
        pytest.skip(f"this CPU has no {isa}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == isa
    got = np.load(path)
    assert set(got) == set(reference)
    assert len(got.files) > 100
    for name in got:
        eps = np.finfo(got[name].dtype).eps
        np.testing.assert_allclose(got[name], reference[name], rtol=64 * eps, atol=16 * eps, err_msg=name)


def test_an_unknown_set_is_refused():
    code = "import minigrad"
    environment = {**os.environ, "MINIGRAD_ISA": "mmx"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MINIGRAD_ISA" in done.stderr.splitlines()[-1]
