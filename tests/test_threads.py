"""The pool of threads and workspaces: by itself under sanitizers, and as Python programs meet it."""

import os
import shutil
import subprocess
import sys
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


LARGE = """
import multiprocessing, os, sys, threading
import numpy as np
import minigrad as mg

rng = np.random.default_rng(1)
a, b = (mg.tensor(rng.standard_normal(s)) for s in ((211, 307), (307, 193)))
mg.set_num_threads(1)
want = (a @ b).numpy().tobytes()
mg.set_num_threads(3)


def right():
    return all((a @ b).numpy().tobytes() == want for _ in range(5))


assert right()  # and from here on the pool is warm
"""
PROGRAMS = {
    "fork": """
child = os.fork()
if child == 0:
    os._exit(0 if right() else 1)
assert right() and os.waitpid(child, 0)[1] == 0
""",
    "multiprocessing": """
with multiprocessing.get_context("fork").Pool(2) as workers:
    assert workers.map(in_a_worker, range(4)) == [True] * 4
""",
    "threads": """
found = []
callers = [threading.Thread(target=lambda: found.append(right())) for _ in range(4)]
for t in callers: t.start()
assert right()
for t in callers: t.join()
assert found == [True] * 4
""",
    "exit in the middle": """
def forever():
    while True:
        right()
for _ in range(2):
    threading.Thread(target=forever, daemon=True).start()
right()
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_with_a_warm_pool(name):
    code = LARGE + "\n\ndef in_a_worker(_):\n    return right()\n\n" + PROGRAMS[name] + "\nprint('done')\n"
    path = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
