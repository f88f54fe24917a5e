"""Pictures: nothing overlaps, nothing is lost, the same bytes twice, whole files or none."""

import html
import re
import stat
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import pytest
import tapes
from picture_checks import faults
from test_view import golden

from minigrad.errors import MinigradError, MissingExtraError, UsageError
from minigrad.graph import fold, view_of
from minigrad.graph.view import unroll
from minigrad.render import FORMATS, image, layout, render, to_graphviz
from minigrad.render.dot import quote, to_dot
from minigrad.render.layout import lay_out
from minigrad.render.text import width

ALL = ("shape", "value", "grad", "local")
ENGINES = ["own"] + [name for name in ("graphviz-pure", "dot") if image.installed(name)]


def attention(bidirectional: bool = False) -> tapes.FakeTape:
    """Two layers, tied embedding, a stack over all steps, a penalty on a weight: everything a plan can meet."""
    tape, steps, size = tapes.FakeTape(), 3, 5
    table = tape.leaf("parameter", (7, size), "embed.weight")
    sequence = tape.op("embedding", table, tape.leaf("input", (steps, 1), "text", integer=True))
    below = None
    for layer in range(2):
        outs = []
        for way in ("", "reverse ") if bidirectional else ("",):
            tag = f"l{layer}" + ("_reverse" if way else "")
            w, u = (tape.leaf("parameter", (size, size), f"weight_{k}_{tag}") for k in ("ih", "hh"))
            b, b2 = (tape.leaf("parameter", (size,), f"bias_{k}_{tag}") for k in ("ih", "hh"))
            h, out = tape.leaf("constant", (1, size), "h[0]"), {}
            for k in range(steps - 1, -1, -1) if way else range(steps):
                with tape.scope("rnn", f"{way}layer {layer}", f"t={k + 1}"):
                    x = below[k] if below else tape.op("getitem", sequence, index=k, name=f"x[{k + 1}]")
                    a = tape.op("add", tape.op("affine", x, w, b), tape.op("affine", h, u, b2))
                    out[k] = h = tape.op("tanh", a, name=f"h[{k + 1}]")
            outs.append(out)
        below = outs[0]
        if bidirectional:
            below = {}
            for k in range(steps):
                with tape.scope(f"t={k + 1}"):
                    below[k] = tape.op("add", outs[0][k], outs[1][k])
    context = tape.op("sum", tape.op("stack", *below.values()))
    tape.op("stack", below[steps - 1], name="h_n")
    logits = tape.op("affine", below[steps - 1], table, tape.leaf("parameter", (7,), "b"))
    scores = tape.op("add", logits, context)
    loss = tape.op("cross_entropy", scores, tape.leaf("constant", (1,), integer=True))
    tape.op("add", loss, tape.op("sum", tape.op("square", w)), name="loss")
    return tape


def skips() -> tapes.FakeTape:
    """Steps that read not only the step before."""
    tape = tapes.FakeTape()
    h = [tape.leaf("constant", (1, 5), "h[0]")]
    w = tape.leaf("parameter", (5, 5), "weight_hh_l0")
    for k in range(1, 7):
        with tape.scope(f"t={k}"):
            z = tape.op("matmul", h[-1], w)
            if k > 2:
                z = tape.op("add", z, h[k - 3] if k % 2 else h[1])
            h.append(tape.op("tanh", z, name=f"h[{k}]"))
    return tape


def leaf() -> tapes.FakeTape:
    tape = tapes.FakeTape()
    tape.leaf("input", (1,), "x")
    return tape


