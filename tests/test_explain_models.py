"""The three ledgers on real layers: stacked, bidirectional, variable-length, peephole, float32 and float64."""

import numpy as np
import pytest

import minigrad as mg

STEPS, BATCH, INPUT, HIDDEN = 5, 3, 2, 7

LAYERS = {
    "rnn": lambda dtype: mg.nn.RNN(INPUT, HIDDEN, dtype=dtype),
    "gru, before": lambda dtype: mg.nn.GRU(INPUT, HIDDEN, reset_after=False, dtype=dtype),
    "stacked lstm": lambda dtype: mg.nn.LSTM(INPUT, HIDDEN, num_layers=2, dtype=dtype),
    "bidirectional lstm": lambda dtype: mg.nn.LSTM(INPUT, HIDDEN, bidirectional=True, dtype=dtype),
    "diagonal peepholes": lambda dtype: mg.nn.LSTM(INPUT, HIDDEN, peepholes="diagonal", dtype=dtype),
    "full peepholes, CIFG": lambda dtype: mg.nn.LSTM(INPUT, HIDDEN, peepholes="full", variant="CIFG", dtype=dtype),
}


@pytest.mark.parametrize("lengths", [None, [5, 2, 3]], ids=["whole", "lengths"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", LAYERS)
def test_every_ledger_adds_up(kind, dtype, lengths):
    mg.manual_seed(11)
    layer = LAYERS[kind](dtype)
    x = mg.randn(STEPS, BATCH, INPUT, dtype=dtype)
    with mg.Tape() as tape:
        out = layer(x, lengths=lengths)[0]
        loss = (out * out).sum()
    loss.backward()
    weight = layer.weight_hh_l0
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == "float64" else {"rtol": 2e-4, "atol": 1e-5}

    ledger = mg.explain.bptt([loss], weight, tape=tape)
    np.testing.assert_allclose(np.asarray(ledger.total), weight.grad.numpy(), **tolerance)
    (t,) = ledger.times
    parts = sum(np.asarray(ledger.terms[t, k]) for k in ledger.columns)
    np.testing.assert_allclose(parts, np.asarray(ledger.total), **tolerance)

    routes = mg.explain.paths(loss, weight, by="time", top=2, tape=tape)
    assert routes.count > 0
    np.testing.assert_allclose(np.asarray(routes.gradient), weight.grad.numpy(), **tolerance)
    assert str(routes)

    report = mg.explain.flow([loss], tape)
    assert report.verdict
    assert len(report.layers) == (2 if kind.startswith(("stacked", "bidirectional")) else 1)


def test_every_ledger_shows_itself():
    mg.manual_seed(3)
    lstm = mg.nn.LSTM(INPUT, HIDDEN)
    with mg.Tape() as tape:
        out = lstm(mg.randn(3, 1, INPUT))[0]
        losses = [(out[t] * out[t]).sum() for t in range(3)]
    ledger = mg.explain.bptt(losses, lstm.weight_hh_l0, tape=tape)
    report = mg.explain.flow(losses, tape)
    shown = [ledger, report, report.truncation(1, 2), mg.explain.provenance(tape, losses)]
    for one in shown:
        assert one._repr_html_().startswith("<pre>")
    for latex in (ledger.to_latex(), report.to_latex()):
        assert latex.count("{") == latex.count("}")
    assert r"\mathtt{weight\_hh\_l0}" in ledger.to_latex()
    assert ledger.to_latex().count(r"\\ ") == len(ledger.times) + 1
    assert report.kind in report.to_latex()
