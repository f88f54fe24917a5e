"""The path ledger and the chain rule at one value, against routes that are enumerated and multiplied out in NumPy."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import GradcheckError, GraphError, UsageError
from minigrad.explain import equations, paths
from minigrad.op import PAGE, Rule

# --- the oracle: a graph of its own, whose routes are enumerated ------------------------------------------------

SCALAR = {
    "add": (lambda a, b: a + b, lambda a, b: (1.0, 1.0)),
    "sub": (lambda a, b: a - b, lambda a, b: (1.0, -1.0)),
    "mul": (lambda a, b: a * b, lambda a, b: (b, a)),
    "div": (lambda a, b: a / b, lambda a, b: (1 / b, -a / b**2)),
    "tanh": (math.tanh, lambda a: (1 / math.cosh(a) ** 2,)),
    "sin": (math.sin, lambda a: (math.cos(a),)),
}


@dataclass
class Drawn:
    """A graph drawn at random: its own list of edges beside the tensors that minigrad recorded."""

    tape: mg.Tape
    tensors: list[mg.Tensor]
    scopes: list[str]
    edges: list[list[tuple[int, np.ndarray]]] = field(default_factory=list)  # node -> (operand, Jacobian), in order

    def routes(self, start: int, end: int) -> dict[tuple[tuple[int, int], ...], np.ndarray]:
        """Enumerate: ((node, argument), …) from `start` down to `end` -> product of Jacobians."""
        found = {}

        def walk(node, passed, product):
            if node == end:
                found[passed] = product
                return
            for k, (operand, jacobian) in enumerate(self.edges[node]):
                walk(operand, (*passed, (node, k)), product @ jacobian)

        walk(start, (), np.eye(self.tensors[start].size))
        return found

    def nodes(self, route, end):
        return [*[node for node, _ in route], end]

    def time(self, node):
        found = re.findall(r"t=(\d+)", self.scopes[node])
        return int(found[-1]) if found else None

    def gate(self, node):
        found = re.search(r"(\w+) gate", self.scopes[node])
        return found[1] if found else None


def drawn_scalars(seed: int) -> Drawn:
    rng = np.random.default_rng(seed)
    total = int(rng.integers(4, 13))
    values = [0.7, -1.3]
    graph = Drawn(
        mg.Tape(),
        [mg.tensor(v, dtype="float64", requires_grad=True, name=f"v{k}") for k, v in enumerate(values)],
        ["", ""],
    )
    graph.edges = [[], []]
    with graph.tape:
        for _ in range(total - 2):
            name = str(rng.choice(list(SCALAR)))
            value, partials = SCALAR[name]
            # Near neighbours are likelier, and one value may come twice.
            operands = [
                int(max(0, len(values) - 1 - rng.integers(0, 4)))
                for _ in range(value.__code__.co_argcount if hasattr(value, "__code__") else 1)
            ]
            given = [values[k] for k in operands]
            scope = str(rng.choice(["", "t=1", "t=3/forget gate", "t=5", "t=5/input gate", "head", "t=11/output gate"]))
            if name == "div" and abs(given[1]) < 0.1:
                name, (value, partials) = "mul", SCALAR["mul"]
            if scope:
                with mg.scope(scope):
                    made = getattr(mg, name)(*[graph.tensors[k] for k in operands])
            else:
                made = getattr(mg, name)(*[graph.tensors[k] for k in operands])
            made.name = f"v{len(values)}"
            graph.tensors.append(made)
            graph.scopes.append(scope)
            graph.edges.append([(k, np.array([[d]])) for k, d in zip(operands, partials(*given), strict=True)])
            values.append(value(*given))
    return graph


def as_key(route):
    """Name a listed route as the oracle does."""
    return tuple((int(edge.target.name[1:]), edge.argument) for edge in route.edges)


def grouped(graph, routes, end, by):
    """Group enumerated routes: key -> (how many, their sum), with every definition spelled out a second time."""
    sums = defaultdict(lambda: [0, 0.0])
    for route, product in routes.items():
        nodes = [node for node, _ in route]
        times = [t for t in map(graph.time, nodes) if t is not None]
        gates = [g for g in map(graph.gate, nodes) if g is not None]
        timed = [graph.scopes[n] for n in nodes if graph.time(n) is not None]
        key = {
            "time": times[-1] if times else None,
            "delay": times[0] - times[-1] if times else None,
            "gate": gates[-1] if gates else None,
            "scope": timed[-1] if timed else graph.scopes[nodes[-1]],
            "route": route[-1],
            "own": next((f"v{n}" for n in reversed(nodes) if n % 3 == 0), None),
        }[by]
        sums[key][0] += 1
        sums[key][1] = sums[key][1] + product
    return sums


CONNECTED = [s for s in range(60) if (g := drawn_scalars(s)) and any(g.routes(len(g.tensors) - 1, e) for e in (0, 1))]


@pytest.mark.parametrize("seed", CONNECTED)
def test_random_graphs_against_enumeration(seed):
    graph = drawn_scalars(seed)
    last = len(graph.tensors) - 1
    for end in range(last):
        routes = graph.routes(last, end)
        if not routes:
            with pytest.raises(UsageError, match="no route"):
                paths(graph.tensors[last], graph.tensors[end], tape=graph.tape)
            continue
        ledger = paths(f"v{last}", graph.tensors[end], tape=graph.tape, top=1000)
        assert ledger.count == len(routes)
        total = sum(p.item() for p in routes.values())
        assert ledger.total == pytest.approx(total, rel=1e-12, abs=1e-13)
        assert {as_key(r) for r in ledger.paths} == set(routes)
        for route in ledger.paths:
            assert route.value == pytest.approx(routes[as_key(route)].item(), rel=1e-12)
            assert math.prod(route.locals) == pytest.approx(route.value, rel=1e-12)
        sizes = [abs(r.value) for r in ledger.paths]
        assert ledger.proven
        assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(sizes))
        some = paths(f"v{last}", graph.tensors[end], tape=graph.tape, top=3)
        assert [abs(r.value) for r in some.paths] == pytest.approx(sizes[:3], rel=1e-12)
        assert some.remainder.count == max(0, len(routes) - 3)
        assert some.remainder.value + sum(r.value for r in some.paths) == pytest.approx(total, rel=1e-9, abs=1e-12)
        check_groups(graph, routes, last, end)
        check_filters(graph, routes, last, end)


def check_groups(graph, routes, last, end):
    def own(edge):
        number = int(edge.target.name[1:])
        return edge.target.name if number % 3 == 0 else None

    for by in ("time", "delay", "gate", "scope", "own"):
        expected = grouped(graph, routes, end, by)
        groups = paths(f"v{last}", f"v{end}", by=own if by == "own" else by, tape=graph.tape, top=0).groups
        assert set(groups) == set(expected)
        for key, (count, total) in expected.items():
            assert groups[key].count == count
            assert groups[key].value == pytest.approx(total.item(), rel=1e-11, abs=1e-13)
    expected = sorted((n, p.item()) for n, p in grouped(graph, routes, end, "route").values())
    groups = paths(f"v{last}", f"v{end}", by="route", tape=graph.tape, top=0).groups
    assert [n for n, _ in expected] == sorted(g.count for g in groups.values())
    assert sorted(v for _, v in expected) == pytest.approx(
        sorted(g.value for g in groups.values()), rel=1e-11, abs=1e-13
    )


def check_filters(graph, routes, last, end):
    inner = range(max(2, end + 1), last)
    for a, b in itertools.islice(itertools.product(inner, inner), 12):
        for through, avoiding in (([a], []), ([], [a]), ([a, b], []), ([a], [b])):
            kept = {
                r: p
                for r, p in routes.items()
                if all(n in graph.nodes(r, end) for n in through)
                and not any(n in graph.nodes(r, end) for n in avoiding)
            }
            ledger = paths(
                f"v{last}", f"v{end}", tape=graph.tape, top=1000,
                through=[f"v{n}" for n in through], avoiding=[graph.tensors[n] for n in avoiding],
            )  # fmt: skip
            assert ledger.count == len(kept)
            assert {as_key(r) for r in ledger.paths} == set(kept)
            total = sum(p.item() for p in kept.values())
            assert ledger.total == pytest.approx(total, rel=1e-11, abs=1e-13)
            assert ledger.gradient == pytest.approx(sum(p.item() for p in routes.values()), rel=1e-11, abs=1e-13)


def test_enough_graphs_were_drawn():
    sizes = {len(drawn_scalars(s).tensors) for s in CONNECTED}
    assert len(CONNECTED) > 40
    assert max(sizes) == 12


# --- arrays -----------------------------------------------------------------------------------------------------

W = np.array([[0.3, -1.1, 0.7], [1.3, 0.2, -0.9], [-0.4, 0.6, 1.7]])


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


ARRAYS = {  # name -> (in NumPy, in minigrad), over operands that are (2, 3) or (3,)
    "add": (np.add, mg.add),
    "mul": (np.multiply, mg.mul),
    "tanh": (np.tanh, mg.tanh),
    "softmax": (softmax, lambda x: mg.softmax(x, axis=-1)),
    "affine": (lambda x: x @ W.T + 0.5, lambda x: mg.affine(x, mg.tensor(W), mg.tensor(np.full(3, 0.5)))),
    "matmul": (lambda x: x @ W, lambda x: mg.matmul(x, mg.tensor(W))),
    "flip": (lambda x: x[..., ::-1], lambda x: mg.flip(x, axis=-1)),
    "norm": (
        lambda x: np.broadcast_to(np.sqrt((x * x).sum(-1, keepdims=True)), x.shape),
        None,
    ),
}


def jacobian(function, args, k):
    """Central differences of one operand, extrapolated once."""
    shape, size = np.shape(args[k]), np.size(args[k])

    def slope(h):
        rows = []
        for i in range(size):
            e = np.zeros(size)
            e[i] = h
            moved = [[a + s * e.reshape(shape) if j == k else a for j, a in enumerate(args)] for s in (1, -1)]
            rows.append(((function(*moved[0]) - function(*moved[1])) / (2 * h)).ravel())
        return np.array(rows).T

    return (4 * slope(5e-4) - slope(1e-3)) / 3


def drawn_arrays(seed: int) -> tuple[Drawn, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal((2, 3)), rng.standard_normal(3)]
    graph = Drawn(mg.Tape(), [mg.tensor(v, requires_grad=True, name=f"v{k}") for k, v in enumerate(values)], ["", ""])
    graph.edges = [[], []]
    with graph.tape:
        for _ in range(6):
            name = str(rng.choice([n for n in ARRAYS if ARRAYS[n][1] is not None]))
            plain, ours = ARRAYS[name]
            count = 2 if name in ("add", "mul") else 1
            operands = [int(max(0, len(values) - 1 - rng.integers(0, 3))) for _ in range(count)]
            given = [values[k] for k in operands]
            made = ours(*[graph.tensors[k] for k in operands])
            made.name = f"v{len(values)}"
            graph.tensors.append(made)
            graph.scopes.append("")
            graph.edges.append([(o, jacobian(plain, given, k)) for k, o in enumerate(operands)])
            values.append(plain(*given))
    return graph, values


@pytest.mark.parametrize("seed", range(14))
@pytest.mark.parametrize("end", [0, 1])
def test_arrays_against_products_of_jacobians(seed, end):
    graph, values = drawn_arrays(seed)
    last = len(values) - 1
    routes = graph.routes(last, end)
    if not routes:
        return
    shape = values[end].shape
    expected = {key: product.sum(0).reshape(shape) for key, product in routes.items()}
    ledger = paths(graph.tensors[last], graph.tensors[end], tape=graph.tape, top=5)
    assert ledger.count == len(routes)
    assert ledger.proven
    np.testing.assert_allclose(ledger.total, sum(expected.values()), rtol=1e-8, atol=1e-8)
    for route in ledger.paths:
        np.testing.assert_allclose(route.contribution, expected[as_key(route)], rtol=1e-7, atol=1e-8)
    strongest = sorted((np.linalg.norm(e) for e in expected.values()), reverse=True)[:5]
    assert [r.value for r in ledger.paths] == pytest.approx(strongest, rel=1e-7, abs=1e-8)
    if np.linalg.norm(ledger.total) > 0:
        shares = [r.share for r in ledger.paths] + [ledger.remainder.share]
        assert sum(shares) == pytest.approx(1)
    # one element of wrt, of one element of `of`
    at, of_at = tuple(n - 1 for n in shape), tuple(0 for _ in values[last].shape)
    i, j = np.ravel_multi_index(of_at, values[last].shape), np.ravel_multi_index(at, shape)
    ledger = paths(graph.tensors[last], graph.tensors[end], at=(of_at, at), tape=graph.tape, top=5)
    found = sorted((abs(product[i, j]) for product in routes.values()), reverse=True)[:5]
    assert [abs(r.value) for r in ledger.paths] == pytest.approx(found, rel=1e-7, abs=1e-8)
    assert ledger.total[at] == pytest.approx(sum(product[i, j] for product in routes.values()), rel=1e-7, abs=1e-8)


def tangled():
    """Return a graph with some routes and a gradient that is not 0."""
    for graph in map(drawn_scalars, CONNECTED):
        routes = graph.routes(len(graph.tensors) - 1, 0)
        if len(routes) > 6 and abs(sum(p.item() for p in routes.values())) > 0.01:
            return graph
    raise AssertionError("no such graph was drawn")


def test_a_search_out_of_breath_lists_real_routes(monkeypatch):
    graph = tangled()
    last = len(graph.tensors) - 1
    monkeypatch.setattr(importlib.import_module("minigrad.graph.paths"), "EXPANSIONS", 0)
    ledger = paths(f"v{last}", "v0", tape=graph.tape, top=4)
    routes = graph.routes(last, 0)
    assert not ledger.proven
    assert "the strongest found" in str(ledger)
    assert len({as_key(r) for r in ledger.paths}) == 4
    for route in ledger.paths:
        assert route.value == pytest.approx(routes[as_key(route)].item(), rel=1e-12)
    assert paths(f"v{last}", "v0", tape=graph.tape, top=1000).proven  # all of them: there is nothing left to prove


def one_layer(x):
    return mg.affine(x, mg.tensor(np.array([[3.0, -3.0]])), mg.tensor(np.zeros(1))).sum()


@pytest.mark.parametrize(
    "strong",
    [
        one_layer,
        lambda x: mg.matmul(x, mg.tensor(np.array([3.0, -3.0]))),
        lambda x: mg.half_squared_error(x, mg.tensor(np.array([-2.0, 4.0]))),
        lambda x: 3 * (x * mg.tensor(np.array([1.0, -1.0]))).sum(),
    ],
    ids=["affine", "matmul", "loss", "mul"],
)
def test_a_bound_is_not_fooled_by_signs(strong):
    x = leaf([1.0, 1.0], "x")
    ledger = paths(strong(x) + 2 * x.sum(), x, top=1)
    assert ledger.proven
    assert ledger.paths[0].value == pytest.approx(math.hypot(3, 3))


def test_walk_goes_on_to_the_last_route():
    graph = tangled()
    last = len(graph.tensors) - 1
    walked = list(paths(f"v{last}", "v0", tape=graph.tape, top=1).walk())
    assert {as_key(r) for r in walked} == set(graph.routes(last, 0))
    assert walked[-1].running == pytest.approx(1)


# --- counts known by hand ---------------------------------------------------------------------------------------


def leaf(value, name):
    return mg.tensor(value, dtype="float64", requires_grad=True, name=name)


def test_counts_by_edge():
    a = leaf(1.5, "a")
    assert paths(a * a, a).count == 2
    b = a + a
    c = b + b
    ledger = paths(c, a)
    assert (ledger.count, float(ledger.total)) == (4, 4.0)
    x = a
    for _ in range(100):
        x = x + x
    assert paths(x, a, top=2).count == 2**100


def test_routes_of_a_real_lstm():
    lstm = mg.nn.LSTM(3, 5)
    h, c = (mg.randn(1, 2, 5) for _ in range(2))
    h.requires_grad = True
    with mg.Tape() as tape:
        lstm(mg.randn(20, 2, 3), (h, c))
    ledger = paths("h[19]", "h[-1]", tape=tape, top=2)
    # Through the cell one way or another: (h, c) -> (h', c') has 4 and 3 edges into c', each then on to h'.
    to_h, to_c = 1, 0
    for _ in range(20):
        # to a state's gates lead: 3 routes into c' (f, i, g) and one into h' (o); c' leads to h' by one more
        new_c = 3 * to_h + to_c
        to_h, to_c = to_h + new_c, new_c
    assert ledger.count == to_h == 33_629_651_653_051
    assert "33 629 651 653 051 routes" in str(ledger)


# --- the LSTM with peepholes, by the equations of Greff et al. --------------------------------------------------


def sigma(x):
    return 1 / (1 + np.exp(-x))


def odyssey(p, xs, weights_of_outputs):
    """Return, for each step, ∂E/∂c_t's terms by name, with E = Σ_t Σ Δ_t ⊙ y_t; all in NumPy, from the paper."""
    steps, batch, hidden = len(xs), xs[0].shape[0], p["W"]["z"].shape[0]
    y, c = np.zeros((batch, hidden)), np.zeros((batch, hidden))
    kept = []
    for x in xs:
        pre = {g: x @ p["W"][g].T + y @ p["R"][g].T + p["b"][g] for g in "zifo"}
        z, i = np.tanh(pre["z"]), sigma(pre["i"] + p["p"]["i"] * c)
        f = sigma(pre["f"] + p["p"]["f"] * c)
        new = z * i + c * f
        o = sigma(pre["o"] + p["p"]["o"] * new)
        kept.append({"z": z, "i": i, "f": f, "o": o, "c": new, "before": c})
        y, c = np.tanh(new) * o, new
    zero = np.zeros((batch, hidden))
    later = dict.fromkeys("zifoc", zero)
    f_next = zero
    terms = [{} for _ in xs]
    for t in reversed(range(steps)):
        k = kept[t]
        dy = weights_of_outputs[t] + sum(later[g] @ p["R"][g] for g in "zifo")
        do = dy * np.tanh(k["c"]) * k["o"] * (1 - k["o"])
        terms[t] = {
            f"h[{t}]": dy * k["o"] * (1 - np.tanh(k["c"]) ** 2),
            f"o[{t}]": p["p"]["o"] * do,
            f"i[{t + 1}]": p["p"]["i"] * later["i"],
            f"f[{t + 1}]": p["p"]["f"] * later["f"],
            f"c[{t + 1}]": later["c"] * f_next,
        }
        dc = sum(terms[t].values())
        later = {
            "o": do,
            "f": dc * k["before"] * k["f"] * (1 - k["f"]),
            "i": dc * k["z"] * k["i"] * (1 - k["i"]),
            "z": dc * k["i"] * (1 - k["z"] ** 2),
            "c": dc,
        }
        f_next = k["f"]
    return terms


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("peepholes", ["diagonal", None])
def test_the_routes_of_the_cell_are_the_terms_of_the_equation(peepholes, dtype):
    steps, batch, inputs, hidden = 5, 2, 3, 7
    mg.manual_seed(11)
    lstm = mg.nn.LSTM(inputs, hidden, dtype=dtype, peepholes=peepholes)
    rng = np.random.default_rng(5)
    xs, deltas = rng.standard_normal((steps, batch, inputs)), rng.standard_normal((steps, batch, hidden))
    state = {name: parameter.numpy().astype(np.float64) for name, parameter in lstm.named_parameters()}

    def cut(name, letters="ifzo"):
        return dict(zip(letters, np.split(state[name], len(letters)), strict=True))

    b_ih, b_hh = cut("bias_ih_l0"), cut("bias_hh_l0")
    p = {"W": cut("weight_ih_l0"), "R": cut("weight_hh_l0"), "b": {g: b_ih[g] + b_hh[g] for g in "ifzo"}}
    p["p"] = cut("weight_ph_l0", "ifo") if peepholes else dict.fromkeys("ifo", np.zeros(hidden))
    expected = odyssey(p, xs, deltas)
    with mg.Tape() as tape:
        outputs, _ = lstm(mg.tensor(xs.astype(dtype)))
        loss = (outputs * mg.tensor(deltas.astype(dtype))).sum()
        loss.name = "E"
    close = {"rtol": 1e-9, "atol": 1e-12} if dtype == "float64" else {"rtol": 2e-3, "atol": 2e-5}
    for t in range(1, steps - 1):
        groups = paths(loss, f"c[{t}]", by="route", tape=tape, top=0).groups
        terms = equations(f"c[{t}]", tape)
        names = {k for k, v in expected[t].items() if v.any()}
        assert set(groups) == names == {term.via for term in terms.terms}
        assert len(names) == (5 if peepholes else 2)
        for name in names:
            np.testing.assert_allclose(groups[name].contribution, expected[t][name], **close)
        for term in terms.terms:
            np.testing.assert_allclose(term.contribution, expected[t][term.via], **close)
        np.testing.assert_allclose(terms.gradient, sum(expected[t].values()), **close)
        one = equations(f"c[{t}]", tape, at=(1, 4))
        assert sum(term.value for term in one.terms) == pytest.approx(one.gradient[1, 4], rel=1e-4)


