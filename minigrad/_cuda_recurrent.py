"""A recurrent layer on a GPU: products of the library, and one kernel of our own a step (kernels/recurrent.cu).

::

    forward     gates[all t] = x W_ih'                    one product
                for each t:   from_h = h[t-1] W_hh'       one product
                              gates, c, h = …             one kernel
    backward    for each t:   d[t] = …                    one kernel
                              dh += d[t] W_hh             one product
                dW_ih = d' x,  dW_hh = d' h,  dx = d W_ih   one product each

The loops over time are recorded as CUDA graphs when a shape comes again, and replayed from then on: a launch for the
whole sequence. A graph works on arrays of its own (a plan), so what goes in and out of a loop is copied, the rest is
not. Until it is released by backward, or with its node, a plan belongs to one call; other calls take other plans.

Axes: T steps, N batch, I input, H hidden, P output (H without a projection), G gates, D directions.
"""

from __future__ import annotations

import collections
import ctypes
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ._core import Kept, data_of
from .formula import CUDA_PREAMBLE

__all__ = ["CudaDevice", "LayerKernel", "layer_kernels"]

SOURCE = Path(__file__).with_name("kernels") / "recurrent.cu"
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
KERNELS = (
    "lstm_forward",
    "lstm_backward",
    "projected_forward",
    "projected_backward",
    "gru_forward",
    "gru_backward",
    "rnn_forward",
    "rnn_backward",
)
PLANS = 4  # at most so many plans are kept for each kind of layer


