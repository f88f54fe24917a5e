"""Formats beyond the drawing itself: Mermaid, drawings for a terminal, ids and words of an SVG, notebooks."""

import re
import sys
import unicodedata
import xml.etree.ElementTree as ET
from collections import Counter

import pytest
import tapes
from test_render import VIEWS

import minigrad as mg
from minigrad import models
from minigrad.errors import MissingExtraError, UsageError
from minigrad.graph import fold, view_of
from minigrad.graph.view import View, ViewNode, unroll
from minigrad.render import FORMATS, check, render
from minigrad.render.mermaid import MOST_CHARACTERS, MOST_EDGES, to_mermaid
from minigrad.render.terminal import to_text

SVG = "{http://www.w3.org/2000/svg}"
NASTY = '</text><script>alert("x")</script>\x00\x1b[2J & %%{init: {"theme":"dark"}}%% #lt; `x` \\ | ; end\nnext'


def recorded(spec, **options):
    with mg.Tape() as tape:
        loss = models.build(spec, **options).loss()
    loss.backward()
    return tape


# --- Mermaid --------------------------------------------------------------------------------------------------

NODE = re.compile(r'^ +(n\d+|fold\d+)(\(\[|\[\[|\(|\[|>)"([^"]*)"(\]\)|\]\]|\)|\]):::(\w+)$')
EDGE = re.compile(r'^ +(n\d+|fold\d+) (-->|==>|-\.->)(?:\|"([^"]*)"\|)? (n\d+|fold\d+)$')
PAIRS = {"(": ")", "[": "]", "([": "])", "[[": "]]", ">": "]"}


def read_mermaid(text):
    """Read a flowchart by its grammar alone: (nodes in a subgraph, edges, classes, styled links); else fail."""
    head, facing, body = text.split("---\n", 2)
    assert head == ""
    assert "config:\n  theme: base\n" in facing
    lines = body.splitlines()
    assert lines.pop(0) == "flowchart LR"
    nodes, edges, classes, links, where = {}, [], set(), Counter(), None
    for line in lines:
        if line.startswith(("  accTitle: ", "  accDescr: ")):
            assert not re.search(r"[{}#%<>]", line)
        elif found := re.fullmatch(r'  subgraph (\w+)\["([^"]+)"\]', line):
            assert where is None
            where = found[2]
        elif line == "  end":
            where = None
        elif found := NODE.match(line):
            name, left, label, right, style = found.groups()
            assert PAIRS[left] == right
            assert name not in nodes
            assert not re.search(r"&|[{}`%]|#(?!\w+;)", label)
            nodes[name] = (where, label, style)
        elif found := EDGE.match(line):
            edges.append((found[1], found[2], found[4]))
        elif found := re.match(r"  classDef (\w+) fill:#\w{6},stroke:#\w{6},color:#\w{6}$", line):
            classes.add(found[1])
        elif found := re.match(r"  linkStyle ([\d,]+) (stroke:\S+)$", line):
            links.update(map(int, found[1].split(",")))
        else:
            pytest.fail(f"no Mermaid: {line!r}")
    return nodes, edges, classes, links


def unescaped(text):
    named = {"quot": '"', "lt": "<", "gt": ">", "amp": "&"}
    text = re.sub(r"</?sub>", "", text)
    return re.sub(r"#(\w+);", lambda found: named.get(found[1]) or chr(int(found[1])), text)


