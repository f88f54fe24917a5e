"""Long computations: the work grows with the number of steps and no faster, and what is drawn by itself stays small."""

from __future__ import annotations

import sys
from functools import cache

import pytest

import minigrad as mg
from minigrad import models
from minigrad.graph.view import View, past_stacks, unroll, view_of
from minigrad.render import render
from minigrad.render.dot import to_dot
from minigrad.render.layout import lay_out
from minigrad.render.mermaid import to_mermaid
from minigrad.render.svg import to_svg
from minigrad.render.terminal import to_text

WRITERS = {
    "graph": lambda view: to_svg(lay_out(view, show=("shape", "local"), backward=True)),
    "unrolled": lambda view: to_svg(lay_out(unroll(view))),
    "dot": to_dot,
    "mermaid": to_mermaid,
    "text": to_text,
    "json": View.to_json,
}

SIZES = (7, 14, 28)
"""Steps, doubled: what is done for each of them shows in the differences."""


class Looked(tuple):
    """A tuple that counts how often somebody goes through all of it."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def built_in(spec: str, steps: int, **shape):
    model = models.build(spec, text=("the quick brown fox " * steps)[:steps], hidden=3, **shape)
    with mg.Tape() as tape:
        loss = model.loss()
    loss.backward()
    return tape


def loop(steps: int, behind: int = 5):
    """A loop that opens no scopes, adds up as it goes, and reads what was computed some steps before."""
    cell, read = mg.nn.GRUCell(2, 3), mg.nn.Linear(3, 2)
    state, total, ys = mg.zeros(1, 3), mg.tensor(0.0), []
    with mg.Tape() as tape:
        for t in range(steps):
            state = cell(mg.randn(1, 2), state)
            ys.append(read(state))
            total = total + (ys[t] * ys[max(t - behind, 0)]).sum()
    total.backward()
    return tape


TAPES = {
    "lstm": lambda steps: built_in("lstm", steps),
    "both ways": lambda steps: built_in("rnn", steps, bidirectional=True),
    "loop": loop,
}


@cache
def view(name: str, steps: int) -> View:
    return past_stacks(view_of(TAPES[name](steps), show=("shape", "local")))


def calls(work) -> int:
    """Return how many functions, Python's and C's, a piece of work calls."""
    count = 0

    def told(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(told)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", TAPES)
def test_every_writer_works_in_proportion_to_the_steps(name, writer):
    counts, passes = [], []
    for steps in SIZES:
        drawn = view(name, steps)
        nodes, edges = Looked(drawn.nodes), Looked(drawn.edges)
        looked = View(nodes, edges, drawn.show)
        counts.append(calls(lambda looked=looked: WRITERS[writer](looked)))
        passes.append(nodes.passes + edges.passes)
    assert passes[1] == passes[2]
    assert counts[2] - counts[1] < 2.3 * (counts[1] - counts[0])


@pytest.mark.parametrize("name", TAPES)
def test_reading_a_tape_is_in_proportion_to_its_nodes(name):
    tapes = [TAPES[name](steps) for steps in SIZES]
    counts = [calls(lambda tape=tape: view_of(tape, show=("shape",))) for tape in tapes]
    assert counts[2] - counts[1] < 2.2 * (counts[1] - counts[0])


@pytest.fixture(scope="module")
def thousand():
    """The tape of a thousand steps, and the view of it, read once."""
    tape = built_in("lstm", 1000)
    return tape, past_stacks(view_of(tape, show=("shape",), highlight="h[998] -> h[500] top 1"))


@pytest.mark.parametrize("style", ["unrolled", "rolled", "circuit", "odyssey"])
def test_a_thousand_steps_are_less_than_a_megabyte(thousand, style):
    assert len(render(thousand[1], style=style).data.encode()) < 250_000


@pytest.mark.parametrize("kind", ["svg", "dot", "mermaid", "text"])
def test_a_thousand_steps_are_less_than_a_megabyte_in_every_format(thousand, kind):
    assert len(render(thousand[1], format=kind).data.encode()) < 1_000_000


@pytest.mark.parametrize("kind", ["html", "json"])
def test_a_thousand_steps_with_their_numbers_are_less_than_a_megabyte(thousand, kind):
    assert len(render(thousand[0], format=kind, show=("shape", "value", "grad", "local")).data.encode()) < 1_000_000


@pytest.mark.parametrize(("fold", "folds"), [("cell", 5), ("gate", 5 * 4), ("layer", 1)])
def test_folding_cells_gates_and_layers_leaves_the_middle_of_a_thousand_steps_one_node(thousand, fold, folds):
    drawn = View.from_json(render(thousand[1], format="json", fold=fold).data)
    [middle] = [n for n in drawn.nodes if n.span == (3, 997)]
    assert sum(n.kind == "fold" for n in drawn.nodes) == folds + 1
    assert middle.lit
    assert middle.label == "⋯ 995 steps"
    few = View.from_json(render(built_in("lstm", 17), format="json", fold=fold).data)
    assert len(drawn) == len(few)
    assert len(render(thousand[1], fold=fold).data.encode()) < 250_000


def test_folding_by_itself_makes_no_view_that_nobody_asked_for(monkeypatch):
    made = []
    fold = render.__globals__["fold_view"]
    monkeypatch.setitem(
        render.__globals__, "fold_view", lambda *args, **kwargs: made.append(1) or fold(*args, **kwargs)
    )
    render(built_in("rnn", 40))
    assert len(made) == 1


def test_two_layers_and_directions_of_many_steps_are_drawn():
    made = render(built_in("lstm", 60, layers=2, bidirectional=True))
    assert len(made.data.encode()) < 1_000_000
