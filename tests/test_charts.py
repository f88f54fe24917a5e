"""The charts of one recurrent block: every variant as it was recorded, nothing overlapping, the numbers of the tape."""

import itertools
import math
from itertools import pairwise

import numpy as np
import pytest

import minigrad as mg
from minigrad.graph.view import view_of
from minigrad.nn.units import VARIANTS
from minigrad.render.block import choose, read
from minigrad.render.circuit import to_circuit
from minigrad.render.odyssey import to_odyssey

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
NOT_FOR_ODYSSEY = {"normalised", "normalised, no output gate", "zoneout", "zoneout, its mean"}
NOT_FOR_ODYSSEY |= {"zoneout, no output gate", "dropout of h", "lengths"}
PAIRS = [
    (style, name)
    for style in PLANS
    for name, (kind, _) in EVERYTHING.items()
    if style == "circuit" or (kind is LSTM and name not in NOT_FOR_ODYSSEY)
]


# --- measured ----------------------------------------------------------------------------------------------


def overlap(a, b, slack=0.5):
    return a[0] + slack < b[2] and b[0] + slack < a[2] and a[1] + slack < b[3] and b[1] + slack < a[3]


def crosses(p, q, box, slack):
    """Whether a horizontal or vertical line runs through a box."""
    left, right = sorted((p[0], q[0]))
    top, bottom = sorted((p[1], q[1]))
    return left < box[2] - slack and right > box[0] + slack and top < box[3] - slack and bottom > box[1] + slack


def meets(p, q, box):
    """Whether a line runs through a box or, if it is one, a circle, and not only up to its side."""
    if not crosses(p, q, box.box, 1.5) or box.shape != "circle":
        return crosses(p, q, box.box, 1.5)
    near = [min(max(c, min(a, b)), max(a, b)) for a, b, c in zip(p, q, (box.x, box.y), strict=True)]
    return math.dist(near, (box.x, box.y)) < box.width / 2 - 1.5


def covers(box, area):
    """Whether a node lies on an area."""
    if not overlap(area, box.box) or box.shape != "circle":
        return overlap(area, box.box)
    near = (min(max(box.x, area[0]), area[2]), min(max(box.y, area[1]), area[3]))
    return math.dist(near, (box.x, box.y)) < box.width / 2 - 0.5


def leaves(word, box):
    """Whether a word sticks out of its box."""
    left, top, right, bottom = word.box
    if box.shape == "circle":
        corners = itertools.product((left, right), (ink(word)[1], ink(word)[3]))
        return any(math.dist(corner, (box.x, box.y)) > box.width / 2 for corner in corners)
    return left < box.box[0] or right > box.box[2] or top < box.box[1] - 0.5 or bottom > box.box[3] + 0.5


def ink(words):
    """The box of what a line of text really covers: letters without descenders are flatter than their line."""
    left, top, right, bottom = words.box
    return (left, top + 0.12 * words.size, right, bottom - 0.08 * words.size)


def faults(scene):
    """Everything that a reader would call a flaw."""
    found = []
    texts = [("", w) for w in scene.words] + [("", f.words) for f in scene.frames if f.words.text]
    texts += [(box.key, w) for box in scene.boxes for w in box.words]
    for k, box in enumerate(scene.boxes):
        found += [f"{box.key} on {b.key}" for b in scene.boxes[k + 1 :] if overlap(box.box, b.box)]
        found += [f"{word.text!r} leaves {box.key}" for word in box.words if leaves(word, box)]
    for k, (home, word) in enumerate(texts):
        found += [f"{word.text!r} on {b.key}" for b in scene.boxes if b.key != home and covers(b, ink(word))]
        found += [f"{word.text!r} on {w.text!r}" for _, w in texts[k + 1 :] if overlap(ink(word), ink(w))]
        left, top, right, bottom = word.box
        if left < 4 or top < 4 or right > scene.width - 4 or bottom > scene.height - 4:
            found.append(f"{word.text!r} leaves the picture")
        for frame in scene.frames:
            edges = (frame.x, frame.x + frame.width), (frame.y, frame.y + frame.height)
            if frame.y < (top + bottom) / 2 < frame.y + frame.height and any(left < x < right for x in edges[0]):
                found.append(f"{word.text!r} on the side of a frame")
            if frame.x < (left + right) / 2 < frame.x + frame.width and any(top < y < bottom for y in edges[1]):
                found.append(f"{word.text!r} on the edge of a frame")
    for wire in scene.wires:
        for p, q in pairwise(wire.points):
            assert abs(p[0] - q[0]) < 0.05 or abs(p[1] - q[1]) < 0.05, wire
            found += [f"{wire.key} through {b.key}" for b in scene.boxes if meets(p, q, b)]
            found += [f"{wire.key} through {w.text!r}" for _, w in texts if crosses(p, q, ink(w), 0.2)]
    for a, b in itertools.combinations(scene.wires, 2):
        if a.style != b.style or a.style == "rule":
            for p, q in itertools.product(pairwise(a.points), pairwise(b.points)):
                found += [f"{a.key} along {b.key}"] if along(*p, *q) else []
    return found


def along(a, b, c, d):
    """Whether two lines run on top of each other."""
    for x, y in ((0, 1), (1, 0)):
        if abs(a[x] - b[x]) < 0.05 and abs(c[x] - d[x]) < 0.05 and abs(a[x] - c[x]) < 2.0:
            low, high = max(min(a[y], b[y]), min(c[y], d[y])), min(max(a[y], b[y]), max(c[y], d[y]))
            if high - low > 3.0:
                return True
    return False


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(("style", "name"), PAIRS)
def test_nothing_overlaps(style, name, backward):
    block = block_of(name)
    for show in SHOWS:
        assert faults(PLANS[style](block, show=show, backward=backward)) == [], show


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
