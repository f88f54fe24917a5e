"""A stand-in for CuPy without a GPU, so that the GPU's lane runs as it is, kernels and all, on any CPU.

Arrays are NumPy's behind a class of their own, which refuses to become one by accident and counts what is copied to the
host on purpose. Kernels are compiled by g++ behind ``cuda_shim.h``. Functions are NumPy's under CuPy's names and with
CuPy's parameters, and differ where CuPy does: places outside of an array wrap around, `var` knows no `correction`.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import operator
import re
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

SHIM = Path(__file__).with_name("cuda_shim.h")
REFUSAL = (
    "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
)
READS = [0]
"""How often values were copied to the host."""


def _plain(x: Any) -> Any:
    """Take the array out of what a function was given; NumPy's arrays are refused, as CuPy refuses them."""
    if isinstance(x, ndarray):
        return x.held
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, list | tuple):
        return type(x)(_plain(part) for part in x)
    return x


def _wrapped(x: Any, base: Any = None) -> Any:
    if isinstance(x, np.ndarray | np.generic) and not isinstance(x, np.dtype):
        return ndarray(np.asarray(x), base)
    if isinstance(x, tuple):
        return tuple(_wrapped(part, base) for part in x)
    return x


def _around(array: np.ndarray, index: Any) -> Any:
    """Return an index with every place inside of the array: CuPy wraps around."""
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(np.asarray(p) if isinstance(p, list) else p for p in parts)
    wide = sum(
        p.ndim if isinstance(p, np.ndarray) and p.dtype.kind == "b" else p is not None and p is not ... for p in parts
    )
    axis, out = 0, []
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype.kind in "iu" and part.ndim:
            out.append(part.astype(np.int64) % max(array.shape[axis], 1))
        else:
            out.append(part)
        if part is ...:
            axis += array.ndim - wide
        elif part is not None:
            axis += part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else 1
    return tuple(out) if isinstance(index, tuple) else out[0]


class Flags:
    def __init__(self, flags: Any) -> None:
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous


class Memory:
    def __init__(self, pointer: int) -> None:
        self.ptr = pointer


class ndarray:  # noqa: N801  CuPy's name
    """An array on a device that is not there."""

    __module__ = "cupy"
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, held: np.ndarray, base: Any = None) -> None:
        self.held, self.base = held, base

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(REFUSAL)

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a NumPy function was called with an array of the device")

    def __array_function__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a NumPy function was called with an array of the device")

    shape = property(lambda self: self.held.shape)
    dtype = property(lambda self: self.held.dtype)
    ndim = property(lambda self: self.held.ndim)
    size = property(lambda self: self.held.size)
    strides = property(lambda self: self.held.strides)
    nbytes = property(lambda self: self.held.nbytes)
    itemsize = property(lambda self: self.held.itemsize)
    flags = property(lambda self: Flags(self.held.flags))
    data = property(lambda self: Memory(self.held.ctypes.data))
    T = property(lambda self: self._view(self.held.T))

    def _view(self, held: Any) -> Any:
        shared = np.may_share_memory(held, self.held)
        return _wrapped(held, (self if self.base is None else self.base) if shared else None)

    def _to_host(self) -> np.ndarray:
        READS[0] += 1
        return self.held

    def get(self) -> np.ndarray:
        return self._to_host().copy()

    def item(self) -> Any:
        return self._to_host().item()

    def tolist(self) -> Any:
        return self._to_host().tolist()

    def __bool__(self) -> bool:
        return bool(self._to_host())

    def __int__(self) -> int:
        return int(self._to_host())

    def __float__(self) -> float:
        return float(self._to_host())

    def __index__(self) -> int:
        return operator.index(self._to_host())

    def __len__(self) -> int:
        return len(self.held)

    def __repr__(self) -> str:
        return repr(self._to_host())

    def __getitem__(self, index: Any) -> Any:
        plain = _plain_index(index)
        return self._view(np.asarray(self.held[_around(self.held, plain)]))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.held[_around(self.held, _plain_index(index))] = _plain(value)

    def reshape(self, *shape: Any) -> Any:
        return self._view(self.held.reshape(*shape))

    def ravel(self) -> Any:
        return self._view(self.held.ravel())

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        return self._view(self.held.astype(dtype, copy=copy))

    def copy(self) -> Any:
        return _wrapped(self.held.copy())

    def swapaxes(self, a: int, b: int) -> Any:
        return self._view(self.held.swapaxes(a, b))

    def fill(self, value: Any) -> None:
        self.held.fill(_plain(value))

    def __abs__(self) -> Any:
        return _wrapped(abs(self.held))

    def __neg__(self) -> Any:
        return _wrapped(-self.held)

    def __invert__(self) -> Any:
        return _wrapped(~self.held)


