"""The GPU's lane: arrays of CuPy, and CUDA kernels that are written from the page as the C loops are.

                     value ──► one ElementwiseKernel        y = tanhf(x)
    a record ──► partial d_x ──► one ElementwiseKernel      out = g * ((1 - y) * (1 + y))
    an update ──► one kernel over all parameters            p, m, v of every tensor, found in a table of pointers

What has no kernel here runs on CuPy's own functions, through the array lane; products go to cuBLAS. Nothing is copied
to the host but by :meth:`CudaLane.to_numpy`. Kernels compile when they are first used, and CuPy keeps them on disk.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import cupy
import numpy as np

from . import formula
from ._core import data_of, here, tensor
from ._cuda_recurrent import Cublas, CudaDevice, layer_kernels
from .backend import DEVICES, ArrayLane, is_basic
from .errors import DeviceError
from .op import LANES, PAGE, Op, Update

__all__ = ["CudaLane", "allow_tf32", "connect", "isa", "sum_squares", "update_kernels"]

C_TYPES = {"float32": "float", "float64": "double"}

OPTIONS = ("--fmad=false",)
"""Each product and sum is rounded, as on the CPU: these kernels wait for memory, so it costs nothing."""


class Source(NamedTuple):
    """What an element-wise kernel is made of, in CuPy's words."""

    name: str
    inputs: str
    output: str
    body: str


def precision(arrays: Sequence[Any]) -> str | None:
    """Return "float32" or "float64" if all arrays are of it, else None."""
    names = {array.dtype.name for array in arrays}
    name = names.pop() if len(names) == 1 else ""
    return name if name in C_TYPES else None


# --- element-wise -------------------------------------------------------------------------------------------------


def elementwise_source(op: Op, wrt: str | None, dtype: str) -> Source:
    """Write the kernel of an element-wise record's value, or of g times its partial derivative, for one precision.

    Operands come first (what may be of any type, like a condition, has a letter for its type), then parameters.
    """
    if wrt is None:
        assert op.value_expr is not None
        name, names, expr, factor = op.name, [*op.operands, *op.params], op.value_expr, ""
    else:
        rule = op.rules[wrt]
        assert rule.expr is not None
        names = [n for n in [*op.operands, *op.params, "y"] if n in rule.names]
        name, expr, factor = f"{op.name}_d_{wrt}", rule.expr, "g * "
    letters = iter("ABCD")
    types = {n: next(letters) if n in op.indices else dtype for n in names}
    inputs = ([f"{dtype} g"] if factor else []) + [f"{types[n]} {n}" for n in names]
    body = formula.to_cuda(expr, C_TYPES[dtype])
    text = f"out = {factor}({body})" if factor else f"out = {body}"
    return Source(f"minigrad_{name}_{dtype}", ", ".join(inputs), f"{dtype} out", text)


def elementwise_sources(page: Any) -> Iterator[Source]:
    """Write every kernel of the element-wise page."""
    for op in page:
        if op.kind == "elementwise":
            wanted = [None, *(operand for operand, rule in op.rules.items() if rule.source != "1")]
            for wrt, dtype in itertools.product(wanted, C_TYPES):
                yield elementwise_source(op, wrt, dtype)


def elementwise_kernel(source: Source) -> Any:
    """Make CuPy's kernel of a source; it compiles when it is first called."""
    return cupy.ElementwiseKernel(
        source.inputs, source.output, source.body, source.name, preamble=formula.CUDA_PREAMBLE, options=OPTIONS
    )


class ElementwiseKernel:
    """An element-wise record on the GPU: one kernel for the value, and one for each contribution."""

    def __init__(self, op: Op) -> None:
        self.op = op
        self.floating = [k for k, operand in enumerate(op.operands) if operand not in op.indices]
        self._kernel = functools.cache(lambda wrt, dtype: elementwise_kernel(elementwise_source(op, wrt, dtype)))

    def forward(self, arrays: list[Any], params: Mapping[str, Any] | None) -> Any:
        """Return the value of float32 or float64 arrays; None for any others."""
        dtype = precision([arrays[k] for k in self.floating])
        if dtype is None:
            return None
        numbers = [float((params or {})[name]) for name in self.op.params]
        return self._kernel(None, dtype)(*arrays, *numbers)

    def backward(self, node: Any, gs: list[Any], wanted: list[bool]) -> list[Any] | None:
        """Return the wanted contributions of a cotangent."""
        (g,) = gs
        dtype = precision([g])
        if dtype is None:
            return None
        parts: list[Any] = []
        for k, operand in enumerate(self.op.operands):
            rule = self.op.rules.get(operand) if wanted[k] else None
            if rule is None:
                parts.append(None)
                continue
            part = g
            if rule.source != "1":
                places = [j for j, name in enumerate(self.op.operands) if name in rule.names]
                held = [data_of(node.operand(j)) for j in places]
                numbers = [float(node.params[name]) for name in self.op.params if name in rule.names]
                result = [data_of(node.result())] if "y" in rule.names else []
                floating = [x for x, j in zip(held, places, strict=True) if j in self.floating]
                if precision([g, *floating, *result]) is None:
                    return None
                part = self._kernel(operand, dtype)(g, *held, *numbers, *result)
            shape = node.operand_shape(k)
            parts.append(part if part.shape == shape else data_of(PAGE.sum_to(tensor(part), shape)))
        return parts


