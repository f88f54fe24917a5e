"""The charts of one recurrent block: every variant as it was recorded, nothing overlapping, the numbers of the tape."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from picture_checks import crossed_out, doubled, faults

import minigrad as mg
from minigrad.cli import main
from minigrad.errors import UsageError
from minigrad.graph.view import Summary, View, view_of
from minigrad.nn.units import VARIANTS
from minigrad.render import render
from minigrad.render.block import choose, excerpt, read, units
from minigrad.render.chart import Chart, addends, routes
from minigrad.render.circuit import to_circuit
from minigrad.render.odyssey import to_odyssey
from minigrad.render.theme import style_sheet

ALL = ("shape", "value", "grad", "local")
SHOWS = [(), ("shape",), ("value", "grad"), ALL, (*ALL, "flow")]


def recorded(layer, lengths=None, steps=4, batch=1):
    """Return the tape of a layer over a few steps, after a backward pass."""
    rng = np.random.default_rng(11)
    x = mg.tensor(rng.normal(size=(steps, batch, layer.input_size)).astype("f"), name="x")
    with mg.Tape() as tape:
        out = layer(x, lengths=lengths)[0]
        loss = (out * out * out).sum()
    loss.backward()
    return tape


def made(kind, training=True, lengths=None, hidden=2, **options):
    mg.manual_seed(5)
    layer = kind(3, hidden, **options)
    layer.train(training)
    return recorded(layer, lengths, batch=len(lengths) if lengths else 1)


LSTM, GRU, RNN = mg.nn.LSTM, mg.nn.GRU, mg.nn.RNN
CASES = {
    f"{variant} {peepholes}": (LSTM, {"variant": variant, "peepholes": peepholes})
    for variant in VARIANTS
    for peepholes in (None, "diagonal", "full")
    if variant != "NP" or peepholes is None
}
CASES |= {
    "gru after": (GRU, {}),
    "gru before": (GRU, {"reset_after": False}),
    "rnn": (RNN, {}),
    "relu": (RNN, {"nonlinearity": "relu"}),
}
OPTIONS = {
    "projection": (LSTM, {"proj_size": 1}),
    "projection, no output gate": (LSTM, {"proj_size": 1, "variant": "NOG"}),
    "normalised": (LSTM, {"layer_norm": True, "peepholes": "diagonal"}),
    "normalised, no output gate": (LSTM, {"layer_norm": True, "variant": "NOG"}),
    "cell clip": (LSTM, {"cell_clip": 1.0, "peepholes": "diagonal"}),
    "clip": (LSTM, {"clip": 1.0}),
    "zoneout": (LSTM, {"zoneout": (0.2, 0.3), "peepholes": "diagonal"}),
    "zoneout, its mean": (LSTM, {"zoneout": (0.2, 0.3), "training": False}),
    "zoneout, no output gate": (LSTM, {"zoneout": (0.2, 0.3), "variant": "NOG", "proj_size": 1}),
    "dropout of h": (LSTM, {"recurrent_dropout": 0.5}),
    "dropout of weights": (LSTM, {"weight_drop": 0.5}),
    "lengths": (LSTM, {"lengths": [4, 2], "peepholes": "full", "variant": "CIFG"}),
    "other activations": (LSTM, {"activations": ("hard_sigmoid", "relu", None)}),
    "coupled in ONNX's way": (LSTM, {"input_forget": True}),
    "remembered gates, lengths": (LSTM, {"variant": "FGR", "lengths": [4, 2], "peepholes": "diagonal"}),
    "everything at once": (
        LSTM,
        {
            "layer_norm": True,
            "zoneout": (0.2, 0.3),
            "recurrent_dropout": 0.3,
            "proj_size": 1,
            "peepholes": "full",
            "cell_clip": 1.0,
            "clip": 2.0,
            "lengths": [4, 2],
        },
    ),
    "no bias": (LSTM, {"bias": False, "peepholes": "full"}),
    "many units": (LSTM, {"hidden": 31, "peepholes": "diagonal"}),
    "gru normalised": (GRU, {"layer_norm": True}),
    "gru zoneout": (GRU, {"zoneout": 0.3, "training": False}),
    "gru lengths": (GRU, {"lengths": [4, 2], "reset_after": False}),
    "gru dropout": (GRU, {"recurrent_dropout": 0.5}),
    "rnn normalised": (RNN, {"layer_norm": True}),
    "rnn zoneout": (RNN, {"zoneout": 0.3}),
    "rnn lengths": (RNN, {"lengths": [4, 2]}),
}
EVERYTHING = CASES | OPTIONS
TAPES, BLOCKS = {}, {}


def tape_of(name):
    if name not in TAPES:
        kind, options = EVERYTHING[name]
        TAPES[name] = made(kind, **options)
    return TAPES[name]


def block_of(name, **where):
    if (name, *where.items()) not in BLOCKS:
        view = view_of(tape_of(name), show=ALL, contributions=True)
        BLOCKS[name, *where.items()] = read(view, *choose(view, **where))
    return BLOCKS[name, *where.items()]


PLANS = {"circuit": to_circuit, "odyssey": to_odyssey}
PAIRS = [
    (style, name) for style in PLANS for name, (kind, _) in EVERYTHING.items() if style == "circuit" or kind is LSTM
]


def flaws(scene):
    return faults(scene) + crossed_out(scene) + doubled(scene)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(("style", "name"), PAIRS)
def test_nothing_overlaps(style, name, backward):
    block = block_of(name)
    for show in SHOWS:
        assert flaws(PLANS[style](block, show=show, backward=backward)) == [], show


@pytest.mark.parametrize(("style", "name"), PAIRS)
def test_every_operation_and_every_wire_of_the_step_is_drawn(style, name):
    block = block_of(name)
    scene = PLANS[style](block)
    drawn = {c for box in scene.boxes for c in (box.key, *box.classes)}
    assert drawn >= {f"n-{block.nodes[i].key}" for i in block.home}
    wires = {c for wire in scene.wires for c in (wire.key, *wire.classes)}
    keys = {i: n.key for i, n in block.nodes.items()}
    ends = {e: {f"n-{keys[e.source]}", f"n-{keys[e.target]}"} for link in block.links.values() for e in link.edges}
    for e, both in ends.items():
        one = any(both <= {box.key, *box.classes} for box in scene.boxes)  # the cell, held within its bounds
        assert one or f"e-{keys[e.source]}-{keys[e.target]}-{e.argument}" in wires


@pytest.mark.parametrize("title", ["word " * 30, "w" * 90, "a title of some length, and with a second half"])
@pytest.mark.parametrize("name", ["V diagonal", "rnn", "FGR full"])
@pytest.mark.parametrize("style", PLANS)
def test_long_titles_are_broken(style, name, title):
    block = block_of(name)
    if style == "odyssey" and name == "rnn":
        return
    for show, backward in (((), False), (("value",), True)):
        scene = PLANS[style](block, show=show, backward=backward, title=title)
        assert flaws(scene) == []
        shown = [w.text for w in scene.words if w.face == "bold"]
        assert " ".join(shown) == title.strip()
        assert scene.title == title


def said(box_or_words):
    return [w.text for w in box_or_words]


@pytest.mark.parametrize("style", PLANS)
def test_the_measure_sees_faults(style):
    scene = PLANS[style](block_of("V diagonal"), show=ALL, backward=True)
    words = next(w for w in scene.words if w.text == "iₜ")
    wire = next(w for w in scene.wires if w.style == "backward")
    middle = [(a + b) / 2 for a, b in zip(*wire.points[:2], strict=True)]
    scene.words[scene.words.index(words)] = replace(words, x=middle[0] - 3, y=middle[1])
    assert any("through 'iₜ'" in flaw for flaw in flaws(scene))
    box = next(b for b in scene.boxes if "output gate" in said(b.words))
    scene.boxes[scene.boxes.index(box)] = replace(box, width=60.0, height=60.0)
    assert any(f"leaves {box.key}" in flaw for flaw in flaws(scene))


LACKS = {"NIG": "i", "NFG": "f", "NOG": "o", "CIFG": "f"}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("style", PLANS)
def test_variants_are_drawn_as_they_are(style, variant):
    peepholes = None if variant == "NP" else "diagonal"
    block = block_of(f"{variant} {peepholes}")
    scene = PLANS[style](block)
    names = {text for box in scene.boxes for text in said(box.words)}
    gates = {"i": "input gate", "f": "forget gate", "o": "output gate"}
    for letter, name in gates.items():
        assert (name in names) == (LACKS.get(variant) != letter)
    assert "cell gate" in names
    assert ("1 −" in names) == (variant == "CIFG")
    cell = next(box for box in scene.boxes if "cell gate" in said(box.words))
    assert said(cell.words)[0] == ("Σ" if variant == "NIAF" else "tanh")
    assert sum("tanh" in said(box.words) for box in scene.boxes) == 2 - (variant in ("NIAF", "NOAF"))
    labels = {w.text for w in scene.words} | names
    assert {f"p_{k}" for k in "ifo" if k not in LACKS.get(variant, "")} <= labels or variant == "NP"
    assert ("G_i" in labels) == ("[i f o]ₜ₋₁" in labels) == (variant == "FGR")
    assert any("peephole" in wire.style for wire in scene.wires) == (variant != "NP")
    products = sum(text == "⊙" for box in scene.boxes for text in said(box.words))
    assert products == 3 - (variant in ("NIG", "NFG", "NOG"))


@pytest.mark.parametrize("style", PLANS)
def test_a_plain_unit_is_counted_as_textbooks_count(style):
    block = block_of("V None")
    signs = [part.sign for name, part in block.parts.items() if name not in ("x", "h-", "c-")]
    assert sorted(signs) == sorted(["σ", "σ", "σ", "tanh", "⊙", "⊙", "⊙", "+", "tanh"])
    dashed = [wire for wire in PLANS[style](block).wires if "lag" in wire.style]
    assert len(dashed) == 4 + (style == "odyssey")  # h to four gates; the cell's way back to itself


@pytest.mark.parametrize("name", ["V diagonal", "gru after", "gru before", "rnn", "FGR full"])
@pytest.mark.parametrize("style", PLANS)
def test_numbers_are_those_of_the_tape(style, name):
    block = block_of(name)
    if style == "odyssey" and block.unit.kind != "lstm":
        return
    tape = {node.id: node for node in tape_of(name).nodes}
    scene = PLANS[style](block, show=("value", "grad"), backward=True)
    found = {w.text for w in scene.words} | {text for box in scene.boxes for text in said(box.words)}

    def number(v):
        return f"{v:.3g}".replace("-", "−")

    def written(array, sign):
        few = ", ".join(f"{v:.2g}".replace("-", "−") for v in array.reshape(-1))
        norm = number(np.linalg.norm(array.astype("d")))
        return {f"{sign} {few}", f"‖{sign}‖ {norm}", f"‖·‖ = {norm}"}

    for part, symbol in (("h-", "∂"), ("x", "=")):
        node = tape[block.parts[part].out]
        array = node.grad if symbol == "∂" else node.value
        assert written(array, symbol) & found
    for link in block.links.values():
        (edge, *more) = link.edges
        if edge.contribution is None or more:
            continue
        # what is sent back over an elementwise edge, by hand: the other operand times the gradient of the result
        target = tape[edge.target]
        if target.op == "mul":
            other = target.inputs[1 - edge.argument].value
            by_hand = np.broadcast_to(other, target.shape) * target.grad
            np.testing.assert_allclose(edge.contribution.norm, np.linalg.norm(by_hand), rtol=2e-5)
            if link.source not in ("i", "f", "o") or link.target != "gates":
                assert written(by_hand, "δ") & found, (link.source, link.target)


@pytest.mark.parametrize("style", PLANS)
def test_local_derivatives_are_in_the_names_of_the_chart(style):
    def local(name):
        scene = PLANS[style](block_of(name), show=("local",))
        return {w.text.removeprefix("∂⁺ ") for w in scene.texts if w.text.startswith("∂⁺")} - {"local derivative"}

    gates = {"oₜ(1−oₜ)", "fₜ(1−fₜ)", "iₜ(1−iₜ)", "(1−gₜ)(1+gₜ)"}
    assert local("V diagonal") == gates | {"(1−tanh cₜ)(1+tanh cₜ)", "tanh cₜ", "1", "iₜ", "gₜ", "fₜ", "cₜ₋₁", "oₜ"}
    assert {"(1−tanh c̃ₜ)(1+tanh c̃ₜ)", "tanh c̃ₜ", "[runs]"} <= local("lengths")
    assert local("other activations") >= {"[g\u0304ₜ>0]", "hard_sigmoid′", "cₜ"}
    assert all("#" not in text for name in ("normalised", "zoneout", "FGR full") for text in local(name))


@pytest.mark.parametrize("name", ["V full", "CIFG diagonal", "gru after", "rnn", "zoneout", "projection", "many units"])
def test_what_comes_back_adds_up_to_the_gradient(name):
    block = block_of(name)
    tape = {node.id: node for node in tape_of(name).nodes}
    chart = Chart(block, ("value",), True)
    for part in {chart.output, chart.cell if block.unit.kind == "lstm" else chart.output}:
        rows = routes(block, block.parts[part].out, chart.t, chart.before)
        readers = [n for n in tape_of(name).nodes for p in n.inputs if p.id == block.parts[part].out]
        assert len(rows) == len(readers)
        total = np.mean(tape[block.parts[part].out].grad.astype("d"))
        np.testing.assert_allclose(sum(s.mean for _, s in rows), total, rtol=1e-4, atol=1e-6)
        ledger = chart.ledger(part, "c")
        assert len(ledger.names) == len(ledger.figures) == len(rows) + 1
    if name == "V full":
        assert [text for text, _ in routes(block, block.parts["+"].out, "ₜ", "ₜ₋₁")] == [
            "peephole P to oₜ", "tanh to hₜ", "peephole P to iₜ₊₁", "peephole P to fₜ₊₁", "⊙ fₜ₊₁ to cₜ₊₁",
        ]  # fmt: skip


# --- the numbers by hand ------------------------------------------------------------------------------------
# Nothing below knows the engine: the equations of a cell, and its gradient through time, term by term.


def sigma(a):
    return 1 / (1 + np.exp(-a))


def rows_of(weights, letters):
    return dict(zip(letters, np.split(weights.astype("d"), len(letters)), strict=True))


def lstm_by_hand(state, xs, variant, keep=0.0):
    """Return for each step what stands on the wires of an LSTM with diagonal peepholes, E the sum of y³.

    `keep` is the share of the old cell that zoneout's mean keeps; its state c is then handed on, and n the new cell.
    """
    letters = {"CIFG": "igo", "NFG": "igo", "V": "ifgo"}[variant]
    W, R = rows_of(state["weight_ih_l0"], letters), rows_of(state["weight_hh_l0"], letters)
    b = rows_of(state["bias_ih_l0"] + state["bias_hh_l0"], letters)
    p = rows_of(state["weight_ph_l0"], letters.replace("g", ""))
    h = c = np.zeros(len(b["g"]))
    steps = []
    for x in xs:
        s = {"x": x, "h-": h, "c-": c}
        for k in letters.replace("o", ""):
            s[f"{k} sum"] = W[k] @ x + R[k] @ h + b[k] + (p[k] * c if k in p else 0)
            s[k] = np.tanh(s["g sum"]) if k == "g" else sigma(s[f"{k} sum"])
        f = s["f"] = {"CIFG": 1 - s["i"], "NFG": np.ones_like(c)}.get(variant, s.get("f"))
        s["n"] = f * c + s["i"] * s["g"]
        s["o sum"] = W["o"] @ x + R["o"] @ h + b["o"] + p["o"] * s["n"]
        s["o"] = sigma(s["o sum"])
        s["tanh"] = np.tanh(s["n"])
        h, c = s["o"] * s["tanh"], keep * s["c-"] + (1 - keep) * s["n"]
        steps.append(s | {"h": h, "c": c})
    none = dict.fromkeys([f"d{k} sum" for k in "ifgo"] + ["dn", "dc", "f"], np.zeros_like(c))
    for s, after in reversed(list(zip(steps, [*steps[1:], none], strict=True))):
        s["to h"] = {k: R[k].T @ after[f"d{k} sum"] for k in letters} | {"loss": 3 * s["h"] ** 2}
        s["dh"] = sum(s["to h"].values())
        s["do"], s["dtanh"] = s["dh"] * s["tanh"], s["dh"] * s["o"]
        s["do sum"] = s["do"] * s["o"] * (1 - s["o"])
        s["to c"] = {k: p[k] * after[f"d{k} sum"] for k in letters if k in "if"}
        s["to c"] |= {"c": after["dn"] * after["f"], "keep": keep * after["dc"]}
        s["dc"] = sum(s["to c"].values())
        s["to n"] = {"o": p["o"] * s["do sum"], "tanh": s["dtanh"] * (1 - s["tanh"] ** 2), "c": (1 - keep) * s["dc"]}
        s["dn"] = sum(s["to n"].values())
        s["df"], s["di"], s["dg"] = s["dn"] * s["c-"], s["dn"] * s["g"], s["dn"] * s["i"]
        whole = s["di"] - s["df"] if variant == "CIFG" else s["di"]
        s["di sum"], s["dg sum"] = whole * s["i"] * (1 - s["i"]), s["dg"] * (1 - s["g"] ** 2)
        s["df sum"] = s["df"] * s["f"] * (1 - s["f"])
        s |= {f"U {k}": R[k].T @ s[f"d{k} sum"] for k in letters}
        s |= {f"p {k}": p[k] * s[f"d{k} sum"] for k in p}
    return steps


def gru_by_hand(state, xs, after):
    """Return for each step what stands on the wires of a GRU, E the sum of y³."""
    W, R = rows_of(state["weight_ih_l0"], "rzn"), rows_of(state["weight_hh_l0"], "rzn")
    b, e = rows_of(state["bias_ih_l0"], "rzn"), rows_of(state["bias_hh_l0"], "rzn")
    h = np.zeros(len(b["n"]))
    steps = []
    for x in xs:
        s = {"x": x, "h-": h}
        for k in "rz":
            s[f"{k} sum"] = W[k] @ x + b[k] + R[k] @ h + e[k]
            s[k] = sigma(s[f"{k} sum"])
        s["u"] = R["n"] @ h + e["n"] if after else h
        s["rh"] = s["r"] * s["u"]
        s["n sum"] = W["n"] @ x + b["n"] + (s["rh"] if after else R["n"] @ s["rh"] + e["n"])
        s["n"] = np.tanh(s["n sum"])
        h = (1 - s["z"]) * s["n"] + s["z"] * h
        steps.append(s | {"h": h})
    none = {"dh": 0 * h, "z": 0 * h, "U r": 0 * h, "U z": 0 * h, "U n": 0 * h}
    for s, later in reversed(list(zip(steps, [*steps[1:], none], strict=True))):
        s["to h"] = {"r": later["U r"], "z": later["U z"], "n": later["U n"], "h": later["dh"] * later["z"]}
        s["to h"]["loss"] = 3 * s["h"] ** 2
        s["dh"] = sum(s["to h"].values())
        s["dn"] = s["dh"] * (1 - s["z"])
        s["dn sum"] = s["dn"] * (1 - s["n"] ** 2)
        s["drh"] = s["dn sum"] if after else R["n"].T @ s["dn sum"]
        s["dr"], s["du"] = s["drh"] * s["u"], s["drh"] * s["r"]
        s["dz"] = s["dh"] * (s["h-"] - s["n"])
        for k in "rz":
            s[f"d{k} sum"] = s[f"d{k}"] * s[k] * (1 - s[k])
            s[f"U {k}"] = R[k].T @ s[f"d{k} sum"]
        s["U n"] = R["n"].T @ s["du"] if after else s["du"]
    return steps


def says(text, array):
    """Whether a line of a chart is true of an array, to half a unit of the last digit that it shows."""
    shown = re.findall(r"−?\d+(?:\.(\d+))?(?:e([−+]?\d+))?", text)
    numbers = [float(k.replace("−", "-")) for k in re.findall(r"−?\d+(?:\.\d+)?(?:e[−+]?\d+)?", text)]
    true = [np.linalg.norm(array)] if "‖" in text else list(np.reshape(array, -1))
    units = [10.0 ** (int((e or "0").replace("−", "-")) - len(digits)) for digits, e in shown]
    assert len(numbers) == len(true), text
    return all(abs(a - b) <= 0.5001 * unit + 1e-12 for a, b, unit in zip(numbers, true, units, strict=True))


def below(scene, symbol, style):
    """Return the first line of a style that stands under a symbol, or to the right of what enters the block."""
    places = [(w.x, w.y, scene.words[k + 1 :]) for k, w in enumerate(scene.words) if w.text == symbol]
    places += [(b.box[0], b.y, [*b.words, *scene.words]) for b in scene.boxes if symbol in said(b.words)]
    near = [w for x, y, words in places for w in words if w.style == style and abs(w.x - x) < 120 and abs(w.y - y) < 60]
    return near[0].text


def by_hand(kind, peepholes=None, **options):
    """Return a tape of a layer in float64 with weights that are far from their first ones, and its steps by hand."""
    mg.manual_seed(5)
    rng = np.random.default_rng(7)
    given = {} if kind is GRU else {"peepholes": peepholes}
    layer = kind(3, 2, **given, **options)
    layer.eval()
    state = {k: rng.normal(size=v.shape) for k, v in layer.state_dict().items()}
    layer.to("float64")
    layer.load_state_dict(state)
    xs = rng.normal(size=(4, 3))
    with mg.Tape() as tape:
        out = layer(mg.tensor(xs[:, None]))[0]
        loss = (out * out * out).sum()
    loss.backward()
    if kind is GRU:
        return tape, gru_by_hand(state, xs, options.get("reset_after", True))
    return tape, lstm_by_hand(state, xs, options.get("variant", "V"), options.get("zoneout", (0, 0))[1])


def check_ledger(scene, symbol, terms, total):
    """Compare a sum, row by row; rows are as many as the terms that are not nothing by definition."""
    start = next(k for k, w in enumerate(scene.words) if w.text == f"δ{symbol}" and w.size > 12)
    figures = []
    for words in scene.words[start + 2 :]:
        if words.size > 12 or words.text.startswith("the sum"):
            break
        figures += [words.text] if words.style == "k" else []
    figures = figures[: len(terms) + 1]
    assert all(map(says, figures, [*terms, total])), (symbol, figures, terms, total)
    shown = np.array([[float(v.replace("−", "-")) for v in f.split(", ")] for f in figures])
    unit = 10.0 ** -len(figures[0].split(", ")[0].partition(".")[2])
    assert np.all(abs(shown[:-1].sum(0) - shown[-1]) <= 0.5001 * unit * len(shown))


@pytest.mark.parametrize("style", PLANS)
@pytest.mark.parametrize("variant", ["V", "CIFG", "NFG", "zoneout"])
def test_an_lstm_by_hand(variant, style):
    options = {"zoneout": (0.0, 0.3)} if variant == "zoneout" else {"variant": variant}
    tape, steps = by_hand(LSTM, "diagonal", **options)
    for t in range(4):
        s = steps[t]
        view = view_of(tape, show=ALL, contributions=True)
        scene = PLANS[style](read(view, *choose(view, step=t)), show=("value", "grad"), backward=True)
        cell = "c̃ₜ" if variant == "zoneout" else "cₜ"
        beside = {"iₜ ⊙ gₜ": ("n", "dn"), "gₜ": ("g", "dg"), "oₜ": ("o", "do"), f"tanh {cell}": ("tanh", "dtanh")}
        if variant != "NFG":
            beside |= {"fₜ": ("f", "df"), "fₜ ⊙ cₜ₋₁": ("n", "dn")}
        s["iₜ ⊙ gₜ"], s["fₜ ⊙ cₜ₋₁"] = s["i"] * s["g"], s["f"] * s["c-"]
        for symbol, (value, back) in beside.items():
            assert says(below(scene, symbol, "v"), s.get(symbol, s[value])), symbol
            if style == "circuit":
                assert says(below(scene, symbol, "k"), s[back]), symbol
        for k in "ifgo":
            if k == "f" and variant in ("CIFG", "NFG"):
                continue
            box = next(b for b in scene.boxes if any(w.text.startswith((f"{k}̄ₜ", f"‖{k}̄ₜ")) for w in b.words))
            value, back = box.words[-2:]
            assert says(value.text, s[f"{k} sum"])
            assert says(back.text, s[f"d{k} sum"])
            for letter in ("U", "p") if t else ():  # nothing comes back to zeros
                if (letter, k) != ("p", "g"):
                    assert says(below(scene, f"{letter}_{k}", "k"), s[f"{letter} {k}"]), (letter, k)
        for symbol, value in (("hₜ₋₁", "h-"), ("cₜ₋₁", "c-"), ("xₜ", "x")):
            assert says(below(scene, symbol, "v"), s[value])
        gates = [k for k in "ifgo" if k != "f" or variant in ("V", "zoneout")]
        later = t < 3
        check_ledger(scene, "hₜ", [s["to h"][k] for k in (*(gates if later else ()), "loss")], s["dh"])
        own = [s["to n"]["o"], s["to n"]["tanh"]]
        peeps = [s["to c"][k] for k in gates if k in "if"] + [s["to c"]["c"]] if later else []
        if variant == "zoneout":
            kept = [s["to n"]["c"]] if later else []
            check_ledger(scene, "c̃ₜ", own + kept, s["dn"])
            if later:
                last = [s["to c"]["keep"]] if t < 2 else []  # the last state is read by nobody
                check_ledger(scene, "cₜ", peeps + last, s["dc"])
        else:
            check_ledger(scene, "cₜ", own + peeps, s["dn"])


@pytest.mark.parametrize("after", [True, False])
def test_a_gru_by_hand(after):
    tape, steps = by_hand(GRU, reset_after=after)
    view = view_of(tape, show=ALL, contributions=True)
    for t in range(4):
        s = steps[t]
        scene = to_circuit(read(view, *choose(view, step=t)), show=("value", "grad"), backward=True)
        product = "rₜ ⊙ (U hₜ₋₁ + b)" if after else "rₜ ⊙ hₜ₋₁"
        assert says(below(scene, product, "v"), s["rh"])
        for k in "rzn":
            assert says(below(scene, f"{k}ₜ", "v"), s[k])
            box = next(b for b in scene.boxes if any(w.text.startswith((f"{k}̄ₜ", f"‖{k}̄ₜ")) for w in b.words))
            assert says(box.words[-2].text, s[f"{k} sum"])
            assert says(box.words[-1].text, s[f"d{k} sum"])
        if t:
            assert says(below(scene, "U_r", "k"), s["U r"])
            assert says(below(scene, "U_z", "k"), s["U z"])
        terms = [s["to h"][k] for k in ("r", "z", "n", "h", "loss")] if t < 3 else [s["to h"]["loss"]]
        check_ledger(scene, "hₜ", terms, s["dh"])


def test_sums_are_written_with_as_many_digits_as_their_total_needs():
    parts = [Summary(v, v, v, abs(v), (v,)) for v in (2.71, -2.7, 0.0123)]
    total = Summary(0.0223, 0.0223, 0.0223, 0.0223, (0.0223,))
    assert addends([*parts, total]) == (["2.7100", "−2.7000", "0.0123", "0.0223"], "")
    gone = [Summary(v, v, v, abs(v), (v,)) for v in (3.754182, -3.754182, 9.54e-7, 9.54e-7)]
    assert addends(gone)[0] == ["3.754182", "−3.754182", "0.000001", "0.000001"]
    many = Summary(-1.0, 3.0, 0.5, 4.0, None)
    assert addends([many, many]) == (["0.500", "0.500"], ", means")


@pytest.mark.parametrize("name", [*EVERYTHING])
def test_an_excerpt_says_the_same(name):
    view = view_of(tape_of(name), show=ALL, contributions=True)
    unit, time = choose(view)
    whole, part = read(view, unit, time), read(excerpt(view, unit, time), unit, time)
    assert (part.parts, part.links) == (whole.parts, whole.links)
    assert len(excerpt(view, unit, time)) < len(view)
    assert read(View.from_json(view.to_json()), unit, time).links == whole.links


def test_steps_layers_and_directions():
    mg.manual_seed(2)
    tape = recorded(mg.nn.LSTM(3, 2, num_layers=2, bidirectional=True), steps=5)
    view = view_of(tape)
    assert [(u.layer, u.direction, len(u.steps)) for u in units(view)] == [
        (0, "forward", 5), (0, "reverse", 5), (1, "forward", 5), (1, "reverse", 5),
    ]  # fmt: skip
    unit, time = choose(view)
    assert (unit.name, time) == ("lstm/layer 0/forward", 2)
    made = render(tape, style="circuit", step=4, layer=1, direction="reverse")
    assert "lstm/layer 1/reverse · step t = 4" in made.data
    assert "hₜ₊₁" in made.data  # a network that reads backwards remembers the step after
    block = read(view, *choose(view, step=1, layer=1, direction="reverse"))
    assert block.nodes[block.parts["c-"].out].name == "c[2]"
    assert block.nodes[block.parts["x"].out].name == "y[1]"
    assert choose(view, layer="layer 1")[0].layer == 1
    for wrong, message in (
        ({"step": 5}, "no step 5 of lstm/layer 0/forward; there are steps 0 to 4"),
        ({"layer": 2}, r"no layer 2 forward on this tape; there are: layer 0 forward \(lstm/layer 0/forward\)"),
        ({"layer": "decoder"}, "no layer decoder"),
        ({"direction": "up"}, "direction is forward or reverse, not 'up'"),
    ):
        with pytest.raises(UsageError, match=message):
            render(tape, style="odyssey", **wrong)


def test_cells_in_loops_of_the_users():
    mg.manual_seed(4)
    cell, x = mg.nn.LSTMCell(3, 2, peepholes="diagonal"), mg.ones(4, 1, 3)
    with mg.Tape() as tape:
        state = mg.zeros(1, 2), mg.zeros(1, 2)
        for t in range(4):
            with mg.scope(f"t={t}"):
                state = cell(x[t] * 2, state)
        loss = state[0].sum()
    loss.backward()
    made = render(tape, style="circuit", step=3, backward=True)
    assert "step t = 3 · diagonal peepholes" in made.data
    block = read(view_of(tape), *choose(view_of(tape), step=2))
    assert block.node("x").op == "mul"


def test_what_cannot_be_drawn_says_why():
    with mg.Tape() as tape:
        (mg.tensor([1.0], requires_grad=True) * 2).sum()
    with pytest.raises(UsageError, match=r"no steps of a recurrent unit.*mg\.nn\.LSTM.*style='graph'"):
        render(tape, style="circuit")
    with pytest.raises(UsageError, match=r"chart of the LSTM, and this is a gru: use style='circuit'"):
        render(tape_of("gru after"), style="odyssey")
    with pytest.raises(UsageError, match="the style 'graph' takes no step: choose from circuit, odyssey"):
        render(tape_of("rnn"), step=1)
    with pytest.raises(UsageError, match="takes no fold"):
        render(tape_of("rnn"), style="circuit", fold="time")
    cell, x = mg.nn.LSTMCell(3, 2), mg.ones(1, 3)
    with mg.Tape() as tape:
        state = mg.zeros(1, 2), mg.zeros(1, 2)
        for t in range(2):
            with mg.scope(f"t={t}"):
                state = cell(x, cell(x, state))
    with pytest.raises(UsageError, match=r"2 steps of it share one scope; open mg\.scope"):
        render(tape, style="circuit")
    lstm = mg.nn.LSTM(3, 2)
    with mg.Tape(detail="cells") as tape:
        lstm(mg.ones(2, 1, 3))
    with pytest.raises(UsageError, match=r"one operation each, record it with mg\.Tape\(detail='ops'\)"):
        render(tape, style="circuit")


def test_a_layer_that_is_called_again():
    mg.manual_seed(4)
    lstm, x, state = mg.nn.LSTM(3, 2, peepholes="diagonal"), mg.randn(9, 1, 3), None
    losses = []
    with mg.Tape() as tape:
        for start, end in ((0, 2), (2, 6), (6, 9)):
            out, state = lstm(x[start:end], state)
            losses.append((out * out).sum())
            state = mg.nn.detach(state)
        loss = sum(losses)
    loss.backward()
    nodes = {n.id: n for n in tape.nodes}
    given = [n for n in tape.nodes if n.name == "h[2]"]
    assert len(given) == 2  # of the second and the third call; the first has no step 2
    for call, end in ((2, given[0]), (3, given[1])):
        view = view_of(tape)
        unit, time = choose(view, step=2, call=call)
        assert (unit.calls, time) == (3, 2)
        for seen in (view, excerpt(view, unit, time)):
            block = read(seen, unit, time)
            assert block.parts["oh"].out == end.id
            assert nodes[block.parts["h-"].out].name == "h[1]"
        made = render(tape, style="odyssey", step=2, call=call, backward=True)
        assert f"call {call} of 3 · step t = 2" in made.data
    assert "call 1 of 3 · step t = 1" in render(tape, style="circuit").data
    with pytest.raises(UsageError, match="no call 4 of lstm/layer 0; it was called 3 times"):
        render(tape, style="circuit", call=4)
    with pytest.raises(UsageError, match="no step 2 of lstm/layer 0; there are steps 0 to 1"):
        render(tape, style="circuit", step=2)


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN])
def test_a_layer_that_is_called_for_each_token(kind):
    mg.manual_seed(4)
    layer, state = kind(3, 2), None
    with mg.Tape() as tape:
        for _ in range(4):
            out, state = layer(mg.randn(1, 1, 3), state)
        loss = (out * out).sum()
    loss.backward()
    view = view_of(tape, contributions=True)
    ends = [n.id for n in tape.nodes if n.name == "h[0]"]
    unit, time = choose(view, call=3)
    assert (unit.calls, time) == (4, 0)
    block = read(view, unit, time)
    chart = Chart(block, (), True)
    assert block.parts[chart.output].out == ends[2]
    assert flaws(to_circuit(block, show=("value",), backward=True)) == []
    assert [text for text, _ in routes(block, ends[2], "ₜ", "ₜ₋₁")] == [f"to h_n ({layer.__class__.__name__.lower()})"]


@pytest.mark.parametrize("style", PLANS)
def test_gradients_are_drawn_where_they_come_back(style):
    """No arrow to what was detached, to the zeros before the first step, or from a step that nothing follows."""
    mg.manual_seed(4)
    cell, x = mg.nn.LSTMCell(3, 2, peepholes="diagonal"), mg.randn(4, 1, 3)
    with mg.Tape() as tape:
        state, loss = (mg.zeros(1, 2), mg.zeros(1, 2)), 0
        for t in range(4):
            with mg.scope(f"t={t}"):
                state = cell(x[t], mg.nn.detach(state) if t == 2 else state)
                loss = loss + (state[0] * state[0]).sum()
    loss.backward()
    view = view_of(tape, contributions=True)
    marks, arrows = {}, {}
    for t in range(4):
        scene = PLANS[style](read(view, *choose(view, step=t)), show=("value",), backward=True)
        marks[t] = sum(style == "cut" for *_, style in scene.dots)
        arrows[t] = sum(wire.style == "backward" for wire in scene.wires)
        assert flaws(scene) == []
    assert marks == {0: 0, 1: 0, 2: 3, 3: 0}  # c, h and the legend
    # four U, two peepholes, the forget gate's product; but on circuits also what leaves step 2 for step 3
    assert arrows[3] - arrows[2] == 7 - (style == "circuit")
    assert arrows[1] > arrows[0]


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
@pytest.mark.parametrize("style", PLANS)
def test_svg(style, theme):
    asked = {"style": style, "theme": theme, "show": ALL, "backward": True, "title": "a <b>"}
    made = render(tape_of("V diagonal"), **asked)
    root = ET.fromstring(made.data)
    space = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{space}title").text == "a <b>"
    spoken = root.find(f"{space}desc").text
    assert spoken.startswith(
        "a <b>. lstm/layer 0 · step t = 2 · diagonal peepholes. Gates: input, forget, cell, output."
    )
    assert re.search(r" δcₜ is [\d−., ]+, the sum of peephole p to oₜ: .*; ⊙ fₜ₊₁ to cₜ₊₁: [\d−., ]+\. δhₜ is", spoken)
    assert all(e.text for e in root.iter(f"{space}title"))
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([\w-]+)\)", made.data)) <= set(ids)
    classes = {c for e in root.iter() for c in (e.get("class") or "").split()}
    block = block_of("V diagonal")
    assert {f"n-{block.nodes[i].key}" for i in block.home} <= classes
    assert all(e.find(f"{space}title") is not None for e in root.iter(f"{space}g") if "n-" in (e.get("class") or ""))
    assert (
        made.data
        == render(tape_of("V diagonal"), style=style, theme=theme, show=ALL, backward=True, title="a <b>").data
    )
    assert (
        repr(made)
        == "<minigrad picture: a <b>. lstm/layer 0 · step t = 2 · diagonal peepholes. Drawn by minigrad itself.>"
    )


def test_print_needs_no_colour():
    sheet = style_sheet("print")
    colours = set(re.findall(r"#[0-9a-f]{6}", sheet))
    assert all(c[1:3] == c[3:5] == c[5:7] for c in colours)
    rules = dict(re.findall(r"\.mg (\.e[.\w]*)\{([^}]*)\}", sheet))
    looks = {
        kind: (re.findall(r"dasharray:([\d. ]+)", rules[kind]), re.findall(r"width:([\d.]+)", rules[kind]))
        for kind in (".e.forward", ".e.lag", ".e.highway", ".e.backward")
    }
    assert len({str(look) for look in looks.values()}) == 4
    assert ".mg .a-peephole{fill:#ffffff" in sheet  # an open head


@pytest.mark.parametrize(("style", "name"), PAIRS)
def test_charts_fit_paper_and_a_slide_with_letters_that_can_be_read(style, name):
    """A4 landscape, 1123 by 794 pixels, and a slide, 1280 by 720, at 100 %, whatever is shown."""
    whole = name not in ("everything at once", "remembered gates, lengths")
    crowded = (*ALL, "flow", "gain")
    for show, backward in (((), False), (("value",), True), (ALL, False), (crowded, False), (crowded, True)):
        scene = PLANS[style](block_of(name), show=show, backward=backward)
        width, height = scene.paper
        assert min(words.least for words in scene.texts if words.text) * scene.zoom >= 7.9
        assert scene.zoom <= 1.0
        if whole or (show == () and not backward):
            assert width <= 1123
            assert height <= 720


def test_command_line(tmp_path, capsys):
    path = tmp_path / "step.svg"
    options = ["--layers", "2", "--style", "circuit", "--step", "1", "--layer", "1", "--backward"]
    assert main(["render-graph", "gru", "--hidden", "3", *options, "-o", str(path)]) == 0
    assert "gru/layer 1 · step t = 1 · reset after the product" in path.read_text("utf-8")
    assert main(["render-graph", "gru", "--style", "circuit", "--step", "7", "-o", str(path)]) == 2
    assert "there is no step 7 of gru; there are steps 0 to 4" in capsys.readouterr().err