def _plain_index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_plain_index(part) for part in index)
    return index.held if isinstance(index, ndarray) else index


def _operator(name: str) -> None:
    act = getattr(operator, name.strip("_") if name not in ("__and__", "__or__") else name)

    def forward(self: ndarray, other: Any) -> Any:
        return _wrapped(act(self.held, _plain(other)))

    def backward(self: ndarray, other: Any) -> Any:
        return _wrapped(act(_plain(other), self.held))

    def in_place(self: ndarray, other: Any) -> Any:
        self.held[...] = act(self.held, _plain(other))
        if np.result_type(act(self.held, _plain(other))) != self.dtype:
            raise TypeError(f"{name}: the result does not fit {self.dtype}")
        return self

    setattr(ndarray, name, forward)
    setattr(ndarray, f"__r{name.strip('_')}__", backward)
    setattr(ndarray, f"__i{name.strip('_')}__", in_place)


for _name in ("add", "sub", "mul", "truediv", "pow", "mod", "matmul", "floordiv", "and", "or", "xor"):
    _operator(f"__{_name}__")
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(
        ndarray,
        f"__{_name}__",
        lambda self, other, _name=_name: _wrapped(getattr(operator, _name)(self.held, _plain(other))),
    )
for _name in ("min", "max", "sum", "any", "all", "mean", "prod"):
    setattr(
        ndarray,
        _name,
        lambda self, axis=None, dtype=None, out=None, keepdims=False, _name=_name: getattr(MODULE, _name)(
            self, axis=axis, keepdims=keepdims
        ),
    )


# --- functions ----------------------------------------------------------------------------------------------------

UFUNCS = [
    "abs",
    "add",
    "ceil",
    "cos",
    "divide",
    "equal",
    "exp",
    "expm1",
    "floor",
    "greater",
    "greater_equal",
    "isfinite",
    "isnan",
    "less",
    "less_equal",
    "log",
    "log1p",
    "logical_and",
    "logical_not",
    "logical_or",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "power",
    "sign",
    "sin",
    "sqrt",
    "square",
    "subtract",
    "tanh",
]

PARAMETERS = {  # of CuPy 14.2, held to it by a test where CuPy is installed
    "all": "a axis out keepdims",
    "any": "a axis out keepdims",
    "arange": "start stop step dtype",
    "argmax": "a axis dtype out keepdims",
    "argmin": "a axis dtype out keepdims",
    "argsort": "a axis kind",
    "array": "obj dtype copy order subok ndmin blocking",
    "asarray": "a dtype order copy blocking",
    "ascontiguousarray": "a dtype",
    "astype": "x dtype copy",
    "broadcast_to": "array shape",
    "clip": "a a_min a_max out",
    "concat": "tup axis out dtype casting",
    "concatenate": "tup axis out dtype casting",
    "cumulative_sum": "x axis dtype out include_initial",
    "empty": "shape dtype order",
    "expand_dims": "a axis",
    "eye": "N M k dtype order",
    "flip": "a axis",
    "full": "shape fill_value dtype order",
    "full_like": "a fill_value dtype order subok shape",
    "matrix_transpose": "x",
    "max": "a axis out keepdims",
    "mean": "a axis dtype out keepdims",
    "min": "a axis out keepdims",
    "moveaxis": "a source destination",
    "nonzero": "a",
    "ones": "shape dtype order",
    "ones_like": "a dtype order subok shape",
    "permute_dims": "a axes",
    "prod": "a axis dtype out keepdims",
    "reshape": "a newshape order copy",
    "result_type": "*arrays_and_dtypes",
    "squeeze": "a axis",
    "stack": "tup axis out dtype casting",
    "sum": "a axis dtype out keepdims",
    "take": "a indices axis out",
    "take_along_axis": "a indices axis",
    "where": "condition x y",
    "zeros": "shape dtype order",
    "zeros_like": "a dtype order subok shape",
}
AS_IT_IS = [
    "bool",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "iinfo",
    "finfo",
    "pi",
    "inf",
    "nan",
    "newaxis",
]