# --- products -----------------------------------------------------------------------------------------------------


def product(a: Any, b: Any) -> Any:
    """Return ``a @ b`` for a matrix b: one call of cuBLAS over all rows of a, whose layouts it takes as they are."""
    rows = a if a.ndim == 2 else a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    out = cupy.matmul(rows, b)
    return out if a.ndim == 2 else out.reshape(*a.shape[:-1], b.shape[1])


class MatmulKernel:
    """A stack of matrices times one matrix."""

    def forward(self, arrays: list[Any], params: Mapping[str, Any] | None) -> Any:
        """Return ``a @ b``; None for vectors, stacks of b, integers, and shapes that do not fit."""
        a, b = arrays
        if a.ndim < 2 or b.ndim != 2 or a.shape[-1] != b.shape[0] or precision(arrays) is None:
            return None
        return product(a, b)

    def backward(self, node: Any, gs: list[Any], wanted: list[bool]) -> list[Any] | None:
        """Decline: the page's transposes are products again."""
        return None


class AffineKernel:
    """``x @ weightᵀ + bias``: the bias is added in place."""

    def forward(self, arrays: list[Any], params: Mapping[str, Any] | None) -> Any:
        """Return the value; None for vectors, integers, and shapes that do not fit."""
        x, weight, bias = arrays
        fits = weight.ndim == 2 and x.ndim > 1 and x.shape[-1] == weight.shape[1] and bias.shape == weight.shape[:1]
        if not fits or precision(arrays) is None:
            return None
        out = product(x, weight.T)
        out += bias
        return out

    def backward(self, node: Any, gs: list[Any], wanted: list[bool]) -> list[Any] | None:
        """Decline: the page's rules are products again."""
        return None


# --- indexing -----------------------------------------------------------------------------------------------------


@functools.cache
def _outside_kernel() -> Any:
    return cupy.ReductionKernel(
        "T place, int64 length",
        "bool outside",
        "(long long)place < -length || (long long)place >= length",
        "a || b",
        "outside = a",
        "false",
        "minigrad_outside",
    )


SUM_AT = """
long long row = i / width, column = i % width, low = 0, high = count;
while (low < high) {
  long long middle = (low + high) / 2;
  if (places[middle] < row) low = middle + 1; else high = middle;
}
T total = before;
for (; low < count && places[low] == row; ++low) total += values[order[low] * width + column];
out = total;
"""


@functools.cache
def _sum_at_kernel() -> Any:
    # The values of one place are added in their order, by one thread: atomic additions would come in another order in
    # each run, and with other last digits.
    return cupy.ElementwiseKernel(
        "T before, raw int64 places, raw int64 order, raw T values, int64 count, int64 width",
        "T out",
        SUM_AT,
        "minigrad_sum_at",
    )


def _indexed_axes(shape: tuple[int, ...], index: Any) -> Iterator[tuple[Any, int]]:
    """Yield the integer arrays of an index, each with the length of the axis that it picks from."""
    parts = index if isinstance(index, tuple) else (index,)
    taken = [part.ndim if _is_mask(part) else 0 if part is None or part is Ellipsis else 1 for part in parts]
    axis = 0
    for part, axes in zip(parts, taken, strict=True):
        if part is Ellipsis:
            axis += len(shape) - sum(taken)
        elif hasattr(part, "dtype") and not _is_mask(part) and axis < len(shape):
            yield part, shape[axis]
        axis += axes


def _is_mask(part: Any) -> bool:
    return hasattr(part, "dtype") and part.dtype.kind == "b"


