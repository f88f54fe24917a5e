"""Write values and gradients of the element-wise records and of products to a file, for one instruction set."""

import os
import sys
from contextlib import nullcontext

import numpy as np

on_array_lane = os.environ["MINIGRAD_ISA"] == "array lane"
if on_array_lane:
    os.environ["MINIGRAD_ISA"] = ""

import minigrad as mg  # noqa: E402
from minigrad import _cpu, backend  # noqa: E402
from minigrad.op import PAGE  # noqa: E402

out = {}
rng = np.random.default_rng(5)
with backend.compiled_lane(False) if on_array_lane else nullcontext():
    for dtype in ("float32", "float64"):
        for op in PAGE:
            if op.kind != "elementwise":
                continue
            bounds = [op.domain.get(operand, (-2.0, 2.0)) for operand in op.operands]
            xs = [mg.tensor(rng.uniform(*b, (13, 37)).astype(dtype), requires_grad=True) for b in bounds]
            params = {"low": -1.0, "high": 1.5} if op.name == "clip" else {}
            y = op(*xs, **params)
            out[f"{op.name} {dtype}"] = y.numpy()
            y.backward(mg.tensor(rng.standard_normal(y.shape).astype(dtype)))
            for operand, x in zip(op.operands, xs, strict=True):
                if x.grad is not None:
                    out[f"{op.name} d_{operand} {dtype}"] = x.grad.numpy()
        for m, k, n in ((1, 37, 11), (13, 17, 29), (8, 32, 32), (67, 129, 3)):
            a, b = (mg.tensor(rng.uniform(0.1, 1.0, s).astype(dtype), requires_grad=True) for s in ((m, k), (k, n)))
            y = a @ b
            y.backward(mg.tensor(rng.uniform(0.1, 1.0, y.shape).astype(dtype)))
            for name, value in (("y", y), ("a", a.grad), ("b", b.grad)):
                out[f"matmul {m} {k} {n} {name} {dtype}"] = value.numpy()
np.savez(sys.argv[1], **out)
print(_cpu.isa())