def _function(name: str) -> Callable[..., Any]:
    """NumPy's function on the arrays inside, for calls that CuPy would understand."""
    there = getattr(np, name)
    words = PARAMETERS.get(name)
    if words is None or words.startswith("*"):
        return lambda *args, **kwargs: _wrapped(there(*map(_plain, args), **kwargs))
    known = words.split()

    def call(*args: Any, **kwargs: Any) -> Any:
        strange = [key for key in kwargs if key not in known]
        if strange or len(args) > len(known):
            raise TypeError(f"cupy.{name}() takes {known}, not {strange}")
        first = args[0] if args else None
        base = (first if first.base is None else first.base) if isinstance(first, ndarray) else None
        out = there(*map(_plain, args), **{key: _plain(value) for key, value in kwargs.items()})
        shared = base is not None and isinstance(out, np.ndarray) and np.may_share_memory(out, first.held)
        return _wrapped(out, base if shared else None)

    return call


def _asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> Any:
    if isinstance(a, ndarray) and not copy and (dtype is None or a.dtype == dtype):
        return a
    held = a.held if isinstance(a, ndarray) else a
    return ndarray(np.array(held, dtype=dtype, copy=True, order="C" if not isinstance(a, ndarray) else "K"))


def _take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
    return _wrapped(np.take(_plain(a), _plain(indices), axis=axis, mode="wrap"))


def _take_along_axis(a: Any, indices: Any, axis: Any) -> Any:
    return _wrapped(np.take_along_axis(_plain(a), _plain(indices) % a.shape[axis], axis))


def _asnumpy(a: Any) -> np.ndarray:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


# --- kernels ------------------------------------------------------------------------------------------------------

WORDS = {
    "bool": "bool",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
    "float32": "float",
    "float64": "double",
}


