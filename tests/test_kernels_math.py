"""The C kernels' elementary functions against mpmath and float64."""

import ctypes
import functools
import itertools

import mpmath
import numpy as np
import pytest
from c_kernels import ISAS, SCALARS, Kernels, compile_c, needs_compiler, pointer, skip_missing

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    target = tmp_path_factory.mktemp("kernels") / "driver.so"
    done = compile_c("driver.c", target, "-O3", "-Wall", "-Wextra", "-fPIC", "-shared")
    assert done.returncode == 0, done.stderr
    return target, done.stderr


@pytest.fixture(scope="module")
def build(compiled):
    return ctypes.CDLL(str(compiled[0]))


def test_compiler_has_nothing_to_warn_of(compiled):
    assert compiled[1] == ""


def name_of(kernel):
    return f"{kernel[0]}-float{kernel[1]}"


@pytest.fixture(params=[(isa, bits) for isa in ISAS for bits in SCALARS], ids=name_of)
def kernels(request, build, monkeypatch):
    isa, bits = request.param
    monkeypatch.delenv("MINIGRAD_ISA", raising=False)
    skip_missing(build, isa)
    return Kernels(build, isa, bits)


def test_environment_chooses_instruction_set(build, monkeypatch):
    monkeypatch.delenv("MINIGRAD_ISA", raising=False)
    best = build.isa_detect()
    assert 0 <= best < len(ISAS)
    for index, isa in enumerate(ISAS):
        monkeypatch.setenv("MINIGRAD_ISA", isa)
        assert build.isa_detect() == (index if index <= best else -1)
    monkeypatch.setenv("MINIGRAD_ISA", "")
    assert build.isa_detect() == best
    for unknown in ("AVX2", "avx", "sse9", " base"):
        monkeypatch.setenv("MINIGRAD_ISA", unknown)
        assert build.isa_detect() == -1


# ---- Elementary functions: distance from the exact result in units of its last place.

mp = mpmath.mp.clone()
mp.prec = 160


def limited(f, bound=800):
    """f, but beyond the bound as at the bound, where every format is at its limit: no e^1e300 to compute."""
    return lambda x: f(max(-bound, min(bound, x)))


EXACT = {
    "exp": limited(mp.exp),
    "expm1": limited(mp.expm1),
    "log": lambda x: mp.log(x) if x > 0 else -mp.inf if x == 0 else mp.nan,
    "log1p": lambda x: mp.log1p(x) if x > -1 else -mp.inf if x == -1 else mp.nan,
    "tanh": limited(mp.tanh),
    "sigmoid": limited(lambda x: 1 / (1 + mp.exp(-x))),
    "softplus": lambda x: x if x > 800 else limited(lambda x: mp.log1p(mp.exp(x)))(x),
    "sin": mp.sin,
    "cos": mp.cos,
    "erf": limited(mp.erf, 40),
}
OURS = ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus"]
LIBM = ["sin", "cos", "erf"]


def ulp(values):
    """The distance of each value from the next larger one; of an infinity as of the largest numbers."""
    limits = np.finfo(values.dtype)
    return np.spacing(np.minimum(np.abs(values), np.nextafter(limits.max, limits.tiny)))


@functools.cache
def points(bits):
    """Numbers of every exponent and sign, and crowds where functions saturate, change sign or lose digits."""
    dtype, rng = SCALARS[bits], np.random.default_rng(bits)
    limits = np.finfo(dtype)
    exponents = np.arange(limits.minexp - limits.nmant, limits.maxexp)
    everywhere = np.ldexp(rng.uniform(1, 2, len(exponents)), exponents)
    largest = float(np.log(limits.max))
    smallest = float(np.log(limits.smallest_subnormal))
    parts = [
        everywhere,
        -everywhere,
        rng.uniform(1.02 * smallest, 1.02 * largest, 900),
        rng.uniform(smallest - 2, np.log(limits.tiny) + 1, 300),
        rng.uniform(-2, 2, 900),
        rng.uniform(-50, 50, 500),
        1 + np.arange(-50, 50) * float(limits.eps),
        -1 + np.arange(-50, 50) * float(limits.eps),
        rng.uniform(0.40, 0.43, 100),
        [
            largest,
            np.nextafter(dtype(largest), dtype(0)),
            smallest,
            float(limits.smallest_subnormal),
            float(limits.tiny),
        ],
    ]
    with np.errstate(over="ignore"):
        x = np.concatenate([np.asarray(part, np.float64) for part in parts]).astype(dtype)
    return np.unique(x[np.isfinite(x)])