class CudaDevice:
    """What the loops below ask of the GPU, through an array library: memory, launches, products, graphs.

    Args:
        xp: CuPy's module.
    """

    BLOCK = 64  # small, so that the few elements of a step reach many processors

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self._local = threading.local()
        self._functions: dict[tuple[str, str], Any] = {}

    def source(self) -> str:
        """Return the text that is compiled."""
        return CUDA_PREAMBLE + SOURCE.read_text()

    def address(self, array: Any) -> int:
        """Return where an array starts."""
        return int(array.data.ptr)

    def launch(self, name: str, dtype: str, threads: int, *args: Any) -> None:
        """Run a kernel with a thread for each element; arguments are addresses (0 for NULL), or NumPy integers."""
        function = self._functions.get((name, dtype))
        if function is None:
            words = {"float32": "float", "float64": "double"}
            names = [f"{kernel}<{word}>" for kernel in KERNELS for word in words.values()]
            module = self.xp.RawModule(code=self.source(), options=("-std=c++17",), name_expressions=names)
            for kernel in KERNELS:
                for key, word in words.items():
                    self._functions[kernel, key] = module.get_function(f"{kernel}<{word}>")
            function = self._functions[name, dtype]
        grid = (threads + self.BLOCK - 1) // self.BLOCK
        function((grid,), (self.BLOCK,), tuple(np.intp(a) if type(a) is int else a for a in args))

    def gemm(self, dtype: str, ta: bool, tb: bool, m: int, n: int, k: int, a: int, b: int, c: int, add: bool) -> None:
        """C (m, n) = op(A) op(B), or C += …; all are packed rows: A (m, k), or (k, m) if transposed; B alike."""
        products = getattr(self._local, "products", None)
        if products is None:
            products = self._local.products = Cublas(self.xp)
        products.gemm(dtype, ta, tb, m, n, k, a, b, c, add)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the launches of `work`, which has run before, and return what replays them."""
        cuda = self.xp.cuda
        stream = cuda.Stream(non_blocking=True)
        stream.wait_event(cuda.get_current_stream().record())
        with stream:
            stream.begin_capture()
            try:
                work()
            finally:
                graph = stream.end_capture()
        replay: Callable[[], None] = graph.launch
        return replay


TF32_MATH = 3  # CUBLAS_TF32_TENSOR_OP_MATH


class Cublas:
    """cuBLAS called by its C interface: the array library's own calls refuse to be recorded in a graph."""

    allow_tf32: ClassVar[bool] = False
    WORKSPACE = 1 << 25  # bytes; cuBLAS would allocate while a graph is recorded, which is not allowed

    def __init__(self, xp: Any) -> None:
        xp.cuda.device.get_cublas_handle()  # loads the library; the name alone then finds the loaded one
        self.xp = xp
        major = xp.cuda.runtime.runtimeGetVersion() // 1000
        self.library = ctypes.CDLL(f"libcublas.so.{major}")
        self.handle = ctypes.c_void_p()
        self._check(self.library.cublasCreate_v2(ctypes.byref(self.handle)))
        self.workspace = xp.empty(self.WORKSPACE, dtype="uint8")
        self.stream: int | None = None
        self.tf32 = False  # what the handle is set to
        self.scalars: dict[str, list[Any]] = {
            "float32": [ctypes.c_float(v) for v in (0.0, 1.0)],
            "float64": [ctypes.c_double(v) for v in (0.0, 1.0)],
        }

    def _check(self, status: int) -> None:
        if status:
            raise RuntimeError(f"cuBLAS failed with status {status}")

    def gemm(self, dtype: str, ta: bool, tb: bool, m: int, n: int, k: int, a: int, b: int, c: int, add: bool) -> None:
        """Multiply matrices of packed rows, which cuBLAS sees as the transposes of matrices of packed columns."""
        stream = self.xp.cuda.get_current_stream().ptr
        if stream != self.stream:
            self._check(self.library.cublasSetStream_v2(self.handle, ctypes.c_void_p(stream)))
            pointer = ctypes.c_void_p(self.workspace.data.ptr)
            self._check(self.library.cublasSetWorkspace_v2(self.handle, pointer, ctypes.c_size_t(self.WORKSPACE)))
            self.stream = stream
        if self.tf32 != self.allow_tf32:
            self._check(self.library.cublasSetMathMode(self.handle, TF32_MATH if self.allow_tf32 else 0))
            self.tf32 = self.allow_tf32
        zero, one = self.scalars[dtype]
        call = self.library.cublasSgemm_v2 if dtype == "float32" else self.library.cublasDgemm_v2
        self._check(
            call(
                self.handle,
                int(tb),
                int(ta),
                n,
                m,
                k,
                ctypes.byref(one),
                ctypes.c_void_p(b),
                k if tb else n,
                ctypes.c_void_p(a),
                m if ta else k,
                ctypes.byref(one if add else zero),
                ctypes.c_void_p(c),
                n,
            )
        )


class Shape(NamedTuple):
    """What a plan is made for; equal shapes can share a graph."""

    kind: str
    dtype: str
    steps: int
    batch: int
    inputs: int
    hidden: int
    outputs: int
    ways: int
    bias: bool
    projection: bool
    peepholes: bool
    cells: bool
    rectify: bool
    ending: bool  # sequences have lengths

    @property
    def rows(self) -> int:
        """G*H."""
        return GATES[self.kind] * self.hidden