class Compiler:
    """Functions in C++ that wait to be compiled together; programs are kept by the text they were made of."""

    def __init__(self) -> None:
        self.waiting: dict[str, str] = {}
        self.found: dict[str, Any] = {}
        self.folder = Path(tempfile.gettempdir()) / "minigrad-cuda-shim"

    def add(self, text: str) -> str:
        """Note the text of a function called NAME; returns what it will be called."""
        name = f"mg_{hashlib.sha256(text.encode()).hexdigest()[:20]}"
        if name not in self.found:
            self.waiting[name] = text.replace("NAME", name)
        return name

    def function(self, name: str) -> Any:
        """Return a function; the first one asked for compiles all that wait."""
        if name not in self.found:
            texts, self.waiting = self.waiting, {}
            library = self.program("\n".join(texts[key] for key in sorted(texts)))
            self.found.update({key: library[key] for key in texts})
        return self.found[name]

    def program(self, text: str) -> Any:
        """Compile a text, unless the same one was compiled before."""
        text = f'#include "{SHIM.name}"\n{text}'
        key = hashlib.sha256((text + SHIM.read_text()).encode()).hexdigest()[:24]
        program = self.folder / f"{key}.so"
        if not program.exists():
            self.folder.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                source, made = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
                source.write_text(text)
                flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-w", "-shared", "-fPIC", f"-I{SHIM.parent}"]
                done = subprocess.run(["g++", *flags, str(source), "-o", str(made)], capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(f"a kernel does not compile:\n{done.stderr[:3000]}")
                made.replace(program)
        return ctypes.CDLL(str(program))


COMPILER = Compiler()


def in_own_namespace(preamble: str, text: str) -> str:
    return f"namespace mg_{hashlib.sha256((preamble + text).encode()).hexdigest()[:20]} {{\n{preamble}\n{text}\n}}"


class Param:
    def __init__(self, text: str) -> None:
        *words, self.kind, self.name = text.split()
        self.raw = words == ["raw"]
        if words not in ([], ["raw"]) or self.name in ("i", "n") or self.name.startswith("_"):
            raise ValueError(f"no parameter of an element-wise kernel: {text!r}")
        self.open = len(self.kind) == 1  # a letter stands for any type
        if not self.open and self.kind not in WORDS:
            raise ValueError(f"no type: {self.kind!r}")


def _params(text: str) -> list[Param]:
    return [Param(part.strip()) for part in text.split(",")]


class _Kernel:
    """What element-wise kernels and reductions share: types of arguments, broadcasting, and the call."""

    def __init__(self, inputs: str, outputs: str, name: str, preamble: str, options: tuple[str, ...]) -> None:
        assert re.fullmatch(r"[a-zA-Z_]\w*", name), name
        self.inputs, self.outputs, self.name, self.preamble = _params(inputs), _params(outputs), name, preamble
        (self.output,) = self.outputs
        if not any(p.open for p in [*self.inputs, *self.outputs]):
            COMPILER.add(self.text({}))

    def text(self, types: dict[str, str]) -> str:
        raise NotImplementedError

    def kind(self, p: Param, types: dict[str, str]) -> str:
        return WORDS[types[p.kind] if p.open else p.kind]

    def prepared(self, args: tuple[Any, ...]) -> tuple[list[Any], tuple[int, ...], dict[str, str]]:
        types: dict[str, str] = {}
        for p, x in zip([*self.inputs, self.output], args, strict=False):
            if isinstance(x, np.ndarray):
                raise TypeError(f"Unsupported type {type(x)}")
            if isinstance(x, ndarray):
                wanted = types.setdefault(p.kind, x.dtype.name) if p.open else p.kind
                if wanted != x.dtype.name:
                    raise TypeError(f"Type is mismatched. {p.name} {x.dtype} {wanted}")
        arrays = [
            x.held
            for p, x in zip([*self.inputs, self.output], args, strict=False)
            if isinstance(x, ndarray) and not p.raw
        ]
        if not arrays:
            raise ValueError("Loop size is undecided.")
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        values = []
        for p, x in zip(self.inputs, args, strict=False):
            if not isinstance(x, ndarray):
                values.append(np.array([x], dtype=types[p.kind] if p.open else p.kind))
            elif p.raw:
                assert x.flags.c_contiguous
                values.append(x.held)
            else:
                values.append(np.ascontiguousarray(np.broadcast_to(x.held, shape)))
        return values, shape, types


class ElementwiseKernel(_Kernel):
    def __init__(
        self,
        in_params: str,
        out_params: str,
        operation: str,
        name: str = "kernel",
        reduce_dims: bool = True,
        preamble: str = "",
        no_return: bool = False,
        return_tuple: bool = False,
        *,
        options: tuple[str, ...] = (),
        loop_prep: str = "",
        after_loop: str = "",
    ) -> None:
        self.operation = operation
        super().__init__(in_params, out_params, name, preamble, options)

    def text(self, types: dict[str, str]) -> str:
        lines = [f"typedef {WORDS[name]} {letter};" for letter, name in types.items()]
        reads = []
        for k, p in enumerate(self.inputs):
            kind = self.kind(p, types)
            if p.raw:
                lines.append(f"const {kind} *{p.name} = (const {kind} *)p[{k}];")
            else:
                reads.append(f"const {kind} &{p.name} = ((const {kind} *)p[{k}])[i * step[{k}]];")
        kind = self.kind(self.output, types)
        reads.append(f"{kind} &{self.output.name} = (({kind} *)p[{len(self.inputs)}])[i];")
        body = (
            "void NAME(long long count, void **p, const long long *step) {\n"
            + "\n".join(lines)
            + "\nfor (long long i = 0; i < count; ++i) {\n"
            + "\n".join(reads)
            + f"\n{self.operation};\n}}\n}}"
        )
        return in_own_namespace(self.preamble, f'extern "C" {body}')

    def __call__(self, *args: Any) -> Any:
        if len(args) not in (len(self.inputs), len(self.inputs) + 1):
            raise TypeError(f"Wrong number of arguments for {self.name!r}")
        values, shape, types = self.prepared(args)
        if len(args) > len(self.inputs):
            out = args[-1]
            if out.shape != shape or not out.flags.c_contiguous:
                raise ValueError("Out shape is mismatched")
        else:
            name = types[self.output.kind] if self.output.open else self.output.kind
            out = ndarray(np.empty(shape, dtype=name))
        function = COMPILER.function(COMPILER.add(self.text(types)))
        values = [*values, out.held]
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        steps = [int(isinstance(x, ndarray)) for x in args[: len(self.inputs)]]
        function(ctypes.c_longlong(out.size), pointers, (ctypes.c_longlong * (len(steps) + 1))(*steps, 0))
        return out


class ReductionKernel(_Kernel):
    def __init__(
        self,
        in_params: str,
        out_params: str,
        map_expr: str,
        reduce_expr: str,
        post_map_expr: str,
        identity: str,
        name: str = "reduce_kernel",
        reduce_type: Any = None,
        reduce_dims: bool = True,
        preamble: str = "",
        options: tuple[str, ...] = (),
    ) -> None:
        self.parts = map_expr, reduce_expr, post_map_expr, identity
        super().__init__(in_params, out_params, name, preamble, options)

    def text(self, types: dict[str, str]) -> str:
        mapped, reduced, after, identity = self.parts
        kind = self.kind(self.output, types)
        lines = [f"typedef {WORDS[name]} {letter};" for letter, name in types.items()]
        reads = [
            f"const {self.kind(p, types)} &{p.name} = ((const {self.kind(p, types)} *)p[{k}])[i * step[{k}]];"
            for k, p in enumerate(self.inputs)
        ]
        body = (
            "void NAME(long long count, void **p, const long long *step) {\n"
            + "\n".join(lines)
            + f"\n{kind} total = {identity};\nfor (long long i = 0; i < count; ++i) {{\n"
            + "\n".join(reads)
            + f"\n{kind} a = total, b = {mapped};\ntotal = ({reduced});\n}}\n"
            + f"{kind} a = total; {kind} &{self.output.name} = *({kind} *)p[{len(self.inputs)}];\n{after};\n}}"
        )
        return in_own_namespace(self.preamble, f'extern "C" {body}')

    def __call__(self, *args: Any) -> Any:
        values, shape, types = self.prepared(args)
        name = types[self.output.kind] if self.output.open else self.output.kind
        out = ndarray(np.empty((), dtype=name))
        function = COMPILER.function(COMPILER.add(self.text(types)))
        values = [*values, out.held]
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        steps = [int(isinstance(x, ndarray)) for x in args[: len(self.inputs)]]
        function(ctypes.c_longlong(int(np.prod(shape))), pointers, (ctypes.c_longlong * (len(steps) + 1))(*steps, 0))
        return out


SIGNATURE = re.compile(r'extern "C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(([^)]*)\)')
TEMPLATE = re.compile(r"template <typename T>\s+__global__\s+void\s+(\w+)\s*\(([^)]*)\)")
SHARED = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;")


class RawModule:
    """A program of raw kernels, and the launch of one of them by threads that take turns."""

    launches: ClassVar[list[str]] = []
    """Names of the kernels that were launched."""

    def __init__(
        self,
        *,
        code: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Any = None,
        jitify: bool = False,
    ) -> None:
        self.cooperative = enable_cooperative_groups
        self.kinds: dict[str, list[str]] = {}
        self.places: dict[str, int] = {}
        defines = "".join(f"#define {o[2:].replace('=', ' ', 1)}\n" for o in options if o.startswith("-D"))
        code = SHARED.sub(r"\1 *\2 = (\1 *)mg_dynamic;", code)
        launchers = []
        bare = re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)
        found = [(name, name, text) for name, text in SIGNATURE.findall(bare)]
        templates = dict(TEMPLATE.findall(bare))
        for expression in name_expressions or ():
            name, word = re.fullmatch(r"(\w+)<(\w+)>", expression).groups()  # type: ignore[union-attr]
            found.append((expression, expression, re.sub(r"\bT\b", word, templates[name])))
        for place, (name, called, text) in enumerate(found):
            params = [" ".join(re.sub(r"\b(const|__restrict__)\b", "", p).split()) for p in text.split(",")]
            kinds = [re.match(r"(.*?[\s*&])\w+$", p)[1].strip() for p in params]  # type: ignore[index]
            self.kinds[name] = kinds
            self.places[name] = place
            passed = ", ".join(f"*({kind} *)a[{k}]" for k, kind in enumerate(kinds))
            launchers.append(
                f'extern "C" int mg_launch_{place}(const unsigned *g, int cooperative, void **a) {{\n'
                "  return mg_launch(dim3(g[0], g[1], g[2]), dim3(g[3], g[4], g[5]), cooperative,\n"
                f"                   [=] {{ {called}({passed}); }});\n}}"
            )
        self.library = COMPILER.program("\n".join([defines, code, *launchers]))

    def get_function(self, name: str) -> Callable[..., None]:
        launcher = self.library[f"mg_launch_{self.places[name]}"]
        kinds = self.kinds[name]

        def launch(
            grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0
        ) -> None:
            if len(args) != len(kinds):
                raise TypeError(f"{name} takes {len(kinds)} arguments, not {len(args)}")
            RawModule.launches.append(name)
            cells = [_cell(kind, x) for kind, x in zip(kinds, args, strict=True)]
            sizes = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
            pointers = (ctypes.c_void_p * len(cells))(*(ctypes.addressof(c) for c in cells))

            def run() -> None:
                if launcher(sizes, int(self.cooperative), pointers):
                    raise RuntimeError(f"{name}: some threads of a block never come to a barrier where others wait")

            run.cells = cells  # type: ignore[attr-defined]  the pointers lead there
            _now_or_later(run)

        return launch