def test_gates_and_times_of_a_weight_add_up():
    lstm = mg.nn.LSTM(3, 5, num_layers=2, bidirectional=True)
    with mg.Tape() as tape:
        outputs, _ = lstm(mg.randn(4, 2, 3))
        loss = (outputs * outputs).sum()
    loss.backward()
    for by in ("time", "gate", "scope", "delay", "route"):
        ledger = paths(loss, lstm.weight_hh_l0, by=by, tape=tape, top=0)
        total = sum(g.contribution for g in ledger.groups.values())
        np.testing.assert_allclose(total, lstm.weight_hh_l0.grad.numpy(), rtol=1e-4, atol=1e-6)
        assert sum(g.count for g in ledger.groups.values()) == ledger.count
    gates = paths(loss, lstm.weight_hh_l0, by="gate", tape=tape, top=0).groups
    assert set(gates) == {"input", "forget", "cell", "output"}
    rows = gates["forget"].contribution  # the rows of that gate are the second quarter
    assert not rows[:5].any()
    assert rows[5:10].any()
    assert not rows[10:].any()


# --- what a ledger is made from, and what it leaves alone -------------------------------------------------------


def small():
    x = leaf([0.5, -1.2, 0.3], "x")
    with mg.Tape() as tape, mg.scope("t=2"):
        s = mg.tanh(x)
        s.name = "s"
        loss = (s * s + x).sum()
        loss.name = "E"
    return x, tape, loss