class Way:
    """The arrays of one direction."""

    def __init__(self, device: Any, shape: Shape, number: int, start: Sequence[Any], weights: Sequence[Any]) -> None:
        s, empty = shape, device.xp.empty
        self.reverse = number == 1
        names = ["w_ih", "w_hh"] + ["b_ih", "b_hh"] * s.bias + ["w_hr"] * s.projection + ["w_ph"] * s.peepholes
        self.weights = dict(zip(names, weights, strict=True))
        self.at = collections.defaultdict(int, {word: device.address(w) for word, w in self.weights.items()})
        self.gates = empty((s.steps, s.batch, s.rows), dtype=s.dtype)
        self.h = empty((s.steps + 1, s.batch, s.outputs), dtype=s.dtype)
        self.c: Any = empty((s.steps + 1, s.batch, s.hidden), dtype=s.dtype) if s.kind == "lstm" else None
        self.m = empty((s.steps, s.batch, s.hidden), dtype=s.dtype) if s.projection else None
        self.u = empty((s.steps, s.batch, s.hidden), dtype=s.dtype) if s.kind == "gru" else None
        self.from_h = empty((s.batch, s.rows), dtype=s.dtype)
        # States stand in the order of time: step t goes from place t to t + 1, or from t + 1 to t in reverse.
        self.first, self.last = (s.steps, 0) if self.reverse else (0, s.steps)
        # What the way back needs, made when it is first gone: gradients of the sums (u: of the state's share), of the
        # states on their way, of m and of its projection.
        self.d: Any = None
        self.du: Any = None
        self.dh: Any = None
        self.dc: Any = None
        self.dm: Any = None
        self.d_projected: Any = None
        self.begin(start)

    def begin(self, start: Sequence[Any]) -> None:
        """Put in the initial states."""
        self.h[self.first] = start[0]
        if self.c is not None:
            self.c[self.first] = start[1]

    def places(self, t: int) -> tuple[int, int]:
        """Return the places of the state before step t and after it."""
        return (t + 1, t) if self.reverse else (t, t + 1)

    @property
    def before(self) -> slice:
        """The places of the states before each step."""
        return slice(1, None) if self.reverse else slice(0, -1)


