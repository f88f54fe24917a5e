"""Lit routes, gradients that flow, cut edges, steps that are found, ∂⁺ as mathematics: measured against the tape."""

import re
import sys
from itertools import combinations, pairwise

import numpy as np
import pytest
from picture_checks import faults

import minigrad as mg
from minigrad import models
from minigrad.errors import UsageError
from minigrad.graph.immediate import immediate
from minigrad.graph.view import View, fold, gather, past_stacks, roll, unroll, view_of
from minigrad.op import PAGE, record
from minigrad.render import check, render
from minigrad.render.dot import to_dot
from minigrad.render.layout import lay_out
from minigrad.render.overlay import LEVELS, beside, flow_level
from minigrad.render.svg import to_svg
from minigrad.render.theme import THEMES, flow_line

EVERYTHING = ("shape", "value", "grad", "local", "gain", "flow")
STYLES = {
    "graph": past_stacks,
    "unrolled": lambda view: unroll(past_stacks(view)),
    "rolled": lambda view: roll(past_stacks(view)),
}


def recorded(spec, **options):
    model = models.build(spec, **options)
    with mg.Tape() as tape:
        loss = model.loss()
    loss.backward()
    return tape


TAPES = {
    "rnn": ("rnn", {"steps": 3}),
    "lstm": ("lstm", {"steps": 3}),
    "gru": ("gru", {"steps": 2}),
    "adder": ("adder", {"steps": 3, "text": "1+2"}),
    "FGR": ("lstm", {"steps": 2, "variant": "FGR"}),
    "two layers": ("lstm", {"steps": 2, "layers": 2, "peepholes": "diagonal"}),
    "bidirectional": ("gru", {"steps": 3, "bidirectional": True}),
    "two of both": ("rnn", {"steps": 3, "layers": 2, "bidirectional": True}),
}


@pytest.fixture(scope="module")
def tapes():
    return {name: recorded(spec, **options) for name, (spec, options) in TAPES.items()}


def loop(steps=4, cut=None):
    """A user's loop over a cell, without any scope; the state is detached after step `cut`."""
    mg.manual_seed(3)
    cell, head = mg.nn.LSTMCell(3, 5), mg.nn.Linear(5, 2)
    xs = [mg.tensor(np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3) * (t + 1)) for t in range(steps)]
    with mg.Tape() as tape:
        h, c, total = mg.zeros(2, 5), mg.zeros(2, 5), 0
        for t, x in enumerate(xs):
            h, c = cell(x, (h, c))
            if t == cut:
                h, c = h.detach(), c.detach()
            total = total + mg.sum(head(h) * head(h))
    total.backward()
    return tape


# --- pictures of real models --------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", TAPES)
def test_nothing_overlaps_whatever_is_shown(tapes, name, style):
    for show, backward in (((), False), (("shape",), True), (("local",), True), (EVERYTHING, False)):
        notes = {t: f"'{t}' → '{t + 1}'" for t in range(9)}
        view = view_of(tapes[name], show=show, notes=notes, contributions=True, fold_with=STYLES[style])
        scene = lay_out(view, show=show, title=f"a {name}", backward=backward, flow="width" if backward else None)
        assert faults(scene) == []
        assert len(scene.boxes) == len(view)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_every_overlay_in_every_theme(tapes, theme):
    made = render(
        tapes["lstm"], theme=theme, backward=True, flow="color", highlight="loss -> weight_hh_l0 by time"
    ).data
    for word in (" backward", " route", "aside", " color9", "% of ∂E/∂weight_hh_l0"):
        assert word in made


def test_layers_and_directions_do_not_mix(tapes):
    view = view_of(tapes["two of both"], fold_with=past_stacks)
    scene = lay_out(view)
    place = {b.key: b for b in scene.boxes}
    extent = {}
    for n in view.nodes:
        if n.op in ("affine", "tanh", "add") and n.step is not None and "layer" in " ".join(n.scope):
            extent.setdefault(n.scope[1:3], []).append(place[f"n-{n.key}"].box)
    bands = sorted((max(b[3] for b in boxes), min(b[1] for b in boxes), key) for key, boxes in extent.items())
    assert [key for *_, key in bands[::-1]] == [(f"layer {k}", way) for k in (0, 1) for way in ("forward", "reverse")]
    assert all(below[0] < above[1] for below, above in pairwise(bands))
    # what a backward layer hands on runs to the left, straight from step to step
    back = [w for w in scene.wires if w.style == "hidden" and w.points[0][0] > w.points[-1][0] + 20]
    assert len(back) == 4


def test_rolled_has_one_block_a_layer_and_its_states_as_loops(tapes):
    view = view_of(tapes["two layers"], fold_with=STYLES["rolled"])
    blocks = {n.id: n.label for n in view.nodes if n.kind == "fold" and n.op == "fold"}
    assert sorted(blocks.values()) == ["lstm layer 0", "lstm layer 1"]
    loops = sorted((blocks[e.source], e.carries, e.role) for e in view.edges if e.source == e.target)
    assert loops == [(f"lstm layer {k}", f"{s}ₜ", role) for k in (0, 1) for s, role in (("c", "cell"), ("h", "hidden"))]
    assert len(view.steps) == 1
    scene = lay_out(view)
    assert [f.words.text for f in scene.frames] == ["t = 0 … 1"]
    assert sum(style == "delay" for *_, style in scene.dots) == 4


# --- steps that nobody announced ----------------------------------------------------------------------------


