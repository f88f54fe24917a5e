"""The page in a real browser: walked to both ends, every number compared with the tape; routes, folds, keys, touch."""

import html
import json
import math
import re
import shutil
from functools import cache

import numpy as np
import pytest
from test_page_walk import recorded, whole_cells

import minigrad as mg
from minigrad.explain import bptt, equations, paths
from minigrad.graph import fold, view_of
from minigrad.graph.walk import walk_of
from minigrad.render import render

pytestmark = pytest.mark.needs("browser")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic",
    "--no-first-run", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(30)
    driver.get("about:blank")
    driver.get_log("performance")  # what the browser loaded when it started
    yield driver
    driver.quit()


class Page:
    """An open page, and what a person can do with it."""

    def __init__(self, browser, path):
        self.browser, self.path = browser, path

    def open(self, mark="", width=1280, height=720, touch=False):
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch},
        )
        self.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
        self.browser.get("about:blank")
        self.browser.get(self.path.as_uri() + mark)
        self.wait("document.body.dataset.ready === '1'")
        return self

    def js(self, script, *args):
        return self.browser.execute_script(script, *args)

    def wait(self, condition):
        """Wait until something holds, asked anew at each frame that the browser draws."""
        self.browser.execute_async_script(
            "const done = arguments[0], holds = () => Boolean(" + condition + ");"
            "const ask = () => holds() ? done() : requestAnimationFrame(ask); ask()"
        )

    def click(self, selector):
        self.js("document.querySelector(arguments[0]).click()", selector)

    def keys(self, *keys):
        """Press keys as a person does, wherever the focus is; "shift+Enter" is one of them."""
        from selenium.webdriver import ActionChains, Keys

        chain = ActionChains(self.browser)
        for key in keys:
            shift, name = key.startswith("shift+"), key.removeprefix("shift+")
            code = getattr(Keys, re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper(), name) if len(name) > 1 else name
            chain = chain.key_down(Keys.SHIFT).send_keys(code).key_up(Keys.SHIFT) if shift else chain.send_keys(code)
        chain.perform()

    def press(self, key):
        self.js("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))", key)

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0])?.innerText", selector)

    def now(self):
        return self.js("return [...document.querySelectorAll('.n.now')].map((n) => n.id)")

    def at(self):
        return self.js("return document.body.dataset.at")

    def middle(self, selector):
        return self.js(
            "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]",
            selector,
        )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Make a page once for each recording and its options."""
    folder, made = tmp_path_factory.mktemp("pages"), {}

    def make(source, **options):
        key = (id(source), repr(sorted(options.items())))
        if key not in made:
            path = folder / f"page{len(made)}.html"
            render(source, path, engine="own", **options)
            made[key] = path, source  # which keeps its id from being given to another
        return made[key][0]

    return make


@pytest.fixture
def opened(browser, tmp_path, written):
    """Open the page of a recording; afterwards nothing may have gone wrong, and nothing have been fetched."""

    def make(source, mark="", *, width=1280, height=720, touch=False, anew=False, **options):
        if anew:  # limits are not those of other tests
            path = tmp_path / "page.html"
            render(source, path, engine="own", **options)
        else:
            path = written(source, **options)
        return Page(browser, path).open(mark, width, height, touch)

    yield make
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            assert re.match(r"(file|data|about|blob):", message["params"]["request"]["url"])


@cache
def small():
    return recorded("lstm", text="aba", hidden=2, seed=3)


def number(text):
    """Read a number as the page writes it."""
    digits = text.replace("−", "-").replace("∞", "inf")
    if "·10" in digits:
        mantissa, exponent = digits.split("·10")
        digits = mantissa + "e" + exponent.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    return float(digits)


# What is written with a label: where it stands, what it says it is, and its rows of numbers.
NUMBERS = """
const rowsOf = (e) => e.localName === "mn" ? [[e.textContent]]
  : [...e.querySelectorAll("mtr")].map((row) => [...row.children].map((cell) => cell.textContent));
const labelled = (root) => [...root.querySelectorAll("[data-of]")].map((e) =>
  [e.closest("[data-eq]").dataset.eq, e.dataset.of, rowsOf(e)]);
const said = (e) => e.classList.contains("number") ? [e.textContent] : [...e.querySelectorAll("i")].map((i) => i.title);
const arrays = (root) => Object.fromEntries([...root.querySelectorAll("[data-array]")].map((e) =>
  [e.dataset.array, said(e)]));
const state = () => {
  const panel = document.getElementById("node");
  return { now: [...document.querySelectorAll(".n.now")].map((n) => n.id), at: document.body.dataset.at,
    numbers: labelled(panel), arrays: arrays(panel), stated: panel.querySelector(".stated")?.innerText ?? null,
    terms: [...panel.querySelectorAll(".terms li")].length, badges: document.querySelectorAll(".badges text").length };
};
"""
WALK = (
    NUMBERS
    + """
