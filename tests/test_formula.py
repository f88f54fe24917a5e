"""The language of the page: each way of printing a formula is read back and evaluated by Python itself."""

import math
import pickle
import random
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minigrad.errors import FormulaError, MissingExtraError, where
from minigrad.formula import (
    CUDA_PREAMBLE,
    INTRINSICS,
    Binary,
    Name,
    Number,
    Unary,
    check,
    parse,
    to_c,
    to_cuda,
    to_latex,
    to_source,
    to_text,
)

# ------------------------------------------------------- random formulas, written with every parenthesis

VARIABLES = ("x", "y", "b_0")
NUMBERS = ("0", "1", "2", "3", "0.5", "1.5", "0.25", "1e-05", "7.25", "pi")
EXPONENTS = ("2", "3", "-1", "-2", "5", "0.5", "1.5", "b_0")
UNARY = [name for name, row in INTRINSICS.items() if row.arity == 1]
BINARY = [name for name, row in INTRINSICS.items() if row.arity == 2]


def grow(rng: random.Random, depth: int) -> str:
    """Return a random scalar formula in which nothing is left to precedence."""
    if depth == 0:
        return rng.choice(VARIABLES) if rng.random() < 0.7 else rng.choice(NUMBERS)

    def below() -> str:
        return grow(rng, rng.randrange(depth))

    match rng.randrange(8):
        case 0 | 1 | 2:
            return f"({below()} {rng.choice('+-*/')} {below()})"
        case 3:
            return f"(-{below()})"
        case 4:
            return f"({below()} ** ({rng.choice(EXPONENTS)}))"
        case 5:
            return f"{rng.choice(BINARY)}({below()}, {below()})"
        case 6:
            test = f"({below()} {rng.choice(['<', '<=', '>', '>=', '==', '!='])} {below()})"
            return f"where({rng.choice([test, below()])}, {below()}, {below()})"
    return f"{rng.choice(UNARY)}({below()})"


FUNCTIONS = {
    "exp": math.exp,
    "expm1": math.expm1,
    "log": math.log,
    "log1p": math.log1p,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "abs": abs,
    "sign": lambda x: math.copysign(1, x) if x else 0,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x)),
    "softplus": lambda x: math.log1p(math.exp(x)) if x < 0 else x + math.log1p(math.exp(-x)),
    "sin": math.sin,
    "cos": math.cos,
    "erf": math.erf,
    "maximum": lambda a, b: a if a > b else b,
    "minimum": lambda a, b: b if a > b else a,
    "where": lambda c, a, b: a if c else b,
    "floor": math.floor,
}
POINT = {"x": 0.8311, "y": -1.3727, "b_0": 0.6173}


def value(text: str, scope: dict | None = None, point: dict | None = None) -> float:
    """Evaluate Python text at a point; formulas without a finite real value are not examples."""
    try:
        result = eval(text, {"pi": math.pi, **FUNCTIONS, **(scope or {}), **(point or POINT)})
        assume(not isinstance(result, complex) and abs(result) < 1e12)
        return float(result)
    except (ArithmeticError, ValueError, TypeError):  # TypeError: a comparison of complex numbers
        assume(False)
        raise


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


formulas = st.builds(lambda rng: grow(rng, 4), st.randoms(use_true_random=False))


def test_random_formulas_reach_every_function_and_operator():
    rng = random.Random(11)
    text = " ".join(grow(rng, 4) for _ in range(300))
    assert set(re.findall(r"([a-z]\w*)\(", text)) == set(INTRINSICS) == set(FUNCTIONS)
    assert set(re.findall(r" (\S+) ", text)) >= {"+", "-", "*", "/", "**", "<", "<=", ">", ">=", "==", "!="}


# ------------------------------------------------------------------------------------ Python and back