def test_steps_of_a_users_loop_are_found():
    view = view_of(loop())
    assert view.steps == (0, 1, 2, 3)
    per_step = [sorted(n.op for n in view.nodes if n.step == t) for t in view.steps]
    assert per_step[0] == per_step[1] == per_step[2] == per_step[3]
    assert per_step[0].count("affine") == 8 + 2
    assert per_step[0].count("input") == 1
    # the running sum adds up steps and is in none; the two first states come before all of them
    assert [n.step for n in view.nodes if n.op == "add" and n.shape == ()] == [None] * 4
    assert [n.step for n in view.nodes if n.kind == "input" and n.shape == (2, 5)] == [None, None]
    # sixteen slices of parameters, cut again in each step, are drawn once
    slices = [n for n in view.nodes if n.tap is not None]
    assert len(slices) == 16
    assert all(n.count == 4 for n in slices)
    assert {(e.role, e.carries) for e in view.edges if e.role in ("cell", "hidden")} >= {("cell", "c"), ("hidden", "h")}
    blocks = [n for n in unroll(view).nodes if n.kind == "fold" and n.tap is None]
    assert [(b.label, b.step, b.count) for b in blocks] == [("lstmcell", t, 21) for t in range(4)]


def test_a_decoder_goes_on_counting_and_a_layer_does_not():
    mg.manual_seed(0)
    encode, decode, upper = mg.nn.RNNCell(3, 4), mg.nn.RNNCell(2, 4), mg.nn.RNNCell(4, 5)
    with mg.Tape() as tape:
        h, states = mg.zeros(1, 4), []
        for t in range(3):
            h = encode(mg.ones(1, 3) * float(t + 2), h)
            states.append(h)
        g = mg.zeros(1, 5)
        for state in states[1:]:
            g = upper(state, g)
        for _ in range(2):
            h = decode(mg.ones(1, 2), h)
    view = view_of(tape)
    tanh = [n for n in view.nodes if n.op == "tanh"]
    assert [n.step for n in tanh] == [0, 1, 2, 1, 2, 3, 4]


def test_without_recurrence_there_are_no_steps():
    weight = mg.tensor(np.arange(6, dtype=np.float32).reshape(3, 2), requires_grad=True, name="W")
    with mg.Tape() as tape:
        for t in range(4):
            mg.tanh(mg.matmul(mg.ones(1, 3) * float(t), weight))
    assert view_of(tape).steps == ()


def test_cut_edges_are_cut_and_no_gradient_runs_back_over_them():
    view = view_of(loop(cut=1), contributions=True)
    cut = [e for e in view.edges if e.cut]
    assert [view.node(e.target).op for e in cut] == ["detach", "detach"]
    assert all(e.contribution is None for e in cut)
    scene = lay_out(view, backward=True)
    keys = {f"e-{e.source}-{e.target}-{e.argument}" for e in cut}
    assert {w.key for w in scene.wires if w.style.endswith("cut")} == keys
    assert not {f"back-{key}" for key in keys} & {w.key for w in scene.wires}
    assert faults(scene) == []
    assert render(loop(cut=1)).data.count('class="slash"') == 4


# --- numbers on edges ---------------------------------------------------------------------------------------


def test_what_flows_into_a_fold_adds_up_before_it_is_measured(tapes):
    whole = view_of(tapes["lstm"], show=("flow",))
    folded = view_of(tapes["lstm"], show=("flow",), fold_with=STYLES["unrolled"])
    nodes = {n.id: n for n in tapes["lstm"].nodes}
    seen = 0
    for e in folded.edges:
        if e.role == "hidden" and e.source < 0 and e.target < 0:
            sources = {s for s, _, _ in e.keys}
            (source,) = sources
            # h_t goes to the gates of the next step and to its own read-out
            own = [o.contribution.numbers for o in whole.edges if o.source == source and o.keys[0] not in e.keys]
            rest = nodes[source].grad.reshape(-1) - np.sum(own, axis=0)
            assert e.contribution.norm == pytest.approx(np.linalg.norm(rest), rel=1e-4)
            seen += 1
    assert seen == 2


def test_gain_is_the_largest_singular_value():
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(3, 7)), rng.normal(size=(7, 5))
    a, b = (mg.tensor(v, requires_grad=True, name=n) for v, n in ((x, "a"), (w, "b")))
    with mg.Tape() as tape:
        y = mg.matmul(a, b)
        z = mg.tanh(y)
        mg.sum(z)
    gains = {(e.target, e.argument): e.gain for e in view_of(tape, show=("gain",)).edges}
    by_op = {n.op: n.id for n in tape.nodes}
    assert gains[by_op["matmul"], 0] == pytest.approx(np.linalg.svd(w)[1][0], rel=1e-3)
    assert gains[by_op["matmul"], 1] == pytest.approx(np.linalg.svd(x)[1][0], rel=1e-3)
    assert gains[by_op["tanh"], 0] == pytest.approx(np.max(1 - np.tanh(x @ w) ** 2), rel=1e-5)
    assert gains[by_op["sum"], 0] == pytest.approx(np.sqrt(15), rel=1e-5)


def test_sizes_have_levels():
    assert [flow_level(v, 1e-3, 10.0) for v in (0.0, 1e-9, 1e-3, 10.0, 99.0)] == [0, 0, 0, LEVELS - 1, LEVELS - 1]
    assert flow_level(0.1, 1e-3, 10.0) == round((LEVELS - 1) / 2)
    assert flow_level(None, 1, 2) is None
    with pytest.raises(UsageError, match="width or color, not 'smell'"):
        render(loop(2), flow="smell")


def test_a_line_beside_another():
    assert beside([(0, 0), (10, 0), (10, 10)], 2.0) == [(0, 2), (8, 2), (8, 10)]
    assert beside([(0, 0), (0, 9)], 3.0, square=False) == [(-3, 0), (-3, 9)]


