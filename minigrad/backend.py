"""Which lane owns an array, and what the array lane needs to know of its namespace.

The compiled lane takes float32 and float64 NumPy arrays. Everything else, and every other array library, runs here: the
page's formulas evaluated over an array namespace. A tensor lives where its array lives: the array's type says which
lane does the work, and nothing moves between devices unless it is asked to.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from . import _cpu
from .errors import DeviceError, DTypeError, MissingExtraError, UsageError
from .op import LANES, PAGE, lane_of

__all__ = [
    "ArrayLane",
    "array_lane",
    "as_dtype",
    "compiled_lane",
    "device_name",
    "get_default_dtype",
    "get_num_threads",
    "host",
    "is_number",
    "lane_for_device",
    "seed_lanes",
    "set_default_dtype",
    "set_num_threads",
]

_default = [np.dtype("float32")]


def set_default_dtype(dtype: Any) -> None:
    """Set the dtype of tensors made from Python floats: "float32" (the default) or "float64"."""
    found = None
    with contextlib.suppress(DTypeError):
        found = as_dtype(dtype)
    if found is None or found.kind != "f":
        raise DTypeError(f"the default dtype is float32 or float64, not {dtype}")
    _default[0] = found


def get_default_dtype() -> np.dtype[Any]:
    """Return the dtype of tensors made from Python floats."""
    return _default[0]


def is_number(value: Any) -> bool:
    """Say whether something is a real number, of Python or NumPy; a boolean is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """Return an element type that tensors can have as NumPy's.

    Args:
        dtype: a name, a type, or a dtype of any array library.

    Raises:
        DTypeError: it is none of float32, float64, integers and booleans.
    """
    found = None
    if dtype is not None:
        for word in (dtype, str(dtype).rpartition(".")[2]):  # the last word is NumPy's in every array library
            with contextlib.suppress(TypeError, ValueError):
                found = np.dtype(word)
                break
    if found is None:
        raise DTypeError(f"{dtype!r} is no element type; there are float32, float64, integers and booleans")
    if found.kind not in "iub" and found.name not in ("float32", "float64"):
        raise DTypeError(f"elements of type {found} are not supported; float32, float64, integers and booleans are")
    return found.newbyteorder("=")


def set_num_threads(n: int) -> None:
    """Set how many threads the compiled kernels may use, from the next operation on.

    Large products are shared among them; small ones run on the calling thread alone. Until it is called the number is
    the first one in the environment variable ``OMP_NUM_THREADS``, else how many CPUs this process may run on. NumPy's
    own threads are not affected.

    Products have the same bits for any number. Recurrent layers share a batch and its sums among the threads, so
    their last bits are the same for the same number only.

    Args:
        n: at least 1, which is the calling thread by itself.

    Raises:
        UsageError: a number below 1, or no whole number.

    >>> import minigrad as mg
    >>> before = mg.get_num_threads()
    >>> mg.set_num_threads(1)
    >>> mg.get_num_threads()
    1
    >>> mg.set_num_threads(before)
    """
    try:
        number = operator.index(n)
    except TypeError:
        number = 0
    if isinstance(n, bool) or not 1 <= number <= _cpu.MOST_THREADS:
        raise UsageError(f"set_num_threads: a number of threads is 1 to {_cpu.MOST_THREADS}, not {n!r}")
    _cpu.set_threads(number)


def get_num_threads() -> int:
    """Return how many threads the compiled kernels may use."""
    return _cpu.threads()