def _cell(kind: str, x: Any) -> Any:
    """Return the bytes of one argument; of another size than the parameter is an error here, and noise on a GPU."""
    if kind.endswith("*"):
        if isinstance(x, ndarray):
            return ctypes.c_void_p(x.held.ctypes.data)
        assert isinstance(x, np.intp), f"{x!r} is no pointer"
        return ctypes.c_void_p(int(x))
    wanted = {
        "int": np.int32,
        "long long": np.int64,
        "Size": np.int64,
        "double": np.float64,
        "float": np.float32,
        "size_t": np.uint64,
    }
    assert type(x) is wanted[kind], f"{type(x)} for a parameter of type {kind}"
    return (ctypes.c_char * x.dtype.itemsize).from_buffer_copy(x.tobytes())


# --- streams and graphs -------------------------------------------------------------------------------------------

_recording: list[list[Callable[[], None]]] = []
"""The launches of a stream that captures: they do not run then."""


def _now_or_later(launch: Callable[[], None]) -> None:
    if _recording:
        _recording[-1].append(launch)
    else:
        launch()


class Graph:
    """Launches that were recorded, to be run together."""

    made: ClassVar[list[int]] = []
    launches: ClassVar[list[int]] = []
    """How many kernels each graph had that was made, and that was launched."""

    def __init__(self, recorded: list[Callable[[], None]]) -> None:
        self.recorded = recorded
        Graph.made.append(len(recorded))

    def launch(self, stream: Any = None) -> None:
        Graph.launches.append(len(self.recorded))
        for launch in self.recorded:
            launch()