# --- ∂⁺ -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "k", "names", "text"),
    [
        ("affine", 0, {"weight": "W_f"}, "W_fᵀ"),
        ("affine", 1, {"x": "x₃"}, "x₃"),
        ("affine", 2, {}, "1"),
        ("matmul", 0, {"b": "U"}, "Uᵀ"),
        ("mul", 0, {"b": "f₂"}, "f₂"),
        ("sub", 1, {}, "−1"),
        ("tanh", 0, {"y": "h₁"}, "(1−h₁)(1+h₁)"),
        ("sigmoid", 0, {"y": "i₁"}, "i₁(1−i₁)"),
        ("relu", 0, {"x": "a"}, "[a>0]"),
        ("clip", 0, {}, "[x≥low][x≤high]"),
        ("maximum", 1, {}, "[b>a]"),
        ("mean", 0, {}, "1/N"),
        ("getitem", 0, {}, "1"),
        ("mse", 0, {"x": "y₁", "target": "d₁"}, "2(y₁−d₁)/N"),
        ("cross_entropy", 0, {"x": "z"}, "(softmax(z)−onehot)/N"),
        ("softmax", 0, {}, "softmax′"),
        ("tanh", 0, {"y": "a_name_that_is_far_too_long"}, "(1−y)(1+y)"),
        ("detach", 0, {}, None),
    ],
)
def test_local_derivatives_are_mathematics(op, k, names, text):
    assert immediate(record(op), k, names) == text


def test_no_derivative_is_too_long_or_speaks_of_cotangents():
    for op in PAGE:
        for k in range(len(op.operands)):
            text = immediate(op, k, {})
            if text is not None:
                assert 0 < len(text) <= 27
                assert not {"g", "shape"} & set(text.replace("(", " ").replace(")", " ").split())
    assert immediate(record("pow"), 0, {"a": "e"}, {"b": 2.0}) == "2·e"
    assert immediate(record("affine"), 0, {"weight": "W_{f}"}, latex=True) == r"W_{f}^{\top}"


def test_edges_speak_of_the_models_values(tapes):
    view = view_of(tapes["lstm"], show=("local",))
    said = {(view.node(e.target).name, e.name): e.local for e in view.edges}
    assert said["f[1]", "x"] == "f₁(1−f₁)"
    assert said["h[1]", "a"] == "tanh(c₁)"
    assert said["h[1]", "b"] == "o₁"
    gates = {e.local for e in view.edges if view.node(e.target).op == "affine" and e.name == "x"}
    assert gates == {f"{w}_{g}ᵀ" for w in "WU" for g in "figo"} | {"Wᵀ"}


# --- routes -------------------------------------------------------------------------------------------------


def lit(tape, what):
    return {e.keys[0] for e in view_of(tape, show=(), highlight=what).edges if e.lit}


def reachable(tape, of, wrt):
    """All edges on routes between two nodes, by walking up and down; knows nothing of ledgers."""
    up, down = {of.id}, {wrt.id}
    for node in reversed(tape.nodes):
        if node.id in up:
            up.update(p.id for p in node.inputs)
    for node in tape.nodes:
        if any(p.id in down for p in node.inputs):
            down.add(node.id)
    return {
        (p.id, n.id, k)
        for n in tape.nodes
        if n.id in up & down and n is not wrt
        for k, p in enumerate(n.inputs)
        if p.id in down
    }


def test_all_routes_by_time(tapes):
    tape = tapes["lstm"]
    named = {n.name: n for n in tape.nodes}
    assert lit(tape, "loss->weight_hh_l0 by time") == reachable(tape, named["E"], named["weight_hh_l0"])
    view = view_of(tape, highlight="E -> weight_hh_l0 by time", show=())
    shares = [float(words.partition(" ")[0]) for _, words in view.notes]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    # what leaves in step 2 passes nothing of the steps before
    one = lit(tape, "E -> weight_hh_l0 by time 2")
    assert one < lit(tape, "E -> weight_hh_l0 by time")
    assert [t for t, _ in view_of(tape, highlight="E -> weight_hh_l0 by time 2", show=()).notes] == [2]
    times = {tape.nodes[t].time for _, t, _ in one}
    assert times == {None, 2}


def test_routes_by_time_through_steps_that_were_found():
    tape = loop()
    view = view_of(tape, show=(), highlight="loss -> weight_hh by time")
    assert [t for t, _ in view.notes] == [0, 1, 2, 3]
    shares = [float(words.partition(" ")[0]) for _, words in view.notes]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    step = {n.id: n.step for n in view.nodes}
    only = [e for e in view_of(tape, show=(), highlight="loss -> weight_hh by time 2").edges if e.lit]
    assert {step[e.target] for e in only} == {None, 2, 3}


def test_single_routes_ledgers_and_rows(tapes):
    tape = tapes["lstm"]
    ledger = mg.explain.paths("h[2]", "h[0]", tape=tape, top=3)
    assert ledger.count > 3
    strongest = {(e.source.id, e.target.id, e.argument) for e in ledger.paths[0].edges}
    assert lit(tape, ledger.paths[0]) == lit(tape, "h[2] -> h[0]") == strongest
    three = {(e.source.id, e.target.id, e.argument) for route in ledger.paths for e in route.edges}
    assert lit(tape, ledger) == lit(tape, list(ledger.paths)) == lit(tape, "h[2] -> h[0] top 3") == three
    gates = mg.explain.paths("h[2]", "h[0]", tape=tape, by="gate", top=0)
    union = set().union(*(lit(tape, (gates, key)) for key in gates.groups))
    named = {n.name: n for n in tape.nodes}
    assert union == lit(tape, gates) == reachable(tape, named["h[2]"], named["h[0]"])
    rows = mg.explain.bptt([named["E[0]"].tensor, named["E[1]"].tensor], named["weight_hh_l0"].tensor, tape=tape)
    assert lit(tape, (rows, 1)) == reachable(tape, named["E[1]"], named["weight_hh_l0"])
    through = lit(tape, "h[2] -> h[0] by time through c[1]")
    assert {(s, t) for s, t, _ in through if t == named["c[1]"].id}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("loss", "from where to where"),
        ("loss -> ", "from where to where"),
        ("loss -> weight_hh_l0 by colour", "by time, gate, scope, delay, route, not by 'colour'"),
        ("loss -> weight_hh_l0 by time 9", "no routes have the time '9'; there are 0, 1, 2"),
        ("loss -> weight_hh_l0 top many", "how many routes, not 'many'"),
        ("loss -> weight_hh_l0 top 1 top 2", "'top' twice"),
        ("loss -> weight_hh_l0 at x", "like 0,2, not 'x'"),
        ("loss -> weight_hh_l9", "did you mean weight_hh_l0"),
        ("LOS -> weight_hh_l0", "'LOS'; did you mean loss"),
        ("loss -> weight_hh_l0 by", "'by' needs a value"),
        ("loss -> weight_hh_l0 by gate forgot", "'forgot'; did you mean forget"),
        ("h[0] -> h[2]", "highlight: h.0. does not depend on h.2."),
        ("h[2] -> h[0] through h[1] avoiding h[1]", "no route is left to light"),
        ("h[2] -> h[2]", "no route is left to light"),
        (3.5, "not float"),
    ],
)
def test_routes_that_cannot_be_lit(tapes, words, message):
    with pytest.raises(UsageError, match=message):
        render(tapes["lstm"], highlight=words)


