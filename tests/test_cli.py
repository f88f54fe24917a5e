import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from minigrad import __version__, cli
from minigrad.op import PAGE
from minigrad.render import FORMATS, STYLES

RENDER = "render-graph"
SMALL = ["--text", "abc", "--hidden", "3", "--engine", "own"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith("minigrad"):
            del sys.modules[name]


def files():
    return sorted(path.name for path in Path().iterdir() if path.name != "__pycache__")


def call(capsys, *argv):
    """Return exit status, standard output and standard error of a call in this process."""
    try:
        status = cli.main([str(word) for word in argv])
    except SystemExit as leaving:  # --help and --version
        status = leaving.code or 0
    out, err = capsys.readouterr()
    return status, out, err


def process(*argv, **more):
    # The folder of the package, because the working directory is an empty one.
    root = str(Path(cli.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root} | more.pop("env", {})
    command = [sys.executable, "-m", "minigrad.cli", *argv]
    return subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False, **more)


# --- pictures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.svg", b"<svg"),
        ("a.png", b"\x89PNG"),
        ("a.pdf", b"%PDF"),
        ("a.dot", b"digraph"),
        ("a.json", b"{"),
        ("a.mmd", b"flowchart LR"),
        ("a.txt", "║ cell state".encode()),
        ("a.ascii", b"# cell state"),
        ("a.html", b"<!DOCTYPE html>"),
    ],
)
def test_every_format(capsys, name, start):
    if name in ("a.png", "a.pdf"):
        pytest.importorskip("resvg_py" if name == "a.png" else "svg2pdf_py")
    status, out, err = call(capsys, RENDER, "lstm", *SMALL, "-o", name)
    assert (status, err) == (0, "")
    kind = name.partition(".")[2]
    kind = {"mmd": "mermaid", "txt": "text"}.get(kind, kind)
    engine = ", drawn by minigrad itself" if kind in ("svg", "png", "pdf", "html") else ""
    assert out == f"{name}: {kind}{engine}\n"
    assert start.lower() in Path(name).read_bytes().lower()


def test_formats_of_the_test_are_all_there_are():
    assert {"svg", "png", "pdf", "dot", "json", "mermaid", "text", "ascii", "html"} == set(FORMATS)


def test_default_name_and_title(capsys):
    assert call(capsys, RENDER, "gru", *SMALL)[0] == 0
    assert "gru spelling" in Path("gru.svg").read_text(encoding="utf-8")
    Path("mine.py").write_text(
        "import minigrad as mg\nw = mg.tensor(2.0, requires_grad=True, name='weight')\ndef loss():\n    return w * w\n"
    )
    assert call(capsys, RENDER, "mine.py:loss", "--title", "mine & yours", "--format", "json")[0] == 0
    names = [node.get("name") for node in json.loads(Path("loss.json").read_text(encoding="utf-8"))["nodes"]]
    assert "weight" in names
    assert call(capsys, RENDER, "mine.py:loss", "--title", "mine & yours", "--engine", "own")[0] == 0
    assert "mine &amp; yours" in Path("loss.svg").read_text(encoding="utf-8")


def test_values_and_gradients_on_request(capsys):
    numbers = {}
    for show in ("shape", "shape,value,grad"):
        assert call(capsys, RENDER, "rnn", *SMALL, "--show", show, "-o", "a.svg")[0] == 0
        numbers[show] = len(re.findall(r"\d\.\d", re.sub(r"<[^>]*>", "", Path("a.svg").read_text(encoding="utf-8"))))
    assert numbers["shape,value,grad"] > numbers["shape"] + 30


def test_json_carries_the_gradients_of_the_model(capsys):
    from minigrad import Tape, models

    with Tape() as tape:
        loss = models.build("rnn", text="abc", hidden=3, seed=4).loss()
    loss.backward()
    assert call(capsys, RENDER, "rnn", *SMALL, "--seed", "4", "-o", "a.json")[0] == 0
    nodes = json.loads(Path("a.json").read_text(encoding="utf-8"))["nodes"]
    assert len(nodes) == len(tape.nodes)
    (bias,) = [node for node in nodes if node.get("name") == "head.bias"]
    (expected,) = [node.grad for node in tape.nodes if node.name == "head.bias"]
    assert bias["grad"]["numbers"] == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("kind", ["svg", "dot", "json", "html"])