class Stream:
    """A queue of launches; only its recording is more than a name here."""

    ptr = 0

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.non_blocking = non_blocking

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *args: Any) -> None:
        return None

    def record(self, event: Any = None) -> Any:
        return object()

    def wait_event(self, event: Any) -> None:
        return None

    def begin_capture(self, mode: Any = None) -> None:
        assert self.non_blocking, "the default stream may not wait for one that captures"
        _recording.append([])

    def end_capture(self) -> Graph:
        return Graph(_recording.pop())


class Cublas:
    """The products of the recurrent loops, by NumPy, on what lies at addresses."""

    def __init__(self, xp: Any) -> None:
        del xp

    def gemm(self, dtype: str, ta: bool, tb: bool, m: int, n: int, k: int, a: int, b: int, c: int, add: bool) -> None:
        kind = ctypes.c_float if dtype == "float32" else ctypes.c_double

        def matrix(address: int, rows: int, columns: int) -> np.ndarray:
            return np.ctypeslib.as_array((kind * (rows * columns)).from_address(address)).reshape(rows, columns)

        left = matrix(a, k, m).T if ta else matrix(a, m, k)
        right = matrix(b, n, k).T if tb else matrix(b, k, n)
        out = matrix(c, m, n)

        def run() -> None:
            out[...] = out + left @ right if add else left @ right

        _now_or_later(run)