VIEWS = {
    "lstm1": view_of(tapes.lstm(1)),
    "lstm2 unnamed": view_of(tapes.lstm(2, named=False, losses_inside=False, embedded=False)),
    "lstm3": view_of(tapes.lstm(3)),
    "lstm6 no loss": view_of(tapes.lstm(6, loss=False)),
    "lstm40 folded": view_of(tapes.lstm(40), fold_with=fold),
    "lstm3 unrolled": unroll(view_of(tapes.lstm(3))),
    "lstm2 gates": fold(view_of(tapes.lstm(2)), "gate"),
    "lstm3 layer": fold(view_of(tapes.lstm(3)), "layer"),
    "rnn4": view_of(tapes.rnn(4)),
    "rnn3 last": view_of(tapes.rnn(3, last_only=True)),
    "two layers": view_of(attention()),
    "bidirectional": view_of(attention(bidirectional=True)),
    "skips": view_of(skips()),
    "mlp": view_of(tapes.mlp()),
    "diamond": view_of(tapes.diamond()),
    "chain": view_of(tapes.chain(150)),
    "leaf": view_of(leaf()),
    "empty": view_of(tapes.FakeTape()),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("show", [(), ("shape",), ALL], ids=["plain", "shape", "all"])
@pytest.mark.parametrize("name", VIEWS)
def test_nothing_overlaps_and_nothing_is_lost(name, show, engine):
    view = VIEWS[name]
    scene = lay_out(view, show=show, arrange=image.arranger(engine))
    assert faults(scene) == []
    keys = {n.id: n.key for n in view.nodes}
    assert sorted(b.key for b in scene.boxes) == sorted(f"n-{key}" for key in keys.values())
    assert sorted(w.key for w in scene.wires) == sorted(
        f"e-{keys[e.source]}-{keys[e.target]}-{e.argument}" for e in view.edges
    )


def test_the_measure_sees_faults():
    scene = lay_out(VIEWS["rnn4"], show=ALL)
    box = next(b for b in scene.boxes if b.key == "n-10")
    other = next(b for b in scene.boxes if b.key == "n-11")
    moved = layout.Box(box.key, other.x + 5, other.y, box.width, box.height, box.words, box.style)
    scene.boxes = [moved if b is box else b for b in scene.boxes]
    found = faults(scene)
    assert any("n-10 on n-11" in f or "n-11 on n-10" in f for f in found)
    assert any("leaves n-10" in f for f in found)
    assert any("through n-10" in f for f in found)


def test_the_measure_sees_words():
    scene = lay_out(VIEWS["rnn4"], show=ALL)
    frame = scene.frames[0]
    scene.words.append(replace(frame.words, text="on the title", style="g"))
    scene.words.append(replace(frame.words, x=scene.width - 2, text="out of the picture"))
    scene.frames[1] = replace(scene.frames[1], words=replace(frame.words, text="far from its frame"))
    found = faults(scene)
    assert any("'on the title' of words on 't = 1' of frame" in f or "'t = 1' of frame on 'on the" in f for f in found)
    assert any("'out of the picture' of words leaves the picture" in f for f in found)
    assert any("'far from its frame' leaves its frame" in f for f in found)


def test_steps_stand_in_the_order_of_time():
    scene = lay_out(VIEWS["lstm6 no loss"])
    assert [f.words.text for f in scene.frames] == [f"t = {t}" for t in range(1, 7)]
    assert all(a.x + a.width < b.x for a, b in pairwise(scene.frames))
    assert len({(f.width, f.height) for f in scene.frames}) == 1
    frame = dict(enumerate(scene.frames, 1))
    place = {b.key: b for b in scene.boxes}
    for node in VIEWS["lstm6 no loss"].nodes:
        if node.step is not None:
            box, f = place[f"n-{node.key}"].box, frame[node.step]
            assert f.x < box[0] < box[2] < f.x + f.width
            assert f.y < box[1] < box[3] < f.y + f.height


def test_numbers_do_not_change_the_plan(monkeypatch):
    solved = []
    monkeypatch.setattr(layout, "solve", lambda *a: solved.append(1) or real(*a))
    from minigrad.render.plan import solve as real

    counts = []
    for steps in (5, 40):
        solved.clear()
        lay_out(view_of(tapes.lstm(steps)), show=("shape", "value", "grad"))
        counts.append(len(solved))
    assert counts[0] == counts[1] <= 3


def test_a_thousand_steps_stay_small():
    svg = render(tapes.lstm(1000), engine="own", show=ALL).data
    assert len(svg.encode()) < 1_000_000
    assert "⋯ 995 steps" in svg
    assert "t = 4 … 998" in svg


@pytest.mark.parametrize("keep_all", [False, None])
def test_three_thousand_operations_in_a_row(keep_all):
    made = render(tapes.chain(3000), engine="own", fold=keep_all)
    assert made.data.count('class="n ') == (3001 if keep_all is False else 122)
    ET.fromstring(made.data)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_svg_is_well_formed_and_says_what_it_is(theme):
    text = render(tapes.lstm(3), engine="own", theme=theme, show=ALL, title='a <b> & "c"').data
    root = ET.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{space}title").text == 'a <b> & "c"'
    assert "steps 1 to 3" in root.find(f"{space}desc").text
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    view = view_of(tapes.lstm(3))
    assert {f"n-{n.id}" for n in view.nodes} <= set(ids)
    assert {f"e-{e.source}-{e.target}-{e.argument}" for e in view.edges} <= set(ids)
    used = set(re.findall(r"url\(#([\w-]+)\)", text))
    assert used <= set(ids)
    assert "baseline-shift" not in text


def test_names_that_are_not_xml():
    tape = tapes.diamond()
    tape.nodes[0].name = '</text><script>alert("x")</script>\x00\x1b&'
    text = render(tape, engine="own").data
    assert "<script" not in text
    ET.fromstring(text)


def test_widths_are_the_fonts():
    assert width("", 10) == 0
    assert width("i", 10) < width("m", 10) < width("m", 10, "bold")
    # DejaVu Sans: an em is 2048 units, a space 651, capital A 1401, a digit 1303
    assert width("A", 2048) == 1401
    assert width(" 7", 2048) == 651 + 1303
    assert width("W_f", 10, math=True) < width("Wf", 10)


@pytest.mark.parametrize(("name", "view"), [("diamond", VIEWS["diamond"]), ("rnn2", view_of(tapes.rnn(2)))])
def test_dot_goldens(name, view):
    golden(f"{name}.dot", to_dot(view))


def test_dot_of_an_lstm():
    view = view_of(tapes.lstm(3))
    text = to_dot(view)
    assert re.findall(r"subgraph \"cluster_t(\d+)\"", text) == ["1", "2", "3"]
    assert text.count('id="n-') == len(view)
    assert text.count('id="e-') == len(view.edges)
    assert not re.search(r"\b(layout|dpi)\s*=", text)
    for line in text.splitlines():
        if 'class="parameter"' in line and "->" in line:
            assert "constraint=false" in line


def test_dot_quoting():
    assert quote('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'
    assert len(quote("é" * 20_000).encode()) < 16_384


@pytest.mark.needs("dot")
@pytest.mark.parametrize("name", ["lstm3", "lstm40 folded", "mlp", "diamond", "empty", "bidirectional"])
def test_dot_is_read_by_graphviz(name):
    done = subprocess.run(["dot", "-Tsvg"], input=to_dot(VIEWS[name]), capture_output=True, text=True, check=True)
    for node in VIEWS[name].nodes:
        assert f'id="n-{node.key}"' in done.stdout.replace("&#45;", "-")


def test_graphviz_source():
    pytest.importorskip("graphviz")
    assert to_graphviz(VIEWS["mlp"]).source == to_dot(VIEWS["mlp"])


def test_without_any_engine(monkeypatch):
    monkeypatch.setattr(image, "installed", lambda name: None)
    made = render(tapes.lstm(3))
    assert made.engine == "own"
    assert made.data == render(tapes.lstm(3), engine="own").data
    with pytest.raises(UsageError, match="'dot' is not on the path"):
        render(tapes.lstm(3), engine="dot")
    with pytest.raises(MissingExtraError, match=r"minigrad-tape\[render\]"):
        render(tapes.lstm(3), engine="graphviz-pure")


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 3", "exit status 3"), ("echo nonsense", "lacks nodes"), ("exec sleep 60", "timed out")],
)
def test_a_broken_engine_says_what_is_wrong(script, reason, tmp_path, monkeypatch):
    program = tmp_path / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(image, "installed", lambda name: str(program) if name == "dot" else None)
    monkeypatch.setattr(image, "SECONDS", 0.2)
    with pytest.raises(MinigradError, match=f"dot failed: .*{reason}"):
        render(tapes.diamond(), engine="dot")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_engine_is_named(engine):
    assert render(tapes.lstm(2), engine=engine).engine == engine


@pytest.mark.parametrize("suffix", FORMATS)
def test_files(suffix, tmp_path):
    for extra, module in (("png", "resvg_py"), ("pdf", "svg2pdf_py")):
        if suffix == extra:
            pytest.importorskip(module)
    path = tmp_path / f"lstm.{suffix}"
    path.write_text("old")
    made = render(tapes.lstm(2), path, engine="own")
    assert made.path == path
    assert made.format == suffix
    data = path.read_bytes()
    assert data == (made.data if isinstance(made.data, bytes) else made.data.encode())
    assert render(tapes.lstm(2), format=suffix, engine="own").data == made.data
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "html": b"<!DOCTYPE", "svg": b"<svg", "dot": b"digraph", "json": b"{"}
    start |= {"mermaid": b"---\nconfig:", "text": b"66 operations", "ascii": b"66 operations"}
    assert data.startswith(start[suffix])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_png_is_as_large_as_its_svg():
    pytest.importorskip("resvg_py")
    made = render(tapes.rnn(2), format="png", engine="own", scale=2)
    w, h = (int.from_bytes(made.data[at : at + 4]) for at in (16, 20))
    root = ET.fromstring(made.svg)
    assert (w, h) == (2 * int(root.get("width")), 2 * int(root.get("height")))