@given(formulas)
def test_compiled_formula_equals_python(text):
    expected = value(text)
    function = parse(text).compile(VARIABLES)
    assert close(function(SimpleNamespace(**FUNCTIONS), *(POINT[name] for name in VARIABLES)), expected)


@given(formulas)
def test_source_reads_back_as_the_same_formula(text):
    expr = parse(text)
    assert parse(to_source(expr)) == expr


def without_each_pair(text: str) -> list[str]:
    """Return the text without each pair of parentheses that is not a call's, one pair at a time."""
    shorter, opened = [], []
    for i, character in enumerate(text):
        if character == "(":
            opened.append(i)
        elif character == ")":
            start = opened.pop()
            if start == 0 or not text[start - 1].isalnum():
                shorter.append(text[:start] + text[start + 1 : i] + text[i + 1 :])
    return shorter


@given(formulas)
def test_source_has_no_parenthesis_to_spare(text):
    expr = parse(text)
    for shorter in without_each_pair(to_source(expr)):
        try:
            changed = parse(shorter) != expr
        except FormulaError:
            changed = True
        assert changed, shorter


@pytest.mark.parametrize(
    "text",
    [
        "sum(g * y, axis=axis, keepdims=True)",
        "matmul(mT(a), g)",
        "a @ (b @ c) * 2 / (d @ e)",
        "f(a, axes=(0, -1), one=(2,), none=(), order=None, mode='reflect')",
        "(g * y, -g)",
        "(a < b) == (c >= d)",
        "(-a) ** b ** -c",
        "2 * 2.0",
    ],
)
def test_rules_over_whole_arrays_read_back(text):
    assert to_source(parse(text)) == text
    assert parse(to_source(parse(text))) == parse(text)


def test_layout_of_the_text_does_not_matter():
    assert parse("  a\n   + b ") == parse("a+b") == Binary("+", Name("a"), Name("b"))


def test_numbers_keep_their_kind():
    assert parse("2") != parse("2.0")
    assert len({Number(2), Number(2.0), Number(2)}) == 2
    assert parse("-2") == Unary("-", Number(2))


def test_names_and_functions_in_order_of_first_appearance():
    expr = parse("g * where(x > pi, exp(b), sum(a, axis=axis) ** g) + exp(x)")
    assert expr.names == ("g", "x", "b", "a", "axis")
    assert expr.functions == ("where", "exp", "sum")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constants_do_not_change_the_dtype(dtype):
    x = np.array([[0.3, -1.7, 2.9], [1.1, 0.7, -0.2]], dtype)
    result = parse("x * sqrt(2 / pi) + tanh(0.5) / 3").compile(["x"])(np, x)
    assert result.dtype == dtype
    expected = x.astype(float) * math.sqrt(2 / math.pi) + math.tanh(0.5) / 3
    np.testing.assert_allclose(result, expected, rtol=0, atol=8 * np.finfo(dtype).eps)


def test_compiled_rule_calls_operations_of_the_namespace():
    rule = parse("sum(matmul(mT(a), g) * y, axis=axis, keepdims=True) @ b").compile(["y", "g", "a", "axis", "b"], "ops")
    rng = np.random.default_rng(5)
    a, g, y, b = (rng.normal(size=shape) for shape in [(7, 3), (7, 5), (3, 5), (5, 2)])
    ops = SimpleNamespace(sum=np.sum, matmul=np.matmul, mT=np.transpose)
    np.testing.assert_array_equal(rule(ops, y, g, a, 0, b), (a.T @ g * y).sum(axis=0, keepdims=True) @ b)


@pytest.mark.parametrize("args", [["x", "x"], ["F", "x"], ["x", "pi"], ["x", "lambda"], ["x", "a b"], ["y"]])
def test_compile_refuses_parameters_that_do_not_fit(args):
    with pytest.raises(FormulaError):
        parse("x + 1").compile(args)


