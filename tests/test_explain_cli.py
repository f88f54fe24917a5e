"""``minigrad explain``: what it prints, in which width, and its exit status."""

import json
import re
import shlex
import sys

import pytest

from minigrad import Tape, cli, models
from minigrad.op import PAGE, Rule


def call(capsys, *argv):
    status = cli.main(["explain", *map(str, argv)])
    out, err = capsys.readouterr()
    return status, out, err


SMALL = ["--text", "abc", "--hidden", "3"]


@pytest.fixture
def plain(monkeypatch):
    """As if rich were not installed."""
    monkeypatch.setitem(sys.modules, "rich.console", None)


@pytest.mark.parametrize("model", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("by", ["time", "gate", "scope", "delay", "route"])
def test_tables_fit(capsys, model, by):
    status, out, err = call(capsys, model, *SMALL, "--wrt", "weight_hh_l0", "--by", by)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert by in out
    assert "residual" in out


def test_plain_text_without_rich(capsys, plain):
    status, out, _ = call(capsys, "lstm", *SMALL, "--wrt", "c[1]", "--by", "route", "--top", 2)
    assert status == 0
    assert re.search(r"^∂E/∂c\[1\] = \S+ \(norm\): \d+ routes$", out.splitlines()[0])
    assert "c[2]" in out
    assert "all others: " in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_is_the_gradient(capsys):
    status, out, _ = call(capsys, "lstm", *SMALL, "--wrt", "weight_hh_l0", "--by", "time", "--at", "2,1", "--json")
    assert status == 0
    data = json.loads(out)
    model = models.build("lstm", text="abc", hidden=3)
    with Tape() as tape:
        loss = model.loss()
    loss.backward()
    (weight,) = (node for node in tape.nodes if node.name == "weight_hh_l0")
    assert data["value"] == pytest.approx(float(weight.grad[2, 1]), rel=1e-4)
    assert sum(g["value"] for g in data["groups"]) == pytest.approx(data["value"], rel=1e-4)
    assert [g["key"] for g in data["groups"]] == [0, 1, 2]
    assert sum(g["count"] for g in data["groups"]) == data["count"]
    assert data["residual"] <= data["tolerance"]


def test_latex(capsys):
    status, out, _ = call(capsys, "gru", *SMALL, "--of", "h[2]", "--wrt", "h[0]", "--latex", "--top", 2)
    assert status == 0
    assert out.startswith("\\begin{aligned}\n\\frac{\\partial h_{2}}{\\partial h_{0}}")
    assert out.count("{") == out.count("}")


def test_filters(capsys):
    def count(*more):
        status, out, _ = call(capsys, "lstm", *SMALL, "--of", "h[2]", "--wrt", "h[0]", "--json", *more)
        assert status == 0
        return json.loads(out)["count"]

    assert count("--through", "f[1]") + count("--avoiding", "f[1]") == count()
    assert count("--through", "f[1],i[2]") < count("--through", "f[1]") < count()


def test_a_function_of_ones_own(capsys, tmp_path):
    file = tmp_path / "model.py"
    file.write_text(
        "import minigrad as mg\n"
        "def loss():\n"
        "    w = mg.tensor([1.0, 2.0, -3.0], requires_grad=True, name='w')\n"
        "    return (w * w * w).sum()\n"
    )
    status, out, _ = call(capsys, f"{file}:loss", "--wrt", "w", "--at", 2, "--json")
    data = json.loads(out)
    assert status == 0
    assert (data["of"], data["count"], data["value"]) == ("loss", 3, 27.0)
    assert [r["value"] for r in data["routes"]] == [9.0, 9.0, 9.0]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["lstm", "--wrt", "nothing"], "nothing on the tape is named 'nothing'"),
        (["lstm"], "the following arguments are required: --wrt"),
        (["lstm", "--wrt", "weight_hh_l0", "--at", "1"], "has 2 indices"),
        (["lstm", "--wrt", "weight_hh_l0", "--at", "1,x"], "'1,x' is no index: write it like 0,2"),
        (["lstm", "--wrt", "c[0]", "--by", "day"], "invalid choice: 'day'"),
        (["lstm", "--of", "c[0]", "--wrt", "c[2]"], "there is no route"),
        (["lstm", "--wrt", "c[0]", "--latex", "--json"], "cannot be given together"),
        (["lstm", "--wrt", "c[0]", "--top", "-1"], "top is how many"),
    ],
)
def test_calls_that_cannot_be_carried_out(capsys, argv, complaint):
    status, out, err = call(capsys, *argv)
    assert (status, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("line", re.findall(r"^  minigrad explain (.*)$", cli._EXPLAIN, re.MULTILINE))
def test_examples_of_the_help_run(capsys, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(
        "import minigrad as mg\n"
        "def loss():\n"
        "    W = mg.tensor([[1.0, 2.0, 3.0]], requires_grad=True, name='W')\n"
        "    return mg.tanh(W).sum()\n"
    )
    status, out, err = call(capsys, *shlex.split(line))
    assert (status, err) == (0, "")
    assert out


def test_help_fits_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as leaving:
        call(capsys, "--help")
    assert not leaving.value.code
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_parts_that_do_not_add_up_fail_the_check(capsys, monkeypatch):
    monkeypatch.setitem(PAGE.records["tanh"].rules, "x", Rule("1.01 * (1 - y) * (1 + y)"))
    status, out, err = call(capsys, "lstm", *SMALL, "--wrt", "c[0]")
    assert (status, out) == (1, "")
    assert "add up to something else than the gradient" in err
