"""Recurrent programs of all shapes, recorded with random sizes and numbers: what pictures and ledgers are held to.

Each takes NumPy's generator and returns a tape after its backward pass; values are double precision.
"""

import minigrad as mg

LAYERS = {"rnn": mg.nn.RNN, "lstm": mg.nn.LSTM, "gru": mg.nn.GRU}
CELLS = {"rnn": mg.nn.RNNCell, "lstm": mg.nn.LSTMCell, "gru": mg.nn.GRUCell}


def _normal(rng, *shape, **options):
    return mg.tensor(rng.normal(size=shape), **options)


def _leaf(rng, *shape, name):
    return _normal(rng, *shape, requires_grad=True, name=name)


def _seeded(rng):
    mg.manual_seed(int(rng.integers(1000)))


def layers(rng, detail="ops"):
    """A stacked, perhaps bidirectional layer; the loss looks at all outputs and at the last state."""
    _seeded(rng)
    kind = str(rng.choice(list(LAYERS)))
    options = {"num_layers": int(rng.integers(1, 3)), "bidirectional": bool(rng.integers(2)), "dtype": "float64"}
    if kind == "lstm":
        options["variant"] = str(rng.choice(["V", "NIG", "CIFG", "NP", "FGR"]))
        options["peepholes"] = "diagonal" if options["variant"] not in ("NP",) and rng.integers(2) else None
    layer = LAYERS[kind](3, 5, **options)
    x = _normal(rng, int(rng.integers(1, 5)), 2, 3, name="x")
    with mg.Tape(detail=detail) as tape:
        out, state = layer(x)
        last = state[0] if isinstance(state, tuple) else state
        loss = (out * out).sum() + mg.tanh(last).sum()
        loss.name = "loss"
    loss.backward()
    return tape


def cells_of_detail(rng):
    return layers(rng, detail="cells")


def fused(rng):
    return layers(rng, detail="layers")


def rebuilt(rng):
    """What the engine kept of a computation that no tape saw."""
    _seeded(rng)
    layer = LAYERS[str(rng.choice(list(LAYERS)))](3, 5, dtype="float64")
    out, _ = layer(_normal(rng, 3, 2, 3))
    loss = (out * out).sum()
    loss.backward(retain_graph=True)
    return mg.Tape.from_graph(loss)


def loop(rng):
    """A loop without scopes over a cell; some steps have a loss, and every k-th detaches its state."""
    _seeded(rng)
    kind = str(rng.choice(list(CELLS)))
    cell, head = CELLS[kind](3, 5, dtype="float64"), mg.nn.Linear(5, 2, dtype="float64")
    steps, k = int(rng.integers(2, 6)), int(rng.integers(2, 4))
    heard = [t for t in range(steps) if rng.integers(2)] or [steps - 1]
    xs = [_normal(rng, 2, 3) for _ in range(steps)]
    with mg.Tape() as tape:
        h, c, total = mg.zeros(2, 5, dtype="float64"), mg.zeros(2, 5, dtype="float64"), 0.0
        for t, x in enumerate(xs):
            if kind == "lstm":
                h, c = cell(x, (h, c))
            else:
                h = cell(x, h)
            if t in heard:
                total = total + mg.sum(mg.square(head(h)))
            if t % k == k - 1:
                h, c = h.detach(), c.detach()
    total.backward()
    return tape


def loops_in_loops(rng):
    """Words of letters: an inner recurrence whose last state feeds an outer one."""
    inner, outer = _leaf(rng, 3, 3, name="U_in"), _leaf(rng, 5, 5, name="U")
    up = _leaf(rng, 3, 5, name="W")
    with mg.Tape() as tape:
        h = mg.zeros(1, 5, dtype="float64")
        for _ in range(int(rng.integers(2, 4))):
            g = _normal(rng, 1, 3)
            for _ in range(int(rng.integers(2, 4))):
                g = mg.tanh(g @ inner)
            h = mg.tanh(g @ up + h @ outer)
        loss = mg.sum(h * h)
    loss.backward()
    return tape