@pytest.mark.parametrize("text", ["1 / 0 * x", "log(0) + x", "9 ** 9 ** 9 * x", "sqrt(-1) * x", "exp(1000) * x"])
@pytest.mark.parametrize("target", [to_c, to_cuda, lambda expr: expr.compile(["x"])], ids=["c", "cuda", "python"])
def test_constants_without_a_value_are_refused(text, target):
    with pytest.raises(FormulaError, match="constant without a finite value"):
        target(parse(text))


# ------------------------------------------------------------------------------------- text and LaTeX


def python_from_text(text: str) -> str:
    text = re.sub(r"\|([^|]*)\|", r"abs(\1)", text)
    text = re.sub("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda power: "**" + power[0].translate(PLAIN_DIGITS), text)
    for symbol, python in {
        "·": "*",
        "^": "**",
        "√": "sqrt",
        "σ": "sigmoid",
        "⌊": "floor(",
        "⌋": ")",
        "π": "pi",
        "≤": "<=",
        "≥": ">=",
        "≠": "!=",
    }.items():
        text = text.replace(symbol, python)
    return text


PLAIN_DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


@given(formulas)
def test_text_means_the_formula(text):
    expected = value(text)
    assert close(value(python_from_text(to_text(parse(text)))), expected)


@given(formulas)
def test_substituted_values_mean_the_formula(text):
    # Signed numbers do not hold together: each place that needs parentheses around one must have them.
    expected = value(text)
    printed = to_text(parse(text), {name: repr(number) for name, number in POINT.items()})
    assert not set(VARIABLES) & set(re.findall(r"\w+", printed))
    assert close(value(python_from_text(printed)), expected)


def python_from_latex(text: str) -> str:
    """Undo LaTeX from the innermost braces outwards; Python's precedence then plays the reader."""
    text = text.replace("b_{0}", "b_0").replace(r"\text{if }", "").replace(r"\text{otherwise}", "")
    text = text.replace(r"\left|", "abs(").replace(r"\right|", ")")
    text = text.replace(r"\left\lfloor", "floor(").replace(r"\right\rfloor", ")")
    text = re.sub(r"\\left|\\right", "", text)
    text = re.sub(r"\\operatorname\{(\w+)\}", r"\1", text)
    text = text.replace(r"\begin{cases}", "[").replace(r"\end{cases}", "]")
    for symbol, python in {r"\cdot": "*", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\pi": "pi"}.items():
        text = re.sub(re.escape(symbol) + r"(?![a-z])", python, text)
    for symbol, python in {r"\sigma": "sigmoid", r"\max": "maximum", r"\min": "minimum"}.items():
        text = text.replace(symbol, python)
    text = re.sub(r"(?<![<>!*=])=(?!=)", "==", text)
    before = ""
    while before != text:
        before = text
        text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", text)
        text = re.sub(r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)", text)
        text = re.sub(r"\^\{([^{}]*)\}", r"**(\1)", text)
        text = re.sub(r"\[([^][&]*)&([^][&]*)\\\\([^][&]*)&\s*\]", r"where(\2, \1, \3)", text)
    return re.sub(r"\\(exp|log|tanh|sin|cos)", r"\1", text).strip()


@given(formulas)
def test_latex_means_the_formula(text):
    expected = value(text)
    assert close(value(python_from_latex(to_latex(parse(text)))), expected)


@pytest.mark.parametrize(
    ("formula", "text", "latex"),
    [
        (
            "(1 - y) * (1 + y)",
            "(1 - c[3])·(1 + c[3])",
            r"\left(1 - c_{3}\right) \cdot \left(1 + c_{3}\right)",
        ),
        ("-y / b", "-c[3] / b", r"\frac{-c_{3}}{b}"),
        ("a / b * c", "(a / b)·c", r"\frac{a}{b} \cdot c"),
        ("a * b / (c * d)", "a·b / (c·d)", r"\frac{a \cdot b}{c \cdot d}"),
        ("(-x) ** 2 - -x ** 2", "(-x)² - (-x²)", r"\left(-x\right)^{2} - \left(-x^{2}\right)"),
        ("x ** -2 + 2 ** x", "x⁻² + 2^x", r"x^{-2} + 2^{x}"),
        ("(a ** 2) ** (n + 1)", "(a²)^(n + 1)", r"\left(a^{2}\right)^{n + 1}"),
        ("rsqrt(x) ** 3", "(1 / √(x))³", r"\left(\frac{1}{\sqrt{x}}\right)^{3}"),
        (
            "sigmoid(x) + floor(abs(x))",
            "σ(x) + ⌊|x|⌋",
            r"\sigma\left(x\right) + \left\lfloor \left|x\right| \right\rfloor",
        ),
        ("abs(x * abs(x))", "abs(x·|x|)", r"\left|x \cdot \left|x\right|\right|"),
        ("matmul(mT(W_x), g) * 2", "(W_xᵀ @ g)·2", r"\left(W_{x}^{\top} \, g\right) \cdot 2"),
        ("g @ mT(a + b)", "g @ (a + b)ᵀ", r"g \, \left(a + b\right)^{\top}"),
        (
            "broadcast_to(g, y_shape)",
            "broadcast_to(g, shape(c[3]))",
            r"\operatorname{broadcast\_to}\left(g, \operatorname{shape}(c_{3})\right)",
        ),
        (
            "where(x > 0, 1, alpha)",
            "where(x > 0, 1, alpha)",
            r"\begin{cases} 1 & \text{if } x > 0 \\ \alpha & \text{otherwise} \end{cases}",
        ),
        ("1e-05 ** n", "(1e-05)^n", r"\left(10^{-5}\right)^{n}"),
        ("1e-05 * weight_12", "1e-05·weight_12", r"10^{-5} \cdot \mathrm{weight}_{12}"),
        (
            "f(g, mode='a_b')",
            "f(g, mode='a_b')",
            r"\operatorname{f}\left(g, \mathrm{mode}=\texttt{a\char`\_b}\right)",
        ),
    ],
)
def test_readable_forms(formula, text, latex):
    assert to_text(parse(formula), {"y": "c[3]"}) == text
    assert to_latex(parse(formula), {"y": "c_{3}"}) == latex


def test_substituted_names_are_wrapped_where_they_fall_apart():
    expr = parse("1 - y ** 2")
    assert to_text(expr, {"y": "a + b"}) == "1 - (a + b)²"
    assert to_text(expr, {"y": "Wᵀ"}) == "1 - (Wᵀ)²"
    assert to_text(expr, {"y": "h[t - 1]"}) == "1 - h[t - 1]²"
    assert to_text(parse("y"), {"y": "a + b"}) == "a + b"
    assert to_latex(expr, {"y": "c^{(3)}"}) == r"1 - \left(c^{(3)}\right)^{2}"
    assert to_latex(expr, {"y": r"\tilde{c}_{t-1}"}) == r"1 - \tilde{c}_{t-1}^{2}"


# ------------------------------------------------------------------------------------------- C and CUDA

C_FUNCTIONS = {
    "K": float,
    "v_lt": lambda a, b: a < b,
    "v_le": lambda a, b: a <= b,
    "v_gt": lambda a, b: a > b,
    "v_ge": lambda a, b: a >= b,
    "v_eq": lambda a, b: a == b,
    "v_ne": lambda a, b: a != b,
    "v_powi": lambda a, n: a**n,
    "v_pow": lambda a, b: a**b,
    "v_select": FUNCTIONS["where"],
    "v_max": FUNCTIONS["maximum"],
    "v_min": FUNCTIONS["minimum"],
} | {f"v_{name}": FUNCTIONS[name] for name in UNARY}


@given(formulas)
def test_c_means_the_formula(text):
    expected = value(text)
    printed = to_c(parse(text))
    assert not re.search(r"(?<![\w.(-])\d", re.sub(r"K\([^()]*\)|b_0|v_powi\(.*, -?\d\)", "", printed)), printed
    assert close(value(printed, C_FUNCTIONS), expected)


@pytest.mark.parametrize(
    ("formula", "c", "cuda"),
    [
        ("a - (b - c)", "a - (b - c)", "a - (b - c)"),
        ("-x * 0.1", "(-x) * K(0.1)", "(-x) * 0.1f"),
        ("x ** 2 + x ** -4.0", "v_powi(x, 2) + v_powi(x, -4)", "mg_powi(x, 2) + mg_powi(x, -4)"),
        ("x ** 5 + x ** b", "v_pow(x, K(5.0)) + v_pow(x, b)", "powf(x, 5.0f) + powf(x, b)"),
        ("(a + b) ** 0.5", "v_sqrt(a + b)", "sqrtf(a + b)"),
        ("maximum(x, 0)", "v_max(x, K(0.0))", "mg_maximum(x, 0.0f)"),
        ("where(x, a, b)", "v_select(v_ne(x, K(0.0)), a, b)", "(x != 0.0f ? a : b)"),
        (
            "where(a + 1 <= b, -a, 3)",
            "v_select(v_le(a + K(1.0), b), (-a), K(3.0))",
            "(a + 1.0f <= b ? (-a) : 3.0f)",
        ),
        ("x * sqrt(2)", "x * K(1.4142135623730951)", "x * 1.4142135623730951f"),
        ("pi / 2 * x", "K(1.5707963267948966) * x", "1.5707963267948966f * x"),
    ],
)
def test_compiled_forms(formula, c, cuda):
    assert to_c(parse(formula)) == c
    assert to_cuda(parse(formula), "float") == cuda


@pytest.mark.parametrize("target", [to_c, to_cuda])
@pytest.mark.parametrize(
    ("formula", "reason"),
    [
        ("g * (x > 0)", "a comparison is not a number"),
        ("where(x > 0, x < 1, 2)", "a comparison is not a number"),
        ("where((a < b) == c, a, b)", "a comparison is not a number"),
        ("a @ b", "not part of a scalar formula"),
        ("(a, b)", "not part of a scalar formula"),
        ("1 + sum(a)", "'sum' is not a scalar function"),
        ("tanh(a, b)", "'tanh' takes 1 positional"),
        ("where(a, b)", "'where' takes 3 positional"),
        ("tanh(a, out=b)", "'tanh' takes 1 positional"),
        ("maximum(a, None)", "not part of a scalar formula"),
    ],
)
def test_loops_take_scalar_formulas_only(target, formula, reason):
    with pytest.raises(FormulaError, match=re.escape(reason)):
        target(parse(formula))


def test_cuda_knows_two_types():
    with pytest.raises(FormulaError, match="half"):
        to_cuda(parse("x"), "half")


SHIM = """
#include <cmath>
#include <cstdio>
#define __device__
using std::exp; using std::fabs; using std::log1p;
static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
"""


@pytest.fixture(scope="module")
def run_as_cpp(tmp_path_factory):
    """Compile CUDA bodies as plain C++ and return their values at given points."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("CUDA bodies are compiled as C++: no g++ on the path")

    def run(bodies: list[str], dtype: str, point: dict[str, str]) -> list[float]:
        folder = tmp_path_factory.mktemp("cuda")
        variables = " ".join(f"volatile {dtype} {name}_in = ({dtype}){number};" for name, number in point.items())
        variables += " ".join(f"{dtype} {name} = {name}_in;" for name in point)
        lines = [
            f'{{ static_assert(sizeof({body}) == sizeof({dtype})); printf("%.17g\\n", (double)({body})); }}'
            for body in bodies
        ]
        source = SHIM + CUDA_PREAMBLE + f"int main() {{ {variables}\n" + "\n".join(lines) + "\n}\n"
        (folder / "bodies.cpp").write_text(source)
        build = [compiler, "-std=c++17", "-O0", "-ffp-contract=off", "bodies.cpp", "-o", "bodies"]
        subprocess.run(build, cwd=folder, check=True)
        printed = subprocess.run([folder / "bodies"], check=True, capture_output=True, text=True).stdout
        return [float(line) for line in printed.split()]

    return run


def stable_formulas(count: int, step: float, spread: float) -> list[tuple[str, float]]:
    """Return formulas and values that rounding of relative size `step` cannot move by more than `spread`."""
    rng, found = random.Random(29), []
    while len(found) < count:
        text = grow(rng, 4)
        nearby = [{name: number * (1 + sign * step) for name, number in POINT.items()} for sign in (1, -1)]
        try:
            values = [float(eval(text, {"pi": math.pi, **FUNCTIONS, **point})) for point in [POINT, *nearby]]
            to_c(parse(text))
        except (ArithmeticError, ValueError, TypeError):
            continue
        if max(values) - min(values) <= spread * max(1.0, abs(values[0])) and abs(values[0]) < 1e6:
            found.append((text, values[0]))
    return found


@pytest.mark.parametrize(("dtype", "step", "tolerance"), [("double", 1e-12, 1e-9), ("float", 1e-5, 1e-3)])
def test_cuda_compiles_and_means_the_formula(run_as_cpp, dtype, step, tolerance):
    examples = stable_formulas(200, step, tolerance / 10)
    bodies = [to_cuda(parse(text), dtype) for text, _ in examples]
    results = run_as_cpp(bodies, dtype, {name: repr(number) for name, number in POINT.items()})
    for (text, expected), result in zip(examples, results, strict=True):
        assert math.isclose(result, expected, rel_tol=tolerance, abs_tol=tolerance), text


@pytest.mark.parametrize("dtype", ["float", "double"])
def test_cuda_is_right_at_the_ends_of_the_range(run_as_cpp, dtype):
    ends = {
        "sigmoid(big)": 1.0,
        "sigmoid(-big)": 0.0,
        "softplus(big)": math.inf,
        "softplus(-big)": 0.0,
        "softplus(1000 + 0 * big)": math.nan,
        "sign(-big)": -1.0,
        "sign(zero)": 0.0,
        "rsqrt(big)": 0.0,
        "zero ** 0": 1.0,
        "zero ** -1": math.inf,
        "where(nan, 2, 3)": 2.0,
        **{f"{name}(nan)": math.nan for name in UNARY},
        **{f"{name}({pair})": math.nan for name in BINARY for pair in ("nan, zero", "zero, nan")},
    }
    bodies = [to_cuda(parse(text), dtype) for text in ends]
    results = run_as_cpp(bodies, dtype, {"big": "INFINITY", "zero": "0", "nan": "NAN"})
    np.testing.assert_array_equal(results, list(ends.values()))


# --------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "reason", "column"),
    [
        ("__import__('os')", "'os' can only be the value of a keyword", 11),
        ("__import__(os)", "cannot begin with an underscore", 0),
        ("1 + __class__", "cannot begin with an underscore", 4),
        ("f(_x=1)", "cannot begin with an underscore", 2),
        ("x.T", "'Attribute'", 0),
        ("f(x).g(y)", "'Call'", 0),
        ("lambda x: x", "'Lambda'", 0),
        ("a + b[0]", "'Subscript'", 4),
        ("a if b else c", "'IfExp'", 0),
        ("a and b", "'BoolOp'", 0),
        ("not a", "'Not'", 0),
        ("+a", "'UAdd'", 0),
        ("a // b", "'FloorDiv'", 0),
        ("a % b", "'Mod'", 0),
        ("a is b", "'Is'", 0),
        ("[a]", "'List'", 0),
        ("(a := b)", "'NamedExpr'", 1),
        ("f'{a}'", "'JoinedStr'", 0),
        ("2j * a", "'Constant'", 0),
        ("f(*a)", "'Starred'", 2),
        ("f(**a)", "a keyword must be written out", 2),
        ("f(a=1, a=2)", "a keyword must be written out", 7),
        ("a < b < c", "comparisons cannot be chained", 8),
        ("'text'", "'text' can only be the value of a keyword", 0),
        ("f('text')", "'text' can only be the value of a keyword", 2),
        ("f(a=('text',))", "'text' can only be the value of a keyword", 5),
        ("a + None", "None can only be an argument of a call", 4),
        ("-True", "True can only be an argument of a call", 1),
        ("2 * (a, b)", "a tuple cannot be an operand", 4),
        ("1e999 * a", "a number must be finite", 0),
        ("a + * b", "not a formula", 4),
        ("(a", "not a formula", 0),
        ("a = b", "not a formula", 2),
        ("", "not a formula", 0),
        ("a # b", "cannot hold '#'", 2),
        ("a + π", "cannot hold 'π'", 4),
        ("a + \0", "cannot hold '\\x00'", 4),
    ],
)
def test_refusals_point_at_the_place(text, reason, column):
    with pytest.raises(FormulaError) as caught:
        parse(text)
    first, shown, caret = str(caught.value).split("\n")
    assert reason in first
    assert shown.strip() == text.strip()
    assert caret.index("^") - 4 == column


@pytest.mark.parametrize("text", ["a" + " + a" * 20_000, "(" * 500 + "a" + ")" * 500])
def test_giant_formulas_are_refused(text):
    with pytest.raises(FormulaError):
        parse(text)


def test_unknown_words_come_with_the_nearest_known_one():
    expr = parse("g * tahn(weigth, axis=axis)")
    with pytest.raises(FormulaError) as caught:
        check(expr, ["g", "weigth", "axis"], ["tanh", "exp"])
    assert str(caught.value).split("\n") == [
        "unknown function 'tahn'; did you mean 'tanh'?",
        "    g * tahn(weigth, axis=axis)",
        "        ^",
    ]
    with pytest.raises(FormulaError, match="unknown name 'weigth'; did you mean 'weight'") as caught:
        check(expr, ["g", "weight", "axis"], ["tahn"])
    assert str(caught.value).split("\n")[2].index("^") == 4 + 9
    with pytest.raises(FormulaError, match="unknown name 'axis'; known: g, weigth") as caught:
        check(expr, ["g", "weigth"], ["tahn"])
    assert str(caught.value).split("\n")[2].index("^") == 4 + 22
    check(parse("pi * exp(g)"), ["g"], ["exp"])


@pytest.mark.parametrize("number", [-1, -0.0, math.inf, math.nan, True, np.float64(2.0), 10**400])
def test_numbers_are_plain_finite_and_unsigned(number):
    with pytest.raises(FormulaError):
        Number(number)


# ----------------------------------------------------------------------------------- the errors themselves


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (
            ("matmul", "t=3/lstm", [("a", (8, 32)), ("b", (31,))], "fix b"),
            "matmul(a, b) in t=3/lstm: a (8, 32), b (31,); fix b",
        ),
        (("tanh", None), "tanh"),
        (("tanh", "t=2"), "tanh in t=2"),
        ((None, "t=2", [], "look there"), "in t=2; look there"),
        ((None, None, [("x", ())]), "x ()"),
        ((None, None, [], "only advice"), "only advice"),
    ],
)
def test_where_leaves_out_what_is_unknown(parts, sentence):
    assert where(*parts) == sentence


def test_missing_extra_survives_pickling():
    error = pickle.loads(pickle.dumps(MissingExtraError("a PDF picture", "render")))
    assert isinstance(error, ImportError)
    assert str(error) == 'a PDF picture needs an optional package: pip install "minigrad-tape[render]"'
