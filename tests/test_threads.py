"""The pool of threads and workspaces: by itself under sanitizers, and as Python programs meet it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import minigrad as mg
from minigrad.errors import UsageError

HERE = Path(__file__).parent
KERNELS = HERE.parent / "minigrad" / "kernels"
COMPILER = shutil.which(os.environ.get("CC", "cc"))

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="the pool's C test needs a C compiler (cc or $CC)")

# ThreadSanitizer follows no fork of a process that has threads.
FLAVOURS = {
    "plain": (["-O2"], ["fork"]),
    "thread": (["-O1", "-g", "-fsanitize=thread"], []),
    "address,undefined": (["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], ["fork"]),
}


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """Return a function that compiles tests/c/pool.c once for each flavour."""
    folder = tmp_path_factory.mktemp("pool")

    def build(flavour):
        target = folder / flavour.replace(",", "-")
        if not target.exists():
            sources = [str(HERE / "c" / "pool.c"), str(KERNELS / "pool.c")]
            options = ["-std=gnu11", "-Wall", "-Wextra", "-pthread", f"-I{KERNELS}", *FLAVOURS[flavour][0]]
            command = [COMPILER, *options, *sources, "-o", str(target)]
            done = subprocess.run(command, capture_output=True, text=True)
            if flavour != "plain" and "cannot find" in done.stderr:
                pytest.skip(f"this compiler has no sanitizer for {flavour}")
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
        return target

    return build


@needs_compiler
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_pool_from_many_sides(flavour, harness):
    # On a machine whose address space is laid out too much at random, ThreadSanitizer does not start.
    fixed = ["setarch", "-R"] if flavour == "thread" and shutil.which("setarch") else []
    command = [*fixed, harness(flavour), *FLAVOURS[flavour][1]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "pool: all right"


@needs_compiler
@pytest.mark.parametrize(("text", "number"), [("1", 1), ("3", 3), ("4,2", 4), (" 2 , 2", 2), ("99999", 1024)])
def test_omp_num_threads(text, number, harness):
    done = subprocess.run([harness("plain"), "threads"], env={"OMP_NUM_THREADS": text}, capture_output=True, text=True)
    assert done.stdout == f"{number}\n"


@needs_compiler
@pytest.mark.parametrize("environment", [{}] + [{"OMP_NUM_THREADS": text} for text in ("", "0", "-3", "many")])
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no CPU affinity")
def test_cpus_of_the_process(environment, harness):
    allowed = os.sched_getaffinity(0)
    one = {min(allowed)}
    for cpus in (allowed, one):
        os.sched_setaffinity(0, cpus)
        try:
            done = subprocess.run([harness("plain"), "threads"], env=environment, capture_output=True, text=True)
        finally:
            os.sched_setaffinity(0, allowed)
        assert done.stdout == f"{len(cpus)}\n"


@pytest.fixture
def threads():
    """Return the setter of the number of threads, which is as before when the test is over."""
    before = mg.get_num_threads()
    yield mg.set_num_threads
    mg.set_num_threads(before)


def test_the_number_of_threads(threads):
    for n in (1, 3, 1024):
        threads(n)
        assert mg.get_num_threads() == n


@pytest.mark.parametrize("n", [0, -1, 1025, 2.0, "2", None, True])
def test_no_number_of_threads(n, threads):
    threads(2)
    with pytest.raises(UsageError, match=r"set_num_threads.*1 to 1024"):
        mg.set_num_threads(n)
    assert mg.get_num_threads() == 2