# --- random numbers -----------------------------------------------------------------------------------------------

# Salmon et al.: Parallel random numbers: as easy as 1, 2, 3, SC 2011. A number depends on the seed and on its place
# alone, whatever the device, the launch, or the version of a library.
PHILOX = """
struct mg_words { unsigned int w[4]; };
__device__ inline mg_words mg_philox(unsigned long long key, unsigned long long counter) {
  unsigned int k0 = (unsigned int)key, k1 = (unsigned int)(key >> 32);
  mg_words c = {{(unsigned int)counter, (unsigned int)(counter >> 32), 0u, 0u}};
  for (int round = 0; round < 10; ++round) {
    unsigned long long p0 = 0xD2511F53ull * c.w[0], p1 = 0xCD9E8D57ull * c.w[2];
    mg_words next = {{(unsigned int)(p1 >> 32) ^ c.w[1] ^ k0, (unsigned int)p1,
                      (unsigned int)(p0 >> 32) ^ c.w[3] ^ k1, (unsigned int)p0}};
    c = next;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}
__device__ inline double mg_uniform(unsigned int a, unsigned int b) {  /* 53 bits of [0, 1) */
  return ((a >> 5) * 67108864.0 + (b >> 6)) / 9007199254740992.0;
}
"""

DRAWS = {
    ("random", "float32"): "out = (mg_philox(key, start + i).w[0] >> 8) / 16777216.0f",
    ("random", "float64"): "mg_words c = mg_philox(key, start + i); out = mg_uniform(c.w[0], c.w[1])",
    # Box and Muller 1958, in double precision for both: 1 - u is never 0.
    **{
        ("normal", dtype): "mg_words c = mg_philox(key, start + i);"
        " out = sqrt(-2.0 * log(1.0 - mg_uniform(c.w[0], c.w[1]))) * cospi(2.0 * mg_uniform(c.w[2], c.w[3]))"
        for dtype in C_TYPES
    },
}


@functools.cache
def _draw_kernel(kind: str, dtype: str) -> Any:
    return cupy.ElementwiseKernel(
        "uint64 key, uint64 start", f"{dtype} out", DRAWS[kind, dtype], f"minigrad_{kind}_{dtype}", preamble=PHILOX
    )


# --- updates ------------------------------------------------------------------------------------------------------

BLOCK = 256
CHUNK = 4096  # elements that one block changes


def update_source(update: Update, dtype: str) -> str:
    """Write the kernel of an update over any number of tensors: block b changes one chunk of one of them.

    ``pointers_ak`` holds, array by array, the address in each of K tensors; ``sizes_k`` their numbers of elements;
    ``chunks_b2`` a tensor and the first element of each chunk. A parameter comes as a number and, where it is on the
    device, as a pointer to it, which counts.
    """
    kind = C_TYPES[dtype]
    numbers = "".join(f",\n    double number_{name}, const double *at_{name}" for name in update.params)
    lines = [f"  const {kind} {name} = ({kind})(at_{name} ? *at_{name} : number_{name});" for name in update.params]
    lines += [
        f"  {kind} *array_{name} = ({kind} *)pointers_ak[{k} * tensors + which];"
        for k, name in enumerate(update.arrays)
    ]
    body = [f"    {kind} {name} = array_{name}[j];" for name in update.arrays]
    for result, expr in update.formulas.items():
        body.append(f"    {'' if result in update.arrays else kind + ' '}{result} = {formula.to_cuda(expr, kind)};")
    body += [f"    array_{name}[j] = {name};" for name in update.arrays if name in update.formulas]
    return "\n".join(
        [
            formula.CUDA_PREAMBLE,
            f'extern "C" __global__ void minigrad_{update.name}_{dtype}(',
            "    const long long *pointers_ak, const long long *sizes_k, const long long *chunks_b2, int tensors"
            + numbers
            + ") {",
            "  const long long which = chunks_b2[2 * blockIdx.x], first = chunks_b2[2 * blockIdx.x + 1];",
            f"  const long long last = first + {CHUNK} < sizes_k[which] ? first + {CHUNK} : sizes_k[which];",
            *lines,
            "  for (long long j = first + threadIdx.x; j < last; j += blockDim.x) {",
            *body,
            "  }",
            "}",
            "",
        ]
    )