class Plan:
    """The arrays of one run of a layer, and its loops over time."""

    def __init__(self, device: Any, shape: Shape, start: Sequence[Any], weights: Sequence[Any]) -> None:
        self.device, self.shape, s = device, shape, shape
        states, number = len(start) // s.ways, len(weights) // s.ways
        self.ways = [
            Way(device, s, k, start[k * states : (k + 1) * states], weights[k * number : (k + 1) * number])
            for k in range(s.ways)
        ]
        empty = device.xp.empty
        self.y = empty((s.steps, s.batch, s.ways * s.outputs), dtype=s.dtype)
        self.cells = empty((s.steps, s.batch, s.ways * s.hidden), dtype=s.dtype) if s.cells else None
        self.lengths = empty((s.batch,), dtype="int64") if s.ending else None
        self.gy: Any = None
        self.gcells: Any = None
        self.forward_replay: Callable[[], None] | None = None
        self.backward_replays: dict[tuple[bool, bool], Callable[[], None]] = {}

    # Sizes as the kernels take them. What is a Python integer below is an address.

    def _common(self, units: int, t: int) -> tuple[Any, ...]:
        lengths = 0 if self.lengths is None else self.device.address(self.lengths)
        return np.int64(self.shape.batch), np.int64(units), np.int64(t), lengths

    def _of(self, array: Any, step: int = 0, way: int = 0, width: int = 0) -> int:
        """Return the address of a step of an array (0 for None), `width` columns further for each direction before."""
        if array is None:
            return 0
        size = array.dtype.itemsize
        per_step = array.shape[1] * array.shape[2] if len(array.shape) == 3 else 0
        return self.device.address(array) + (step * per_step + way * width) * size

    def forward(self) -> None:
        """Run all steps; the input's share stands in the gates already."""
        for number, way in enumerate(self.ways):
            steps = range(self.shape.steps)
            for t in reversed(steps) if way.reverse else steps:
                self._step(number, way, t)

    def _step(self, number: int, way: Way, t: int) -> None:
        s, launch, of = self.shape, self.device.launch, self._of
        before, after = way.places(t)
        h, next_h = of(way.h, before), of(way.h, after)
        gates, from_h, at = of(way.gates, t), of(way.from_h), way.at
        y, y_row = of(self.y, t, number, s.outputs), np.int64(s.ways * s.outputs)
        self.device.gemm(s.dtype, False, True, s.batch, s.rows, s.outputs, h, at["w_hh"], from_h, False)
        common, threads = self._common(s.hidden, t), s.batch * s.hidden
        biases = at["b_ih"], at["b_hh"]
        if s.kind == "lstm":
            m = of(way.m, t)
            cells = of(self.cells, t, number, s.hidden), np.int64(s.ways * s.hidden)
            states = (0 if m else h, of(way.c, before), m or next_h, of(way.c, after), 0 if m else y, y_row, *cells)
            launch("lstm_forward", s.dtype, threads, *common, gates, from_h, *biases, at["w_ph"], *states)
            if m:
                self.device.gemm(s.dtype, False, True, s.batch, s.outputs, s.hidden, m, at["w_hr"], next_h, False)
                common = self._common(s.outputs, t)
                launch("projected_forward", s.dtype, s.batch * s.outputs, *common, h, next_h, y, y_row)
            return
        if s.kind == "gru":
            u = of(way.u, t)
            launch("gru_forward", s.dtype, threads, *common, gates, from_h, *biases, h, next_h, u, y, y_row)
        else:
            rectify = np.int32(s.rectify)
            launch("rnn_forward", s.dtype, threads, *common, rectify, gates, from_h, *biases, h, next_h, y, y_row)

    def prepare_backward(self) -> None:
        """Make the arrays of the way back, once for a plan."""
        s, empty = self.shape, self.device.xp.empty
        if self.gy is not None:
            return
        self.gy = empty(self.y.shape, dtype=s.dtype)
        self.gcells = None if self.cells is None else empty(self.cells.shape, dtype=s.dtype)
        for way in self.ways:
            way.d = empty(way.gates.shape, dtype=s.dtype)
            way.du = empty(way.gates.shape, dtype=s.dtype) if s.kind == "gru" else way.d
            way.dh = empty((s.batch, s.outputs), dtype=s.dtype)
            way.dc = empty((s.batch, s.hidden), dtype=s.dtype) if s.kind == "lstm" else None
            way.d_projected = empty((s.steps, s.batch, s.outputs), dtype=s.dtype) if s.projection else None
            way.dm = empty((s.batch, s.hidden), dtype=s.dtype) if s.projection else None

    def backward(self, gy: bool, gcells: bool) -> None:
        """Run all steps backward; `gy` and `gcells` say which cotangents there are."""
        for number, way in enumerate(self.ways):
            steps = range(self.shape.steps)
            for t in steps if way.reverse else reversed(steps):
                self._step_back(number, way, t, gy, gcells)

    def _step_back(self, number: int, way: Way, t: int, with_gy: bool, with_gcells: bool) -> None:
        s, launch, of = self.shape, self.device.launch, self._of
        before, after = way.places(t)
        common, threads = self._common(s.hidden, t), s.batch * s.hidden
        gates, at, dh = of(way.gates, t), way.at, of(way.dh)
        gy = of(self.gy, t, number, s.outputs) if with_gy else 0
        gy_row = np.int64(s.ways * s.outputs)
        d, du = of(way.d, t), of(way.du, t)
        if s.kind == "lstm":
            target = dh
            if s.projection:
                target, d_projected = of(way.dm), of(way.d_projected, t)
                also = (*self._common(s.outputs, t), gy, gy_row, dh, d_projected)
                launch("projected_backward", s.dtype, s.batch * s.outputs, *also)
                self.device.gemm(
                    s.dtype, False, False, s.batch, s.hidden, s.outputs, d_projected, at["w_hr"], target, False
                )
                gy = 0
            gcells = of(self.gcells, t, number, s.hidden) if with_gcells else 0
            held = (np.int32(s.projection), gates, at["w_ph"], of(way.c, before), of(way.c, after))
            arriving = (gy, gy_row, gcells, np.int64(s.ways * s.hidden), target, of(way.dc), d)
            launch("lstm_backward", s.dtype, threads, *common, *held, *arriving)
        elif s.kind == "gru":
            kept = (gates, of(way.u, t), of(way.h, before))
            launch("gru_backward", s.dtype, threads, *common, *kept, gy, gy_row, dh, d, du)
        else:
            rectify = np.int32(s.rectify)
            launch("rnn_backward", s.dtype, threads, *common, rectify, of(way.h, after), gy, gy_row, dh, d)
        self.device.gemm(s.dtype, False, False, s.batch, s.outputs, s.rows, du, at["w_hh"], dh, True)