def test_gradients_and_tapes_are_left_alone():
    x, tape, loss = small()
    loss.backward()
    before = [None if node.grad is None else node.grad.copy() for node in tape.nodes]
    own = x.grad.numpy().copy()
    with mg.Tape() as watching:
        (y := mg.sin(x)).sum()
        nodes = len(watching)
        equations("s", tape)
        ledger = paths("s", x, tape=tape, top=2)
        list(ledger.walk())
        assert len(watching) == nodes
    assert y is not None
    after = [node.grad for node in tape.nodes]
    assert [g is None for g in before] == [g is None for g in after]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True) if a is not None)
    np.testing.assert_array_equal(x.grad.numpy(), own)


def test_without_a_tape():
    x = leaf([0.5, -1.2, 0.3], "x")
    s = mg.tanh(x)
    loss = (s * s).sum()
    ledger = paths(loss, x, at=1)
    value = math.tanh(-1.2)
    assert ledger.count == 2
    assert ledger.total[1] == pytest.approx(2 * value * (1 - value**2))
    assert equations(s, of=loss).gradient == pytest.approx(2 * np.tanh([0.5, -1.2, 0.3]))
    loss.backward()
    with pytest.raises(GraphError, match="retain_graph"):
        paths(loss, x)
    with pytest.raises(UsageError, match="tape"):
        paths("loss", x)
    with pytest.raises(UsageError, match="tape"):
        equations(x)