@functools.cache
def exact(name, bits):
    """The exact results at points(bits): the nearest floats, and what is left in units of the last place."""
    dtype = SCALARS[bits]
    wide = [EXACT[name](mp.mpf(float(x))) for x in points(bits)]
    with np.errstate(over="ignore"):
        near = np.array([float(y) for y in wide]).astype(dtype)
    unit = ulp(near)
    finite = np.isfinite(near)
    left = [
        float((y - float(n)) / float(u)) if ok else 0.0 for y, n, u, ok in zip(wide, near, unit, finite, strict=True)
    ]
    return near, np.array(left), unit


def errors(got, near, left, unit):
    """Distance of got from near + left in units; infinite where NaN, infinity or the sign disagree."""
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs((got - near) / unit - left)
    distance = np.where(np.isinf(near), np.where(got == near, 0, np.inf), distance)
    distance = np.where(np.isnan(near), np.where(np.isnan(got), 0, np.inf), distance)
    distance = np.where(np.isnan(got) & ~np.isnan(near), np.inf, distance)
    wrong_sign = (np.signbit(got) != np.signbit(near)) & (near != 0) & ~np.isnan(near)
    return np.where(wrong_sign, np.inf, distance)


def report(kernels, name, x, distance):
    worst = int(np.argmax(distance))
    label = f"{kernels.isa:>6} float{kernels.bits} {name:>8}"
    print(f"{label}  {distance[worst]:6.3f} ulp at {x[worst]!r}  ({len(x)} points)")
    return distance[worst]


def test_functions_are_close_to_mpmath(kernels):
    x = points(kernels.bits)
    worst = {}
    for name in OURS + LIBM:
        worst[name] = report(kernels, name, x, errors(kernels.map(name, x), *exact(name, kernels.bits)))
    assert max(worst[name] for name in OURS) <= 3, worst
    assert max(worst[name] for name in LIBM) <= 4, worst


FLOAT64 = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x))),
    "softplus": lambda x: np.logaddexp(0, x),
}


@functools.cache
def dense():
    """Every 20011th float32, and a crowd where the functions bend, with float64's results."""
    bits = np.arange(0, 2**32, 20011, dtype=np.uint64).astype(np.uint32)
    x = np.concatenate([bits.view(np.float32), np.linspace(-110, 110, 300_007, dtype=np.float32)])
    results = {}
    with np.errstate(all="ignore"):
        for name, f in FLOAT64.items():
            wide = f(x.astype(np.float64))
            near = wide.astype(np.float32)
            unit = ulp(near)
            results[name] = near, np.where(np.isfinite(near), (wide - near) / unit, 0), unit
    return x, results


@pytest.mark.parametrize("kernels", [(isa, 32) for isa in ISAS], ids=name_of, indirect=True)
def test_float32_sweep_of_all_bit_patterns(kernels):
    x, results = dense()
    worst = {name: report(kernels, name, x, errors(kernels.map(name, x), *results[name])) for name in OURS}
    assert max(worst[name] for name in OURS) <= 3, worst


INF, NAN = np.inf, np.nan
SPECIAL = {
    "exp": [(-INF, 0.0), (INF, INF), (0.0, 1.0), (-0.0, 1.0), (-1e4, 0.0), (1e4, INF)],
    "expm1": [(-INF, -1.0), (INF, INF), (0.0, 0.0), (-0.0, -0.0), (-1e4, -1.0), (1e4, INF)],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN), (-INF, NAN)],
    "log1p": [(-1.0, -INF), (0.0, 0.0), (-0.0, -0.0), (INF, INF), (-1.5, NAN), (-INF, NAN)],
    "tanh": [(-INF, -1.0), (INF, 1.0), (0.0, 0.0), (-0.0, -0.0), (-1e4, -1.0), (1e4, 1.0)],
    "sigmoid": [(-INF, 0.0), (INF, 1.0), (0.0, 0.5), (-0.0, 0.5), (-1e4, 0.0), (1e4, 1.0)],
    "softplus": [(-INF, 0.0), (INF, INF), (-1e4, 0.0), (1e4, 1e4)],
}