def test_a_png_that_nobody_could_open():
    with pytest.raises(UsageError, match="too large: fold"):
        render(tapes.chain(1500), format="png", engine="own", fold=False)


def test_pdf_opens_with_its_fonts():
    pytest.importorskip("svg2pdf_py")
    data = render(tapes.lstm(2), format="pdf", engine="own", title="bold", show=ALL).data
    # the converter's own bytes differ from run to run
    again = {render(tapes.lstm(2), format="pdf", engine="own", title="bold", show=ALL).data for _ in range(6)}
    assert again == {data}
    table = int(data[data.rindex(b"startxref") + 9 :].split()[0])
    lines = data[table:].split(b"trailer")[0].splitlines()[2:]
    for number, line in enumerate(lines[1:], 1):
        assert data[int(line[:10]) :].startswith(b"%d 0 obj" % number)
    assert set(re.findall(rb"\+(DejaVuSans[\w-]*)", data)) == {
        b"DejaVuSans", b"DejaVuSans-Bold", b"DejaVuSans-Oblique",
    }  # fmt: skip


def test_png_has_letters_without_the_systems_fonts():
    pytest.importorskip("resvg_py")
    with_words = render(tapes.diamond(), format="png", engine="own").data
    without = image.to_png(re.sub(r"<text.*?</text>", "", render(tapes.diamond(), engine="own").data))
    assert len(with_words) > len(without) + 1000


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(MissingExtraError, match="PNG"):
        render(tapes.diamond(), path)
    monkeypatch.setitem(sys.modules, "svg2pdf_py", None)
    with pytest.raises(MissingExtraError, match="PDF"):
        render(tapes.diamond(), tmp_path / "a.pdf")
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_places_that_cannot_be_written(tmp_path):
    for path in (tmp_path / "no" / "such.svg", tmp_path):
        with pytest.raises(UsageError, match=re.escape(repr(str(path)))):
            render(tapes.diamond(), path, format="svg")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "baroque"}, "'baroque'.*graph, unrolled"),
        ({"format": "gif"}, "'gif'.*svg, png, pdf, dot, json, mermaid, text, ascii, html"),
        ({"path": "a.gif"}, "'gif'.*svg"),
        ({"path": "noending"}, "format of 'noending'"),
        ({"show": ("shape", "smell")}, "'smell'.*shape, value, grad, local"),
        ({"theme": "neon"}, "'neon'.*light, dark, print"),
        ({"engine": "steam"}, "'steam'.*own, graphviz-pure, dot"),
        ({"fold": "size"}, "'size'"),
        ({"fold": 3}, "fold by 3"),
    ],
)
def test_wrong_options(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        render(tapes.diamond(), **options)
    assert list(tmp_path.iterdir()) == []


def test_only_tapes_and_views():
    with pytest.raises(UsageError, match="tensor nor a view: list"):
        render([])
    assert render(view_of(tapes.rnn(2), show=("shape",)), engine="own").data == render(tapes.rnn(2), engine="own").data


def test_notebooks():
    made = render(tapes.rnn(2), engine="own")
    bundle = made._repr_mimebundle_()
    assert bundle["image/svg+xml"] == made._repr_svg_() == made.data
    assert "drawn by minigrad itself" in bundle["text/plain"].lower()
    page = render(tapes.rnn(2), format="html", engine="own")
    framed = page._repr_mimebundle_()["text/html"]
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', framed).group(1)) == page.data


def test_ways_back_that_end_together_are_written_from_that_end():
    """In black and white the ways back are dotted: dots that begin elsewhere would fill the gaps of the others."""
    picture = render(tapes.lstm(2), backward=True, theme="print").data
    hidden = re.findall(r'class="e hidden (e-[\d-]+)', picture)
    ways = dict(re.findall(r'id="back-(e-[\d-]+)" d="(M[^LQA]+)[^"]*" marker-start="url\(#a-backward', picture))
    from_h0 = [ways[key] for key in hidden if key in ways]
    assert len(from_h0) == 4
    assert len(set(from_h0)) == 1