def test_a_tape_that_saw_a_part():
    x = leaf(0.5, "x")
    a = mg.sin(x)
    with mg.Tape() as tape:
        y = a * x
        y.name = "y"
    ledger = paths(y, x, tape=tape)
    assert ledger.count == 2
    assert sorted(r.value for r in ledger.paths) == pytest.approx(sorted([math.sin(0.5), 0.5 * math.cos(0.5)]))
    assert sorted(r.waypoints() for r in ledger.paths) == [["y", "sin(x)", "x"], ["y", "x"]]


def test_a_rule_that_is_off_is_an_error(monkeypatch):
    x, tape, loss = small()
    paths(loss, x, tape=tape)
    equations("x", tape)
    monkeypatch.setitem(PAGE.records["tanh"].rules, "x", Rule("1.000000001 * (1 - y) * (1 + y)"))
    with pytest.raises(GradcheckError, match="∂E/∂x: the routes add up to something else"):
        paths(loss, x, tape=tape)
    with pytest.raises(GradcheckError, match="the terms add up to something else"):
        equations("x", tape)


def test_a_gradient_that_is_not_finite_has_no_sum():
    x = leaf(0.0, "x")
    with pytest.raises(GraphError, match="not finite"), np.errstate(all="ignore"):
        paths(mg.log(x) * x, x)