@pytest.mark.parametrize("name", OURS)
def test_special_values(kernels, name):
    x, want = np.array([*SPECIAL[name], (NAN, NAN), (-NAN, NAN)], kernels.dtype).T
    got = kernels.map(name, x)
    np.testing.assert_array_equal(got, want)
    signed = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[signed]), np.signbit(want[signed]))


@pytest.mark.parametrize("name", ["expm1", "log1p", "tanh"])
def test_smallest_numbers_pass_unchanged(kernels, name):
    x = np.arange(-40, 41) * np.finfo(kernels.dtype).smallest_subnormal
    np.testing.assert_array_equal(kernels.map(name, x), x)


@pytest.mark.parametrize("name", OURS)
def test_result_depends_on_value_alone(kernels, name):
    x = np.random.default_rng(5).normal(0, 3, 71).astype(kernels.dtype)
    whole = kernels.map(name, x)
    for start in range(1, 2 * kernels.lanes):
        np.testing.assert_array_equal(kernels.map(name, x[start:]), whole[start:])


AWKWARD = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.5,
    -2.5,
    0.49999997,
    5.0,
    7.75,
    1e-40,
    -1e-310,
    2.0**51 + 0.5,
    INF,
    -INF,
    NAN,
]
SIMPLE = {
    "abs": np.abs,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "floor": np.floor,
    "cube": lambda x: x * (x * x),
    "inverse_square": lambda x: 1 / (x * x),
}
PAIRWISE = {
    "maximum": np.maximum,
    "minimum": np.minimum,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "between": lambda x, y: np.where(~(x < y) & ((x < 5) | (x == y)), x, -1),
}


def test_simple_functions_are_exact(kernels):
    rng = np.random.default_rng(7)
    x = np.concatenate([AWKWARD, rng.normal(0, 3, 83), 1e20 * rng.normal(size=83) ** 9]).astype(kernels.dtype)
    for name, f in SIMPLE.items():
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(kernels.map(name, x), f(x), err_msg=name)


def test_pairwise_functions_are_exact(kernels):
    x, y = np.array(list(itertools.product(AWKWARD, AWKWARD)), kernels.dtype).T
    for name, f in PAIRWISE.items():
        np.testing.assert_array_equal(kernels.map(name, x, y), f(x, y).astype(kernels.dtype), err_msg=name)


def test_power_is_within_4_ulp_of_mpmath(kernels):
    rng = np.random.default_rng(11)
    x, y = rng.uniform(0.01, 9, 101).astype(kernels.dtype), rng.uniform(-9, 9, 101).astype(kernels.dtype)
    wide = [mp.power(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(x, y, strict=True)]
    near = np.array([float(w) for w in wide]).astype(kernels.dtype)
    left = [float((w - float(n)) / float(u)) for w, n, u in zip(wide, near, ulp(near), strict=True)]
    assert report(kernels, "pow", x, errors(kernels.map("pow", x, y), near, np.array(left), ulp(near))) <= 4


def test_fused_multiply_add(kernels):
    x, y = np.arange(-30.0, 31), np.arange(61.0) - 7
    np.testing.assert_array_equal(kernels.map("fma", x, y), x * y + x)


def test_lanes_are_summed_and_transposed(kernels):
    w = kernels.lanes
    square = (np.arange(w * w, dtype=kernels.dtype) ** 2 % 97).reshape(w, w)
    total = kernels.function("hsum")
    total.restype = ctypes.c_float if kernels.bits == 32 else ctypes.c_double
    assert total(pointer(square)) == square[0].sum()
    for way in ("transpose", "load_transposed"):
        out = np.zeros_like(square)
        kernels.function(way)(pointer(square), pointer(out))
        np.testing.assert_array_equal(out, square.T, err_msg=way)