@pytest.mark.parametrize("words", ["h₂ -> h₀", "h2→h0", "h_2 -> h_0 top 1", "#{h[2]} -> #{h[0]}"])
def test_names_are_spelt_as_pictures_or_keyboards_spell_them(tapes, words):
    named = {n.name: n.id for n in tapes["rnn"].nodes}
    words = re.sub(r"\{(.*?)\}", lambda found: str(named[found[1]]), words)
    assert lit(tapes["rnn"], words) == lit(tapes["rnn"], "h[2] -> h[0]")


def numbers_of(view):
    return {t: float(words.partition(" ")[0].replace("−", "-")) for t, words in view.notes}


def test_shares_are_signed_say_of_what_and_a_fold_has_those_of_its_steps():
    tape = recorded("rnn", steps=16)
    (w,) = (n for n in tape.nodes if n.name == "weight_hh_l0")
    words = "loss -> weight_hh_l0 by time at 1,2"
    whole = view_of(tape, show=(), highlight=words)
    shares = numbers_of(whole)
    assert min(shares.values()) < 0
    assert sum(shares.values()) == pytest.approx(100, abs=1)
    assert all(said.endswith(" % of ∂E/∂weight_hh_l0[1,2]") for _, said in whole.notes)
    ledger = mg.explain.paths(tape.nodes[-1].tensor, w.tensor, by="time", tape=tape, top=0)
    parts = {t: group.contribution[1, 2] / w.grad[1, 2] * 100 for t, group in ledger.groups.items()}
    assert shares == pytest.approx(parts, abs=0.06)
    folded = view_of(tape, show=(), highlight=words, fold_with=lambda view: fold(past_stacks(view), keep=(0, 15)))
    assert numbers_of(folded) == pytest.approx(
        {0: shares[0], 1: sum(v for t, v in shares.items() if 0 < t < 15), 15: shares[15]}, abs=1
    )
    assert "t = 1 … 14" in (made := render(folded).data)
    assert f">{dict(folded.notes)[1]}<" in made
    restricted = view_of(tape, show=(), highlight="loss -> weight_hh_l0 by time through h[3]")
    assert sum(numbers_of(restricted).values()) == pytest.approx(100, abs=1)
    assert all(said.endswith(" by these routes") for _, said in restricted.notes)


def test_rows_of_the_time_ledger_say_the_norm_of_what_leaves_through_a_frame():
    tape = recorded("lstm", steps=14)
    named = {n.name: n for n in tape.nodes}
    ledger = mg.explain.bptt([named["E[11]"].tensor], named["weight_hh_l0"].tensor, tape=tape)
    (t,) = ledger.times
    view = view_of(tape, show=(), highlight=(ledger, t), fold_with=fold)
    ((_, wanted),) = [(n.step, n.span) for n in view.nodes if n.span]
    term = np.sum([ledger.terms[t, k] for k in range(wanted[0], min(wanted[1], 11) + 1)], axis=0)
    assert dict(view.notes)[wanted[0]] == f"‖∂‖ {np.linalg.norm(term):.3g}"


def test_captions_of_folded_steps_go_with_them():
    view = view_of(recorded("rnn", steps=9), notes={t: f"note {t}" for t in range(9)}, fold_with=fold)
    assert [t for t, _ in view.notes] == [0, 1, 2, 7, 8]


def test_a_route_inside_of_a_fold_lights_the_fold(tapes):
    view = view_of(tapes["rnn"], show=(), highlight="h[2] -> h[1]", fold_with=lambda view: fold(view, "layer"))
    assert [n.lit for n in view.nodes if n.kind == "fold" and n.tap is None] == [True]
    assert not any(e.lit for e in view.edges)
    assert View.from_json(view.to_json()) == view
    assert re.search(r'<g class="n fold [^"]* route"', render(view).data)
    assert render(view, format="dot").data.count("penwidth=3") == 1
    assert render(view, format="mermaid").data.count("stroke-width:4px") == 1


def test_a_fold_is_lit_by_what_it_stands_for(tapes):
    made = view_of(tapes["lstm"], show=(), highlight="h[1] -> c[0] top 1", fold_with=STYLES["unrolled"])
    lit_edges = [e for e in made.edges if e.lit]
    assert [e.carries for e in lit_edges if e.source < 0 and e.target < 0] == ["c[0]"]
    assert View.from_json(made.to_json()) == made
    with pytest.raises(UsageError, match="found on a tape"):
        render(made, highlight="h[1] -> c[0]")


def test_captions_stand_in_the_frames():
    model = models.build("rnn", text="ab c", steps=3)
    assert model.captions == ("'a' → 'b'", "'b' → ' '", "' ' → 'c'")
    with mg.Tape() as tape:
        model.loss()
    scene = lay_out(view_of(tape, notes=dict(enumerate(model.captions))))
    assert [[words.text for words in f.notes] for f in scene.frames] == [[c] for c in model.captions]
    assert models.build("adder", text="1+3", steps=3).captions == ("1 + 1 → 0", "0 + 1 → 0", "0 + 0 → 1")