class Twice(mg.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2, x * 3

    @staticmethod
    def backward(ctx, g, k):
        return g * 2 + k * 3


class Triple(mg.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 3

    @staticmethod
    def backward(ctx, g):
        return g * 3


def test_functions_of_users():
    x = leaf([0.5, -1.2], "x")
    y = (Triple.apply(x) * x).sum()
    ledger = paths(y, x)
    assert (ledger.count, ledger.proven) == (2, True)
    np.testing.assert_allclose(ledger.total, 6 * x.numpy())
    a, b = Twice.apply(x)
    np.testing.assert_allclose(paths(b, x).total, [3, 3])  # as the end of a route it is clear which result is meant
    with pytest.raises(UsageError, match="several results"):
        paths((a * b).sum(), x)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda x, t, e: paths(e, "y", tape=t), "nothing on the tape is named 'y'"),
        (lambda x, t, e: paths(e, "S", tape=t), "there are x, s, E"),
        (lambda x, t, e: paths(e, 3, tape=t), "wrt is a tensor, a name or a node"),
        (lambda x, t, e: paths(e, mg.tensor([1.0]), tape=t), "requires no gradient"),
        (lambda x, t, e: paths("x", e, tape=t), "there is no route"),
        (lambda x, t, e: paths(e, x, by="day", tape=t), "by is one of time, gate"),
        (lambda x, t, e: paths(e, x, by=lambda edge: [1], tape=t), "must be hashable"),
        (lambda x, t, e: paths(e, x, at=3, tape=t), "no element"),
        (lambda x, t, e: paths(e, x, at=(0, 1), tape=t), "has 1 indices"),
        (lambda x, t, e: paths(e, x, top=-1, tape=t), "top is how many"),
        (lambda x, t, e: paths(e, x, avoiding=e, tape=t), "every route passes E"),
        (lambda x, t, e: equations(e, t), "no edge leads from E to itself"),
    ],
)
def test_bad_calls(call, complaint):
    x, tape, loss = small()
    with pytest.raises(UsageError, match=re.escape(complaint)):
        call(x, tape, loss)


