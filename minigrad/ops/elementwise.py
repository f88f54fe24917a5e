"""The element-wise page: values and partial derivatives as formulas of scalar functions, with full broadcasting."""

import math
from typing import Any

import numpy as np

from ..errors import DTypeError, MinigradError
from ..op import elementwise, linear

POSITIVE = (0.3, 3.0)


def _bounds(operands: tuple[Any, ...], low: float | None, high: float | None) -> dict[str, Any]:
    if low is None and high is None:
        raise MinigradError("clip needs low, high, or both")
    dtype = getattr(operands[0], "dtype", None) or np.asarray(operands[0]).dtype
    dtype = np.dtype(str(dtype).rpartition(".")[2])
    if dtype.kind not in "iu":
        return {"low": -math.inf if low is None else low, "high": math.inf if high is None else high}
    info = np.iinfo(dtype)
    return {
        "low": info.min if low is None else _whole(low, info),
        "high": info.max if high is None else _whole(high, info),
    }


def _whole(bound: float, info: Any) -> int:
    """Return the bound of integers as one of them: a float would turn the result into floats."""
    if bound % 1 != 0:
        raise DTypeError(f'integers cannot be held at {bound}: convert them first, for example with .to("float32")')
    return min(max(int(bound), int(info.min)), int(info.max))


# --- arithmetic -----------------------------------------------------------------------------------
add = elementwise("add(a, b)", value="a + b", d_a="1", d_b="1", doc="Sum.")
sub = elementwise("sub(a, b)", value="a - b", d_a="1", d_b="-1", numpy="subtract", doc="Difference.")
mul = elementwise("mul(a, b)", value="a * b", d_a="b", d_b="a", numpy="multiply", doc="Product.")
div = elementwise(
    "div(a, b)",
    value="a / b",
    d_a="1 / b",
    d_b="-y / b",
    domain={"b": (0.5, 2.0)},
    floats=True,
    numpy="true_divide",
    doc="Quotient.",
)
pow = elementwise(
    "pow(a, b)",
    value="a ** b",
    d_a="where(b == 0, 0, b * a ** (b - 1))",
    d_b="where(a == 0, where(b >= 0, 0, y * log(a)), y * log(a))",
    domain={"a": (0.5, 2.0)},
    numpy="power",
    doc="Power; at a = 0 the derivative in b is 0, the limit from the right.",
)
clone = linear(
    "clone(x)",
    value=lambda xp, x: xp.asarray(x, copy=True),
    transpose_x="g",
    numpy="copy",
    shapes="(…) -> (…)",
    doc="A copy.",
)
neg = elementwise("neg(x)", value="-x", d_x="-1", numpy="negative", doc="Negative.")
reciprocal = elementwise(
    "reciprocal(x)", value="1 / x", d_x="-y * y", domain={"x": (0.5, 2.0)}, floats=True, doc="One over x."
)
square = elementwise("square(x)", value="x * x", d_x="2 * x", doc="Square.")
sqrt = elementwise("sqrt(x)", value="sqrt(x)", d_x="0.5 / y", domain={"x": POSITIVE}, floats=True, doc="Square root.")
rsqrt = elementwise(
    "rsqrt(x)",
    value="rsqrt(x)",
    d_x="-0.5 * y / x",
    domain={"x": POSITIVE},
    floats=True,
    doc="One over the square root.",
)
abs = elementwise("abs(x)", value="abs(x)", d_x="sign(x)", numpy="absolute", doc="Absolute value; derivative 0 at 0.")
sign = elementwise("sign(x)", value="sign(x)", d_x="0", doc="Sign; its derivative is 0 everywhere.")

# --- exponentials and logarithms ------------------------------------------------------------------
exp = elementwise("exp(x)", value="exp(x)", d_x="y", floats=True, doc="Exponential.")
expm1 = elementwise("expm1(x)", value="expm1(x)", d_x="y + 1", floats=True, doc="exp(x) - 1, exact near 0.")
log = elementwise("log(x)", value="log(x)", d_x="1 / x", domain={"x": POSITIVE}, floats=True, doc="Natural logarithm.")
log1p = elementwise(
    "log1p(x)",
    value="log1p(x)",
    d_x="1 / (1 + x)",
    domain={"x": (-0.6, 3.0)},
    floats=True,
    doc="log(1 + x), exact near 0.",
)