def test_standard_output(capsys, kind):
    status, out, err = call(capsys, RENDER, "rnn", *SMALL, "-o", "-", "--format", kind)
    assert status == 0
    assert err.startswith(f"standard output: {kind}")
    assert call(capsys, RENDER, "rnn", *SMALL, "-o", f"a.{kind}")[0] == 0
    assert out == Path(f"a.{kind}").read_text(encoding="utf-8")
    assert files() == [f"a.{kind}"]


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_drawn_and_in_the_help(capsys, style):
    assert call(capsys, RENDER, "lstm", *SMALL, "--style", style)[0] == 0
    assert style in call(capsys, RENDER, "--help")[1]


def test_the_same_seed_gives_the_same_bytes_in_every_process():
    pictures = []
    for salt in ("1", "4242"):
        done = process(
            RENDER, "lstm", "--text", "abca", "--seed", "3", "--show", "shape,value,grad", "-o", "-", "--engine", "own",
            env={"PYTHONHASHSEED": salt},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        pictures.append(done.stdout)
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) > 10_000
    other = process(
        RENDER, "lstm", "--text", "abca", "--seed", "4", "--show", "shape,value,grad", "-o", "-", "--engine", "own"
    )
    assert other.stdout != pictures[0]


def test_a_file_is_replaced_only_by_a_picture(capsys):
    Path("a.svg").write_text("precious")
    Path("bad.py").write_text("def loss():\n    raise ValueError('no')\n")
    assert call(capsys, RENDER, "bad.py:loss", "-o", "a.svg")[0] == 2
    assert call(capsys, RENDER, "lstm", "--style", "cubist", "-o", "a.svg")[0] == 2
    assert call(capsys, RENDER, "lstm", "--no-clobber", "-o", "a.svg")[0] == 2
    assert Path("a.svg").read_text() == "precious"
    assert files() == ["a.svg", "bad.py"]
    assert call(capsys, RENDER, "rnn", *SMALL, "-o", "a.svg")[0] == 0
    assert Path("a.svg").read_text(encoding="utf-8").lstrip().startswith("<")


VIEWER = """\
#!/bin/sh
echo "$1" >> asked
exit 3
"""


def test_open_asks_the_systems_viewer_and_then_the_browser(capsys, monkeypatch):
    viewer = Path("viewer")
    viewer.write_text(VIEWER.replace("3", "0"))
    viewer.chmod(0o755)
    asked = []
    monkeypatch.setattr(cli.shutil, "which", lambda name: str(viewer.resolve()))
    monkeypatch.setattr("webbrowser.open", lambda address: asked.append(address) or len(asked) == 1)
    draw = [RENDER, "rnn", *SMALL, "-o", "a b.svg", "--open"]
    assert call(capsys, *draw)[2] == ""
    assert (Path("asked").read_text(), asked) == ("a b.svg\n", [])
    viewer.write_text(VIEWER)
    assert call(capsys, *draw)[2] == ""
    monkeypatch.setattr(cli.shutil, "which", lambda name: None)
    status, _, err = call(capsys, *draw)
    assert (status, "no program was found that shows a b.svg" in err) == (0, True)
    assert asked == [(Path.cwd() / "a b.svg").as_uri()] * 2
    assert Path("asked").read_text() == "a b.svg\n" * 2


def test_render_graph_is_a_command_of_its_own(capsys):
    assert cli.render_graph_main(["rnn", *SMALL]) == 0
    assert capsys.readouterr().out == "rnn.svg: svg, drawn by minigrad itself\n"
    assert cli.render_graph_main([]) == 2
    assert "See render-graph --help" in capsys.readouterr().err


