"""Recurrent units written a second time in plain NumPy, forward and backward, sharing no code with minigrad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def sigma(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def norm(a: Array) -> Array:
    return (a - a.mean(axis=-1, keepdims=True)) / np.sqrt(a.var(axis=-1, keepdims=True) + 1e-5)


# --- the LSTM of the Odyssey, forward and backward ----------------------------------------------------------

MISSING = {"NIG": "i", "NFG": "f", "NOG": "o", "CIFG": "f"}


class Odyssey:
    """One layer of one of the nine architectures with optional peepholes; rows are samples.

    Block input z, gates i, f, o, cell c, output y; a bar means "before the activation". The parameters come by gate:
    W (H, I), R (H, H), b (H,), p (H,) or (H, H), and G[to, of] (H, H) between gates.
    """

    def __init__(self, variant: str, peepholes: str | None, parameters: dict[str, Array], hidden: int) -> None:
        self.variant, self.peepholes, H = variant, peepholes, hidden
        rows = [k for k in "ifzo" if k not in MISSING.get(variant, "")]
        gates = [k for k in rows if k != "z"]
        self.rows, self.gates = rows, gates

        def split(array: Array, keys: list[str]) -> dict[str, Array]:
            assert len(array) == len(keys) * H
            return {k: array[n * H : (n + 1) * H] for n, k in enumerate(keys)}

        self.W, self.R = split(parameters["weight_ih"], rows), split(parameters["weight_hh"], rows)
        self.b = split(parameters["bias_ih"] + parameters["bias_hh"], rows)
        self.p = split(parameters["weight_ph"], gates) if peepholes else {}
        self.G = {}
        if variant == "FGR":
            for to, part in split(parameters["weight_gg"], gates).items():
                self.G |= {(to, of): block.T for of, block in split(part.T, gates).items()}

    def peep(self, k: str, c: Array) -> Array:
        if k not in self.p:
            return np.zeros_like(c)
        return self.p[k] * c if self.peepholes == "diagonal" else c @ self.p[k].T

    def peep_back(self, k: str, delta: Array) -> Array:
        if k not in self.p:
            return np.zeros_like(delta)
        return self.p[k] * delta if self.peepholes == "diagonal" else delta @ self.p[k]

    def forward(self, x: Array, y: Array, c: Array) -> list[dict[str, Array]]:
        """Return all values of all steps; step -1 comes first and has y and c only, and gates of zeros."""
        one = np.ones_like(c)
        steps = [{"y": y, "c": c, **dict.fromkeys("ifo", 0 * c)}]
        for x_t in x:
            past = steps[-1]
            bar = {k: x_t @ self.W[k].T + past["y"] @ self.R[k].T + self.b[k] for k in self.rows}
            for (to, of), weight in self.G.items():
                bar[to] = bar[to] + past[of] @ weight.T
            now: dict[str, Array] = {"x": x_t}
            for k in "if":
                now[k] = sigma(bar[k] + self.peep(k, past["c"])) if k in bar else one
            if self.variant == "CIFG":
                now["f"] = 1 - now["i"]
            now["z"] = bar["z"] if self.variant == "NIAF" else np.tanh(bar["z"])
            now["c"] = now["z"] * now["i"] + past["c"] * now["f"]
            now["o"] = sigma(bar["o"] + self.peep("o", now["c"])) if "o" in bar else one
            now["s"] = now["c"] if self.variant == "NOAF" else np.tanh(now["c"])
            now["y"] = now["s"] * now["o"]
            steps.append(now)
        return steps

    def backward(self, steps: list[dict[str, Array]], above: Array, to_c: Array) -> tuple[list[Any], dict[str, Array]]:
        """Return the deltas of every step and the gradients of the parameters and of what the sequence started from.

        Args:
            steps: what forward returned.
            above: the gradient that arrives from above at every y, (T, N, H).
            to_c: the one that arrives at the last c.
        """
        zero = np.zeros_like(to_c)
        later = {"c": zero, **dict.fromkeys("ifzo", zero)}  # the deltas of the step after
        f_later = zero
        deltas: list[Any] = []
        for t in range(len(steps) - 2, -1, -1):
            past, now = steps[t], steps[t + 1]
            back = {of: sum((later[to] @ w for (to, k), w in self.G.items() if k == of), zero) for of in "ifo"}
            dy = above[t] + sum((later[k] @ self.R[k] for k in self.rows), zero)
            do = (dy * now["s"] + back["o"]) * now["o"] * (1 - now["o"])
            dc = dy * now["o"] * (1 if self.variant == "NOAF" else 1 - now["s"] ** 2)
            dc = dc + self.peep_back("o", do) + self.peep_back("i", later["i"]) + self.peep_back("f", later["f"])
            dc = dc + (later["c"] * f_later if t < len(steps) - 2 else to_c)
            df = (dc * past["c"] + back["f"]) * now["f"] * (1 - now["f"])
            through_i = dc * (now["z"] - past["c"] if self.variant == "CIFG" else now["z"])
            di = (through_i + back["i"]) * now["i"] * (1 - now["i"])
            dz = dc * now["i"] * (1 if self.variant == "NIAF" else 1 - now["z"] ** 2)
            later = {"y": dy, "c": dc, "i": di, "f": df, "z": dz, "o": do}
            later |= {k: zero for k in "ifo" if k not in self.gates}
            deltas.insert(0, later)
            f_later = now["f"]
        return deltas, self.gradients(steps, deltas)

    def gradients(self, steps: list[dict[str, Array]], deltas: list[Any]) -> dict[str, Array]:
        def over_time(f: Callable[[Any, Any, Any], Array]) -> Array:
            return sum(f(d, now, past) for d, now, past in zip(deltas, steps[1:], steps, strict=False))

        def stacked(keys: list[str], f: Callable[[str], Array]) -> Array:
            return np.concatenate([f(k) for k in keys])

        out = {
            "weight_ih": stacked(self.rows, lambda k: over_time(lambda d, now, past: d[k].T @ now["x"])),
            "weight_hh": stacked(self.rows, lambda k: over_time(lambda d, now, past: d[k].T @ past["y"])),
            "bias_ih": stacked(self.rows, lambda k: over_time(lambda d, now, past: d[k].sum(axis=0))),
        }
        out["bias_hh"] = out["bias_ih"]
        if self.p:

            def of_peephole(k: str) -> Array:
                if self.peepholes == "full":
                    return over_time(lambda d, now, past: d[k].T @ (now if k == "o" else past)["c"])
                return over_time(lambda d, now, past: (d[k] * (now if k == "o" else past)["c"]).sum(axis=0))

            out["weight_ph"] = stacked(self.gates, of_peephole)
        if self.G:
            out["weight_gg"] = np.block(
                [
                    [over_time(lambda d, now, past, to=to, of=of: d[to].T @ past[of]) for of in self.gates]
                    for to in self.gates
                ]
            )
        first = deltas[0]
        out["x"] = np.stack([sum(d[k] @ self.W[k] for k in self.rows) for d in deltas])
        out["h_0"] = sum(first[k] @ self.R[k] for k in self.rows)
        out["c_0"] = first["c"] * steps[1]["f"] + self.peep_back("i", first["i"]) + self.peep_back("f", first["f"])
        return out


# --- other units and options, forward -----------------------------------------------------------------------


def rnn_step(x, state, w, f=np.tanh, layer_norm=False):
    (h,) = state
    a = x @ w["weight_ih"].T + h @ w["weight_hh"].T
    return (f((w["gain"] * norm(a) if layer_norm else a) + w["bias_ih"] + w["bias_hh"]),)


def lstm_step(
    x, state, w, activations=(sigma, np.tanh, np.tanh), clip=None, cell_clip=None, coupled=False, layer_norm=False
):
    h, c = state
    sigma_, g_, h_ = activations
    a, b = x @ w["weight_ih"].T, h @ w["weight_hh"].T
    if layer_norm:
        a, b = w["gain_ih"] * norm(a), w["gain_hh"] * norm(b)
    a = a + w["bias_ih"] + b + w["bias_hh"]
    if clip is not None:
        a = np.clip(a, -clip, clip)
    i, f, g, o = np.split(a, 4, axis=-1)
    i, o = sigma_(i), sigma_(o)
    f = 1 - i if coupled else sigma_(f)
    c = f * c + i * g_(g)
    if cell_clip is not None:
        c = np.clip(c, -cell_clip, cell_clip)
    s = w["gain_c"] * norm(c) + w["bias_c"] if layer_norm else c
    h = o * h_(s if clip is None else np.clip(s, -clip, clip))
    return (h @ w["weight_hr"].T if "weight_hr" in w else h), c


def gru_step(x, state, w, reset_after=True, activations=(sigma, np.tanh), clip=None, layer_norm=False):
    (h,) = state
    f, g = activations
    a, b = x @ w["weight_ih"].T, h @ w["weight_hh"].T
    H = h.shape[-1]
    if layer_norm:
        a = w["gain_ih"] * np.concatenate([norm(a[..., : 2 * H]), norm(a[..., 2 * H :])], axis=-1)
        b = w["gain_hh"] * np.concatenate([norm(b[..., : 2 * H]), norm(b[..., 2 * H :])], axis=-1)
    x_r, x_z, x_n = np.split(a + w["bias_ih"], 3, axis=-1)
    h_r, h_z, h_n = np.split(b + w["bias_hh"], 3, axis=-1)

    def held(v):
        return v if clip is None else np.clip(v, -clip, clip)

    r, z = f(held(x_r + h_r)), f(held(x_z + h_z))
    if not reset_after:
        h_n = (r * h) @ w["weight_hh"][2 * H :].T + w["bias_hh"][2 * H :]
    n = g(held(x_n + (r * h_n if reset_after else h_n)))
    return ((1 - z) * n + z * h,)