const seen = [];
document.querySelector(`input[value=${arguments[0]}]`).click();
document.getElementById("first").click();
for (let before = ""; document.body.dataset.at !== before; document.getElementById("next").click()) {
  before = document.body.dataset.at;
  seen.push(state());
}
return seen;
"""
)
STEPS = """
const seen = new Set();
document.querySelector(`input[value=${arguments[0]}]`).click();
document.getElementById("first").click();
for (let before = ""; document.body.dataset.at !== before; document.getElementById("next").click()) {
  before = document.body.dataset.at;
  seen.add(before);
}
return seen.size;
"""


def in_sight(count, shown):
    """Say which of many rows or columns stand in as many places: the first ones, dots, and the last."""
    return list(range(count)) if shown == count else [*range(shown - 2), None, count - 1]


def assert_shows(rows, array):
    """Demand that rows of text are an array, to the digits that they have; dots stand for what is left out."""
    array = np.asarray(array, dtype=float)
    table = array.reshape(-1, array.shape[-1] if array.ndim else 1)
    half = 6e-4 if table.shape[1] < 4 else 6e-3  # of the last of four digits, or of three where a row is long
    for row, k in zip(rows, in_sight(len(table), len(rows)), strict=True):
        for cell, m in zip(row, in_sight(table.shape[1], len(row)), strict=True):
            if k is None or m is None:
                assert cell in "⋮⋯⋱"
            else:
                assert number(cell) == pytest.approx(table[k, m], rel=half, abs=1e-30)


def assert_exact(titles, array):
    flat = np.asarray(array, dtype=float).ravel()
    assert len(titles) == len(flat)
    for title, expected in zip(titles, flat, strict=True):
        assert number(title.rpartition("] ")[2]) == pytest.approx(expected, rel=1e-6, abs=1e-30)


# --- play ---------------------------------------------------------------------------------------------------


def test_forward_every_number_is_the_tapes(opened):
    tape = small()
    seen = opened(tape).js(WALK, "forward")
    ops = [n for n in tape.nodes if n.kind == "op"]
    assert [s["now"] for s in seen] == [[f"n-{n.id}"] for n in ops]
    assert [s["at"] for s in seen] == [f"step=f{k}" for k in range(1, len(ops) + 1)]
    for node, step in zip(ops, seen, strict=True):
        shown = [(what, rows) for place, what, rows in step["numbers"] if place == "numbers"]
        for what, rows in shown:
            assert what[0] == "v"
            assert_shows(rows, tape.nodes[int(what[1:])].value)
        wanted = {f"v{node.id}", *(f"v{x.id}" for x in node.inputs)}
        assert {what for what, _ in shown} == wanted
        assert shown[-1][0] == f"v{node.id}"
        assert_exact(step["arrays"]["value"], node.value)


def test_backward_every_contribution_and_every_sum_is_the_engines(opened):
    tape = small()
    seen = opened(tape).js(WALK, "backward")
    reached = sorted((n for n in tape.nodes if n.requires_grad), key=lambda n: -n.node.number)
    assert [s["now"] for s in seen] == [[f"n-{n.id}"] for n in reached]
    assert seen[-1]["at"] == f"step=b{len(reached)}"
    for node, step in zip(reached, seen, strict=True):
        terms = [] if node is reached[0] else equations(node.tensor, tape).terms
        assert step["terms"] == len(terms)
        shown = {}
        for place, what, rows in step["numbers"]:
            shown.setdefault((place, what), []).append(rows)
        total = np.zeros(node.shape) + (node is reached[0])
        for term in terms:
            edge = term.edge
            key = f"{edge.source.id}-{edge.target.id}-{edge.argument}"
            for rows in shown.pop(("term-numbers", f"c{key}")):
                assert_shows(rows, term.contribution)
            for rows in shown.pop(("term-numbers", f"g{edge.target.id}"), []):
                assert_shows(rows, edge.target.grad)
            if edge.target.record.kind == "elementwise":
                (rows,) = shown.pop(("term-numbers", f"l{key}"))
                x, y = (np.asarray(n.value, float) for n in (edge.source, edge.target))
                others = [n.value for n in edge.target.inputs]
                local = {
                    "mul": lambda edge=edge, others=others: others[1 - edge.argument],
                    "add": lambda y=y: np.ones_like(y),
                    "tanh": lambda x=x: 1 - np.tanh(x) ** 2,
                    "sigmoid": lambda x=x: np.exp(-x) / (1 + np.exp(-x)) ** 2,
                }[edge.op]()
                assert_shows(rows, np.asarray(local, float).reshape(y.shape))
            total = total + term.contribution
            shown.pop(("sum", f"c{key}"), None)
        for rows in shown.pop(("sum", f"g{node.id}")):
            assert_shows(rows, node.grad)
        for (place, what), several in shown.items():
            assert what[0] == "v" or (place, what[0]) == ("term-numbers", "g")
            for rows in several:
                assert_shows(
                    rows, tape.nodes[int(what[1:])].value if what[0] == "v" else tape.nodes[int(what[1:])].grad
                )
        np.testing.assert_allclose(total, node.grad, rtol=1e-4, atol=1e-7)
        if node.value.size > 1:
            assert_exact(step["arrays"]["gradient in numbers"], node.grad)
        if len(terms) > 1:
            assert step["stated"].startswith(f"{len(terms)} contributions add up to the gradient")
        assert step["badges"] == (len(terms) if len(terms) <= 12 else 0)


def lstm_by_hand(parameters, xs, targets):
    """BPTT of an LSTM with a linear head and cross entropy, written out: gradients of parameters, of each h and c."""
    w, u, b, v, d = (
        np.float64(parameters[name])
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "head.weight", "head.bias")
    )
    b = b + np.float64(parameters["bias_hh_l0"])
    n = u.shape[1]
    h, c, steps = np.zeros(n), np.zeros(n), []
    for x in np.float64(xs):
        z = w @ x + u @ h + b
        i, f, o = (1 / (1 + np.exp(-z[k * n : (k + 1) * n])) for k in (0, 1, 3))
        g, before = np.tanh(z[2 * n : 3 * n]), (h, c)
        c = f * c + i * g
        h = o * np.tanh(c)
        steps.append((x, i, f, g, o, before, c, h))
    grads = {name: np.zeros(np.shape(value)) for name, value in parameters.items()}
    dh, dc = np.zeros(n), np.zeros(n)
    for t in reversed(range(len(steps))):
        x, i, f, g, o, (h_before, c_before), c, h = steps[t]
        logits = v @ h + d
        dy = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        dy[targets[t]] -= 1
        dh = dh + v.T @ dy
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        grads[f"h[{t}]"], grads[f"c[{t}]"] = dh, dc
        gates = dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g**2), dh * np.tanh(c) * o * (1 - o)
        dz = np.concatenate(gates)
        grads["head.weight"] += np.outer(dy, h)
        grads["head.bias"] += dy
        grads["weight_ih_l0"] += np.outer(dz, x)
        grads["weight_hh_l0"] += np.outer(dz, h_before)
        grads["bias_ih_l0"] += dz
        grads["bias_hh_l0"] += dz
        dh, dc = u.T @ dz, dc * f
    return grads


def test_gradients_shown_are_those_of_bptt_written_by_hand(opened):
    tape = small()
    by_name = {n.name: n for n in tape.nodes if n.name}
    parameters = {n.name: n.value for n in tape.nodes if n.kind == "parameter"}
    xs = [by_name[f"x[{t}]"].value.ravel() for t in range(3)]
    targets = [int(by_name[f"next[{t}]"].value.ravel()[0]) for t in range(3)]
    page = opened(tape)
    for name, expected in lstm_by_hand(parameters, xs, targets).items():
        page.js("location.hash = arguments[0]", f"#node={by_name[name].id}")
        page.wait(f"document.body.dataset.at === 'node={by_name[name].id}'")
        shown = page.js(NUMBERS + "return state()")["arrays"]["gradient in numbers"]
        numbers = [number(title.rpartition("] ")[2]) for title in shown]
        np.testing.assert_allclose(numbers, expected.ravel(), rtol=2e-4, atol=2e-7)


def test_on_edges_of_single_numbers_stands_the_product(opened):
    with mg.Tape() as tape:
        w = mg.tensor(-0.7, requires_grad=True, name="w")
        x = mg.tensor(1.3, name="x")
        y = mg.tanh(w * x)
        ((y - 0.2) * y).name = "E"
    tape.nodes[-1].tensor.backward()
    page = opened(tape)
    page.js("location.hash = arguments[0]", f"#step=b{[n.requires_grad for n in tape.nodes].count(True)}")
    page.wait("document.querySelector('.badges text')")
    (text,) = page.js("return [...document.querySelectorAll('.badges text')].map((e) => e.textContent)")
    arriving, local, product = map(number, re.split(" · | = ", text.replace("(", "").replace(")", "")))
    (mul,) = [n for n in tape.nodes if n.op == "mul" and not n.name]
    assert (arriving, local, product) == pytest.approx((float(mul.grad), 1.3, float(w.grad.numpy())), rel=6e-3)
    assert "arrives from mul" in page.text("#said")


def test_playing_runs_to_the_end_and_back(opened):
    tape = recorded("rnn", text="ab", hidden=2, steps=1, seed=3)
    page = opened(tape)
    page.js("const s = document.getElementById('speed'); s.value = '16'; s.dispatchEvent(new Event('change'))")
    page.click("#play")
    assert page.js("return document.getElementById('play').getAttribute('aria-label')") == "pause"
    ops = [n for n in tape.nodes if n.kind == "op"]
    page.wait(f"document.body.dataset.at === 'step=f{len(ops)}'")
    page.wait("document.getElementById('play').getAttribute('aria-label') === 'play'")
    assert page.js("return document.querySelectorAll('.n.done').length") == len(tape.nodes)
    page.press(" ")
    reached = [n for n in tape.nodes if n.requires_grad]
    page.wait(f"location.hash === '#step=b{len(reached)}'")
    assert set(page.js("return [...document.querySelectorAll('.n.done')].map((n) => n.id)")) == {
        f"n-{n.id}" for n in reached
    }


def test_keys(opened):
    page = opened(small())
    last = sum(n.requires_grad for n in small().nodes)
    for key, mark in [
        ("ArrowRight", "step=f1"), ("ArrowRight", "step=f2"), ("ArrowLeft", "step=f1"), ("b", "step=b1"),
        ("End", f"step=b{last}"), ("Home", "step=b1"), ("ArrowRight", "step=b2"), ("f", "step=f1"), ("Escape", ""),
    ]:  # fmt: skip
        page.press(key)
        assert page.at() == mark
    scale = "document.querySelector('svg.mg').getScreenCTM().a"
    before = page.js(f"return {scale}")
    view = "return document.querySelector('svg.mg').getAttribute('viewBox').split(' ').map(Number)"
    still = page.js(view)
    page.js(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', shiftKey: true, bubbles: true}))"
    )
    assert page.js(view)[0] == pytest.approx(still[0] + 80 / before, abs=0.1)
    assert page.at() == ""
    page.press("+")
    assert page.js(f"return {scale}") == pytest.approx(1.25 * before, rel=1e-4)
    page.press("-")
    page.press("-")
    assert page.js(f"return {scale}") < before
    page.press("0")
    box = [float(v) for v in page.js("return document.querySelector('svg.mg').getAttribute('viewBox')").split()]
    whole = page.js(
        "const p = document.querySelector('.paper'); return [p.width.baseVal.value, p.height.baseVal.value]"
    )
    assert box[0] <= 1
    assert box[0] + box[2] >= whole[0] - 1
    assert box[1] + box[3] >= whole[1] - 1


def test_links_open_where_they_were(opened):
    tape = small()
    page = opened(tape, "#step=b7")
    reached = sorted((n for n in tape.nodes if n.requires_grad), key=lambda n: -n.node.number)
    assert page.now() == [f"n-{reached[6].id}"]
    assert page.text("#where") == f"7 / {len(reached)}"
    assert page.js("return document.querySelector('input[value=backward]').checked")
    page.js("location.hash = '#step=f3'")
    page.wait("document.getElementById('where').textContent.startsWith('3 /')")
    c = next(n for n in tape.nodes if n.name == "c[1]")
    page.js("location.hash = arguments[0]", f"#node={c.id}")
    page.wait("document.querySelector('.n.chosen')")
    assert page.js("return document.querySelector('.n.chosen').id") == f"n-{c.id}"
    page.js("location.hash = '#step=b99999'")
    page.wait("document.querySelector('.n.now')")
    assert page.now() == [f"n-{reached[-1].id}"]
    page.js("location.hash = '#step=nonsense'")
    page.wait("!document.querySelector('.n.now')")
    for missing in ("node=999", f"routes={c.id}", f"routes={c.id},{c.id}", f"routes={c.id},999"):
        page.open("#" + missing)
        assert page.text("#where") == f"{sum(n.kind == 'op' for n in tape.nodes)} steps"
        assert page.at() == ""
    page.open(f"#node={c.id}")
    assert page.js("return Number(document.getElementById('scrub').max)") > 1


# --- one node, two nodes ------------------------------------------------------------------------------------


def test_choosing_and_hovering(opened):
    from selenium.webdriver import ActionChains

    tape = small()
    page = opened(tape)
    c = next(n for n in tape.nodes if n.name == "c[0]")
    mark = page.browser.find_element("id", f"n-{c.id}")
    ActionChains(page.browser).move_to_element(mark).perform()
    tip = page.text("#tip")
    assert re.match(r"c₀, 1 × 2, ‖value‖ ([^,]+), ‖gradient‖ (.+)$", tip)
    shown = [number(part.split()[-1]) for part in tip.split(", ")[2:]]
    assert shown == pytest.approx([np.linalg.norm(c.value), np.linalg.norm(c.grad)], rel=6e-4)
    ActionChains(page.browser).click(mark).perform()
    panel = page.text("#node")
    assert "equation" in panel
    assert (
        page.js("return document.querySelectorAll('#node .terms li').length") == len(equations("c[0]", tape).terms) == 2
    )
    assert page.at() == f"node={c.id}"
    links = page.js(
        "return [...document.querySelectorAll('#node .terms .link')].map((b) => b.getAttribute('aria-label'))"
    )
    page.js("document.querySelector('#node .terms .link').click()")
    assert page.js("return document.querySelector('.n.chosen').getAttribute('aria-label')") == links[0]


@pytest.mark.parametrize(("of", "wrt"), [("h[1]", "c[0]"), ("E", "h[0]"), ("E[1]", "weight_hh_l0"), ("h[1]", "x[0]")])
def test_routes_between_two_nodes_are_the_path_ledgers(opened, of, wrt):
    from selenium.webdriver import ActionChains, Keys

    tape = small()
    page = opened(tape)
    a, b = (next(n for n in tape.nodes if n.name == name) for name in (wrt, of))
    page.click("#fit")
    first, second = (page.browser.find_element("id", f"n-{n.id}") for n in (a, b))
    ActionChains(page.browser).click(first).key_down(Keys.SHIFT).click(second).key_up(Keys.SHIFT).perform()
    if not a.requires_grad:
        assert "No gradient flows" in page.text("#routes")
        return
    ledger = paths(of, wrt, tape=tape, top=8)
    assert page.js("return document.querySelector('#routes [data-count]').dataset.count") == str(ledger.count)
    total = float(page.js("return document.querySelector('#routes [data-sum]').dataset.sum"))
    assert total == pytest.approx(float(np.linalg.norm(ledger.total)), rel=1e-5)
    values = [
        float(v)
        for v in page.js("return [...document.querySelectorAll('#routes .amount')].map((e) => e.dataset.value)")
    ]
    assert values == pytest.approx([route.value for route in ledger.paths], rel=1e-4)
    sums = page.js("return [...document.querySelectorAll('#routes .heat > i')].map((i) => i.title)")
    assert_exact_within(sums, ledger.total)
    lit = set(page.js("return [...document.querySelectorAll('.e.way')].map((e) => e.id)"))
    page.click("#routes ol.ways li button")
    one = set(page.js("return [...document.querySelectorAll('.e.way')].map((e) => e.id)"))
    assert one == {f"e-{e.source.id}-{e.target.id}-{e.argument}" for e in ledger.paths[0].edges}
    assert one <= lit
    assert page.at() == f"routes={b.id},{a.id}"


def assert_exact_within(titles, array):
    shown = [number(title.rpartition("] ")[2]) for title in titles]
    np.testing.assert_allclose(shown, np.ravel(array), rtol=1e-4, atol=1e-7 * float(np.abs(array).max()))


def test_counts_of_routes_are_exact_where_floats_are_not(opened):
    tape = recorded("lstm", text="ab", hidden=2, steps=26, seed=3)
    of, wrt = (next(n for n in tape.nodes if n.name == name) for name in ("h[25]", "h[0]"))
    page = opened(tape, f"#routes={of.id},{wrt.id}")
    count = paths("h[25]", "h[0]", tape=tape, top=0).count
    assert count > 2**53
    assert int(page.js("return document.querySelector('#routes [data-count]').dataset.count")) == count
    assert re.sub(r"\D", "", page.text("#routes [data-count]")) == str(count)
    assert page.js("return document.querySelectorAll('.lid').length") == 21  # the middle steps opened folded


def test_pairing_by_button(opened):
    tape = small()
    page = opened(tape)
    a, b = (next(n for n in tape.nodes if n.name == name) for name in ("h[0]", "h[1]"))
    press = "document.getElementById(arguments[0]).dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    page.js(press, f"n-{a.id}")
    page.click("#node .pair")
    page.js(press, f"n-{b.id}")
    assert page.at() == f"routes={b.id},{a.id}"
    assert page.js("return document.querySelector('#routes [data-count]').dataset.count") == str(
        paths("h[1]", "h[0]", tape=tape).count
    )


# --- the time ledger ----------------------------------------------------------------------------------------


def test_every_cell_of_the_time_ledger_lights_its_routes(opened):
    tape = recorded("lstm", text="aba", hidden=2, steps=3, seed=3)
    page = opened(tape)
    page.click("#tab-time")
    losses = [next(n for n in tape.nodes if n.name == f"E[{t}]") for t in range(3)]
    wrt = next(n for n in tape.nodes if n.name == "weight_hh_l0")
    ledger = bptt([n.tensor for n in losses], wrt.tensor)
    table = page.js("""return [...document.querySelectorAll('#time tbody tr')].map((row) =>
      [...row.querySelectorAll('td')].map((cell) => Number(cell.firstChild?.dataset.norm ?? 0)))""")
    np.testing.assert_array_equal(np.float32(table), np.float32(ledger.norms))
    cells = page.js("""return [...document.querySelectorAll('#time td button')].map((button) => {
      button.click();
      const get = (name) => document.querySelector(`#time [data-${name}]`).dataset[name];
      return [button.getAttribute("aria-label"), get("count"), Number(get("sum")), Number(get("cell")),
        [...document.querySelectorAll(".e.way")].map((e) => e.id)];
    })""")
    assert len(cells) == int((ledger.norms > 0).sum()) > 2
    for label, count, total, norm, lit in cells:
        t, k = map(int, re.match(r"loss (\d+) through step (\d+)", label).groups())
        group = paths(f"E[{t}]", "weight_hh_l0", tape=tape, by="time", top=0).groups[k]
        assert int(count) == group.count
        assert total == pytest.approx(norm, rel=1e-4)
        assert np.float32(norm) == np.float32(ledger.norms[t, k])
        uses = {e for e in lit if re.match(r"e-\d+-(\d+)-1", e) and tape.nodes[int(e.split("-")[2])].op == "affine"}
        steps = {tape.nodes[int(e.split("-")[2])].time for e in uses if tape.nodes[int(e.split("-")[1])].kind != "input"
                 and tape.nodes[int(e.split("-")[1])].name.startswith("weight_hh")}  # fmt: skip
        assert steps == {k}


# --- folding ------------------------------------------------------------------------------------------------

SHAPE = """return [...document.querySelectorAll(".edges path, .rails path")].map((p) => p.getAttribute("d")).join()
  + [...document.querySelectorAll(".nodes > .n")].map((n) => n.style.translate + n.classList.contains("away")).join()"""
FOLD = """document.querySelector(`.handle[aria-label='${arguments[0]}']`)
  .dispatchEvent(new MouseEvent('click', {bubbles: true}))"""


def test_steps_and_cells_fold_and_unfold_in_place(opened):
    tape = small()
    page = opened(tape)
    page.click("#fit")
    before = page.js(SHAPE)
    paper = "return document.querySelector('.paper').width.baseVal.value"
    wide = page.js(paper)
    page.js(FOLD, "fold t = 0")
    hidden = set(page.js("return [...document.querySelectorAll('.n.away')].map((n) => n.id)"))
    inside = {f"n-{n.id}" for n in tape.nodes if n.kind == "op" and n.time == 0}
    assert inside <= hidden
    assert not hidden & {f"n-{n.id}" for n in tape.nodes if n.time == 1}
    assert page.js(paper) < 0.8 * wide
    counted = [n for n in tape.nodes if f"n-{n.id}" in hidden and n.kind == "op"]
    assert f"{len(counted)} operations" in page.js("return document.querySelector('.lid').textContent")
    page.js("document.querySelector('.lid').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert page.js(SHAPE) == before
    assert page.js(paper) == wide
    page.js(FOLD, "fold lstm cell")
    cell = {f"n-{n.id}" for n in tape.nodes if n.kind == "op" and n.scope.startswith("lstm/t=0")}
    assert set(page.js("return [...document.querySelectorAll('.n.away')].map((n) => n.id)")) == cell
    assert page.js(paper) == wide
    page.js(FOLD, "unfold lstm cell")
    assert page.js(SHAPE) == before


def test_walking_lights_the_lid_over_a_folded_node(opened):
    tape = small()
    page = opened(tape, "#step=f20")
    page.press("u")
    assert page.js("return document.querySelectorAll('.lid').length") == 3
    lit = page.js("return [...document.querySelectorAll('.now')].map((n) => n.getAttribute('class'))")
    assert len(lit) == 1
    assert "lid" in lit[0]
    page.press("ArrowRight")
    assert "in a folded part" in page.text("#said")
    page.press("u")
    assert page.js("return document.querySelectorAll('.lid').length") == 0
    assert len(page.now()) == 1


def test_a_chart_of_one_step_walks_through_that_step(opened):
    tape = recorded("lstm", text="abab", hidden=2, steps=4, seed=3, peepholes="diagonal")
    page = opened(tape, style="circuit", step=2)
    assert page.js("return document.querySelectorAll('.handle').length") == 0
    seen = page.js(WALK, "backward")
    steps = {
        n.time
        for n in tape.nodes
        if f"g{n.id}" in {what for s in seen for place, what, _ in s["numbers"] if place == "sum"}
    }
    assert 2 in steps
    assert steps <= {1, 2, None}
    (c,) = [n for n in tape.nodes if n.name == "c[2]"]
    page.open(f"#node={c.id}")
    terms = equations("c[2]", tape).terms
    shown = {
        what: rows for place, what, rows in page.js(NUMBERS + "return state()")["numbers"] if place == "term-numbers"
    }
    assert len(terms) == 5  # the five routes of a cell with peepholes
    for term in terms:
        assert_shows(shown[f"c{c.id}-{term.edge.target.id}-{term.edge.argument}"], term.contribution)
    page.js("document.querySelector('.n.now, .n.chosen').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert page.at() == f"node={c.id}"


@pytest.mark.parametrize("style", ["unrolled", "rolled"])
def test_blocks_walk_through_what_is_inside(opened, style):
    tape = recorded("lstm", text="aba", hidden=2, steps=3, seed=3)
    seen = opened(tape, style=style).js(WALK, "backward")
    assert len(seen) == len(walk_of(tape).backward)
    assert all(len(s["now"]) == 1 for s in seen)


def test_pictures_folded_beforehand_still_walk_through_everything(opened):
    tape = recorded("rnn", text="ab", hidden=2, steps=9, seed=3)
    page = opened(tape, "#step=b1", fold="time")
    seen = page.js(WALK, "backward")
    assert len(seen) == sum(n.requires_grad for n in tape.nodes)
    assert any(s["now"] and s["now"][0].startswith("n-fold") for s in seen)
    key = next(s["now"][0] for s in seen if s["now"] and s["now"][0].startswith("n-fold")).removeprefix("n-")
    page.open(f"#node={key}")
    said = page.text("#node").split("stands for")[1].split()[0]
    first, last = next(n for n in view_of(tape, fold_with=lambda v: fold(v, "time")).nodes if n.key == key).members[0]
    assert page.text("#node .chip:last-child") == f"{said} nodes" == f"{last - first + 1} nodes"
    page.click("#node .gradient-part .link")
    assert page.at() == f"node={first}"
    of, wrt = (next(n for n in tape.nodes if n.name == name) for name in ("h[8]", "h[0]"))
    page.open(f"#routes={of.id},{wrt.id}")
    assert page.js("return document.querySelector('#routes [data-count]').dataset.count") == str(
        paths("h[8]", "h[0]", tape=tape).count
    )


def test_what_stands_above_a_folded_step_keeps_its_width(opened):
    tape = small()
    page = opened(tape)
    page.press("u")
    frames = page.js("return [...document.querySelectorAll('.frames > rect')].map((r) => r.width.baseVal.value)")
    assert max(frames) < 170  # also the last step, above which the losses are added up
    above = [n.id for n in tape.nodes if n.op in ("stack", "sum") and n.time is None]
    boxes = sorted(page.js(
        "return arguments[0].map((id) => { const b = document.getElementById('n-' + id).getBoundingClientRect();"
        "return [b.left, b.right]; })", above))  # fmt: skip
    assert len(boxes) == 2
    assert boxes[0][1] < boxes[1][0]
    page.press("u")


# --- long sequences -----------------------------------------------------------------------------------------


def test_neighbours_share_a_cell_of_a_long_ledger(opened, monkeypatch):
    monkeypatch.setattr("minigrad.graph.walk.LEDGER_WORK", 20_000)
    tape = recorded("rnn", text="ab", hidden=2, steps=47, seed=3)
    walk = walk_of(tape)
    losses = [next(n for n in tape.nodes if n.name == f"E[{t}]") for t in range(47)]
    assert 10 < len(walk.rows) < 47
    assert walk.rows[-1] == losses[-1].id
    assert f"rows for {len(walk.rows)} of 47 losses" in walk.notes[0]
    page = opened(tape, anew=True)
    page.click("#tab-time")
    wrt = next(n for n in tape.nodes if n.name == "weight_hh_l0")
    rows = [n for n in losses if n.id in walk.rows]
    norms = bptt([n.tensor for n in rows], wrt.tensor).norms
    table = page.js("""return [...document.querySelectorAll('#time tbody tr')].map((row) =>
      [...row.querySelectorAll('td')].map((cell) => Number(cell.firstChild?.dataset.norm ?? 0)))""")
    pairs = np.pad(norms, ((0, 0), (0, norms.shape[1] % 2))).reshape(len(rows), -1, 2).max(axis=2)
    assert len(table[0]) == 24
    np.testing.assert_allclose(table, pairs, rtol=1e-6)
    page.js("[...document.querySelectorAll('#time td button')].at(-3).click()")
    label = page.js("return document.querySelector('#time button.on').getAttribute('aria-label')")
    t, k = map(int, re.match(r"loss (\d+) through step (\d+)", label).groups())
    group = paths(f"E[{t}]", "weight_hh_l0", tape=tape, by="time", top=0).groups[k]
    assert page.js("return document.querySelector('#time [data-count]').dataset.count") == str(group.count)


def test_a_picture_too_large_to_open_still_walks_through_everything(opened, monkeypatch):
    monkeypatch.setattr("minigrad.render.OPENED", 50)
    tape = recorded("rnn", text="ab", hidden=2, steps=15, seed=3)
    page = opened(tape, anew=True)
    assert page.js("return document.querySelectorAll('.nodes > .n').length") < 0.7 * len(tape.nodes)
    assert page.js(STEPS, "backward") == len(walk_of(tape).backward)
    monkeypatch.setattr("minigrad.render.WALKED", 50)
    page = opened(tape, anew=True)
    assert "structure and summaries" in page.text("#node")
    assert "◀ play backward" in page.text("#node")  # in the folded picture
    assert page.js(STEPS, "forward") > 10


# --- keys alone, screen readers, motion, paper ----------------------------------------------------------------


def test_everything_is_reached_by_keys_alone(opened):
    tape = small()
    page = opened(tape)
    focused = "const e = document.activeElement; return e.id || e.getAttribute('aria-label') || e.textContent"
    stops = []
    for _ in range(40):
        page.keys("Tab")
        stops.append(page.js(focused))
        if stops[-1] == "node":
            break
    marks = [stop for stop in stops if stop.startswith("n-")]
    assert len(marks) == 1  # one stop for the whole picture
    assert {
        "first",
        "prev",
        "play",
        "next",
        "last",
        "speed",
        "scrub",
        "zoom-in",
        "fit",
        "zoom-out",
        "fold-all",
        "ask",
    } < set(stops)
    page.js("document.querySelector('.nodes > .n[tabindex=\"0\"]').focus()")
    page.keys("ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown")
    there = page.js(focused)
    ids = page.js("return [...document.querySelectorAll('.nodes > .n[role]')].map((n) => n.id)")
    assert there == ids[2]
    assert page.js("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keys("Enter")
    assert page.at() == f"node={there[2:]}"
    c, h = (next(n for n in tape.nodes if n.name == name) for name in ("c[0]", "h[1]"))
    for n, key in ((c, "Enter"), (h, "shift+Enter")):
        page.js("document.getElementById(arguments[0]).focus()", f"n-{n.id}")
        page.keys(key)
    assert page.at() == f"routes={h.id},{c.id}"
    page.js("document.getElementById('tab-routes').focus()")
    page.keys("ArrowRight")
    assert page.js("return document.getElementById('tab-time').getAttribute('aria-selected')") == "true"
    page.js("document.querySelector('#time td button[tabindex=\"0\"]').focus()")
    page.keys("ArrowDown", "Enter")
    assert "through the uses in step" in page.text("#time")
    page.js("document.querySelector('.handle').focus()")
    page.keys("Enter")
    assert page.js("return document.querySelectorAll('.lid').length") == 1


def test_help_tells_the_keys(opened):
    page = opened(small())
    page.keys("?")
    assert page.js("return document.getElementById('help').open")
    assert "Home" in page.text("#help")
    page.keys("ArrowRight")
    assert page.at() == ""  # keys are the list's as long as it is open
    page.keys("Escape")
    assert not page.js("return document.getElementById('help').open")
    page.keys("ArrowRight")
    assert page.at() == "step=f1"


def test_each_control_has_a_name_and_each_step_is_said(opened):
    tape = small()
    page = opened(tape)
    unnamed = page.js("""const label = (e) => e.getAttribute("aria-label") || e.closest("label")?.innerText;
    const name = (e) => label(e) || e.innerText || "";
    return [...document.querySelectorAll("button, select, input, [role=button]")].filter((e) => !name(e).trim())
      .map((e) => e.outerHTML)""")
    assert unnamed == []
    assert page.js("return document.getElementById('said').getAttribute('role')") == "status"
    c = next(n for n in tape.nodes if n.name == "c[1]")
    order = [n.id for n in tape.nodes if n.kind == "op"]
    page.js("location.hash = arguments[0]", f"#step=f{order.index(c.id) + 1}")
    page.wait("document.getElementById('said').textContent")
    assert page.text("#said") == f"t = 1: c₁ is computed from {' and '.join(f'mul #{x.id}' for x in c.inputs)}"
    back = walk_of(tape).backward
    page.js("location.hash = arguments[0]", f"#step=b{back.index(c.id) + 1}")
    page.wait("document.getElementById('said').textContent.includes('gradient')")
    assert "the gradient of c₁: 2 contributions add up, from" in page.text("#said")


def test_nothing_moves_for_people_who_ask_for_that(browser, opened):
    page = opened(small(), "#step=b20")
    moving = """return [...document.querySelectorAll("*")].filter((e) => {
      const style = getComputedStyle(e);
      return style.animationName !== "none" || style.transitionDuration.split(", ").some((d) => d !== "0s");
    }).length"""
    assert page.js(moving) > 0
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    )
    try:
        assert page.js(moving) == 0
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_on_paper_stands_the_whole_picture(browser, opened):
    page = opened(small(), "#step=b20")
    view = "return document.querySelector('svg.mg').getAttribute('viewBox')"
    before = page.js(view)
    paper = page.js(
        "const p = document.querySelector('.paper'); return [p.width.baseVal.value, p.height.baseVal.value]"
    )
    page.js("dispatchEvent(new Event('beforeprint'))")
    assert [float(v) for v in page.js(view).split()] == [0, 0, *paper]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        heights = page.js(
            "return ['bar', 'tabs', 'said', 'node', 'title'].map((id) => document.getElementById(id).offsetHeight)"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    page.js("dispatchEvent(new Event('afterprint'))")
    assert page.js(view) == before
    assert heights[:3] == [0, 0, 0]
    assert min(heights[3:]) > 0


# --- windows, fingers, no script, notebooks -----------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844), (1920, 1080)])
def test_opens_readable_and_inside_of_the_window(opened, width, height):
    tape = recorded("lstm", text="hello", hidden=3)
    page = opened(tape, width=width, height=height, touch=width < 500)
    label = """const b = document.querySelector('#n-' + arguments[0]), text = b.querySelector('text');
    const { left, right, top, bottom } = b.getBoundingClientRect();
    const box = document.getElementById('picture').getBoundingClientRect();
    return [parseFloat(getComputedStyle(text).fontSize) * document.querySelector('svg.mg').getScreenCTM().a,
      left >= box.left && right <= box.right && top >= box.top && bottom <= box.bottom]"""
    begin = next(n for n in tape.nodes if n.op == "affine")
    size, inside = page.js(label, begin.id)
    assert size > 10.99
    assert inside
    assert page.js("return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
        width,
        height,
    ]
    outside = page.js("""const controls = document.querySelectorAll('header button, header label, #tabs button');
    return [...controls].filter((e) => {
      const b = e.getBoundingClientRect();
      return b.width && (b.left < 0 || b.right > innerWidth || b.top < 0 || b.bottom > innerHeight);
    }).map((e) => e.id)""")
    assert outside == []


def test_the_title_is_written_once(opened):
    page = opened(small(), title="A title of its own")
    words = "return document.body.innerText.split('A title of its own').length - 1"
    assert (
        page.js(
            words
            + " + [...document.querySelectorAll('svg text')].filter((t) => t.textContent.includes('A title')).length"
        )
        == 1
    )


def test_fingers_move_zoom_and_choose(opened):
    tape = small()
    page = opened(tape, width=390, height=844, touch=True)
    view = "return document.querySelector('svg.mg').getAttribute('viewBox')"

    def fingers(kind, *points):
        page.browser.execute_cdp_cmd(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(points)]},
        )

    before = page.js(view)
    fingers("touchStart", (200, 300))
    for x in range(190, 90, -10):
        fingers("touchMove", (x, 300))
    fingers("touchEnd")
    moved = [float(v) for v in page.js(view).split()]
    assert moved[0] > float(before.split()[0]) + 50
    fingers("touchStart", (180, 300), (220, 300))
    for d in range(25, 100, 15):
        fingers("touchMove", (200 - d, 300), (200 + d, 300))
    fingers("touchEnd")
    assert float(page.js(view).split()[2]) < 0.6 * moved[2]
    page.click("#fit")
    c = next(n for n in tape.nodes if n.name == "c[0]")
    x, y = page.middle(f"#n-{c.id}")
    fingers("touchStart", (x, y))
    fingers("touchEnd")
    page.wait("document.querySelector('.n.chosen')")
    assert page.js("return document.querySelector('.n.chosen').id") == f"n-{c.id}"
    small_ones = page.js(
        "return [...document.querySelectorAll('header button')]"
        ".filter((b) => b.offsetHeight && b.offsetHeight < 36).length"
    )
    assert small_ones == 0


def test_the_wheel_zooms_where_it_points(opened):
    page = opened(small())
    x, y = page.middle("#n-25")
    page.browser.execute_cdp_cmd(
        "Input.dispatchMouseEvent", {"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": -300}
    )
    page.wait("document.querySelector('svg.mg').getScreenCTM().a > 1")
    assert page.middle("#n-25") == pytest.approx([x, y], abs=1.5)


def test_without_scripts_the_picture_is_there(browser, opened):
    page = opened(small())
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get("about:blank")
        browser.get(page.path.as_uri())
        boxes = browser.execute_cdp_cmd(
            "Runtime.evaluate",
            {
                "expression": "JSON.stringify([document.querySelectorAll('.nodes > .n').length,"
                "document.querySelector('svg.mg').getBoundingClientRect().width,"
                "document.getElementById('bar').offsetHeight, document.querySelector('h1').offsetHeight,"
                "document.body.dataset.ready ?? null])",
                "returnByValue": True,
            },
        )
        count, width, bar, heading, ready = json.loads(boxes["result"]["value"])
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert count == len(small().nodes)
    assert width > 1000
    assert bar == 0
    assert heading > 0
    assert ready is None


def test_in_a_notebook_two_pages_live_side_by_side(browser, opened, tmp_path):
    opened(small())
    made = render(small(), format="html", engine="own")
    frame = made._repr_mimebundle_()["text/html"]
    path = tmp_path / "notebook.html"
    path.write_text(f"<!DOCTYPE html><title>notebook</title>{frame}{frame}", "utf-8")
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', frame).group(1)) == made.data
    browser.get(path.as_uri())
    for iframe in browser.find_elements("tag name", "iframe"):
        browser.switch_to.frame(iframe)
        assert browser.execute_script("return document.body.dataset.ready") == "1"
        browser.execute_script("document.getElementById('next').click()")
        assert browser.execute_script("return document.getElementById('where').textContent").startswith("1 /")
        browser.switch_to.default_content()


def test_what_is_too_large_is_said(opened, monkeypatch):
    monkeypatch.setattr("minigrad.graph.walk.NUMBERS_CARRIED", 3000)
    monkeypatch.setattr("minigrad.graph.walk.PROBED", 5)
    with mg.Tape() as tape:
        x = mg.tensor(np.linspace(-1, 1, 7 * 30).reshape(7, 30), requires_grad=True, name="x")
        y = mg.tanh(x)
        y.name = "y"
        w = mg.tensor(np.ones((90, 30)) / 9, requires_grad=True, name="w")
        e = mg.losses.half_squared_error(y @ w.mT, np.zeros((7, 90)))
        e.sum().name = "E"
    tape.nodes[-1].tensor.backward()
    page = opened(tape, anew=True)
    assert "too large to carry" in page.text("#node")
    seen = page.js(WALK, "backward")
    assert len(seen) == sum(n.requires_grad for n in tape.nodes)
    page.open(f"#node={tape.of(w).id}")
    assert "2700 numbers: too large to carry" in page.text("#node").replace("\u202f", "")
    page.open(f"#routes={len(tape.nodes) - 1},{tape.of(x).id}")
    total = float(page.js("return document.querySelector('#routes [data-sum]').dataset.sum"))
    assert total == pytest.approx(float(np.linalg.norm(x.grad.numpy())), rel=1e-6)


def odd_tape(kind):
    if kind in ("cells", "layers"):
        return whole_cells(kind)
    if kind == "bidirectional":
        return recorded("rnn", text="ab", hidden=2, steps=2, bidirectional=True)
    if kind == "stacked":
        return recorded("rnn", text="ab", hidden=2, steps=2, layers=2)
    with mg.Tape() as tape:
        if kind == "embedding":
            mg.losses.cross_entropy(
                mg.nn.Linear(3, 4)(mg.nn.Embedding(7, 3)(mg.tensor([1, 3, 5]))), mg.tensor([0, 1, 2])
            )
        elif kind == "three axes":
            x = mg.tensor(np.arange(30.0).reshape(2, 3, 5) / 7, requires_grad=True, name="x")
            (mg.tanh(x).sum(axis=1) * 2.0).sum()
        elif kind == "cells in a loop":
            cell, state = mg.nn.LSTMCell(3, 2), None
            for t in range(2):
                with mg.scope(f"t={t}"):
                    state = cell(mg.tensor(np.full((1, 3), t - 0.7, "float32")), state)
            (state[0] * state[1]).sum()
        elif kind == "nothing to differentiate":
            mg.tensor([1.0, 2.0]) * 3.0
        elif kind == "no elements":
            (mg.tensor(np.zeros((0, 3)), requires_grad=True) * 2.0).sum()
    return tape


@pytest.mark.parametrize(
    "kind",
    ["cells", "layers", "bidirectional", "stacked", "cells in a loop", "embedding", "three axes",
     "nothing to differentiate", "no elements", "nothing"],
)  # fmt: skip
def test_every_kind_of_tape_walks_both_ways(opened, kind):
    tape = odd_tape(kind)
    page = opened(tape)
    for way, expected in (
        ("forward", sum(n.kind == "op" for n in tape.nodes)),
        ("backward", len(walk_of(tape).backward)),
    ):
        assert page.js(STEPS, way) == expected
    page.press("u")
    page.press("Escape")


def test_not_finite_is_shown_as_it_is(opened):
    with mg.Tape() as tape:
        x = mg.tensor([-1.0, 0.0, 4.0], requires_grad=True, name="x")
        y = mg.log(x)
        y.name = "y"
        y.sum()
    tape.nodes[-1].tensor.backward()
    page = opened(tape, f"#node={tape.of(y).id}")
    shown = page.js(NUMBERS + "return state()")["arrays"]["value"]
    assert [t.rpartition("] ")[2] for t in shown] == ["NaN", "−∞", "1.386294"]
    assert math.isinf(x.grad.numpy()[1])
    page.open(f"#routes={len(tape.nodes) - 1},{tape.of(x).id}")
    assert "That is not finite, so no parts add up to it" in page.text("#routes")


def test_where_nothing_flows_it_says_why(opened):
    with mg.Tape() as tape:
        x = mg.tensor([0.3, -0.7], requires_grad=True, name="x")
        y, z = mg.tanh(x), mg.sigmoid(x)
        (mg.exp(y.detach()) * z).sum()
    y, z, e = (next(n for n in tape.nodes if n.op == op) for op in ("tanh", "sigmoid", "exp"))
    page = opened(tape, f"#routes={e.id},{y.id}")
    assert "passes no gradient on (detached" in page.text("#routes")
    page.open(f"#routes={z.id},{y.id}")
    assert "neither depends on the other" in page.text("#routes")