def test_dot_says_what_is_lit_and_cut(tapes):
    lines = to_dot(view_of(tapes["rnn"], show=("gain",), highlight="h[1] -> h[0]")).splitlines()
    lit_lines = [line for line in lines if "penwidth=3" in line]
    assert len(lit_lines) == len(lit(tapes["rnn"], "h[1] -> h[0]")) == 3
    assert all('label="×' in line for line in lit_lines)
    assert to_dot(view_of(loop(cut=1))).count("arrowhead=tee") == 2


# --- pictures that fit --------------------------------------------------------------------------------------


ROOM = {"a4": (1123, 794), "slide": (1280, 720)}


def size_of(made):
    return tuple(map(float, re.search(r'<svg [^>]*?width="([\d.]+)" height="([\d.]+)"', made.svg).groups()))


def width_of(made):
    return size_of(made)[0]


def letters_of(made):
    """The smallest letters of a picture as it is shown; an index is smaller than what it belongs to."""
    zoom = width_of(made) / float(re.search(r'viewBox="0 0 ([\d.]+)', made.svg)[1])
    return zoom * min(float(size) for size in re.findall(r'<text [^>]*font-size="([\d.]+)"', made.svg))


ASKED = [
    {"show": ("shape",)},
    {"show": ("shape", "value", "grad"), "backward": True},
    {"show": EVERYTHING, "flow": "width"},
    {"show": ("shape", "local"), "highlight": "loss -> head.weight by time"},
]


@pytest.fixture
def scenes(monkeypatch):
    """The scenes that become documents."""
    drawn = []
    package = sys.modules["minigrad.render"]
    monkeypatch.setattr(package, "to_svg", lambda scene, *rest: drawn.append(scene) or to_svg(scene, *rest))
    return drawn


@pytest.mark.parametrize("style", [*STYLES, "circuit", "odyssey"])
@pytest.mark.parametrize("name", TAPES)
def test_every_model_fits_a_page(tapes, scenes, name, style):
    if style == "odyssey" and TAPES[name][0] != "lstm":
        return
    pages = list(zip(("a4", "slide", "slide", "a4"), ASKED, strict=True))
    for page, asked in {"graph": pages, "odyssey": pages[:2]}.get(style, pages[::2]):
        if style not in STYLES:
            asked = {"show": asked["show"], "backward": "backward" in asked}
        made = render(tapes[name], style=style, page=page, **asked)
        assert all(size <= room for size, room in zip(size_of(made), ROOM[page], strict=True))
        assert letters_of(made) >= 7.4
        assert faults(scenes[-1]) == []


def test_a_headline_stands_beside_what_leaves_through_it():
    view = view_of(recorded("lstm", steps=9), fold_with=lambda view: unroll(fold(past_stacks(view), keep=(0, 8))))
    scene = lay_out(view)
    assert len([wire for wire in scene.wires if wire.points[-1][1] < scene.frames[1].y]) == 10
    assert faults(scene) == []


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_two_steps_fit_a_sheet_as_they_are(name):
    model = models.build(name, steps=2)
    with mg.Tape() as tape:
        model.loss()
    made = render(tape, title=model.title, notes=dict(enumerate(model.captions)))
    assert all(size <= room for size, room in zip(size_of(made), ROOM["a4"], strict=True))
    assert letters_of(made) >= 8.5
    assert "operations" not in re.sub("<desc.*?</desc>", "", made.data)


def test_what_stands_for_steps_is_as_high_as_what_it_is_wired_to():
    view = view_of(recorded("lstm", steps=9), fold_with=lambda view: unroll(fold(past_stacks(view), keep=(0, 8))))
    place = {b.key: b.y for b in lay_out(view).boxes}
    blocks = [n for n in view.nodes if n.op == "fold"]
    assert len(blocks) == 3
    assert len({round(place[f"n-{n.key}"], 3) for n in blocks}) == 1


def test_a_number_of_a_formula_stands_in_its_block():
    tape = recorded("gru", steps=3)
    assert sum(n.kind == "constant" and not n.shape for n in view_of(tape).nodes) == 3
    for shape in ("unrolled", "rolled"):
        view = view_of(tape, fold_with=STYLES[shape])
        assert not [n for n in view.nodes if n.kind == "constant" and not n.shape]


def test_parameters_of_one_block_are_gathered():
    view = view_of(recorded("lstm", steps=3, layers=2), fold_with=STYLES["unrolled"])
    made = gather(view)
    names = [n.name for n in made.nodes if n.kind == "parameter"]
    assert names == ["lstm layer 0: 4 parameters", "lstm layer 1: 4 parameters", "head: 2 parameters"]
    assert sum(n.count for n in made.nodes) == sum(n.count for n in view.nodes)
    kinds = {n.id: n.kind for n in made.nodes}
    blocks = [e for e in made.edges if kinds[e.source] == "parameter" and kinds[e.target] == "fold"]
    assert len(blocks) == 6
    assert {key for e in blocks for key in e.keys} == {
        key for e in view.edges if view.node(e.target).op == "fold" and e.role == "parameter" for key in e.keys
    }


def test_folding_what_is_rolled_keeps_its_loops():
    view = view_of(recorded("lstm", steps=3, layers=2), fold_with=STYLES["rolled"])
    loops = [(e.source, e.carries) for e in view.edges if e.source == e.target]
    assert len(loops) == 4
    for again in (gather(view), unroll(view)):
        assert [(e.source, e.carries) for e in again.edges if e.source == e.target] == loops


