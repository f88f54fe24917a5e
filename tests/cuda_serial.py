"""Run recurrent.cu on the CPU: its kernels are compiled by the C++ compiler and run one thread after the other."""

import ctypes
import re
import subprocess

import numpy as np

from minigrad._cuda_recurrent import CudaDevice

SHIM = """
#include <cmath>
#define __device__
#define __global__
struct Place { long long x; };
static thread_local Place blockIdx, threadIdx, blockDim{1};
using std::exp; using std::tanh; using std::fabs; using std::log1p;
"""
KERNEL = re.compile(r"__global__ void (\w+)\((.*?)\)\s*\{", re.DOTALL)


def program(text):
    """Return C++ with a loop over threads for every kernel and both precisions, under C names."""
    parts = [SHIM, text, 'extern "C" {']
    for name, listed in KERNEL.findall(text):
        arguments = [" ".join(re.sub(r"/\*.*?\*/", "", a).split()) for a in listed.split(",")]
        names = [re.sub(r".*[ *]", "", a) for a in arguments]
        for word, dtype in (("float", "float32"), ("double", "float64")):
            typed = ", ".join(re.sub(r"\bT\b", word, a) for a in arguments)
            call = f"for (long long k = 0; k < threads; k++) {{ blockIdx.x = k; {name}<{word}>({', '.join(names)}); }}"
            parts.append(f"void {name}_{dtype}(long long threads, {typed}) {{ {call} }}")
    return "\n".join([*parts, "}"])


class SerialDevice(CudaDevice):
    """The device of the drivers' loops, in the host's memory. It counts what it is asked to do."""

    def __init__(self, folder):
        super().__init__(np)
        source, library = folder / "recurrent.cpp", folder / "recurrent.so"
        source.write_text(program(self.source()))
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-ffp-contract=off"]
        subprocess.run(["g++", *flags, str(source), "-o", str(library)], check=True)
        self.library = ctypes.CDLL(str(library))
        self.launches, self.captures, self.replays = 0, 0, 0

    def address(self, array):
        assert array.flags.c_contiguous
        return array.ctypes.data

    def launch(self, name, dtype, threads, *args):
        self.launches += 1
        typed = [
            ctypes.c_void_p(a) if type(a) is int else ctypes.c_int(a) if a.dtype == np.int32 else ctypes.c_longlong(a)
            for a in args
        ]
        assert all(type(a) is int or a.dtype in (np.int32, np.int64) for a in args)
        getattr(self.library, f"{name}_{dtype}")(ctypes.c_longlong(threads), *typed)

    def gemm(self, dtype, ta, tb, m, n, k, a, b, c, add):
        def matrix(address, rows, columns):
            kind = ctypes.c_float if dtype == "float32" else ctypes.c_double
            return np.ctypeslib.as_array((kind * (rows * columns)).from_address(address)).reshape(rows, columns)

        left = matrix(a, k, m).T if ta else matrix(a, m, k)
        right = matrix(b, n, k).T if tb else matrix(b, k, n)
        out = matrix(c, m, n)
        out[...] = out + left @ right if add else left @ right

    def capture(self, work):
        self.captures += 1

        def replay():
            self.replays += 1
            work()

        return replay