# --- the module ---------------------------------------------------------------------------------------------------


class Device:
    compute_capability = "90"

    def synchronize(self) -> None:
        return None


def _module() -> types.ModuleType:
    module = types.ModuleType("cupy")
    for name in (*UFUNCS, *PARAMETERS):
        setattr(module, name, _function(name))
    for name in AS_IT_IS:
        setattr(module, name, getattr(np, name))
    module.__dict__.update(
        ndarray=ndarray,
        asarray=_asarray,
        array=lambda obj, dtype=None, copy=True, **rest: _asarray(obj, dtype, copy=copy),
        take=_take,
        take_along_axis=_take_along_axis,
        matmul=lambda a, b, *, out=None: _wrapped(np.matmul(_plain(a), _plain(b))),
        asnumpy=_asnumpy,
        ElementwiseKernel=ElementwiseKernel,
        ReductionKernel=ReductionKernel,
        RawModule=RawModule,
        __version__="14.2.0",
        cuda=types.SimpleNamespace(
            is_available=lambda: True, Device=Device, Stream=Stream, get_current_stream=lambda: Stream(null=True)
        ),
    )
    return module


MODULE = _module()


@contextmanager
def pretended() -> Iterator[types.ModuleType]:
    """Let ``import cupy`` find the stand-in, and minigrad a GPU, while the block runs."""
    from minigrad import _cuda_recurrent, backend
    from minigrad.op import LANES, PAGE

    if shutil.which("g++") is None:
        raise RuntimeError("the stand-in for CuPy compiles kernels with g++")
    kept = {name: sys.modules.get(name) for name in ("cupy", "minigrad._cuda")}
    lane = backend.DEVICES.pop("cuda", None)
    sys.modules.pop("minigrad._cuda", None)
    sys.modules["cupy"] = MODULE
    cublas, _cuda_recurrent.Cublas = _cuda_recurrent.Cublas, Cublas  # type: ignore[assignment, misc]
    try:
        cuda = backend.lane_for_device("cuda")
        for source in sys.modules["minigrad._cuda"].elementwise_sources(PAGE):  # all of them compile at once
            sys.modules["minigrad._cuda"].elementwise_kernel(source)
        yield MODULE
        del cuda
    finally:
        _cuda_recurrent.Cublas = cublas  # type: ignore[misc]
        LANES.pop(ndarray, None)
        backend.DEVICES.pop("cuda", None)
        if lane is not None:
            backend.DEVICES["cuda"] = lane
        for name, module in kept.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def signature(function: Any) -> str:
    """Return the names of a function's parameters, as ``PARAMETERS`` lists them."""
    found = inspect.signature(function).parameters.values()
    return " ".join(("*" if p.kind is p.VAR_POSITIONAL else "") + p.name for p in found)