def test_a_page_folds_no_more_than_it_must(tapes):
    rnn, lstm = recorded("rnn", steps=9), tapes["lstm"]
    folded = [width_of(render(rnn, page=page)) for page in ("a4", "slide")]
    assert 900 < folded[0] <= 1123 < folded[1] <= 1280
    assert "steps" in render(lstm, page="a4").data
    assert render(tapes["rnn"], page="a4").data == render(tapes["rnn"]).data
    gru = render(recorded("gru", steps=3), page="a4").data  # a single step as one node leaves room for two
    assert re.findall(r">(t = [^<]*)<", gru) == ["t = 0", "t = 1", "t = 2"]
    assert gru.count("ℒ</text>") == 2
    long = render(recorded("lstm", steps=7), page="a4").data  # gates are folded before the last step and its loss are
    assert re.findall(r">(t = [^<]*)<", long) == ["t = 0", "t = 1 … 5", "t = 6"]
    assert long.count("ℒ</text>") == 2


def test_what_cannot_fit_is_an_error(tapes, tmp_path):
    with pytest.raises(UsageError, match=r"a4 is 1123 × 794 pixels, and this takes \d{4} × \d{3}; leave out fold="):
        render(tapes["lstm"], tmp_path / "a.svg", page="a4", fold=False)
    assert not list(tmp_path.iterdir())
    for options, said in (({"page": "a5"}, "a4, slide"), ({"page": "a4", "format": "text"}, "text has no width")):
        with pytest.raises(UsageError, match=said):
            check(**options)


# --- what formats without a drawing show ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "ascii", "json"])
def test_a_format_refuses_what_it_would_leave_out(kind):
    for option in ({"backward": True}, {"highlight": "loss -> w"}, {"flow": "width"}, {"show": ["gain"]}):
        word = option["show"][0] if "show" in option else next(iter(option))
        if kind == "json" and word != "backward":
            check(format=kind, **option)
            continue
        with pytest.raises(UsageError, match=f"the format {kind} does not show {word}: choose from svg, .*mermaid"):
            check(format=kind, **option)


@pytest.mark.parametrize("kind", ["mermaid", "dot"])
def test_text_formats_draw_the_way_back_and_what_flows(kind):
    tape = recorded("rnn", steps=2)
    options = {"flow": "width", "show": ("gain", "flow"), "highlight": "loss -> weight_hh_l0 by time"}
    view = view_of(tape, highlight=options["highlight"], contributions=True, fold_with=past_stacks)
    # the first state is zero, and so is what U gets for its use there
    carrying = sum(e.contribution is not None and e.contribution.norm > 0 for e in view.edges)
    made, plain = render(tape, format=kind, backward=True, **options).data, render(tape, format=kind).data
    assert 0 < carrying < len(view.edges)
    if kind == "mermaid":
        arrows = r"^  \w+ (?:-->|-\.->|==>)"
        assert len(re.findall(arrows, made, re.M)) - len(re.findall(arrows, plain, re.M)) == carrying
        lit = [k for k, e in enumerate(view.edges) if e.lit]
        assert f"linkStyle {','.join(map(str, lit))} stroke:{THEMES['light'].lit}" in made
    else:
        assert made.count('id="back-e-') == carrying
        assert made.count("penwidth=3") == sum(e.lit for e in view.edges)
    assert "×" in made
    assert "δ" in made
    widths = {float(w) for w in re.findall(r"(?:pen|stroke-)width[=:](\d\.\d\d)", made)}
    assert {0.5, 6.0} <= widths


def test_a_cut_edge_ends_in_a_cross():
    made = render(loop(cut=1), format="mermaid").data
    assert len(re.findall(r" --x n", made)) == 2


@pytest.mark.parametrize(
    ("made", "text", "latex"),
    [
        (lambda x: x * -2.0, "−2", "-2"),
        (lambda x: x / 4, "1/4", r"\frac{1}{4}"),
        (lambda x: x * float("inf"), "inf", "inf"),
        (lambda x: x**3, "3·x²", r"3 \cdot x^{2}"),
        (lambda x: x**0.5, "0.5·x^(−0.5)", r"0.5 \cdot x^{-0.5}"),
        (lambda x: mg.clip(x, -1.0, 1.0), "[x≥−1][x≤1]", r"\left[x \ge -1\right] \cdot \left[x \le 1\right]"),
        (lambda x: mg.leaky_relu(x, 0.1), "[x>0]+0.1[x≤0]",
         r"\left[x > 0\right] + 0.1 \cdot \left[x \le 0\right]"),
        (lambda x: mg.max(x), "[x=y]", r"\left[x = y\right]"),
        (lambda x: mg.mse(x, x.detach(), reduction="sum"), "2(x−target)", None),
        (lambda x: mg.mse(x, x.detach()), "2(x−target)/N", None),
    ],
)  # fmt: skip
def test_numbers_of_the_program_stand_in_its_derivatives(made, text, latex):
    x = mg.tensor([0.5, 2.0], requires_grad=True, name="x")
    with mg.Tape() as tape:
        made(x)
    (edge,) = (e for e in view_of(tape).edges if e.carries == "x" and e.local)
    assert edge.local == text
    assert latex is None or edge.local_latex == latex


def test_names_of_the_page_give_way_to_names_of_the_model():
    a, y = (mg.tensor([0.5, 2.0], requires_grad=True, name=name) for name in "ay")
    with mg.Tape() as tape:
        mg.tanh((a + y) * (a - y))
    said = [e.local for e in view_of(tape).edges]
    assert said[4:6] == ["a−y", "a+y"]
    assert re.fullmatch(r"\(1−\(?tanh#5\)?\)\(1\+\(?tanh#5\)?\)", said[6])


