"""Recurrent cells and their derivatives in NumPy, one sequence after the other: sums as they stand in the papers.

The LSTM is Greff et al., "LSTM: A Search Space Odyssey", appendix A, with a projection (Sak et al. 2014) after it.
"""

import numpy as np


def sigmoid(z):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))


def get(way, name, n=None):
    value = way.get(name)
    if value is None:
        return 0.0
    return np.asarray(value if n is None else value[n], np.float64)


def forward(cell, x, way, lengths=None):
    """x (T, N, I); return y, cells, h_n, c_n and what backward wants, all float64."""
    steps, batch, _ = x.shape
    outputs = way["w_hh"].shape[1]
    hidden = way["w_hh"].shape[0] // {"lstm": 4, "gru": 3}.get(cell, 1)
    y, cells = np.zeros((steps, batch, outputs)), np.zeros((steps, batch, hidden))
    h_n, c_n = np.zeros((batch, outputs)), np.zeros((batch, hidden))
    w, u = get(way, "w_ih"), get(way, "w_hh")
    tape = []
    for n in range(batch):
        h, c = np.zeros(outputs) + get(way, "h_0", n), np.zeros(hidden) + get(way, "c_0", n)
        times = range(steps if lengths is None else lengths[n])
        for t in reversed(times) if way.get("reverse") else times:
            a = w @ x[t, n].astype(np.float64) + get(way, "b_ih")
            b = u @ h + get(way, "b_hh")
            saved = {"n": n, "t": t, "h": h, "c": c}
            if cell in ("tanh", "relu"):
                h = np.tanh(a + b) if cell == "tanh" else np.maximum(a + b, 0)
                saved["out"] = h
            elif cell == "gru":
                (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
                r, z = sigmoid(ar + br), sigmoid(az + bz)
                m = np.tanh(an + r * bn)
                saved |= {"r": r, "z": z, "m": m, "bn": bn}
                h = (1 - z) * m + z * h
            else:
                ai, af, ag, ao = np.split(a + b, 4)
                pi, pf, po = np.split(get(way, "w_ph") + np.zeros(3 * hidden), 3)
                i, f, g = sigmoid(ai + pi * c), sigmoid(af + pf * c), np.tanh(ag)
                c = i * g + f * c
                o = sigmoid(ao + po * c)
                q = o * np.tanh(c)
                saved |= {"i": i, "f": f, "g": g, "o": o, "new": c, "q": q}
                h = get(way, "w_hr") @ q if "w_hr" in way else q
                cells[t, n] = c
            y[t, n] = h
            tape.append(saved)
        h_n[n], c_n[n] = h, c
    return y, cells, h_n, c_n, tape


def backward(cell, x, way, tape, gy=None, gcells=None, gh_n=None, gc_n=None):
    """Return the gradients by name, "x" among them."""
    batch = x.shape[1]
    hidden = way["w_hh"].shape[0] // {"lstm": 4, "gru": 3}.get(cell, 1)
    w, u = get(way, "w_ih"), get(way, "w_hh")
    d = {name: np.zeros(way[name].shape) for name in ("w_ih", "w_hh")}
    d |= {"b_ih": np.zeros(len(w)), "b_hh": np.zeros(len(w)), "w_ph": np.zeros(3 * hidden), "x": np.zeros(x.shape)}
    if "w_hr" in way:
        d["w_hr"] = np.zeros(way["w_hr"].shape)
    d["h_0"] = np.zeros((batch, u.shape[1])) + (0 if gh_n is None else gh_n)
    d["c_0"] = np.zeros((batch, hidden)) + (0 if gc_n is None else gc_n)
    pi, pf, po = np.split(get(way, "w_ph") + np.zeros(3 * hidden), 3)
    for s in reversed(tape):
        t, n = s["t"], s["n"]
        dh = d["h_0"][n] + (0 if gy is None else gy[t, n])
        direct = 0
        if cell == "tanh":
            da = db = dh * (1 - s["out"] ** 2)
        elif cell == "relu":
            da = db = dh * (s["out"] > 0)
        elif cell == "gru":
            dm = dh * (1 - s["z"]) * (1 - s["m"] ** 2)
            dz = dh * (s["h"] - s["m"]) * s["z"] * (1 - s["z"])
            dr = dm * s["bn"] * s["r"] * (1 - s["r"])
            da, db = np.concatenate([dr, dz, dm]), np.concatenate([dr, dz, dm * s["r"]])
            direct = dh * s["z"]
        else:
            dc = d["c_0"][n] + (0 if gcells is None else gcells[t, n])
            if "w_hr" in way:
                d["w_hr"] += np.outer(dh, s["q"])
                dh = get(way, "w_hr").T @ dh
            do = dh * np.tanh(s["new"]) * s["o"] * (1 - s["o"])
            dc = dc + dh * s["o"] * (1 - np.tanh(s["new"]) ** 2) + po * do
            di = dc * s["g"] * s["i"] * (1 - s["i"])
            df = dc * s["c"] * s["f"] * (1 - s["f"])
            dg = dc * s["i"] * (1 - s["g"] ** 2)
            da = db = np.concatenate([di, df, dg, do])
            d["c_0"][n] = dc * s["f"] + pi * di + pf * df
            d["w_ph"] += np.concatenate([di * s["c"], df * s["c"], do * s["new"]])
        d["h_0"][n] = u.T @ db + direct
        d["x"][t, n] = w.T @ da
        d["w_ih"] += np.outer(da, x[t, n])
        d["w_hh"] += np.outer(db, s["h"])
        d["b_ih"] += da
        d["b_hh"] += db
    return d