# --- activations ----------------------------------------------------------------------------------
# tanh' is factored: as |y| -> 1 no digit is lost.
tanh = elementwise("tanh(x)", value="tanh(x)", d_x="(1 - y) * (1 + y)", floats=True, doc="Hyperbolic tangent.")
sigmoid = elementwise("sigmoid(x)", value="sigmoid(x)", d_x="y * (1 - y)", floats=True, doc="Logistic function.")
softplus = elementwise(
    "softplus(x)",
    value="softplus(x)",
    d_x="sigmoid(x)",
    floats=True,
    doc="log(1 + exp(x)), without overflow.",
)
relu = elementwise("relu(x)", value="maximum(x, 0)", d_x="where(x > 0, 1, 0)", doc="Rectifier; derivative 0 at 0.")
leaky_relu = elementwise(
    "leaky_relu(x; slope=0.01)",
    value="where(x > 0, x, slope * x)",
    d_x="where(x > 0, 1, slope)",
    floats=True,
    doc="Rectifier with a slope for negative x.",
)
elu = elementwise(
    "elu(x; alpha=1.0)",
    value="where(x > 0, x, alpha * expm1(minimum(x, 0)))",
    d_x="where(x > 0, 1, y + alpha)",
    floats=True,
    doc="Exponential linear unit (Clevert et al. 2016).",
)
thresholded_relu = elementwise(
    "thresholded_relu(x; alpha=1.0)",
    value="where(x < alpha, 0, x)",
    d_x="where(x < alpha, 0, 1)",
    floats=True,
    doc="x from the threshold alpha on, else 0 (Konda et al. 2014).",
)
hard_sigmoid = elementwise(
    "hard_sigmoid(x; alpha=0.2, beta=0.5)",
    value="maximum(minimum(alpha * x + beta, 1), 0)",
    d_x="where(alpha * x + beta > 0, where(alpha * x + beta < 1, alpha, 0), 0)",
    floats=True,
    doc="A line held between 0 and 1; derivative 0 at the bounds.",
)
softsign = elementwise(
    "softsign(x)",
    value="x / (1 + abs(x))",
    d_x="1 / ((1 + abs(x)) * (1 + abs(x)))",
    floats=True,
    doc="x over one plus its absolute value.",
)
scaled_tanh = elementwise(
    "scaled_tanh(x; alpha=1.0, beta=1.0)",
    value="alpha * tanh(beta * x)",
    d_x="alpha * beta * (1 - tanh(beta * x)) * (1 + tanh(beta * x))",
    floats=True,
    doc="Hyperbolic tangent, stretched along both axes.",
)
silu = elementwise(
    "silu(x)",
    value="x * sigmoid(x)",
    d_x="sigmoid(x) * (1 + x * sigmoid(-x))",
    floats=True,
    doc="x times its logistic function.",
)
gelu = elementwise(
    "gelu(x)",
    value="0.5 * x * (1 + erf(x * sqrt(0.5)))",
    d_x="0.5 * (1 + erf(x * sqrt(0.5))) + x * exp(-0.5 * x * x) / sqrt(2 * pi)",
    floats=True,
    doc="Gaussian error linear unit, exact form (Hendrycks and Gimpel 2016).",
)

# --- trigonometry and the error function ----------------------------------------------------------
sin = elementwise("sin(x)", value="sin(x)", d_x="cos(x)", floats=True, doc="Sine.")
cos = elementwise("cos(x)", value="cos(x)", d_x="-sin(x)", floats=True, doc="Cosine.")
erf = elementwise("erf(x)", value="erf(x)", d_x="2 / sqrt(pi) * exp(-x * x)", floats=True, doc="Error function.")

# --- choice ---------------------------------------------------------------------------------------
# At a tie each operand gets half, so that the sum over both operands is the derivative along a = b.
maximum = elementwise(
    "maximum(a, b)",
    value="maximum(a, b)",
    d_a="where(a > b, 1, where(a == b, 0.5, 0))",
    d_b="where(b > a, 1, where(a == b, 0.5, 0))",
    doc="The larger of two; half the derivative to each at a tie.",
)
minimum = elementwise(
    "minimum(a, b)",
    value="minimum(a, b)",
    d_a="where(a < b, 1, where(a == b, 0.5, 0))",
    d_b="where(b < a, 1, where(a == b, 0.5, 0))",
    doc="The smaller of two; half the derivative to each at a tie.",
)
where = elementwise(
    "where(condition, a, b)",
    value="where(condition, a, b)",
    d_a="where(condition, 1, 0)",
    d_b="where(condition, 0, 1)",
    indices=("condition",),
    doc="a where the condition holds (is not 0), else b.",
)
clip = elementwise(
    "clip(x; low=None, high=None)",
    value="minimum(maximum(x, low), high)",
    d_x="where(x < low, 0, where(x > high, 0, 1))",
    prepare=_bounds,
    doc="x held between low and high; derivative 1 at the bounds.",
)