def test_results_of_one_operation_are_told_apart():
    mg.manual_seed(1)
    lstm = mg.nn.LSTM(3, 5, dtype="float64")
    with mg.Tape(detail="cells") as tape:
        out, _ = lstm(mg.tensor(np.linspace(-1, 1, 18).reshape(3, 2, 3)))
        loss = (out * out).sum()
    loss.backward()
    handed = [e for e in view_of(tape).edges if e.role in ("cell", "hidden") and e.source > 9]
    assert {(e.role, e.result, e.carries[0]) for e in handed} == {("hidden", 0, "h"), ("cell", 1, "c")}
    assert {e.local for e in view_of(tape).edges if tape.nodes[e.target].op == "lstm_cell"} == {"lstm_cell′"}


def test_what_is_forced_on_a_step_is_no_first_state():
    """Whatever its name, what stands before the loop where later steps read a state is drawn before them."""
    w = mg.tensor(np.linspace(-1, 1, 9).reshape(3, 3), requires_grad=True, name="w")
    with mg.Tape() as tape:
        s = mg.tensor(np.ones((1, 3)), name="start")
        for t in range(4):
            with mg.scope(f"t={t}"):
                if t == 2:
                    s = mg.tensor(np.full((1, 3), 0.5), name="told")
                s = mg.tanh(s @ w)
    view = view_of(tape, show=())
    assert {n.name: n.step for n in view.nodes if n.kind == "input"} == {"start": None, "told": 2}
    gates = {n.name: n.step for n in view_of(recorded("lstm", steps=2, variant="FGR"), show=()).nodes}
    assert gates["gates[-1]"] is None


def test_products_with_turned_weights_are_called_by_the_weights():
    said = {e.local for e in view_of(recorded("lstm", steps=2, variant="FGR")).edges}
    assert {"G_iᵀ", "G_fᵀ", "G_oᵀ", "gates₀"} <= said
    assert not {"bᵀ", "b"} & said


def test_a_step_of_two_functions_and_a_piece_of_a_state():
    """What reads a state cut from a stack of layers speaks of that state, and of a Function by its name."""
    mg.manual_seed(1)
    lstm = mg.nn.LSTM(3, 5, num_layers=2)
    with mg.Tape() as tape:
        h = mg.checkpoint(lambda x: lstm(x)[0], mg.tensor(np.ones((2, 1, 3), "f4"), requires_grad=True))
        lstm(mg.tensor(np.ones((2, 1, 3), "f4")))
        h.sum()
    said = {e.local for e in view_of(tape).edges}
    assert {"c₋₁", "h₋₁", "x₀", "Checkpoint′"} <= said
    assert not {"c", "h"} & said


def test_operands_without_a_name_are_called_by_what_they_are(tapes):
    said = {e.local for e in view_of(tapes["gru"]).edges}
    assert {"U_n h₋₁+b", "U_n h₀+b"} <= said
    assert not said & {"a", "b", "x", "y"}
    pages = {e.local for e in view_of(tapes["rnn"]).edges if "softmax" in (e.local or "")}
    assert pages == {f"(softmax(logits{t})−onehot)/N" for t in "₀₁₂"}


def test_a_folded_layer_says_which_it_is(tapes):
    view = view_of(tapes["two layers"], fold_with=lambda view: fold(past_stacks(view), "layer"))
    assert [n.label for n in view.nodes if n.kind == "fold"] == ["lstm layer 0", "lstm layer 1"]


# --- colours ------------------------------------------------------------------------------------------------


def luminance(colour):
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return linear, 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a)[1], luminance(b)[1]))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_text_and_lines_stand_out_from_what_they_are_on(theme):
    for fill in theme.fills.values():
        assert min(contrast(getattr(theme, word), fill) for word in ("ink", "soft", "value", "grad")) >= 4.5
        assert contrast(theme.line, fill) >= 3
    flows = [flow_line(theme, "color", level)[0] for level in range(LEVELS)]
    for ground in (theme.paper, theme.frame):
        texts = [theme.ink, theme.soft, theme.cell, theme.hidden, theme.value, theme.grad, theme.backward]
        assert min(contrast(text, ground) for text in texts) >= 4.5
        lines = [theme.line, theme.frame_line, theme.loss, theme.lit, theme.peephole, *theme.rails, *flows]
        assert min(contrast(line, ground) for line in lines) >= 3


def seen(colour, eye):
    """Return a colour in CIELAB, as an eye without one kind of cones sees it: Machado, Oliveira and Fernandes 2009."""
    rgb = np.clip(np.array(eye) @ luminance(colour)[0], 0, 1)
    xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]) @ rgb
    x, y, z = (c ** (1 / 3) if c > 0.008856 else 7.787 * c + 16 / 116 for c in xyz / [0.9505, 1.0, 1.0888])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


EYES = {
    "all cones": np.eye(3),
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
}


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_gates_and_lines_are_told_apart_by_every_eye(theme, eye):
    colours = THEMES[theme]
    gates = [colours.fills[gate] for gate in ("forget", "input", "cell", "output")]
    lines = [colours.line, colours.cell, colours.hidden, colours.backward, colours.lit]
    for names, apart in ((gates, 12), (lines, 16)):
        there = [seen(colour, EYES[eye]) for colour in names]
        assert min(np.linalg.norm(a - b) for a, b in combinations(there, 2)) >= apart


def test_lines_that_step_back_do_not_add_up():
    # four lines share h's way into a step; with opacity they would be nearly as dark as before
    made = render(recorded("lstm", steps=2), highlight="loss -> weight_hh_l0 by time 1").data
    assert re.search(r"\.e\.hidden\.aside,[^{]*\{opacity:1;stroke:#", made)
    assert re.search(r'<path class="rail r0 aside"', made)
    assert re.search(r'class="w cell oblique aside"|class="w cell aside oblique"', made)


# --- the way back, beside back-propagation through time written by hand --------------------------------------