class Functions:
    """The scalar functions of formulas over an array namespace."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        for name in (
            "exp",
            "expm1",
            "log",
            "log1p",
            "sqrt",
            "abs",
            "sign",
            "tanh",
            "sin",
            "cos",
            "maximum",
            "minimum",
            "floor",
        ):
            setattr(self, name, getattr(xp, name))

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        if condition.dtype != self.xp.bool:
            condition = condition != 0
        return self.xp.where(condition, a, b)

    def rsqrt(self, x: Any) -> Any:
        return 1 / self.xp.sqrt(x)

    def sigmoid(self, x: Any) -> Any:
        small = self.xp.exp(-self.xp.abs(x))  # never overflows
        return self.xp.where(x >= 0, 1 / (1 + small), small / (1 + small))

    def softplus(self, x: Any) -> Any:
        return self.xp.maximum(x, self.xp.zeros_like(x)) + self.xp.log1p(self.xp.exp(-self.xp.abs(x)))

    def erf(self, x: Any) -> Any:
        return _erf(self.xp, x)


def _erf(xp: Any, x: Any) -> Any:
    """Error function by W. J. Cody's rational approximations, Math. Comp. 23 (1969), in array operations alone."""
    size = xp.abs(x)
    safe = xp.where(size < 26.0, size, xp.ones_like(size) * 26.0)
    small = xp.where(size < 0.5, x, xp.zeros_like(x))
    square = small * small
    near = small * _ratio(square, _ERF_NEAR)
    middle = xp.where(size < 4.0, safe, xp.ones_like(safe) * 4.0)
    tail_middle = xp.exp(-middle * middle) * _ratio(middle, _ERF_MIDDLE)
    far = xp.where(size < 4.0, xp.ones_like(safe) * 4.0, safe)
    inverse = 1 / (far * far)
    tail_far = xp.exp(-far * far) / far * (1 / math.sqrt(math.pi) - inverse * _ratio(inverse, _ERF_FAR))
    tail = xp.where(size < 4.0, tail_middle, tail_far)
    return xp.where(size < 0.5, near, xp.where(xp.isnan(x), x, xp.sign(x) * (1 - tail)))