def attention(rng):
    """An encoder, and a decoder that attends to all of its steps and is told what it should have said."""
    _seeded(rng)
    encode, decode = mg.nn.GRU(3, 5, dtype="float64"), mg.nn.LSTMCell(8, 5, dtype="float64")
    score = _leaf(rng, 5, 5, name="score")
    x, teacher = _normal(rng, 3, 2, 3), _normal(rng, 2, 2, 3)
    with mg.Tape() as tape:
        memory, h_n = encode(x)
        h, c, total = h_n[0], mg.zeros(2, 5, dtype="float64"), 0.0
        for t in range(2):
            with mg.scope("decoder"), mg.scope(f"t={3 + t}"):
                weights = mg.softmax(mg.sum(memory * (h @ score), axis=-1), axis=0)
                read = mg.sum(memory * mg.expand_dims(weights, -1), axis=0)
                h, c = decode(mg.concatenate(read, teacher[t], axis=-1), (h, c))
                total = total + mg.mse(h[:, :3], teacher[t])
    total.backward()
    return tape


def shared_weights(rng):
    """Two layers with the same matrices, and a read-out with the transpose of one."""
    w = _leaf(rng, 5, 5, name="W")
    with mg.Tape() as tape:
        h, g = _normal(rng, 2, 5, name="h[-1]"), _normal(rng, 2, 5)
        for t in range(3):
            with mg.scope(f"t={t}"):
                h = mg.tanh(_normal(rng, 2, 5) @ w + h @ w)
                h.name = f"h[{t}]"
                g = mg.sigmoid(h @ w) * g
                y = g @ mg.mT(w)
        loss = mg.sum(y * y * y)
    loss.backward()
    return tape


def branches(rng):
    """Steps that do different things, some unrecorded, one whose state loses its past in place."""
    w, u = _leaf(rng, 5, 5, name="w"), _leaf(rng, 5, name="u")
    with mg.Tape() as tape:
        h = _normal(rng, 2, 5)
        for t in range(5):
            with mg.scope(f"t={t}"):
                if t % 2:
                    h = mg.relu(h @ w) + h
                elif t == 2:
                    with mg.no_grad():
                        scale = 1 / (1 + mg.sum(h * h))
                    h = h * scale - u
                else:
                    h = mg.maximum(h * u, mg.tanh(h))
            if t == 3:
                h = h.detach() if rng.integers(2) else h
        loss = mg.mean(h * h) + mg.sum(u)
    loss.backward()
    return tape


def remembered(rng):
    """Steps whose insides are computed again on the way back."""
    w = _leaf(rng, 5, 5, name="w")
    with mg.Tape() as tape:
        h = _normal(rng, 2, 5)
        for _ in range(3):
            h = mg.checkpoint(lambda x: mg.tanh(x @ w), h)
        loss = mg.sum(h * h)
    loss.backward()
    return tape


def arithmetic(rng):
    """Every operand twice, numbers among them, quotients, powers, slices and sums."""
    a, b = _leaf(rng, 3, 5, name="a"), mg.tensor(rng.uniform(0.5, 2, size=(3, 5)), requires_grad=True, name="b")
    with mg.Tape() as tape:
        y = a * a + a / b - b**3 + 2.0 * a
        z = mg.stack(y[0], y[1] * y[1], y[0]) @ mg.mT(a)
        e = mg.einsum("ij,kj->ik", b, a) + mg.exp(-mg.abs(z)) * mg.log(b)[:, :3]
        loss = mg.logsumexp(mg.reshape(e, (9,)), axis=0) + mg.cross_entropy(e, mg.tensor([0, 2, 1]))
    loss.backward()
    return tape


PROGRAMS = (
    layers, cells_of_detail, fused, rebuilt, loop, loops_in_loops, attention, shared_weights, branches, remembered,
    arithmetic,
)  # fmt: skip
