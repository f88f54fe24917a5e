"""Colours and line styles: one table a theme, and the style sheet that is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from minigrad.errors import UsageError

_GATE_FILLS = {
    "light": {
        "forget": "#f9d5d8", "input": "#c5dcff", "cell": "#ffe68a", "output": "#caebae", "reset": "#f9d5d8",
        "update": "#c5dcff", "new": "#ffe68a", "mul": "#ffe6e6", "add": "#e2f6e2", "squash": "#f3e8ff",
        "loss": "#ffd3d6", "core": "#ffe3cc", "op": "#f3f4f8", "leaf": "#e4e0fb", "constant": "#eeeeee",
        "parameter": "#eeeeee", "fold": "#f3f4f8",
    },
    "dark": {
        "forget": "#45202a", "input": "#27507e", "cell": "#5d5018", "output": "#0f5f4c", "reset": "#45202a",
        "update": "#27507e", "new": "#5d5018", "mul": "#5a3238", "add": "#2d4f38", "squash": "#4a3a63",
        "loss": "#7a2f3c", "core": "#6b4423", "op": "#343a46", "leaf": "#453f73", "constant": "#3a3d44",
        "parameter": "#3a3d44", "fold": "#2b3140",
    },
}  # fmt: skip
_PRINT = dict.fromkeys(_GATE_FILLS["light"], "#ffffff") | {
    "parameter": "#eeeeee", "constant": "#eeeeee", "leaf": "#f4f4f4", "fold": "#f4f4f4",
    "forget": "#d4d4d4", "input": "#e4e4e4", "output": "#f1f1f1", "reset": "#d4d4d4", "update": "#e4e4e4",
}  # fmt: skip


_ASIDE = 0.3
"""How much of its colour is left of what is not on the routes that were asked for."""


@dataclass(frozen=True)
class Theme:
    """The colours of a picture; `fills` is by the class of a node, `rails` are taken in turn."""

    paper: str
    ink: str
    soft: str
    frame: str
    frame_line: str
    line: str
    cell: str
    hidden: str
    loss: str
    value: str
    grad: str
    peephole: str
    backward: str
    lit: str
    faint: str
    strong: str
    rails: tuple[str, ...]
    fills: Mapping[str, str]


THEMES: Mapping[str, Theme] = {
    "light": Theme(
        paper="#ffffff", ink="#111418", soft="#565f6d", frame="#f7f9fd", frame_line="#8390a3", line="#1a1d21",
        cell="#c93a50", hidden="#1565c0", loss="#b3203a", value="#1b5e3a", grad="#8e2442",
        peephole="#0a66c2", backward="#b34700",
        lit="#7d2ae8", faint="#8390a3", strong="#7a1050",
        rails=("#7a4fa3", "#1f8a70", "#b5651d", "#3b6fb6", "#a33b7d", "#5f6b2d"), fills=_GATE_FILLS["light"],
    ),
    "dark": Theme(
        paper="#14171c", ink="#eef1f5", soft="#c3ccd8", frame="#1b2028", frame_line="#66748a", line="#d5dae2",
        cell="#ff6b81", hidden="#64b5f6", loss="#ff8a9b", value="#8fe0b2", grad="#ffb3c4",
        peephole="#64b5f6", backward="#ffb060",
        lit="#ffe600", faint="#6b7688", strong="#ff9ec4",
        rails=("#b58ee0", "#4fc3a1", "#e5a05a", "#7fb0f0", "#e07fc0", "#bcc96a"), fills=_GATE_FILLS["dark"],
    ),
    "print": Theme(
        paper="#ffffff", ink="#000000", soft="#333333", frame="#ffffff", frame_line="#777777", line="#000000",
        cell="#000000", hidden="#000000", loss="#000000", value="#000000", grad="#000000",
        peephole="#000000", backward="#000000",
        lit="#000000", faint="#8c8c8c", strong="#000000",
        rails=("#555555",) * 6, fills=_PRINT,
    ),
}  # fmt: skip


def theme_named(name: str) -> Theme:
    """Return a theme; raise UsageError, listing the known ones, if there is none of this name."""
    if name not in THEMES:
        raise UsageError(f"unknown theme {name!r}: choose from {', '.join(THEMES)}")
    return THEMES[name]


def style_sheet(name: str, below: str = "mg") -> str:
    """Return the CSS of a theme; all of it is below one class, so that it styles nothing else."""
    t = theme_named(name)
    rules = [
        f".mg .paper{{fill:{t.paper}}}",
        f".mg text{{font-family:'DejaVu Sans','Bitstream Vera Sans',Verdana,sans-serif;fill:{t.ink}}}",
        ".mg .bold{font-weight:bold}.mg .oblique{font-style:oblique}",
        f".mg .s,.mg .g,.mg .l{{fill:{t.soft}}}.mg .f{{fill:{t.soft}}}",
        f".mg .v{{fill:{t.value}}}.mg .d{{fill:{t.grad}}}",
        f".mg .lb{{fill:{t.frame}}}",
        f".mg .w.cell{{fill:{t.cell}}}.mg .w.hidden{{fill:{t.hidden}}}",
        f".mg .frame{{fill:{t.frame};stroke:{t.frame_line};stroke-width:.8}}.mg .folded{{stroke-dasharray:6 4}}",
        f".mg .n .b{{stroke:{t.line};stroke-width:1.2;fill:{t.fills['op']}}}",
        f".mg .n .i{{fill:none;stroke:{t.line}}}",
        ".mg .n.tap .b{stroke-width:.8}",
        f".mg .e{{fill:none;stroke:{t.line};stroke-width:1.2}}",
        f".mg .e.cell{{stroke:{t.cell};stroke-width:2.4}}",
        f".mg .e.hidden{{stroke:{t.hidden};stroke-width:2.2;stroke-dasharray:.1 4.4;stroke-linecap:round}}",
        ".mg .e.parameter{stroke-width:.9;stroke-dasharray:4 3}.mg .rail{fill:none;stroke-width:1.3}",
        f".mg .dot.cell,.mg .a-cell{{fill:{t.cell}}}.mg .dot.hidden,.mg .a-hidden{{fill:{t.hidden}}}",
        f".mg .dot.data,.mg .a-data{{fill:{t.line}}}.mg .rail.data{{stroke:{t.line}}}",
    ]
    rules += _chart_rules(t) + _overlay_rules(t)
    for kind, fill in t.fills.items():
        rules.append(f".mg .n.{kind} .b{{fill:{fill}}}")
    rules.append(f".mg .n.loss .b,.mg .n.loss .i{{stroke:{t.loss}}}")
    for k, colour in enumerate(t.rails):
        rules.append(f".mg .r{k}{{stroke:{colour}}}.mg .dot.r{k},.mg .a-r{k}{{fill:{colour};stroke:none}}")
    return "\n".join(rules).replace(".mg ", f".{below} ")


def _overlay_rules(t: Theme) -> list[str]:
    """What is lit, cut, dimmed, or as wide or dark as the gradient that flows."""
    rules = [
        f".mg .e.route{{stroke:{t.lit};stroke-width:3;stroke-dasharray:none}}.mg .a-route{{fill:{t.lit}}}",
        f".mg .n.route .b{{stroke:{t.lit};stroke-width:2.4}}.mg .rail.route{{stroke:{t.lit};stroke-width:2.4}}",
        ".mg .aside{opacity:.3}",
        f".mg .e.cut{{stroke-dasharray:5 4;stroke-width:1.2}}.mg .slash{{stroke:{t.loss};stroke-width:1.8;fill:none}}",
        f".mg .a-cut{{fill:{t.line}}}.mg .note{{fill:{t.soft}}}.mg .delay{{fill:{t.ink}}}",
    ]
    for level in range(10):
        for how in ("width", "color"):
            colour, wide = flow_line(t, how, level)
            rest = f"stroke:{colour}" if colour else "stroke-dasharray:none"
            rules.append(f".mg .e.{how}{level}{{stroke-width:{wide:.2f};{rest}}}")
    # lines that step back are paler, not thinner in opacity: where several run over each other that would add up again
    lines = {"": t.line, ".cell": t.cell, ".hidden": t.hidden, ".backward": t.backward}
    lines |= {f".r{k}": colour for k, colour in enumerate(t.rails)}
    for kind, colour in lines.items():
        rules.append(f".mg .e{kind}.aside,.mg .rail{kind}.aside{{opacity:1;stroke:{_mixed(t.frame, colour, _ASIDE)}}}")
    rules.append(f".mg .a-aside{{fill:{_mixed(t.frame, t.line, _ASIDE)}}}")
    return rules


def flow_line(t: Theme, how: str, level: int) -> tuple[str, float]:
    """Return the colour, empty where it stays as it is, and the width of a line whose gradient is on this level."""
    share = level / 9
    return (_mixed(t.faint, t.strong, share), 0.9 + 1.5 * share) if how == "color" else ("", 0.5 + 5.5 * share**1.5)


def _mixed(a: str, b: str, share: float) -> str:
    parts = [(int(a[k : k + 2], 16), int(b[k : k + 2], 16)) for k in (1, 3, 5)]
    return "#" + "".join(f"{round(p + (q - p) * share):02x}" for p, q in parts)


def _chart_rules(t: Theme) -> list[str]:
    """The lines of the two charts of one block; where there is no colour, dashes and open heads tell them apart."""
    plain = t.peephole == t.line
    return [
        ".mg .e.forward{stroke-width:1.6}.mg .e.lag{stroke-width:1.6;stroke-dasharray:5 3.5}",
        f".mg .e.peephole{{stroke:{t.peephole};stroke-width:1.7}}",
        f".mg .e.lag.peephole{{stroke-dasharray:5 3.5}}.mg .n.core .b{{stroke-width:2.2;fill:{t.fills['core']}}}",
        f".mg .e.highway{{stroke:{t.cell};stroke-width:3.4}}",
        f".mg .e.backward{{stroke:{t.backward};stroke-width:1.6" + (";stroke-dasharray:1.6 2.4}" if plain else "}"),
        f".mg .dot.forward,.mg .a-forward,.mg .dot.lag,.mg .a-lag{{fill:{t.line}}}",
        f".mg .dot.peephole{{fill:{t.peephole}}}.mg .dot.highway,.mg .a-highway{{fill:{t.cell}}}",
        f".mg .a-backward,.mg .k{{fill:{t.backward}}}.mg .p{{fill:{t.peephole}}}",
        f".mg .a-peephole{{fill:{t.paper if plain else t.peephole};stroke:{t.peephole}}}",
        f".mg .panel{{fill:{t.paper};stroke:{t.frame_line}}}.mg .chart{{fill:{t.frame};stroke:{t.frame_line}}}",
    ]
