"""Recurrent units, each written once as a composition of the page's operations, with every option of the literature.

Binding a unit to its parameters cuts them into gates, once for all steps of a sequence, and gives one step's function:

    weight_ih (G*H, I)  ┐  rows of the     ┌ x[t] ──► affine ┐
    bias_ih   (G*H,)    ┘  gate         ──►│                 + (+ peepholes …) ──► σ or tanh ──► h[t], c[t]
    weight_hh (G*H, H)  ┐  rows of the     │                 │
    bias_hh   (G*H,)    ┘  gate         ──►└ h[t-1] ► affine ┘

While a tape watches, steps and gates open scopes and values get names; otherwise nothing of that happens,
and the two biases of a gate are added up beforehand. An option that is off leaves no operation behind.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from .. import _core, ops
from ..backend import array_lane
from ..errors import UsageError