class Reserve:
    """A plan on loan to a recorded node: it goes back to its shelf when nobody can ask for the gradients any more."""

    def __init__(self, plan: Plan, shelf: list[Plan] | None) -> None:
        self.plan, self.shelf = plan, shelf

    def __del__(self) -> None:
        if self.shelf is not None:
            self.shelf.append(self.plan)


class LayerKernel:
    """The kernel of one of the records `rnn`, `gru` and `lstm`; it declines what it is not made for."""

    def __init__(self, device: Any, kind: str) -> None:
        self.device, self.kind = device, kind
        self.states = 2 if kind == "lstm" else 1
        self.seen: collections.OrderedDict[Any, list[Plan]] = collections.OrderedDict()
        """Shape and weights of calls that came lately -> plans that are free."""

    def _shape(self, arrays: Sequence[Any], p: dict[str, Any]) -> tuple[Shape, int]:
        x, batched = arrays[0], arrays[0].ndim == 3
        time = 1 if p["batch_first"] and batched else 0
        ways = 2 if p["bidirectional"] else 1
        rows, outputs = arrays[2 + (self.states if p["states"] else 0)].shape
        return (
            Shape(
                kind=self.kind,
                dtype=x.dtype.name,
                steps=x.shape[time],
                batch=x.shape[1 - time] if batched else 1,
                inputs=x.shape[-1],
                hidden=rows // GATES[self.kind],
                outputs=outputs,
                ways=ways,
                bias=p["bias"],
                projection=bool(p.get("projection")),
                peepholes=bool(p.get("peepholes")),
                cells=bool(p.get("cells")),
                rectify=p.get("nonlinearity") == "relu",
                ending=p["lengths"] is not None,
            ),
            time,
        )

    def _split(self, arrays: Sequence[Any], shape: Shape, given: bool) -> tuple[list[Any], list[Any]]:
        """Return the initial states, 0 where none are given, and the weights of all directions, packed."""
        number, states = (len(arrays) - 1) // shape.ways, self.states if given else 0
        start, weights = [], []
        for k in range(shape.ways):
            part = arrays[1 + k * number : 1 + (k + 1) * number]
            start += [s.reshape(shape.batch, s.shape[-1]) for s in part[:states]] or [0] * self.states
            weights += [self.device.xp.ascontiguousarray(w) for w in part[states:]]
        return start, weights

    def forward(self, arrays: Sequence[Any], params: dict[str, Any], replay: bool = True) -> Kept | None:
        """Return y, the final states, the cells where they are wanted, and the plan for backward; None to decline."""
        s, time = self._shape(arrays, params)
        if s.dtype not in ("float32", "float64") or 0 in (s.steps, s.batch, s.inputs, s.hidden):
            return None
        xp = self.device.xp
        start, weights = self._split(arrays, s, params["states"])
        x = arrays[0].swapaxes(0, 1) if time else arrays[0]
        x = xp.ascontiguousarray(x).reshape(s.steps * s.batch, s.inputs)
        plan, shelf = self._plan(s, start, weights) if replay else (Plan(self.device, s, start, weights), None)
        if plan.lengths is not None:
            plan.lengths[...] = xp.asarray(np.asarray(params["lengths"], dtype=np.int64))
        address, count = self.device.address, s.steps * s.batch
        for way in plan.ways:
            gates = address(way.gates)
            self.device.gemm(s.dtype, False, True, count, s.rows, s.inputs, address(x), way.at["w_ih"], gates, False)
        if shelf is None:
            plan.forward()
        else:
            if plan.forward_replay is None:
                plan.forward_replay = self.device.capture(plan.forward)
            plan.forward_replay()
        y, cells = plan.y, plan.cells
        if shelf is not None:
            y, cells = y.copy(), cells.copy() if cells is not None else None
        results = [y, xp.stack([way.h[way.last] for way in plan.ways])]
        if self.kind == "lstm":
            results.append(xp.stack([way.c[way.last] for way in plan.ways]))
        if cells is not None:
            results.append(cells)
        given = tuple(self._given_back(result, k, arrays[0], time) for k, result in enumerate(results))
        return Kept(given, Reserve(plan, shelf))

    def _given_back(self, result: Any, k: int, x: Any, time: int) -> Any:
        """Return a result in the layout of the input."""
        sequence = k == 0 or k == 1 + self.states
        if x.ndim == 2:
            return result[:, 0]
        return self.device.xp.ascontiguousarray(result.swapaxes(0, 1)) if time and sequence else result

    def _plan(self, shape: Shape, start: Sequence[Any], weights: Sequence[Any]) -> tuple[Plan, list[Plan] | None]:
        """Return a plan, and the shelf to which it goes back; None for a shape that is new, whose plan is not kept."""
        # Parameters change in place, so their addresses stay; a plan keeps them from being used for anything else.
        key = (shape, *[self.device.address(w) for w in weights])
        shelf = self.seen.get(key)
        if shelf is None:
            self.seen[key] = []
            while len(self.seen) > PLANS:
                self.seen.popitem(last=False)
            return Plan(self.device, shape, start, weights), None
        self.seen.move_to_end(key)
        if not shelf:
            return Plan(self.device, shape, start, weights), shelf
        plan = shelf.pop()
        states = len(start) // shape.ways
        for k, way in enumerate(plan.ways):
            way.begin(start[k * states : (k + 1) * states])
        return plan, shelf

    def backward(self, node: Any, gs: Sequence[Any], wanted: Sequence[bool]) -> list[Any] | None:
        """Return the gradients of the wanted operands, None for the others; None alone to decline."""
        if node.reserve is None:
            return None
        x = data_of(node.operand(0))
        return self.gradients(x, 1 if node.params["batch_first"] and x.ndim == 3 else 0, node.reserve, gs, wanted)

    def gradients(self, x: Any, time: int, reserve: Reserve, gs: Sequence[Any], wanted: Sequence[bool]) -> list[Any]:
        """Run back through what forward kept; `time` is the axis of the steps in x."""
        plan, shelf = reserve.plan, reserve.shelf
        plan.prepare_backward()
        ends = [g if g is None or x.ndim == 3 else g[:, None] for g in gs[1 : 1 + self.states]]
        gy, gcells = gs[0], gs[1 + self.states] if plan.cells is not None else None
        for target, g in ((plan.gy, gy), (plan.gcells, gcells)):
            if g is not None:
                target[...] = g[:, None] if x.ndim == 2 else g.swapaxes(0, 1) if time else g
        for k, way in enumerate(plan.ways):
            for target, g in zip((way.dh, way.dc), ends, strict=False):
                target[...] = 0 if g is None else g[k]
        there = gy is not None, gcells is not None
        if shelf is None:
            plan.backward(*there)
        else:
            if there not in plan.backward_replays:
                plan.backward_replays[there] = self.device.capture(lambda: plan.backward(*there))
            plan.backward_replays[there]()
        return self._gradients(plan, x, time, list(wanted))

    def _gradients(self, plan: Plan, x: Any, time: int, wanted: list[bool]) -> list[Any]:
        """Make the gradients of the operands from those of the sums."""
        s, xp, address, gemm = plan.shape, self.device.xp, self.device.address, self.device.gemm
        count, found = s.steps * s.batch, []
        rows = xp.ascontiguousarray(x.swapaxes(0, 1) if time else x).reshape(count, s.inputs)

        dx = xp.empty((count, s.inputs), dtype=s.dtype) if wanted[0] else None
        number = (len(wanted) - 1) // s.ways
        for k, way in enumerate(plan.ways):
            names = [*("h_0", "c_0")[: number - len(way.weights)], *way.weights]
            asked = dict(zip(names, wanted[1 + k * number : 1 + (k + 1) * number], strict=True))
            if dx is not None:
                gemm(s.dtype, False, False, count, s.inputs, s.rows, address(way.d), way.at["w_ih"], address(dx), k > 0)
            found += [self._gradient(name, way, rows, x.ndim == 2, s) if asked[name] else None for name in names]
        if dx is None:
            return [None, *found]
        if x.ndim == 3:
            dx = dx.reshape(s.steps, s.batch, s.inputs)
            dx = xp.ascontiguousarray(dx.swapaxes(0, 1)) if time else dx
        return [dx, *found]

    def _gradient(self, name: str, way: Way, rows: Any, single: bool, s: Shape) -> Any:
        """Make the gradient of one operand of a direction; `rows` are the inputs of all steps."""
        device = self.device
        if name in ("h_0", "c_0"):
            d = way.dh if name == "h_0" else way.dc
            return (d[0] if single else d).copy()
        if name in ("b_ih", "b_hh"):
            return (way.d if name == "b_ih" else way.du).sum(axis=(0, 1))
        if name == "w_ph":
            return self._peepholes(way, s)
        left, right, m, n = {
            "w_ih": (way.d, rows, s.rows, s.inputs),
            "w_hh": (way.du, way.h[way.before], s.rows, s.outputs),
            "w_hr": (way.d_projected, way.m, s.outputs, s.hidden),
        }[name]
        out = device.xp.empty((m, n), dtype=s.dtype)
        addresses = [device.address(array) for array in (left, right, out)]
        device.gemm(s.dtype, True, False, m, n, s.steps * s.batch, *addresses, False)
        return out

    def _peepholes(self, way: Way, s: Shape) -> Any:
        """Return the gradients of i's, f's and o's: what each saw of the cell times what reached its sum."""
        after = slice(0, -1) if way.reverse else slice(1, None)
        parts = [(0, way.before), (1, way.before), (3, after)]
        xp, h = self.device.xp, s.hidden
        return xp.concatenate([(way.d[..., k * h : (k + 1) * h] * way.c[place]).sum(axis=(0, 1)) for k, place in parts])