class Table:
    """Where the tensors of a launch lie, on the device: written anew only when one of them has moved."""

    def __init__(self, addresses: Sequence[Sequence[int]], sizes: Sequence[int]) -> None:
        chunks = [(k, first) for k, size in enumerate(sizes) for first in range(0, size, CHUNK)]
        self.tensors, self.blocks = len(sizes), len(chunks)
        flat = [address for column in zip(*addresses, strict=True) for address in column]
        parts = [flat, list(sizes), [number for chunk in chunks for number in chunk]]
        whole = cupy.asarray(np.array([number for part in parts for number in part], dtype=np.int64))
        ends = list(itertools.accumulate(map(len, parts)))
        self.arguments = (whole[: ends[0]], whole[ends[0] : ends[1]], whole[ends[1] :], np.int32(self.tensors))


class UpdateKernel:
    """One update of the page on the GPU: one launch for all tensors that change by the same numbers."""

    def __init__(self, lane: CudaLane, update: Update) -> None:
        self.lane, self.update = lane, update
        self._tables: dict[Any, Table] = {}

    def __call__(self, arrays: Sequence[Any], numbers: Sequence[Any]) -> bool:
        """Change arrays of one shape in place, or note to do so with others; False for what it does not take."""
        dtype = precision(arrays)
        first = arrays[0]
        if dtype is None or any(a.shape != first.shape or not a.flags.c_contiguous for a in arrays):
            return False
        self.lane.jobs.append(Job(self, dtype, tuple(numbers), tuple(arrays)))
        if not self.lane.collecting:
            self.lane.launch_jobs()
        return True

    @functools.cached_property
    def _functions(self) -> Any:
        return functools.cache(
            lambda dtype: cupy.RawModule(code=update_source(self.update, dtype), options=OPTIONS).get_function(
                f"minigrad_{self.update.name}_{dtype}"
            )
        )

    def launch(self, dtype: str, numbers: Sequence[Any], every: Sequence[Sequence[Any]]) -> None:
        """Change several tensors' arrays by the same numbers in one launch."""
        addresses = tuple(tuple(array.data.ptr for array in arrays) for arrays in every)
        sizes = tuple(arrays[0].size for arrays in every)
        table = self._tables.get((addresses, sizes))
        if table is None:
            if len(self._tables) >= 8:  # gradients come at few addresses in turn; older ones are of no use
                self._tables.clear()
            table = self._tables[addresses, sizes] = Table(addresses, sizes)
        if not table.blocks:
            return
        values: list[Any] = []
        for number in numbers:
            on_device = isinstance(number, cupy.ndarray)
            values += [np.float64(0.0 if on_device else number), number if on_device else np.intp(0)]
        self._functions(dtype)((table.blocks,), (BLOCK,), (*table.arguments, *values))


class Job(NamedTuple):
    """A change of one tensor that waits for others like it."""

    kernel: UpdateKernel
    dtype: str
    numbers: tuple[Any, ...]
    arrays: tuple[Any, ...]


# --- norms --------------------------------------------------------------------------------------------------------

SQUARES = f"""
extern "C" __global__ void minigrad_squares_TYPE(
    const long long *pointers_ak, const long long *sizes_k, const long long *chunks_b2, int tensors, double *sums_b) {{
  const long long which = chunks_b2[2 * blockIdx.x], first = chunks_b2[2 * blockIdx.x + 1];
  const long long last = first + {CHUNK} < sizes_k[which] ? first + {CHUNK} : sizes_k[which];
  const TYPE *array = (const TYPE *)pointers_ak[which];
  __shared__ double part[{BLOCK}];
  double total = 0.0;
  for (long long j = first + threadIdx.x; j < last; j += {BLOCK}) total += (double)array[j] * (double)array[j];
  part[threadIdx.x] = total;
  __syncthreads();
  for (int half = {BLOCK} / 2; half > 0; half /= 2) {{
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    __syncthreads();
  }}
  if (threadIdx.x == 0) sums_b[blockIdx.x] = part[0];
}}
"""
"""The sum of squares of each chunk, in double precision and always in the same order."""


def squares_source(dtype: str) -> str:
    """Write the kernel that sums the squares of each chunk."""
    return SQUARES.replace("TYPE", C_TYPES[dtype])


@functools.cache
def _squares_function(dtype: str) -> Any:
    return cupy.RawModule(code=squares_source(dtype)).get_function(f"minigrad_squares_{C_TYPES[dtype]}")


# --- the lane -----------------------------------------------------------------------------------------------------