def test_flows_are_those_of_back_propagation_through_time():
    rng = np.random.default_rng(11)
    steps, heard, cut = 5, (1, 4), 2
    cell = mg.nn.RNNCell(3, 7, dtype="float64")
    x, d = rng.normal(size=(steps, 2, 3)), rng.normal(size=(steps, 2, 7))
    first = rng.normal(size=(2, 7))
    with mg.Tape() as tape:
        h, losses = mg.tensor(first), []
        for t in range(steps):
            with mg.scope(f"t={t}"):
                h = cell(mg.tensor(x[t]), h)
                if t in heard:
                    losses.append(mg.losses.half_squared_error(h, mg.tensor(d[t])))
                if t == cut:
                    h = h.detach()
        sum(losses[1:], losses[0]).backward()

    w, u = cell.weight_ih.numpy(), cell.weight_hh.numpy()
    b = cell.bias_ih.numpy() + cell.bias_hh.numpy()
    states = [first]
    for t in range(steps):
        states.append(np.tanh(x[t] @ w.T + states[t] @ u.T + b))
    wanted, later = {}, np.zeros_like(first)
    for t in reversed(range(steps)):
        error = states[t + 1] - d[t] if t in heard else np.zeros_like(first)
        delta = (error + later) * (1 - states[t + 1] ** 2)
        wanted[t] = {
            "weight_ih": delta.T @ x[t], "weight_hh": delta.T @ states[t],
            "bias_ih": delta.sum(0), "bias_hh": delta.sum(0), "h": delta @ u,
        }  # fmt: skip
        later = delta @ u if t - 1 != cut else np.zeros_like(first)

    view = view_of(tape, show=("flow",))
    made = render(tape, backward=True).data
    back = set(re.findall(r'id="back-(e-[^"]*)"', made))
    seen = set()
    for e in view.edges:
        target = view.node(e.target)
        what = e.carries if e.role == "parameter" else "h" if target.op == "affine" and e.name == "x" else None
        if what not in wanted[0] or (what == "h" and "weight_hh" not in {
            o.carries for o in view.edges if o.target == e.target
        }):  # fmt: skip
            continue
        size = np.linalg.norm(wanted[target.step][what])
        drawn = f"e-{view.node(e.source).key}-{target.key}-{e.argument}" in back
        if what == "h" and not view.node(e.source).requires_grad:  # the first state, and the one that was cut off
            assert e.contribution is None
            assert not drawn
        else:
            # after the cut, step 2 has no loss to hear of
            assert (e.contribution.norm if e.contribution else 0) == pytest.approx(size, rel=6e-6)
            assert drawn == (size > 0) == (target.step != cut)
        seen.add((target.step, what))
    assert len(seen) == 5 * steps


def jogs(scene):
    """The wires with a short level change between two long level parts: what a reader sees as a kink."""
    return [
        wire.key for wire in scene.wires if wire.square
        for (ax, ay), (bx, by), (cx, cy), (dx, dy) in zip(*(wire.points[k:] for k in range(4)), strict=False)
        if ay == by and bx == cx and cy == dy and 0 < abs(by - cy) < 6
    ]  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_states_run_straight_from_block_to_block(style):
    tape = recorded("lstm", steps=3, layers=2, bidirectional=True)
    scene = lay_out(view_of(tape, fold_with=STYLES[style]))
    assert jogs(scene) == []
    if style == "unrolled":
        names = ["layer 0 forward", "layer 0 reverse", "layer 1 forward", "layer 1 reverse"]
        heights = [{b.y for b in scene.boxes if name in b.words[0].text} for name in names]
        assert [len(at) for at in heights] == [1, 1, 1, 1]
        assert len({y for at in heights for y in at}) == 4
        states = [w for w in scene.wires if w.style in ("cell", "hidden")]
        assert len(states) == 16 + 4
        assert all(len({y for _, y in w.points}) == 1 for w in states)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_what_reads_the_highest_layer_stands_above_it(name):
    view = view_of(recorded(name, steps=3, bidirectional=True), fold_with=past_stacks)
    scene = lay_out(view)
    at = {b.key: b for b in scene.boxes}
    for n in view.nodes:
        if (n.display_name or "").startswith("logits"):
            row = next(e.source for e in view.edges if e.target == n.id and e.argument == 0)
            key = next(m.key for m in view.nodes if m.id == row)
            box, below = at[f"n-{n.key}"], at[f"n-{key}"]
            assert box.y < below.y
            assert abs(box.x - below.x) < (box.width + below.width) / 2 + 40


@pytest.mark.parametrize(("name", "style"), [("rnn", "graph"), ("gru", "rolled"), ("lstm", "unrolled")])
def test_gradients_of_a_fused_layer_run_past_its_parameters(name, style):
    model = models.build(name, steps=3)
    with mg.Tape(detail="layers") as tape:
        loss = model.loss()
    loss.backward()
    for show in (("shape",), ("local",)):
        scene = lay_out(view_of(tape, show=show, fold_with=STYLES[style]), show=show, backward=True)
        assert any(wire.style == "backward" for wire in scene.wires)
        assert faults(scene) == []


@pytest.mark.parametrize("options", [{"steps": 7, "bidirectional": True}, {"steps": 3, "layers": 2}], ids=str)
def test_neighbouring_parameter_lines_leave_room_for_what_is_written_there(options):
    show = ("local", "gain")
    scene = lay_out(view_of(recorded("lstm", **options), show=show, fold_with=past_stacks), show=show, backward=True)
    upright = sorted((words.y, words.box[0], words.box[2]) for w in scene.wires for words in w.words if words.turn)
    beside = [(a, b) for a, b in pairwise(upright) if a[0] == b[0]]
    assert len(beside) > 50
    assert all(a[2] <= b[1] + 0.01 for a, b in beside)


@pytest.mark.parametrize("show", [("local", "gain"), EVERYTHING], ids="+".join)
def test_sizes_of_derivatives_stand_clear_of_what_comes_back(tapes, scenes, show):
    for backward in (False, True):
        render(tapes["lstm"], style="odyssey", show=show, backward=backward)
        assert faults(scenes[-1]) == []