def test_two_of_one_name_and_places_on_the_tape():
    x = leaf(0.5, "x")
    with mg.Tape() as tape:
        for _ in range(2):
            x = mg.tanh(x)
            x.name = "s"
        y = mg.sin(x)
    with pytest.raises(UsageError, match="2 values are named 's'"):
        paths(y, "s", tape=tape)
    assert paths(y, "#1", tape=tape).count == 1
    assert paths(tape.nodes[-1], tape.nodes[1], tape=tape).count == 1
    assert paths(y, "s#2", tape=tape).count == 1


# --- what people read -------------------------------------------------------------------------------------------


def test_text():
    x, tape, loss = small()
    text = str(paths(loss, x, by="time", tape=tape, at=1))
    assert text.splitlines() == [
        f"∂E/∂x = {2 * math.tanh(-1.2) * (1 - math.tanh(-1.2) ** 2) + 1:.4g} (element [1] of (3,)): 3 routes",
        "",
        "routes   value    share  time",
        "     3  0.4914  100.0 %  2",
        "",
        "     value    share  running  route, strongest first",
        "1        1  203.5 %  203.5 %  E <- add#3 <- x",
        "2  -0.2543  -51.7 %  151.7 %  E <- s <- x",
        "3  -0.2543  -51.7 %  100.0 %  E <- s <- x",
        "",
        text.splitlines()[-1],
    ]
    assert re.fullmatch(r"residual \S+ \(rounding: up to \S+\)", text.splitlines()[-1])