class CudaLane(ArrayLane):
    """Arrays of CuPy on one GPU.

    Numbers beside arrays are written by kernels, never copied. Checks of values, such as the range of an index, do not
    wait for the GPU: what is wrong is raised when values are next copied to the host. With ``MINIGRAD_DEBUG=1`` they
    wait, and the error comes from the very operation.
    """

    MOST_DEMANDS = 256
    """How many checks may wait; more make the program wait for the GPU once."""

    def __init__(self, page: Any) -> None:
        super().__init__(cupy, "cuda")
        self.kernels = {op.name: ElementwiseKernel(op) for op in page if op.kind == "elementwise"}
        self.kernels.update(matmul=MatmulKernel(), affine=AffineKernel(), **layer_kernels(CudaDevice(cupy)))
        self.updates = {name: UpdateKernel(self, update) for name, update in page.updates.items()}
        self.jobs: list[Job] = []
        self.collecting = False
        self._demands: list[tuple[Any, str, Callable[[], Exception]]] = []
        self.seed(int.from_bytes(os.urandom(8), "little"))

    # -- arrays ----------------------------------------------------------------------------------------

    def cast(self, value: Any, dtype: Any) -> Any:
        """Return an array of a dtype from an array or a number; a kernel writes the number."""
        if hasattr(value, "dtype") and not isinstance(value, np.generic):
            return super().cast(value, dtype)
        return cupy.full((), value.item() if isinstance(value, np.generic) else value, dtype=dtype)

    def check_index(self, shape: tuple[int, ...], index: Any) -> None:
        """Demand that integer arrays of an index lie inside their axes: CuPy would wrap them around."""
        for part, length in _indexed_axes(shape, index):
            if part.size and part.dtype.kind in "iu":
                self.demand(_outside_kernel()(part, length), functools.partial(_stray, part, length))

    def take(self, array: Any, index: Any) -> Any:
        """Return ``array[index]``; a place outside of it is an error, as `demand` raises them."""
        self.check_index(array.shape, index)
        return array[index]

    def index_add(self, out: Any, index: Any, values: Any) -> Any:
        """Return `out` with `values` added at ``out[index]``; the same in every run."""
        if is_basic(index):
            out[index] += values
            return out
        rows = not isinstance(index, tuple) and index.dtype.kind != "b"
        shape = out.shape[:1] if rows else out.shape
        places = cupy.arange(math.prod(shape), dtype="int64").reshape(shape)[index].ravel()
        if not places.size:
            return out
        order = cupy.argsort(places)  # stable: CuPy's only one
        width = math.prod(out.shape[1:]) if rows else 1
        flat = cupy.ascontiguousarray(values).ravel()
        total = _sum_at_kernel()(out.ravel(), places[order], order, flat, places.size, width)
        return total.reshape(out.shape)

    def to_numpy(self, array: Any) -> Any:
        """Copy an array to the host's memory; raises what earlier checks found."""
        self.raise_demands()
        return cupy.asnumpy(array)

    # -- checks ----------------------------------------------------------------------------------------

    def demand(self, wrong: Any, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` if `wrong` holds True, as soon as it can be known without waiting for the GPU."""
        self._demands.append((wrong, here(), error))
        if len(self._demands) > self.MOST_DEMANDS or os.environ.get("MINIGRAD_DEBUG", "0") not in ("", "0"):
            self.raise_demands()

    def raise_demands(self) -> None:
        """Wait for the checks so far, and raise the first error that one of them found."""
        demands, self._demands = self._demands, []
        if not demands:
            return
        found = cupy.asnumpy(cupy.stack([cupy.asarray(wrong).reshape(()) for wrong, _, _ in demands]))
        for wrong, (_, scope, make) in zip(found, demands, strict=True):
            if wrong:
                error = make()
                place = f" in {scope}" if scope else ""
                raise type(error)(f"{error} (found on the GPU{place}; MINIGRAD_DEBUG=1 shows the operation)") from None

    # -- random numbers --------------------------------------------------------------------------------

    def seed(self, seed: int) -> None:
        """Restart the GPU's random numbers."""
        self.random_state = (int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]), 0)

    @property
    def random_state(self) -> Any:
        """The key, and how many numbers were drawn."""
        return self._random_state

    @random_state.setter
    def random_state(self, state: Any) -> None:
        self._random_state = state

    def random(self, shape: tuple[int, ...], dtype: Any = "float64") -> Any:
        """Draw numbers uniform in [0, 1) on the GPU."""
        return self._draw("random", shape, dtype)

    def normal(self, shape: tuple[int, ...], dtype: Any = "float64") -> Any:
        """Draw standard normal numbers on the GPU."""
        return self._draw("normal", shape, dtype)

    def _draw(self, kind: str, shape: tuple[int, ...], dtype: Any) -> Any:
        key, start = self._random_state
        out = cupy.empty(shape, dtype=dtype)
        self._random_state = (key, start + out.size)
        return _draw_kernel(kind, out.dtype.name)(np.uint64(key), np.uint64(start), out)

    # -- training --------------------------------------------------------------------------------------

    @contextmanager
    def together(self) -> Iterator[None]:
        """Collect the updates inside, and launch them as one kernel for all that change by the same numbers."""
        outer, self.collecting = self.collecting, True
        try:
            yield
        except BaseException:
            self.jobs = []
            raise
        finally:
            self.collecting = outer
        if not outer:
            self.launch_jobs()

    def launch_jobs(self) -> None:
        """Launch the updates that wait."""
        jobs, self.jobs = self.jobs, []
        alike: dict[Any, list[Job]] = {}
        for job in jobs:
            numbers = tuple(id(n) if isinstance(n, cupy.ndarray) else n for n in job.numbers)
            alike.setdefault((id(job.kernel), job.dtype, numbers), []).append(job)
        for group in alike.values():
            first = group[0]
            first.kernel.launch(first.dtype, first.numbers, [job.arrays for job in group])

    def norm(self, arrays: Sequence[Any], p: float) -> Any:
        """Return the p-norm of all elements of several arrays, a float64 array without axes: nobody waits for it."""
        arrays = [array for array in arrays if array.size]
        if not arrays:
            return cupy.zeros((), dtype="float64")
        if p == 2:
            parts = [self._squares(group) for group in _by_dtype(arrays)]
            return cupy.sqrt(cupy.sum(cupy.concatenate(parts)))
        wide = [cupy.abs(array).ravel().astype("float64") for array in arrays]
        if p == math.inf:
            return cupy.max(cupy.stack([cupy.max(part) for part in wide]))
        return cupy.sum(cupy.stack([cupy.sum(part**p) for part in wide])) ** (1 / p)

    def _squares(self, arrays: Sequence[Any]) -> Any:
        packed = [cupy.ascontiguousarray(array) for array in arrays]
        table = Table([(array.data.ptr,) for array in packed], [array.size for array in packed])
        sums = cupy.empty(table.blocks, dtype="float64")
        _squares_function(arrays[0].dtype.name)((table.blocks,), (BLOCK,), (*table.arguments, sums))
        return sums


def _by_dtype(arrays: Sequence[Any]) -> Iterator[list[Any]]:
    for name in C_TYPES:
        group = [array for array in arrays if array.dtype.name == name]
        if group:
            yield group


def _stray(part: Any, length: int) -> Exception:
    low, high = int(part.min()), int(part.max())
    return IndexError(f"index {low if low < -length else high} is outside of an axis of length {length}")


# --- what the rooms above ask for ---------------------------------------------------------------------------------


def allow_tf32(on: bool) -> None:
    """Let products of float32 round their factors to 10 bits (TF32), which tensor cores multiply faster; off at first.

    Layers that have run keep to what they were recorded with.
    """
    from_library = cupy._core._routines_linalg
    kind = from_library.COMPUTE_TYPE_TF32 if on else from_library.COMPUTE_TYPE_DEFAULT
    cupy._core.set_compute_type(np.float32, kind)
    Cublas.allow_tf32 = on


def isa() -> str:
    """Name what the kernels are compiled for: "sm_90" and the like."""
    return f"sm_{cupy.cuda.Device().compute_capability}"


def update_kernels() -> dict[str, UpdateKernel]:
    """Return the kernels of the page's updates by name."""
    return dict(DEVICES["cuda"].updates)  # type: ignore[arg-type]


def sum_squares(x: Any) -> Any:
    """Return the sum of squares in float64, on the GPU."""
    return DEVICES["cuda"].norm([x], 2) ** 2


def connect(page: Any) -> None:
    """Enter the lane of CuPy's arrays, with kernels for the records of the page.

    Raises:
        DeviceError: CuPy is there, and no GPU.
    """
    if not cupy.cuda.is_available():
        raise DeviceError(
            "CuPy is installed, but finds no GPU: `nvidia-smi` shows whether the driver does, and "
            "CUDA_VISIBLE_DEVICES may hide it"
        )
    DEVICES["cuda"] = LANES[cupy.ndarray] = CudaLane(page)