@pytest.mark.parametrize("name", VIEWS)
def test_mermaid_has_every_node_and_edge_once(name):
    view = VIEWS[name]
    nodes, edges, classes, links = read_mermaid(to_mermaid(view, title=name))
    names = {n.id: f"n{n.id}" if n.id >= 0 else f"fold{-1 - n.id}" for n in view.nodes}
    assert set(nodes) == set(names.values())
    arrow = {"cell": "==>", "hidden": "-.->", "parameter": "-.->"}
    assert edges == [(names[e.source], arrow.get(e.role, "-->"), names[e.target]) for e in view.edges]
    assert classes == {style for _, _, style in nodes.values()}
    assert set(links) == {k for k, e in enumerate(view.edges) if e.role in arrow}
    assert set(links.values()) <= {1}
    steps = {n.id: n.step for n in view.nodes}
    for i, known in names.items():
        title = nodes[known][0]
        assert (title is None) == (steps[i] is None)
        if title is not None:
            assert title.startswith(f"t = {steps[i]}")


def test_mermaid_labels_say_what_nodes_say():
    tape = tapes.rnn(2)
    shown = render(tape, format="mermaid", show=("shape", "value", "grad")).data
    nodes, *_ = read_mermaid(shown)
    for n in view_of(tape).nodes:
        label = unescaped(nodes[f"n{n.id}"][1])
        assert f"‖·‖ {n.value.norm:.3g}".replace("-", "−") in label
        assert ("‖∂‖" in label) == (n.grad is not None)
        assert "×".join(map(str, n.shape)) in label
    assert "‖" not in render(tape, format="mermaid").data


def test_mermaid_cannot_be_broken_by_names():
    tape = tapes.diamond()
    tape.nodes[0].name = NASTY
    text = render(tape, format="mermaid", title='a "b"\n---\n# {x}').data
    nodes, *_ = read_mermaid(text)
    assert unescaped(nodes["n0"][1]).split("<br/>")[0] == " ".join(re.sub(r"[\x00-\x1f]", " ", NASTY).split())
    assert "%%{" not in text
    assert text.splitlines()[1] == r'title: "a \"b\"\n---\n# {x}"'


@pytest.mark.parametrize("options", [{"steps": 12}, {"steps": 12, "layers": 3}, {"steps": 11, "bidirectional": True}])
def test_mermaid_folds_what_its_readers_would_refuse(options):
    tape = recorded("lstm", **options)
    _, edges, *_ = read_mermaid(text := render(tape, format="mermaid").data)
    assert len(edges) <= MOST_EDGES
    assert len(text) <= MOST_CHARACTERS
    whole = read_mermaid(render(tape, format="mermaid", fold=False).data)[1]
    assert len(whole) == len(render(tape, format="dot", fold=False).data.split(" -> ")) - 1 > MOST_EDGES


# --- terminal -------------------------------------------------------------------------------------------------


def cells(line):
    """Columns of a terminal, counted by another rule than the writer's."""
    return sum(
        0 if unicodedata.category(c) == "Mn" else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line
    )