def _ratio(x: Any, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    above, below = (sum_horner(x, side) for side in coefficients)
    return above / below


def sum_horner(x: Any, coefficients: tuple[float, ...]) -> Any:
    """Evaluate a polynomial, highest power first."""
    total = 0 * x + coefficients[0]
    for c in coefficients[1:]:
        total = total * x + c
    return total


_ERF_NEAR = (
    (
        1.85777706184603153e-1,
        3.16112374387056560e0,
        1.13864154151050156e2,
        3.77485237685302021e2,
        3.20937758913846947e3,
    ),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_ERF_MIDDLE = (
    (
        2.15311535474403846e-8,
        5.64188496988670089e-1,
        8.88314979438837594e0,
        6.61191906371416295e1,
        2.98635138197400131e2,
        8.81952221241769090e2,
        1.71204761263407058e3,
        2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0,
        1.57449261107098347e1,
        1.17693950891312499e2,
        5.37181101862009858e2,
        1.62138957456669019e3,
        3.29079923573345963e3,
        4.36261909014324716e3,
        3.43936767414372164e3,
        1.23033935480374942e3,
    ),
)
_ERF_FAR = (
    (
        1.63153871373020978e-2,
        3.05326634961232344e-1,
        3.60344899949804439e-1,
        1.25781726111229246e-1,
        1.60837851487422766e-2,
        6.58749161529837803e-4,
    ),
    (
        1.0,
        2.56852019228982242e0,
        1.87295284992346047e0,
        5.27905102951428412e-1,
        6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)


class ArrayLane:
    """One array library: its namespace, its device's name, and what operations need beside the namespace.

    Attributes:
        kernels: name of a record -> the lane's own kernel of it. ``kernel.forward(arrays, params)`` returns the value,
            ``kernel.backward(node, gs, wanted)`` the wanted contributions of a plain sweep, a list of arrays and None;
            both return None to decline, and the page's formulas do the work.
    """

    def __init__(self, xp: Any, device: str) -> None:
        self.xp = xp
        self.device = device
        self.functions = Functions(xp)
        self.updates: Mapping[str, Callable[[Sequence[Any], Sequence[Any]], bool]] = {}
        """Kernels of the page's updates: called with arrays and parameters, they say whether they did the work."""
        self.kernels: dict[str, Any] = {}

    def asarray(self, value: Any) -> Any:
        """Make an array; Python floats get the default dtype, arrays keep theirs. Only host arrays change the device.

        Raises:
            DeviceError: an array of another device than the host or this one.
        """
        if hasattr(value, "dtype"):
            owner = lane_of(value)
            if owner is not None and owner is not self and owner is not NUMPY:
                raise DeviceError(
                    f"an array on {owner.device} where one on {self.device} is needed; "
                    f'move it with .to("{self.device}")'
                )
            return self.xp.asarray(value)
        found = np.asarray(value)
        if found.dtype.kind == "f":
            found = found.astype(get_default_dtype())
        if found.dtype.kind not in "fiub":
            raise DTypeError(f"cannot make a tensor of {type(value).__name__} (elements of type {found.dtype})")
        return self.xp.asarray(found)

    def is_scalar(self, value: Any) -> bool:
        """Say whether `value` is a number that takes the dtype of the arrays beside it."""
        return isinstance(value, bool | int | float | np.generic)

    def scalar_kind(self, value: Any) -> str:
        """Return "b", "i" or "f" for a number."""
        return "b" if isinstance(value, bool | np.bool_) else "i" if isinstance(value, int | np.integer) else "f"

    def kind(self, array: Any) -> str:
        """Return "f", "i" or "b" for what we compute with, another letter for what we do not."""
        return _kind(array.dtype)

    def default_dtype(self) -> Any:
        """Return the default dtype as the namespace's own object."""
        return getattr(self.xp, get_default_dtype().name)

    def common_dtype(self, values: list[Any]) -> Any:
        """Return NumPy's common dtype of integer and boolean arrays; Python scalars do not widen it."""
        arrays = [v for v in values if hasattr(v, "dtype") and not isinstance(v, np.generic)]
        if not arrays:
            return None
        if all(self.kind(a) == "b" for a in arrays) and any(
            self.scalar_kind(v) == "i" for v in values if self.is_scalar(v)
        ):
            return self.xp.int64
        return self.xp.result_type(*[a.dtype for a in arrays])

    def cast(self, value: Any, dtype: Any) -> Any:
        """Return an array of a dtype (None: as it is) from an array or a number; no copy where nothing changes."""
        if hasattr(value, "dtype") and not isinstance(value, np.generic):
            return value if dtype is None or value.dtype == dtype else self.xp.astype(value, dtype)
        if isinstance(value, np.generic):
            value = value.item()
        return self.xp.asarray(value, dtype=dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Make an array of zeros."""
        return self.xp.zeros(shape, dtype=dtype)

    def check_index(self, shape: tuple[int, ...], index: Any) -> None:
        """Refuse a place outside of an array of this shape, where the library itself does not."""

    def take(self, array: Any, index: Any) -> Any:
        """Return ``array[index]``; arrays of the index are of this lane.

        Raises:
            IndexError: a place outside of the array.
        """
        return array[index]

    def index_add(self, out: Any, index: Any, values: Any) -> Any:
        """Add `values` at ``out[index]``, repeated indices counting each time; returns the sum, which may be `out`."""
        if is_basic(index):
            out[index] += values
        else:
            np.add.at(out, index, values)
        return out

    def sum_squares(self, array: Any) -> float:
        """Return the sum of squares in float64: those of large float32 numbers do not fit float32."""
        return float(self.xp.sum(self.xp.square(self.xp.astype(array, self.xp.float64))))

    def norm(self, arrays: Sequence[Any], p: float) -> Any:
        """Return the p-norm of all elements of several arrays, added in float64; NaN if there is one.

        It is a number, or, where that would have to be waited for, a float64 array without axes.
        """
        norms = [self._norm(array, p) for array in arrays]
        if any(map(math.isnan, norms)):
            return math.nan
        if p == math.inf:
            return max(norms)
        return math.hypot(*norms) if p == 2 else sum(n**p for n in norms) ** (1 / p)

    def _norm(self, array: Any, p: float) -> float:
        if 0 in array.shape:
            return 0.0
        if p == 2:
            return math.sqrt(self.sum_squares(array))
        size = self.xp.astype(self.xp.abs(array), self.xp.float64)
        return float(self.xp.max(size)) if p == math.inf else float(self.xp.sum(size**p) ** (1 / p))

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Hold back the updates inside, so that they may run as one."""
        return contextlib.nullcontext()

    def to_numpy(self, array: Any) -> Any:
        """Copy an array to the CPU's memory as a NumPy array, if it is not one already."""
        return np.asarray(array)

    def demand(self, wrong: Any, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` if `wrong`, an array without axes, holds True.

        A device whose queue would have to be waited for may raise it later, when values are next read from it.
        """
        if wrong:
            raise error()

    # -- random numbers --------------------------------------------------------------------------------

    def seed(self, seed: int) -> None:
        """Restart the lane's random numbers."""
        self.generator = np.random.default_rng(seed)

    @functools.cached_property
    def generator(self) -> Any:
        """The source of the lane's random numbers; made when first asked for, as numpy.random is slow to import."""
        return np.random.default_rng()

    @property
    def random_state(self) -> Any:
        """Where the lane's random numbers stand; setting it brings them back there."""
        return self.generator.bit_generator.state

    @random_state.setter
    def random_state(self, state: Any) -> None:
        self.generator.bit_generator.state = state

    def random(self, shape: tuple[int, ...], dtype: Any = "float64") -> Any:
        """Draw numbers uniform in [0, 1) where the lane's arrays live."""
        return np.asarray(self.generator.random(shape), dtype=dtype)

    def normal(self, shape: tuple[int, ...], dtype: Any = "float64") -> Any:
        """Draw standard normal numbers where the lane's arrays live."""
        return np.asarray(self.generator.standard_normal(shape), dtype=dtype)


@functools.cache
def _kind(dtype: Any) -> str:
    # The last word of a dtype's name is NumPy's in every array library.
    found = np.dtype(str(dtype).rpartition(".")[2])
    if found.kind == "f":
        return "f" if found.itemsize in (4, 8) else "h"
    return "i" if found.kind in "iu" else found.kind


def is_basic(index: Any) -> bool:
    """Say whether an index has neither arrays nor lists in it."""
    parts = index if type(index) is tuple else (index,)
    return all(
        part is None or part is Ellipsis or (isinstance(part, slice | int) and not isinstance(part, bool))
        for part in parts
    )


class NumPyLane(ArrayLane):
    """NumPy, which shares its arrays with the compiled lane."""

    def __init__(self) -> None:
        super().__init__(np, "cpu")
        self.updates = _cpu.update_kernels()

    def sum_squares(self, array: Any) -> float:
        """Return the sum of squares in float64, without a copy where the compiled lane takes the array."""
        found = _cpu.sum_squares(array)
        return super().sum_squares(array) if found is None else found


NUMPY = NumPyLane()
LANES[np.ndarray] = NUMPY
_seed: list[int] = []  # what lanes that are entered later start with


def _cuda_lane() -> ArrayLane:
    """Return the lane of CuPy's arrays; it is entered when first asked for, or when an array of CuPy is met.

    Raises:
        MissingExtraError: CuPy is not installed. DeviceError: it is, but does not load, or finds no GPU.
    """
    if "cuda" not in DEVICES:
        try:
            cuda = importlib.import_module("._cuda", __package__)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "cupy":
                raise
            raise MissingExtraError('device="cuda"', "cuda") from None
        except ImportError as error:
            raise DeviceError(f"CuPy is installed but does not load: {error}") from error
        cuda.connect(PAGE)
        if _seed:
            DEVICES["cuda"].seed(_seed[0])
    return DEVICES["cuda"]


DEVICES: dict[str, ArrayLane] = {"cpu": NUMPY}
"""Device -> its lane, of those that were entered."""
LANES.libraries["cupy"] = _cuda_lane


def device_name(device: str) -> str:
    """Return "cpu" or "cuda"; "cuda:0" is the latter.

    Raises:
        DeviceError: any other.
    """
    name, _, number = device.partition(":")
    if name == "cuda" and number.isdecimal() and int(number) > 0:
        raise DeviceError(f"{device!r}: one GPU is used, which CUDA_VISIBLE_DEVICES={number} would choose")
    if device in ("cuda", "cuda:0") or device in DEVICES:
        return name
    raise DeviceError(f"unknown device {device!r}; known: cpu, cuda")


def lane_for_device(device: str) -> ArrayLane:
    """Return the lane of "cpu" or "cuda".

    Raises:
        DeviceError: an unknown device, or no GPU. MissingExtraError: CuPy is not installed.
    """
    name = device_name(device)
    return _cuda_lane() if name == "cuda" else DEVICES[name]


def seed_lanes(seed: int) -> None:
    """Restart the random numbers of every device."""
    _seed[:] = [seed]
    for lane in DEVICES.values():
        lane.seed(seed)


def random_states() -> dict[str, Any]:
    """Return where the random numbers of every device stand."""
    return {device: lane.random_state for device, lane in DEVICES.items()}


def set_random_states(states: dict[str, Any]) -> None:
    """Bring the random numbers of devices back to where they stood."""
    for device, state in states.items():
        DEVICES[device].random_state = state


def as_index(lane: ArrayLane, index: Any) -> Any:
    """Return an index with arrays of the lane in it, in place of lists and host arrays."""
    return tuple(_index_part(lane, part) for part in index) if isinstance(index, tuple) else _index_part(lane, index)


def _index_part(lane: ArrayLane, part: Any) -> Any:
    if isinstance(part, np.generic):
        return part.item()
    if isinstance(part, list | tuple):
        part = np.asarray(part)
        if part.size == 0:
            part = part.astype(np.int64)
    return lane.asarray(part) if hasattr(part, "dtype") else part


def shared_lane(what: str, arrays: Sequence[Any]) -> ArrayLane | None:
    """Return the lane that owns all of these arrays; None without any.

    Raises:
        DeviceError: arrays of two devices.
    """
    lanes = {id(lane): lane for lane in map(array_lane, arrays)}
    if len(lanes) > 1:
        on = " and ".join(sorted(lane.device for lane in lanes.values()))
        raise DeviceError(f'{what}: arrays on {on}; move all of them with .to("cuda") or .to("cpu")')
    return next(iter(lanes.values()), None)


def array_lane(array: Any) -> ArrayLane:
    """Return the lane that owns an array.

    Raises:
        DTypeError: an object that is no array of a known library.
    """
    lane = LANES[type(array)]
    if lane is None:
        raise DTypeError(f"{type(array).__name__} is no array of a known library")
    return lane


def host(array: Any) -> Any:
    """Return an array's values, or a number, as a NumPy array: the one way for values to leave a device."""
    lane = lane_of(array)
    return np.asarray(array) if lane is None else lane.to_numpy(array)


def move(array: Any, lane: ArrayLane) -> Any:
    """Return an array on a lane's device: it is copied if it lives elsewhere."""
    return array if lane_of(array) is lane else lane.asarray(host(array))


@contextlib.contextmanager
def compiled_lane(on: bool) -> Iterator[None]:
    """Switch the compiled lane off (or on) for all operations: with it off the array lane does everything."""
    kept, updates = {op: op.compiled for op in PAGE}, NUMPY.updates
    try:
        if not on:
            NUMPY.updates = {}
            for op in kept:
                op.compiled = None
        yield
    finally:
        NUMPY.updates = updates
        for op, kernel in kept.items():
            op.compiled = kernel


def is_array(x: Any) -> bool:
    """Say whether `x` is an array of a known lane (not a tensor)."""
    return lane_of(x) is not None
