"""The page of optimisers' updates: what one step does to every element of a parameter and of its buffers.

In all of them ``d`` is the gradient that counts: scaled (-1 climbs, less than 1 clips), with the weight decay added.
What depends on the step's number alone is a parameter, worked out once in double precision.
"""

from __future__ import annotations

from ..op import update

__all__ = [
    "adam_update",
    "amsgrad_update",
    "momentum_update",
    "nesterov_update",
    "rmsprop_centered_momentum_update",
    "rmsprop_centered_update",
    "rmsprop_momentum_update",
    "rmsprop_update",
    "scaled_update",
    "sgd_update",
]

scaled_update = update("scaled(g; scale)", g="scale * g", doc="a gradient clipped by the norm of all")

GRADIENT = {"d": "scale * g + decay * p"}

sgd_update = update("sgd(p, g; scale, decay, lr)", **GRADIENT, p="p - lr * d", doc="a step along the gradient")

VELOCITY = {"v": "momentum * v + fresh * d"}

momentum_update = update(
    "momentum(p, g, v; scale, decay, lr, momentum, fresh)",
    **GRADIENT,
    **VELOCITY,
    p="p - lr * v",
    doc="a step along a sum of gradients that fades (Sutskever et al. 2013)",
)
nesterov_update = update(
    "nesterov(p, g, v; scale, decay, lr, momentum, fresh)",
    **GRADIENT,
    **VELOCITY,
    p="p - lr * (d + momentum * v)",
    doc="the same, looking one step ahead",
)

# At step t: n1 and n2 are 1 - b1 and 1 - b2, rate is lr / (1 - b1**t), and root the square root of 1 - b2**t. A
# decoupled weight decay shrinks p by 1 - lr * decay.
MOMENTS = {"m": "b1 * m + n1 * d", "v": "b2 * v + n2 * (d * d)"}

adam_update = update(
    "adam(p, g, m, v; scale, decay, shrink, b1, n1, b2, n2, rate, root, eps)",
    **GRADIENT,
    **MOMENTS,
    p="shrink * p - rate * (m / (sqrt(v) / root + eps))",
    doc="a step along the mean gradient, in units of its spread (Kingma and Ba 2015)",
)
amsgrad_update = update(
    "amsgrad(p, g, m, v, w; scale, decay, shrink, b1, n1, b2, n2, rate, root, eps)",
    **GRADIENT,
    **MOMENTS,
    w="maximum(w, v)",
    p="shrink * p - rate * (m / (sqrt(w) / root + eps))",
    doc="the same with the largest spread so far (Reddi et al. 2018)",
)

SPREAD = {"v": "alpha * v + fresh * (d * d)"}
PLAIN = {"s": "d / (sqrt(v) + eps)"}
CENTERED = {"a": "alpha * a + fresh * d", "s": "d / (sqrt(v - a * a) + eps)"}
STEP = {"p": "p - lr * s"}
FADING = {"b": "momentum * b + s", "p": "p - lr * b"}

rmsprop_update = update(
    "rmsprop(p, g, v; scale, decay, lr, alpha, fresh, eps)",
    **GRADIENT,
    **SPREAD,
    **PLAIN,
    **STEP,
    doc="a step along the gradient, in units of its spread (Hinton 2012)",
)
rmsprop_momentum_update = update(
    "rmsprop_momentum(p, g, v, b; scale, decay, lr, alpha, fresh, eps, momentum)",
    **GRADIENT,
    **SPREAD,
    **PLAIN,
    **FADING,
    doc="the same with momentum",
)
rmsprop_centered_update = update(
    "rmsprop_centered(p, g, v, a; scale, decay, lr, alpha, fresh, eps)",
    **GRADIENT,
    **SPREAD,
    **CENTERED,
    **STEP,
    doc="a step along the gradient, in units of its deviation from its mean (Graves 2013)",
)
rmsprop_centered_momentum_update = update(
    "rmsprop_centered_momentum(p, g, v, a, b; scale, decay, lr, alpha, fresh, eps, momentum)",
    **GRADIENT,
    **SPREAD,
    **CENTERED,
    **FADING,
    doc="the same with momentum",
)