@pytest.mark.parametrize("show", [(), ("shape", "value", "grad")], ids=["plain", "all"])
@pytest.mark.parametrize("name", VIEWS)
def test_drawings_fit_a_terminal(name, show):
    view = VIEWS[name]
    drawn = to_text(view, show=show, title=name)
    plain = to_text(view, show=show, title=name, ascii=True)
    plain.encode("ascii")
    assert max(map(cells, drawn.splitlines())) <= 80
    assert max(map(len, plain.splitlines())) <= 80
    for line in drawn.splitlines():
        if line[:1] in "┌│└" and line:
            assert cells(line) == 80
            assert line[-1] == {"┌": "┐", "│": "│", "└": "┘"}[line[0]]
    joints = [line for line in drawn.splitlines() if line[:1] in "┌└" and line]
    assert [line[0] for line in joints] == ["┌", "└"] * (len(joints) // 2)
    for n in view.nodes:
        if n.kind == "parameter":
            assert f"\n  {n.name}" in drawn


def wires(lines, k, marks):
    return {column for column, c in enumerate(lines[k]) if c in marks}


@pytest.mark.parametrize("spec", [{"spec": "lstm", "layers": 2}, {"spec": "rnn", "bidirectional": True}])
def test_wires_start_and_end_where_they_should(spec):
    lines = render(recorded(**spec, text="abc"), format="text").data.splitlines()
    # what reads backwards hands its state upwards, once between two steps
    assert sum("▲" in line for line in lines) == (2 if "bidirectional" in spec else 0)
    gaps = [k for k, line in enumerate(lines) if re.match(r" {8,}[║┊│]", line)]
    assert len(gaps) >= 3
    for k in gaps:
        above = wires(lines, k - 1, "╥┬▲") if lines[k - 1].startswith("└") else wires(lines, k, "║┊│")
        below = wires(lines, k + 1, "▼╨┴")
        assert wires(lines, k, "║┊│") == above == below


def test_formulas_are_those_of_the_textbook():
    text = render(recorded("lstm", text="ab", hidden=3), format="text").data
    rows = {row.split()[1]: " ".join(row.split()[3:-1]) for row in text.splitlines() if re.match(r"│ \w₀ ", row)}
    assert rows["f₀"] == "σ(W_f x₀ + b_f + U_f h₋₁ + bU_f) forget"
    assert rows["g₀"] == "tanh(W_g x₀ + b_g + U_g h₋₁ + bU_g) cell"
    assert rows["c₀"] == "f₀ ⊙ c₋₁ + i₀ ⊙ g₀"
    assert rows["h₀"] == "o₀ ⊙ tanh(c₀)"
    gru = render(recorded("gru", text="ab", hidden=3), format="ascii").data
    assert "| h[0]       1x3     (1 - z[0]) * n[0] + z[0] * h[-1] " in gru


def test_parentheses_keep_the_meaning():
    a, b = (mg.tensor([v, 2.0 * v], requires_grad=True, name=name) for name, v in (("a", 2.0), ("b", 3.0)))
    with mg.Tape() as tape:
        total = (a - (b - a)) * (a + b) / (-(a * b)) - mg.tanh(a / (b * a)) @ (b + b)
    total.name = "y"
    text = render(tape, format="ascii").data
    formula = " ".join(re.search(r"\| y +\w+ +(.*?)\n\+", text, re.S)[1].replace("|", " ").split())
    meant = formula.replace(" x ", " @ ")
    import numpy as np

    names = {"a": a.numpy(), "b": b.numpy(), "tanh": np.tanh}
    np.testing.assert_allclose(eval(meant, names), total.numpy(), rtol=1e-6)


def test_recurrent_layers_read_like_their_equations():
    mg.manual_seed(1)
    x = mg.randn(2, 1, 3)
    for options, lines in (
        ({"peepholes": "full"}, ["σ(W_i x₀ + b_i + U_i h₋₁ + bU_i + p_i c₋₁)", "p_i p_f p_o", "f₀ ⊙ c₋₁ + i₀ ⊙ g₀"]),
        ({"peepholes": "diagonal", "variant": "FGR"}, ["+ p_o ⊙ c₀ + G_o gates₋₁)", "G_i G_f G_o"]),
        ({"layer_norm": True, "proj_size": 1}, ["W x₀", "U h₋₁", "σ(Wx₀[i] + Uh₀[i])", "V m₀", "Wx₀ 1×8 γ ⊙ #"]),
    ):
        with mg.Tape() as tape:
            mg.nn.LSTM(3, 2, **options)(x)
        text = render(tape, format="text").data
        plain = (re.sub(r"(input|forget|cell|output)? *│$", "", line).strip("│ ") for line in text.splitlines())
        whole = " ".join(" ".join(plain).split())
        assert [line for line in lines if line not in whole] == []
        assert "h_0[0]" in whole  # the given state is not called as the first step's is
        assert "h₀#" not in whole
        assert "mT" not in whole
        assert all(cells(line) == 80 for line in text.splitlines() if line[:1] in ("┌", "└"))


def test_steps_alike_are_one_line_and_others_are_not():
    text = to_text(VIEWS["skips"])
    assert "as t = 1: h₂" in text
    assert "h₃  1×5  tanh(h₂ × U + h₀)" in text
    assert "as t = 3: h₄" in text
    assert "h₆  1×5  tanh(h₅ × U + h₁)" in text  # the same operations, but five steps back where h₃ goes three
    with_values = render(recorded("rnn", text="abc"), format="text", show=("value",)).data
    assert "as t =" not in with_values
    assert with_values.count("tanh(") == 3


def test_numbers_of_the_drawing_are_the_tapes():
    tape = recorded("gru", text="abc", hidden=3)
    text = render(tape, format="ascii", show=("value", "grad")).data
    for node in tape.nodes:
        if node.name in ("h[1]", "z[2]", "logits[0]"):
            (row,) = re.findall(rf"\| {re.escape(node.name)} +(\S+) +(\S+)", text)
            assert [float(v) for v in row] == pytest.approx(
                [(node.value**2).sum() ** 0.5, (node.grad**2).sum() ** 0.5], rel=5e-3
            )


def test_names_cannot_move_the_cursor():
    tape = tapes.diamond()
    tape.nodes[0].name = NASTY + "漢字" * 30
    for kind in ("text", "ascii"):
        text = render(tape, format=kind).data
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
        assert max(map(cells, text.splitlines())) <= 80


def test_many_layers_and_long_sequences():
    tape = recorded("gru", text="ab", steps=3, layers=15, hidden=2)
    text = render(tape, format="text").data
    assert max(map(cells, text.splitlines())) <= 80
    assert re.search(r"┊ h\S+   \+\d+\n", text)  # the wires that have no room are counted
    assert render(tapes.lstm(100), format="text").data.count("\n") < 120
    assert render(tapes.chain(1200), format="ascii", fold=False).data.count("\n") < 800


# --- every format ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [lambda v: v, fold, unroll, lambda v: unroll(fold(v, "gate"))])
def test_elements_of_an_svg_carry_their_identity_and_say_what_they_are(shape):
    view = shape(view_of(recorded("lstm", text="abc", hidden=3)))
    root = ET.fromstring(render(view, engine="own", title="t").data)
    assert root.get("role") == "img"
    described = {root.find(f"{SVG}{tag}").get("id") for tag in ("title", "desc")}
    assert set(root.get("aria-labelledby").split()) == described
    by_id = {e.get("id"): e for e in root.iter() if e.get("id")}
    keys = {n.id: n.key for n in view.nodes}
    wanted = {f"n-{key}" for key in keys.values()}
    wanted |= {f"e-{keys[e.source]}-{keys[e.target]}-{e.argument}" for e in view.edges}
    for key in wanted:
        assert key in by_id[key].get("class").split()
        assert by_id[key].find(f"{SVG}title").text


def test_the_same_computation_gives_the_same_bytes_in_every_format():
    pytest.importorskip("resvg_py")
    pytest.importorskip("svg2pdf_py")
    for kind in FORMATS:
        first, second = (
            render(recorded("gru", text="abc", hidden=3), format=kind, engine="own", title="x").data for _ in range(2)
        )
        assert first == second


def test_notebooks_show_each_format():
    tape = tapes.rnn(2)
    bundles = {kind: render(tape, format=kind, engine="own")._repr_mimebundle_() for kind in ("text", "mermaid", "dot")}
    assert bundles["text"]["text/plain"] == str(render(tape, format="text")) == render(tape, format="text").data
    assert bundles["mermaid"]["text/vnd.mermaid"].startswith("---\n")
    assert bundles["dot"] == {"text/plain": "<minigrad picture as dot>"}
    assert render(tape, format="dot")._repr_svg_() is None
    assert str(render(tape, engine="own")).startswith("<minigrad picture: ")


@pytest.mark.parametrize(
    ("path", "kind"),
    [("a.mmd", "mermaid"), ("a.mermaid", "mermaid"), ("a.txt", "text"), ("a.gv", "dot"), ("a.HTM", "html")],
)
def test_endings(path, kind, tmp_path):
    assert render(tapes.diamond(), tmp_path / path, engine="own").format == kind


def test_bad_options_are_found_before_anything_is_drawn(monkeypatch):
    for options, message in (
        ({"style": "baroque"}, "'baroque'"),
        ({"format": "gif"}, "'gif'"),
        ({"fold": "size"}, "cannot fold by 'size'"),
        ({"show": ["smell"]}, "'smell'"),
        ({"theme": "neon"}, "'neon'"),
        ({"engine": "steam"}, "'steam'"),
        ({"flow": "smell"}, "flow is shown as"),
    ):
        with pytest.raises(UsageError, match=message):
            check(**options)
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(MissingExtraError, match="PNG"):
        check("a.png")
    check("a.svg")


def test_a_view_of_nothing_but_names():
    """A view read from JSON is drawn like the one that was written."""
    view = VIEWS["lstm3"]
    again = View.from_json(view.to_json())
    assert to_text(again) == to_text(view)
    assert to_mermaid(again) == to_mermaid(view)
    lone = View((ViewNode(0, "input", "input", "x", shape=(2,)),), ())
    assert "│ x  2  input" in to_text(lone)


def test_the_losses_of_many_folded_steps_are_one_line():
    """What a fold hands to one operation a hundred times is drawn once, and still stands for all of it."""
    tape = recorded("rnn", steps=100)
    view = view_of(tape, fold_with=fold)
    (stack,) = (n.id for n in view.nodes if n.op == "stack")
    into = [e for e in view.edges if e.target == stack]
    assert [len(e.keys) for e in into] == [1, 1, 1, 95, 1, 1]
    assert [key for e in into for key in e.keys] == [
        (node.id, stack, k) for k, node in enumerate(n for n in tape.nodes if n.op == "cross_entropy")
    ]
    few = view_of(recorded("rnn", steps=13), fold_with=fold)
    assert max(len(e.keys) for e in few.edges if few.node(e.target).op == "stack") == 1


def test_folding_by_cell_keeps_what_it_is_told_to():
    view = view_of(recorded("gru", text="abc", layers=2))
    assert fold(view, "cell") == unroll(view)
    (gate,) = (n.id for n in view.nodes if n.name == "z[1]" and "layer 1" in n.scope)
    kept = fold(view, "cell", keep=[gate])
    assert kept.node(gate) == view.node(gate)
    assert sum(n.kind == "fold" for n in kept.nodes) == 6


def test_each_result_of_a_cell_has_its_wire():
    lstm = mg.nn.LSTM(3, 5, num_layers=2)
    with mg.Tape(detail="cells") as tape:
        lstm(mg.randn(3, 2, 3))
    text = render(tape, format="text").data
    assert re.search(r"║ c⁰₀ +║ c¹₀ +┊ h⁰₀ +┊ h¹₀\n", text)
    assert "as t = 1: x₂ h⁰₂ h¹₂" in text or "as t = 0: x₂ h⁰₂ h¹₂" in text


def test_two_pictures_on_one_page_share_no_names(tmp_path):
    tape = recorded("rnn", steps=2)
    one, other = render(tape).data, render(tape, theme="dark").data
    assert one == render(tape).data
    marks = [set(re.findall(r'<(?:marker|title|desc) id="([^"]+)"', made)) for made in (one, other)]
    assert len(marks[0]) > 8
    assert not marks[0] & marks[1]
    for made, mine in zip((one, other), marks, strict=True):
        assert set(re.findall(r"url\(#([^)]+)\)", made)) <= mine
        (own,) = re.findall(r'<svg [^>]*class="mg (\S+)"', made)
        rules = re.findall(r"(?:^|[},])(\.[^ {]+) ", re.search("<style>\n(.*?)</style>", made, re.S)[1], re.M)
        assert set(rules) == {f".{own}"}
