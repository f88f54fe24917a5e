"""A view says what is on the tape: identities, steps, folds, text in and out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tapes

import minigrad as mg
from minigrad.errors import UsageError
from minigrad.graph import SHOW, View, elide, fold, view_of
from minigrad.graph.view import columns, past_stacks, unroll

GOLDENS = Path(__file__).parent / "goldens"
RENEW = os.environ.get("MINIGRAD_RENEW_GOLDENS") == "1"


def golden(name: str, text: str) -> None:
    path = GOLDENS / name
    if RENEW:
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8"), f"{name} changed; MINIGRAD_RENEW_GOLDENS=1 accepts it"


@pytest.mark.parametrize(
    ("name", "tape"),
    [("diamond", tapes.diamond()), ("rnn2", tapes.rnn(2)), ("mlp", tapes.mlp())],
)
def test_json_goldens(name, tape):
    golden(f"{name}.json", view_of(tape).to_json(indent=1) + "\n")


def test_fold_golden():
    golden("lstm9_folded.json", view_of(tapes.lstm(9), show=("shape",), fold_with=fold).to_json(indent=1) + "\n")


@pytest.mark.parametrize("tape", [tapes.lstm(2), tapes.rnn(3), tapes.diamond(), tapes.chain(5)])
def test_json_comes_back_equal(tape):
    for view in (view_of(tape), fold(view_of(tape, show=()), "layer"), fold(view_of(tape), "time", keep=(1,))):
        assert View.from_json(view.to_json()) == view
        assert json.loads(view.to_json(indent=2)) == view.as_dict()


def test_every_operand_is_an_edge():
    view = view_of(tapes.diamond())
    assert [(e.source, e.target, e.argument) for e in view.edges] == [(0, 1, 0), (0, 1, 1), (1, 2, 0), (1, 2, 1)]
    assert [e.local for e in view.edges] == ["1", "1", "b", "a"]


def test_identities_and_order_are_the_tapes():
    tape = tapes.lstm(4)
    assert [n.id for n in view_of(tape).nodes] == [n.id for n in tape.nodes]


def test_numbers_are_the_arrays_numbers():
    tape = tapes.lstm(1)
    for node, seen in zip(tape.nodes, view_of(tape).nodes, strict=True):
        assert seen.shape == node.value.shape
        assert seen.value.norm == pytest.approx(np.sqrt((node.value.astype(float) ** 2).sum()), rel=5e-6)
        assert seen.value.max == pytest.approx(node.value.max(), rel=5e-6)
        assert seen.value.min == pytest.approx(node.value.min(), rel=5e-6)
        assert seen.value.mean == pytest.approx(node.value.mean(), rel=5e-6, abs=1e-12)
        if node.value.size <= 64:
            assert seen.value.numbers == tuple(node.value.reshape(-1).tolist())
        else:
            assert seen.value.numbers is None
        assert (seen.grad is None) == (node.grad is None)


def test_show_decides_what_is_carried():
    plain = view_of(tapes.rnn(2), show=("shape",))
    assert all(n.value is None and n.grad is None for n in plain.nodes)
    assert all(e.local is None for e in plain.edges)
    assert plain.show == ("shape",)
    assert view_of(tapes.rnn(2), show=("grad", "shape")).show == ("shape", "grad")
    with pytest.raises(UsageError, match=r"'colour'.*shape, value, grad, local"):
        view_of(tapes.rnn(2), show=("colour",))


def test_contributions_add_up_to_the_gradient():
    mg.manual_seed(3)
    x = mg.tensor(np.random.default_rng(5).normal(size=(3, 2, 5)))
    lstm = mg.nn.LSTM(5, 7, peepholes="diagonal", dtype="float64")
    with mg.Tape() as tape:
        out, _ = lstm(x)
        loss = (out * out).sum()
    recorded = len(tape)
    loss.backward()
    with mg.Tape() as other:
        view = view_of(tape, contributions=True)
    assert len(tape) == recorded
    assert len(other) == 0
    parts = {}
    for e in view.edges:
        if e.contribution is not None:
            parts.setdefault(e.source, []).append(e.contribution)
    for node in view.nodes:
        if node.grad is None or node is view.nodes[-1]:
            assert node.id not in parts
        elif node.grad.numbers is not None:
            total = np.sum([part.numbers for part in parts[node.id]], axis=0)
            np.testing.assert_allclose(total, node.grad.numbers, rtol=1e-12, atol=1e-15)
    cell = next(n for n in view.nodes if n.name == "c[1]")
    assert len(parts[cell.id]) == 5  # tanh and p_o now; p_i, p_f and the forget gate's product at the next step
    assert View.from_json(view.to_json()) == view
    assert all(e.contribution is None for e in view_of(tape).edges)


def test_infinities_survive_json():
    tape = tapes.diamond()
    tape.nodes[2].value = np.array([np.inf])
    tape.nodes[1].grad = np.array([np.nan])
    text = view_of(tape).to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = View.from_json(text)
    assert back.node(2).value.numbers == (np.inf,)
    assert np.isnan(back.node(1).grad.numbers[0])


def test_float32_numbers_are_short():
    tape = tapes.diamond()
    tape.nodes[0].value = np.array([0.1], np.float32)
    assert view_of(tape).node(0).value.numbers == (0.1,)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "minigrad-view/1"}', '{"format": "other"}'])
def test_other_json_is_refused(text):
    with pytest.raises(UsageError, match="not a view"):
        View.from_json(text)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_steps_take_what_repeats_with_them(named, inside):
    view = view_of(tapes.lstm(3, named=named, losses_inside=inside))
    by_step = {t: [n.op for n in view.nodes if n.step == t] for t in (1, 2, 3)}
    assert by_step[1] == by_step[2] == by_step[3]
    assert by_step[1].count("cross_entropy") == 1
    assert by_step[1].count("getitem") == 1
    assert by_step[1].count("affine") == 9
    # the running sum belongs to no step, but is drawn no earlier than the last step it has seen
    sums = [n.id for n in view.nodes if n.op == "add" and n.step is None]
    assert [columns(view)[i] for i in sums] == [2, 3]


def test_steps_may_start_at_zero():
    assert view_of(tapes.lstm(2, first=0)).steps == (0, 1)


def test_initial_states_stay_before_the_steps():
    for steps in (1, 3):
        view = view_of(tapes.lstm(steps))
        assert [n.step for n in view.nodes if n.name in ("h[0]", "c[0]")] == [None, None]


@pytest.mark.parametrize("named", [True, False])
def test_roles(named):
    view = view_of(tapes.lstm(3, named=named))
    roles = [e.role for e in view.edges]
    assert roles.count("cell") == 3
    assert roles.count("hidden") == 12
    # 8 affines with weight and bias, the head's two, and 16 slices; the embedding's table
    assert roles.count("parameter") == 3 * 18 + 16 + 1


def test_slices_of_parameters_are_taps():
    view = view_of(tapes.lstm(2))
    assert [n.tap for n in view.nodes if n.tap is not None] == [0, 1, 2, 3] * 4
    assert [n.shared for n in view.nodes if n.kind == "parameter"] == [True] * 6 + [False]


def test_gates_come_from_scopes():
    view = view_of(tapes.lstm(1))
    gates = [n.gate for n in view.nodes if n.gate]
    # the four slices of parameters that a gate reads are its own, and so are its four operations
    assert gates == [g for g in ("input", "forget", "cell", "output") for _ in range(4)] * 2


def test_folding_time_renames_nobody():
    whole = view_of(tapes.lstm(20))
    folded = fold(whole, "time")
    [elided] = [n for n in folded.nodes if n.kind == "fold"]
    assert elided.span == (4, 18)
    assert "15 steps" in elided.label
    kept = {n.id: n for n in folded.nodes if n.kind != "fold"}
    assert all(whole.node(i) == n for i, n in kept.items())
    inside = {i for a, b in elided.members for i in range(a, b + 1)}
    assert elided.count == len(inside) == len(whole) - len(kept)
    assert inside.isdisjoint(kept)
    assert elided.key == f"fold-{min(inside)}"
    crossing = [e for e in whole.edges if (e.source in inside) != (e.target in inside)]
    leaving = [(e.source, e.target) for e in crossing if e.source in inside]
    assert sorted(t for _, t in leaving) == sorted(e.target for e in folded.edges if e.source == elided.id)
    assert {e.source for e in folded.edges if e.target == elided.id} == {
        e.source for e in crossing if e.target in inside
    }


def test_folding_again_and_keeping():
    view = view_of(tapes.rnn(9))
    assert [n.span for n in fold(view, "time", keep=(1, 5)).nodes if n.kind == "fold"] == [(2, 4), (6, 9)]
    once = fold(view, "time")
    assert fold(once, "time", keep=once.steps) == once
    gates = fold(view_of(tapes.lstm(2)), "gate")
    assert [n.label for n in gates.nodes if n.kind == "fold"] == [
        f"{g} gate" for _ in range(2) for g in ("input", "forget", "cell", "output")
    ]
    layers = fold(view_of(tapes.lstm(3)), "layer")
    assert [n.scope for n in layers.nodes if n.kind == "fold"] == [("lstm", "layer 0")]
    own = fold(view, lambda n: "all" if n.op == "affine" else None)
    assert [(n.count, n.label) for n in own.nodes if n.kind == "fold"] == [(27, "all")]
    assert fold(view, lambda n: str(n.id)) == view
    with pytest.raises(UsageError, match="'size'"):
        fold(view, "size")


def test_unrolling_makes_one_block_a_step():
    blocks = [n for n in unroll(view_of(tapes.lstm(3))).nodes if n.kind == "fold"]
    assert [(b.label, b.step, b.count) for b in blocks] == [("lstm layer 0", t, 21) for t in (1, 2, 3)]


def test_long_chains_elide_their_middle():
    view = view_of(tapes.chain(3000), show=(), fold_with=elide)
    assert len(view) == 122
    assert sum(n.count for n in view.nodes) == 3001
    assert len(elide(view_of(tapes.chain(300)))) == 301


def test_folding_first_spares_the_arrays():
    tape = tapes.lstm(30)

    class Untouchable:
        def __array__(self, *_, **__):
            raise AssertionError("an elided array was read")

    for node in tape.nodes:
        if node.time is not None and 3 < node.time < 29:
            node.grad = Untouchable()
    view = view_of(tape, show=SHOW, fold_with=fold)
    assert any(n.kind == "fold" for n in view.nodes)


def test_inputs_recorded_before_the_tape_are_left_out():
    tape = tapes.diamond()
    del tape.nodes[0]
    view = view_of(tape)
    assert [n.id for n in view.nodes] == [1, 2]
    assert [(e.source, e.target) for e in view.edges] == [(1, 2), (1, 2)]


def test_plain_parameters_only():
    tape = tapes.diamond()
    tape.nodes[1].params = {
        "index": (slice(2, 5), None, ...), "step": slice(None, None, 2), "n": np.int64(3), "which": np.arange(4),
        "scale": float("inf"), "kind": object(),
    }  # fmt: skip
    assert view_of(tape).node(1).params == {
        "index": ["2:5", None, "..."], "step": "::2", "n": 3, "which": "array of shape (4,)", "scale": "inf",
        "kind": "object",
    }  # fmt: skip


PROGRAM = """
import sys; sys.path.insert(0, {tests!r})
import tapes
from minigrad.graph import view_of
from minigrad.render import render
tape = tapes.lstm(14)
for format in ("json", "dot", "svg", "html"):
    print(render(tape, format=format, engine="own", show=("shape", "value", "grad", "local")).data)
"""


def test_same_program_same_bytes():
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    out = []
    for seed in ("0", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True)
        out.append(done.stdout)
    assert len(out[0]) > 100_000
    assert out[0] == out[1]


@pytest.mark.parametrize("steps", [3, 17, 31])
def test_pieces_of_a_stack_are_read_from_their_own_step_folded_or_not(steps):
    layer = mg.nn.LSTM(2, 3, bidirectional=True)
    with mg.Tape() as tape:
        read, _ = layer(mg.randn(steps, 1, 2))
        for t in range(steps):
            with mg.scope(f"t={t}"):
                (read[t] * read[t]).sum()
    whole = past_stacks(view_of(tape))
    for view in (whole, fold(whole), past_stacks(fold(view_of(tape)))):
        node = {n.id: n for n in view.nodes}
        ends = [(node[e.source], node[e.target]) for e in view.edges]
        ends = [(a, b) for a, b in ends if a.op == "concatenate" and b.op == "getitem"]
        assert ends
        assert all(a.step == b.step for a, b in ends)
        assert {b.step for _, b in ends} == {n.step for n in view.nodes if n.op == "mul" and n.scope[0] != "lstm"}