class Terminal(io.TextIOWrapper):
    """What programs take for a terminal."""

    def __init__(self, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    def isatty(self):
        return True

    def shown(self):
        return self.buffer.getvalue().decode(self.encoding)


def test_progress_is_for_terminals_with_rich(capsys, monkeypatch):
    assert call(capsys, RENDER, "rnn", *SMALL)[2] == ""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "rich.progress", None)
        assert cli.main([RENDER, "rnn", *SMALL]) == 0
    assert sys.stderr.shown() == ""
    pytest.importorskip("rich")
    assert cli.main([RENDER, "rnn", *SMALL, "--text", "ab [bold]"]) == 0
    seen = sys.stderr.shown()
    assert "running rnn spelling 'ab [bold]'" in seen
    assert "100%" in seen
    assert "sweeping back through" in seen
    assert max(map(len, re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", seen).splitlines())) <= 80
    assert seen.endswith("\x1b[2K")  # it is taken back


def test_the_bar_counts_steps():
    from minigrad import models

    for spec, given, count in (("lstm", {"text": "abc"}, 3), ("adder", {"text": "1+1", "steps": 5}, 5)):
        model, told = models.build(spec, **given), []
        model.loss(lambda told=told: told.append(1))
        assert model.count == len(told) == count


# --- the standard output --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "module"), [("png", "resvg_py"), ("pdf", "svg2pdf_py"), ("text", None)])
def test_any_format_goes_through_a_pipe(capsys, kind, module):
    if module:
        pytest.importorskip(module)
    done = process(RENDER, "rnn", *SMALL, "-o", "-", "--format", kind, env={"PYTHONIOENCODING": "utf-8"})
    assert call(capsys, RENDER, "rnn", *SMALL, "-o", "a.file", "--format", kind)[0] == 0
    assert done.stdout == Path("a.file").read_bytes()
    assert done.stderr.decode().startswith(f"standard output: {kind}")


@pytest.mark.parametrize(("encoding", "kind"), [("utf-8", "text"), ("ascii", "ascii"), ("latin-1", "ascii")])
def test_a_terminal_gets_a_drawing_that_it_can_show(monkeypatch, capsys, encoding, kind):
    monkeypatch.setattr(sys, "stdout", Terminal(encoding))
    assert cli.main([RENDER, "lstm", *SMALL, "-o", "-"]) == 0
    shown = sys.stdout.shown()
    assert ("║ c₀" in shown, "# c[0]" in shown) == (kind == "text", kind == "ascii")
    assert max(map(len, shown.splitlines())) == 80
    monkeypatch.setattr(sys, "stdout", Terminal(encoding))
    assert cli.main([RENDER, "lstm", *SMALL, "-o", "-", "--format", "png"]) == 2
    assert sys.stdout.shown() == ""
    assert "png is nothing for a terminal: name a file" in capsys.readouterr().err


def test_a_standard_output_for_text_alone(monkeypatch, capsys):
    """That of a notebook has no bytes below it."""
    pytest.importorskip("resvg_py")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert cli.main([RENDER, "rnn", *SMALL, "-o", "-", "--format", "dot"]) == 0
    assert sys.stdout.getvalue().startswith("digraph")
    assert cli.main([RENDER, "rnn", *SMALL, "-o", "-", "--format", "png"]) == 2
    assert "takes text only: name a file" in capsys.readouterr().err


# --- folding and watching -------------------------------------------------------------------------------------


def test_fold_by_words_none_and_functions(capsys):
    Path("mine.py").write_text("def by(node):\n    return node.gate and f'{node.gate} of all steps'\n")
    kept = {}
    for fold in ("time", "cell", "gate", "none", "mine.py:by"):
        assert call(capsys, RENDER, "lstm", "--text", "ab", "--steps", "14", "--fold", fold, "-o", "a.json")[0] == 0
        nodes = json.loads(Path("a.json").read_text(encoding="utf-8"))["nodes"]
        kept[fold] = sum(node["kind"] == "fold" for node in nodes)
    assert kept == {"time": 1, "cell": 5 + 1, "gate": 5 * 4 + 1, "none": 0, "mine.py:by": 4}


def test_watch_draws_again_when_the_file_or_what_it_imports_changes(capsys, monkeypatch):
    """The looks are counted, not timed: what happens between them happens in `sleep`."""
    Path("helper.py").write_text("factor = 2.0\n")
    text = "import helper\nimport minigrad as mg\ndef loss():\n    w = mg.tensor(3.0, requires_grad=True, name='w')\n"
    Path("mine.py").write_text(text + "    return w * helper.factor\n")
    edits = [
        lambda: None,
        lambda: Path("helper.py").write_text("factor = 5.0\n"),
        lambda: Path("mine.py").write_text("def loss(:\n"),
        lambda: Path("mine.py").unlink(),
        lambda: Path("mine.py").write_text(text + "    return mg.tanh(w) * helper.factor\n"),
    ]
    seen = []

    def sleep(seconds):
        if waiting:
            waiting.pop()
            return
        seen.append(Path("loss.json").read_text(encoding="utf-8"))
        if not edits:
            raise KeyboardInterrupt
        edits.pop(0)()
        waiting.extend([1])  # the next look finds the change, the one after it that it is whole

    waiting = []
    monkeypatch.setattr(cli, "time", SimpleNamespace(sleep=sleep))
    status, out, err = call(capsys, RENDER, "mine.py:loss", "--watch", "--format", "json")
    assert status == 0
    assert out == "loss.json: json\n" * 3
    assert err.count("watching helper.py, mine.py; Ctrl-C ends") == 5
    assert "minigrad: mine.py is not valid Python: mine.py:1: invalid syntax\n" in err
    assert "there is no file 'mine.py'" in err

    def leaves(text):
        return [n["value"]["numbers"][0] for n in json.loads(text)["nodes"] if n["kind"] == "op"]

    assert [leaves(text)[-1] for text in dict.fromkeys(seen)] == pytest.approx([6.0, 15.0, 5 * 0.9950547536867305])


def test_a_real_watch_ends_cleanly_when_interrupted():
    Path("mine.py").write_text("import minigrad as mg\ndef loss(): return mg.tensor(2.0, requires_grad=True) * 3\n")
    root = str(Path(cli.__file__).parents[1])
    command = [
        sys.executable,
        "-m",
        "minigrad.cli",
        RENDER,
        "mine.py:loss",
        "-o",
        "a.svg",
        "--watch",
        "--engine",
        "own",
    ]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": root}, text=True
    ) as watching:
        assert "watching mine.py" in watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0
        assert watching.stderr.read() == "\n"
    assert Path("a.svg").exists()


# --- bad calls ------------------------------------------------------------------------------------------------

BAD = [
    ([], 2, "COMMAND"),
    (["paint"], 2, "invalid choice: 'paint'"),
    ([RENDER], 2, "MODEL"),
    ([RENDER, "lsmt"], 2, "did you mean lstm"),
    ([RENDER, "lstm", "--colour", "red"], 2, "unrecognized arguments: --colour red"),
    ([RENDER, "lstm", "--hid", "3"], 2, "unrecognized arguments: --hid"),
    ([RENDER, "lstm", "--hidden", "many"], 2, "invalid int value: 'many'"),
    ([RENDER, "lstm", "--hidden", "0"], 2, "hidden must be at least 1"),
    ([RENDER, "lstm", "--seed", "-1"], 2, "a seed is 0 or more"),
    ([RENDER, "lstm", "--style", "cubist"], 2, "unknown style 'cubist': choose from graph"),
    ([RENDER, "lstm", "--show", "shape,smell"], 2, "unknown show option 'smell'"),
    ([RENDER, "lstm", "--theme", "neon"], 2, "neon"),
    ([RENDER, "lstm", "--engine", "steam"], 2, "unknown engine 'steam': choose from"),
    ([RENDER, "lstm", "--format", "gif"], 2, "unknown format 'gif': choose from svg"),
    ([RENDER, "lstm", "-o", "a.gif"], 2, "unknown format 'gif'"),
    ([RENDER, "lstm", "-o", "picture"], 2, "cannot tell the format of 'picture'"),
    ([RENDER, "lstm", "-o", "-", "--open"], 2, "--open shows a file"),
    ([RENDER, "lstm", "-o", "-", "--watch"], 2, "--watch writes a file"),
    ([RENDER, "lstm", "--watch"], 2, "--watch has nothing to watch: lstm is built in"),
    ([RENDER, "absent.py:loss", "--watch"], 2, "there is no file 'absent.py'"),
    ([RENDER, "absent:loss", "--watch"], 2, "there is no module 'absent'"),
    ([RENDER, "model.py:loss", "--watch", "-o", "a.gif"], 2, "unknown format 'gif'"),
    ([RENDER, "lstm", "--fold", "size"], 2, "cannot fold by 'size'"),
    ([RENDER, "lstm", "--fold", "model.py:lots"], 2, "model.py has no function 'lots'; did you mean loss"),
    ([RENDER, "lstm", "-o", "no/such/a.svg"], 2, "there is no folder 'no/such'"),
    ([RENDER, "lstm", "-o", "folder"], 2, "cannot write 'folder': it is a folder"),
    ([RENDER, "lstm", "-o", "locked/a.svg"], 2, "the folder 'locked' is not writable"),
    ([RENDER, "lstm", "--csv", "absent.csv"], 2, "cannot read 'absent.csv': No such file"),
    ([RENDER, "lstm", "--csv", "bad.csv"], 2, "bad.csv, row 3, column 2 (rain): 'wet' is no finite number"),
    ([RENDER, "adder", "--text", "x"], 2, "two whole numbers"),
    ([RENDER, "model.py"], 2, "which function of model.py"),
    ([RENDER, "absent.py:loss"], 2, "there is no file 'absent.py'"),
    ([RENDER, "model.py:less"], 2, "did you mean loss?"),
    ([RENDER, "model.py:raises"], 2, "model.py:3: ZeroDivisionError"),
    ([RENDER, "model.py:nothing"], 2, "what model.py:nothing returned is None, not a tensor"),
    ([RENDER, "model.py:needs"], 2, "requires x"),
    ([RENDER, "model.py:constant"], 2, "depends on no tensor with requires_grad=True"),
    ([RENDER, "model.py:loss", "--text", "ab"], 2, "--text is for the built-in models"),
    (["gradcheck", "rnn", "--order", "3"], 2, "order"),
    (["gradcheck", "rnn", "--modes", "sideways"], 2, "sideways"),
    (["gradcheck", "model.py:raises"], 2, "model.py:3: ZeroDivisionError"),
    (["ops", "tahn"], 2, "there is no operation 'tahn': did you mean tanh"),
    (["ops", "--format", "xml"], 2, "unknown format 'xml': choose from text, markdown, json"),
]
MODELS = """\
import minigrad as mg
def raises():
    return 1 / 0
def nothing(): pass
def needs(x): pass
def constant(): return mg.tensor(1.0)
def loss(): return mg.tensor(2.0, requires_grad=True) * 3
"""


@pytest.mark.parametrize(
    ("argv", "status", "words"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_calls(capsys, monkeypatch, argv, status, words):
    Path("bad.csv").write_text("temp,rain\n1,2\n3,wet\n")
    Path("model.py").write_text(MODELS)
    Path("folder").mkdir()
    Path("locked").mkdir()
    real = os.access
    # The permission itself means nothing to root, who runs many a test suite.
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "locked" and real(path, mode))
    before = files()
    got, out, err = call(capsys, *argv)
    assert (got, out) == (status, "")
    assert words in err
    assert err.startswith("minigrad: ")
    assert err.count("\n") == 1
    assert files() == before


def test_bad_calls_of_a_real_process():
    done = process(RENDER, "lsmt")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"minigrad: unknown model 'lsmt'")
    assert b"Traceback" not in done.stderr


def test_missing_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    status, _, err = call(capsys, RENDER, "rnn", *SMALL, "-o", "a.png")
    assert status == 2
    assert 'pip install "minigrad-tape[render]"' in err
    assert not Path("a.png").exists()


def test_control_c(capsys):
    Path("stopped.py").write_text("def loss():\n    raise KeyboardInterrupt\n")
    assert call(capsys, RENDER, "stopped.py:loss") == (130, "", "minigrad: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_control_c_of_a_real_process():
    Path("slow.py").write_text("import time\ndef loss():\n    print('now', flush=True)\n    time.sleep(60)\n")
    root = str(Path(cli.__file__).parents[1])
    running = subprocess.Popen(
        [sys.executable, "-m", "minigrad.cli", RENDER, "slow.py:loss"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": root},
    )  # fmt: skip
    assert running.stdout.readline() == b"now\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (130, b"minigrad: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_goes_away():
    root = str(Path(cli.__file__).parents[1])
    running = subprocess.Popen(
        [sys.executable, "-m", "minigrad.cli", "ops", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": root},
    )  # fmt: skip
    running.stdout.close()  # before the interpreter is up: nothing can have been written yet
    err = running.stderr.read()
    running.stderr.close()
    assert (running.wait(30), err) == (141, b"")


# --- gradcheck ------------------------------------------------------------------------------------------------


def test_gradcheck_of_a_right_model(capsys):
    status, out, err = call(capsys, "gradcheck", "rnn", "--text", "ab", "--hidden", "2")
    assert (status, err) == (0, "")
    assert "weight_hh_l0 (2, 2)" in out


WRONG = """\
import minigrad as mg
class Half(mg.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 0.5
    @staticmethod
    def backward(ctx, g):
        return g * 0.51
w = mg.tensor([2.0, 3.0], requires_grad=True, name="w", dtype="float64")
def loss():
    return (Half.apply(w) * w).sum()
"""


def test_gradcheck_of_a_wrong_model(capsys):
    Path("wrong.py").write_text(WRONG)
    status, out, err = call(capsys, "gradcheck", "wrong.py:loss", "--modes", "reverse")
    assert (status, err) == (1, "")
    assert "failed" in out
    assert "Half" in out


def test_gradcheck_as_json(capsys):
    status, out, _ = call(capsys, "gradcheck", "rnn", "--text", "ab", "--hidden", "2", "--order", "2", "--json")
    report = json.loads(out)
    assert status == 0
    assert report["ok"] is True
    assert report["orders"] == [1, 2]


# --- ops ------------------------------------------------------------------------------------------------------


def test_ops_as_text(capsys):
    status, out, _ = call(capsys, "ops", "tanh", "matmul")
    assert status == 0
    assert out == (
        "tanh(x)  [elementwise]\n"
        "    Hyperbolic tangent. Any shape.\n"
        "    y = tanh(x)\n"
        "    ∂y/∂x = (1 - y)·(1 + y)\n"
        "\n"
        "matmul(a, b)  [linear]\n"
        "    Matrix product with NumPy's rules for vectors and batches. Shapes: (…, n,\n"
        "    k), (…, k, m) -> (…, n, m); leading axes broadcast, a vector has no n or no\n"
        "    m.\n"
        "    grad a = g @ bᵀ\n"
        "    grad b = aᵀ @ g\n"
    )


def test_ops_prints_all_of_the_page_in_80_columns(capsys):
    _, out, _ = call(capsys, "ops")
    for record in PAGE:
        assert f"{record.text_signature} [{record.kind}] {record.doc}" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_ops_as_json(capsys):
    _, out, _ = call(capsys, "ops", "--json")
    page = {record["name"]: record for record in json.loads(out)}
    assert list(page) == [record.name for record in PAGE]
    assert page["lstm"]["kind"] == "composed"
    assert page["tanh"]["derivatives"]["x"]["text"] == "(1 - y)·(1 + y)"
    assert page["softmax"]["parameters"] == {"axis": "-1"}
    assert page["affine"]["tangents"]["weight"]["text"] == "x @ tᵀ"
    assert (
        call(capsys, "ops", "tanh", "--format", "json")[1]
        == json.dumps([page["tanh"]], indent=2, ensure_ascii=False) + "\n"
    )


# --- help -----------------------------------------------------------------------------------------------------

COMMANDS = [[], [RENDER], ["gradcheck"], ["ops"], ["explain"], ["flow"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: "-".join(words) or "minigrad")
def test_help_fits_a_terminal(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = call(capsys, *command, "--help")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "examples:\n" in out


def examples():
    for words in (cli._MINIGRAD, cli._RENDER, cli._GRADCHECK, cli._OPS):
        yield from re.findall(r"^  minigrad (.*)$", words, re.MULTILINE)


@pytest.mark.parametrize("line", list(examples()))
def test_examples_of_the_help_run(capsys, monkeypatch, line):
    if re.search(r"\.(png|pdf)$", line):
        pytest.importorskip("resvg_py")
        pytest.importorskip("svg2pdf_py")

    def interrupted(seen):
        raise KeyboardInterrupt

    Path("model.py").write_text(MODELS)
    Path("weather.csv").write_text("temp,rain\n12,3\n7,11\n5,0.5\n")
    shown = []
    monkeypatch.setattr(cli, "_open", shown.append)
    monkeypatch.setattr(cli, "_wait", interrupted)
    words = shlex.split(line.partition(" | ")[0])
    assert call(capsys, *words)[0] == 0
    assert len(shown) == ("--open" in words)


def test_version(capsys):
    assert call(capsys, "--version") == (0, f"minigrad {__version__}\n", "")


def test_a_terminal_without_greek():
    done = process("ops", "tanh", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert b"y/\\u2202x = (1 - y)" in done.stdout


def test_importing_the_command_line_loads_no_model_and_no_picture():
    root = str(Path(cli.__file__).parents[1])
    code = "import sys, minigrad.cli as c; print([m for m in sys.modules if m.split('.')[:2][-1] in ('nn', 'render')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONPATH": root}, check=True
    )
    assert done.stdout.strip() == b"[]"


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("model", ["rnn", "gru", "lstm"])
def test_detail_says_what_is_one_operation(capsys, model, layers):
    def nodes(detail):
        options = ["--text", "abc", "--hidden", "5", "--layers", str(layers), "--detail", detail, "--format", "json"]
        status, out, _ = call(capsys, RENDER, model, *options, "--show", "value", "-o", "-")
        assert status == 0
        return json.loads(out)["nodes"]

    found = {detail: nodes(detail) for detail in ("ops", "cells", "layers")}
    count = {detail: [n["op"] for n in nodes].count for detail, nodes in found.items()}
    assert [count["cells"](f"{model}_cell"), count["cells"](model)] == [3 * layers, 0]
    assert [count["layers"](f"{model}_cell"), count["layers"](model)] == [0, layers]
    assert [count["ops"](f"{model}_cell"), count["ops"](model)] == [0, 0]
    losses = [next(n for n in nodes if n.get("name") == "E")["value"]["numbers"] for nodes in found.values()]
    assert losses[1:] == [pytest.approx(losses[0], rel=1e-6)] * 2


def test_an_unknown_detail_is_a_bad_call(capsys):
    status, out, err = call(capsys, RENDER, "rnn", "--detail", "gates", "-o", "-")
    assert (status, out) == (2, "")
    assert "'ops', 'cells' or 'layers', not 'gates'" in err


def test_what_a_model_prints_is_no_part_of_the_picture(capsys):
    Path("loud.py").write_text(
        "import minigrad as mg\nprint('imported')\nw = mg.tensor(2.0, requires_grad=True, name='w')\n"
        "def loss():\n    print('called')\n    return w * w\n"
    )
    status, out, err = call(capsys, RENDER, "loud.py:loss", "-o", "-", "--format", "json")
    assert status == 0
    assert json.loads(out)["nodes"]
    assert "imported" in err
    assert "called" in err
    assert "called" in call(capsys, RENDER, "loud.py:loss", "-o", "loud.svg")[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_behind_the_standard_output_is_one_line():
    root = str(Path(cli.__file__).parents[1])
    for command in ([RENDER, "rnn", "-o", "-", "--format", "svg"], ["ops", "tanh"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "minigrad.cli", *command],
                stdout=full, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": root}, text=True, check=False,
            )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("minigrad: cannot write the output: ")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("steps", "said"), [(None, "'hello'"), ("2", "'he'"), ("5", "'hello'"), ("12", "'hello' again and again, 12 steps")]
)
def test_the_title_says_what_is_spelled(capsys, steps, said):
    assert call(capsys, RENDER, "rnn", *(["--steps", steps] if steps else []), "-o", "a.txt")[0] == 0
    assert Path("a.txt").read_text(encoding="utf-8").splitlines()[0] == f"rnn spelling {said}"


def test_steps_beyond_all_memory_are_refused(capsys):
    status, _, err = call(capsys, RENDER, "rnn", "--steps", "1000000000")
    assert status == 2
    assert "at most 1000000" in err