def test_the_edges_of_a_route():
    x, tape, loss = small()
    route = paths(loss, x, tape=tape, at=1).paths[1]
    assert [(e.op, e.operand, e.scope, e.time, e.name) for e in route.edges] == [
        ("sum", "x", "t=2", 2, "E"),
        ("add", "a", "t=2", 2, None),
        ("mul", "a", "t=2", 2, None),
        ("tanh", "x", "t=2", 2, "s"),
    ]
    assert route.edges[-1].formula == "(1 - s)·(1 + s)"
    assert route.edges[2].formula == "s"
    assert route.edges[-1].formula_latex == r"\left(1 - s\right) \cdot \left(1 + s\right)"
    s = math.tanh(-1.2)
    assert route.locals == (None, 1.0, pytest.approx(s), pytest.approx((1 - s) * (1 + s)))
    assert "mul" in str(route)


def test_the_chain_rule_in_words():
    _, tape, _ = small()
    words = str(equations("s", tape, at=1)).splitlines()
    s = math.tanh(-1.2)
    assert words[0] == "∂E/∂s = ∂E/∂(s·s) · s"
    assert words[1] == "      + ∂E/∂(s·s) · s"
    assert words[2] == f"      = ({s:.4g}) + ({s:.4g}) = {2 * s:.4g} (element [1] of (3,))"
    latex = equations("s", tape).to_latex()
    assert r"\underbrace{\frac{\partial E}{\partial \left(s \cdot s\right)} \cdot s}_{" in latex
    assert latex.count("{") == latex.count("}")


def test_everything_fits_and_travels():
    lstm = mg.nn.LSTM(3, 5, peepholes="diagonal")
    with mg.Tape() as tape:
        outputs, _ = lstm(mg.randn(17, 2, 3))
        loss = (outputs * outputs).sum()
        loss.name = "E"
    reports = [
        paths(loss, "weight_hh_l0", by=by, tape=tape) for by in (None, "time", "gate", "scope", "delay", "route")
    ]
    reports += [equations("c[3]", tape), equations("weight_ph_l0", tape), reports[0].paths[0]]
    for report in reports:
        assert max(map(len, str(report).splitlines())) <= 80
        data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        assert data
        html = report._repr_html_()
        assert html.count("<tr>") == html.count("</tr>") > 1
    for report in reports[:-1]:
        latex = report.to_latex()
        assert latex.startswith("\\begin{aligned}")
        assert latex.count("{") == latex.count("}")
    assert reports[0].to_dict()["count"] == reports[0].count
    assert "all others" in str(reports[0])
    assert "more" in reports[0].to_latex()


def test_formulas_in_html_are_escaped():
    x = leaf(0.5, "a<b")
    html = paths(x * x, x)._repr_html_()
    assert "a&lt;b" in html
    assert "a<b" not in html