class CellKernel:
    """The kernel of `rnn_cell`, `gru_cell` or `lstm_cell`: a layer of one step."""

    def __init__(self, layer: LayerKernel) -> None:
        self.layer = layer

    def forward(self, arrays: Sequence[Any], params: dict[str, Any]) -> Kept | None:
        """Return the next states, and the plan for backward; None to decline."""
        whole = {"states": True, "bidirectional": False, "batch_first": False, "lengths": None, **params}
        kept = self.layer.forward([arrays[0][None], *arrays[1:]], whole, replay=False)
        if kept is None:
            return None
        return Kept(tuple(state[0] for state in kept.value[1:]), kept.reserve)

    def backward(self, node: Any, gs: Sequence[Any], wanted: Sequence[bool]) -> list[Any] | None:
        """Return the gradients of the wanted operands, None for the others; None alone to decline."""
        if node.reserve is None:
            return None
        ends = [None if g is None else g[None] for g in gs]
        found = self.layer.gradients(data_of(node.operand(0))[None], 0, node.reserve, [None, *ends], wanted)
        return [found[0] if found[0] is None else found[0][0], *found[1:]]


def layer_kernels(device: Any) -> dict[str, LayerKernel | CellKernel]:
    """Return the kernels of the records of layers and cells by name."""
    layers = {kind: LayerKernel(device, kind) for kind in GATES}
    return {**layers, **{f"{kind}_cell": CellKernel(layer) for kind, layer in layers.items()}}
