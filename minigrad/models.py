"""The models of the command line: built-in recurrent networks, and functions that users name by file or module."""

from __future__ import annotations

import csv as csv_format
import difflib
import importlib
import importlib.util
import inspect
import math
import random
import sys
import sysconfig
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import BadZipFile

import numpy as np

from . import losses as loss
from . import nn, ops
from ._core import scope, watched_detail
from .errors import MinigradError, UsageError
from .nn.units import Told
from .tensor import Tensor, is_grad_enabled, manual_seed, tensor, zeros

__all__ = ["BUILT_IN", "Model", "build", "find_function", "forget", "own_modules", "read_csv"]

LAYERS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
BUILT_IN = ("adder", *LAYERS)
MOST_STEPS = 1_000_000
"""Of a built-in model; many more outgrow the memory of any machine that people draw pictures on."""
OWN = "your own function as file.py:function or package.module:function"


@dataclass(frozen=True)
class Model:
    """Something that computes losses, step by step, the same ones whenever it is asked.

    Attributes:
        name: a word for titles and file names: ``"lstm"``, or the name of the user's function.
        title: one line that says what is computed.
        steps: runs the computation and gives one loss for each step, or a single one.
        count: how many losses that will be, where it is known before.
        captions: for each step, what it reads and is to say, for pictures; empty where that is nothing short.
    """

    name: str
    title: str
    steps: Callable[[], Iterable[Tensor]]
    count: int | None = None
    captions: tuple[str, ...] = ()

    def losses(self, told: Callable[[], object] = lambda: None) -> list[Tensor]:
        """Run the model under the caller's tape and return its losses, one tensor of one element each.

        Args:
            told: called whenever there is one loss more.
        """
        parts = []
        for part in self.steps():
            parts.append(part)
            told()
        return parts

    def loss(self, told: Callable[[], object] = lambda: None) -> Tensor:
        """Run the model under the caller's tape and return the sum of its losses, named ``E``."""
        parts = self.losses(told)
        if len(parts) == 1:
            return parts[0]
        total = ops.sum(ops.stack(*parts))
        total.name = "E"
        return total


def build(
    spec: str,
    *,
    text: str | None = None,
    csv: str | Path | None = None,
    steps: int | None = None,
    hidden: int | None = None,
    weights: str | Path | None = None,
    layers: int | None = None,
    bidirectional: bool = False,
    variant: str | None = None,
    peepholes: str | None = None,
    seed: int = 0,
) -> Model:
    """Return the model that a command line names.

    Args:
        spec: ``lstm``, ``gru``, ``rnn`` (they spell `text`, or predict the rows of `csv`), ``adder`` (it adds two
            numbers bit by bit), or ``file.py:function`` or ``package.module:function``: a function without required
            arguments that returns a loss or a list of losses.
        text: what the network spells ("hello" if not given). It is read as a ring: every character has a next one
            to be predicted, the last one's is the first. For the adder the sum, "23+42" if not given.
        csv: a file of numbers, one row a step; every row predicts the next one.
        steps: how many steps: characters (more than the text has start it again), rows, or bits (8 if not given).
        hidden: units of the state (8 if not given; 16 in the adder).
        weights: an ``.npz`` file of a trained network that spells: its state dictionary under the names ``lstm.…`` (or
            ``gru.…``, ``rnn.…``) and ``head.…``, and its characters, in order, as one string under ``vocabulary``.
        layers: how many recurrent layers are stacked (1 if not given).
        bidirectional: whether a second network reads the sequence backwards.
        variant, peepholes: architecture of the LSTM, as :class:`minigrad.nn.LSTM` takes them.
        seed: of the initial parameters. A user's function runs with minigrad's, NumPy's and Python's global
            generators set to it.

    Raises:
        UsageError: an unknown model, an option that the model does not take, a text or file that does not fit, a user's
            function that cannot be called, that fails, or that returns no loss.
    """
    if steps is not None and steps > MOST_STEPS:
        raise UsageError(f"{steps} steps are more than memory holds: at most {MOST_STEPS}")
    for name, number in (("steps", steps), ("hidden", hidden), ("layers", layers)):
        if number is not None and number < 1:
            raise UsageError(f"{name} must be at least 1, not {number}")
    given = {"text": text, "csv": csv, "steps": steps, "hidden": hidden, "weights": weights}
    given |= {"layers": layers, "bidirectional": bidirectional or None, "variant": variant, "peepholes": peepholes}
    options = [name for name, value in given.items() if value is not None]
    if spec not in BUILT_IN:
        return _own(spec, options, seed)
    for one, other in (("text", "csv"), ("csv", "weights"), ("hidden", "weights")):
        if one in options and other in options:
            raise UsageError(f"--{one} and --{other} cannot be given together")
    manual_seed(seed)
    if spec == "adder":
        for name in ("csv", "weights"):
            if name in options:
                raise UsageError(f"the adder has no --{name}: write its sum as --text 23+42")
        for name in ("layers", "bidirectional", "variant", "peepholes"):
            if name in options:
                raise UsageError(f"the adder has no --{name}: it is one simple recurrent layer")
        return _adder("23+42" if text is None else text, steps or 8, hidden or 16)
    shape: dict[str, Any] = {name: given[name] for name in ("variant", "peepholes") if name in options}
    if shape and spec != "lstm":
        raise UsageError(f"the {spec} has no --{next(iter(shape))}; the lstm has")
    shape |= {"num_layers": layers or 1, "bidirectional": bidirectional}
    if csv is not None:
        return _series(spec, Path(csv), steps, hidden or 8, shape)
    return _characters(spec, "hello" if text is None else text, steps, hidden or 8, weights, shape)


# --- built-in networks --------------------------------------------------------------------------------------


class Net(nn.Module):
    """Recurrent layers, under the name of their kind, and a linear read-out; spelled one step at a time."""

    def __init__(self, kind: str, inputs: int, hidden: int, outputs: int, **shape: Any) -> None:
        super().__init__()
        self.kind, self.hidden = kind, hidden
        setattr(self, kind, LAYERS[kind](inputs, hidden, **shape))
        self.head = nn.Linear(hidden * (2 if shape.get("bidirectional") else 1), outputs)
        for word, parameter in self.head.named_parameters():
            parameter.name = f"head.{word}"

    def outputs(self, xs: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yield every step's number and read-out, inside of that step's scope."""
        layer = getattr(self, self.kind)
        if layer.bidirectional or watched_detail() in ("cells", "layers"):
            # No read-out can come before the other direction has read everything, or the layer has run as a whole.
            whole = tensor(np.stack([x.numpy() for x in xs]), name="x")
            read, _ = layer(whole)
            for t in range(len(xs)):
                with scope(f"t={t}"):
                    yield t, self.head(read[t])
            return
        unit, words = layer.unit, [f"layer {k}" for k in range(layer.num_layers)]
        steps, states = [], []
        for k, word in enumerate(words):
            with scope(self.kind), scope(word) if len(words) > 1 else nullcontext():
                state = tuple(zeros(1, size) for size in layer._state_sizes(self.hidden))
                for letter, s in zip(unit.states, state, strict=True):
                    s.name = f"{letter}[-1]"
                # Not the layer's own loop: there no step can have its read-out and its loss before the next one.
                steps.append(unit.bind(layer._weights(f"_l{k}"), state, True, layer.training))
                states.append(state)
        for t, x in enumerate(xs):
            x.name = f"x[{t}]"
            h = x
            for k, word in enumerate(words):
                with scope(self.kind), scope(word) if len(words) > 1 else nullcontext(), scope(f"t={t}"):
                    states[k] = steps[k](h, states[k], Told(t))
                    h = states[k][0]
            with scope(f"t={t}"):
                yield t, self.head(h)


def _named(x: Tensor, word: str, t: int) -> Tensor:
    x.name = f"{word}[{t}]"
    return x


def _described(kind: str, shape: dict[str, Any]) -> str:
    """Say what a network is in a few words, for a title."""
    words = ["bidirectional "] if shape["bidirectional"] else []
    more = [f"{shape['num_layers']} layers"] if shape["num_layers"] > 1 else []
    more += [shape["variant"]] if "variant" in shape else []
    more += [f"{shape['peepholes']} peepholes"] if "peepholes" in shape else []
    return "".join([*words, kind, f" ({', '.join(more)})" if more else ""])


def _characters(
    kind: str, text: str, steps: int | None, hidden: int, weights: str | Path | None, shape: dict[str, Any]
) -> Model:
    if len(set(text)) < 2:
        raise UsageError(f"the text {text!r} needs two different characters: otherwise there is nothing to predict")
    if weights is None:
        letters = "".join(sorted(set(text)))
        net = Net(kind, len(letters), hidden, len(letters), **shape)
    else:
        net, letters = _trained(kind, Path(weights), shape)
        strange = sorted(set(text) - set(letters))
        if strange:
            raise UsageError(f"{weights} has not learned the character {strange[0]!r}; it knows {letters!r}")
    count = len(text) if steps is None else steps
    codes = [letters.index(text[t % len(text)]) for t in range(count + 1)]
    one_hot = np.eye(len(letters), dtype=np.float32)

    def run() -> Iterator[Tensor]:
        xs = [tensor(one_hot[[code]]) for code in codes[:-1]]
        for t, y in net.outputs(xs):
            follows = _named(tensor([codes[t + 1]]), "next", t)
            yield _named(loss.cross_entropy(_named(y, "logits", t), follows), "E", t)

    captions = tuple(f"{letters[a]!r} → {letters[b]!r}" for a, b in pairwise(codes))
    read = (
        f"{_shortened(text)!r} again and again, {count} steps" if count > len(text) else repr(_shortened(text[:count]))
    )
    return Model(kind, f"{_described(kind, shape)} spelling {read}", run, count, captions)


def _trained(kind: str, path: Path, shape: dict[str, Any]) -> tuple[Net, str]:
    """Read a network and its characters from an ``.npz`` file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            state = {key: file[key] for key in file.files}
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except (ValueError, BadZipFile):  # what NumPy says of it advises to unpickle it
        raise UsageError(f"{path} is no .npz file of arrays") from None
    first = state.get(f"{kind}.weight_hh_l0")
    if "vocabulary" not in state or first is None or first.ndim != 2:
        raise UsageError(f"{path} holds no trained {kind}: it needs 'vocabulary' and '{kind}.weight_hh_l0'")
    letters = str(state.pop("vocabulary"))
    net = Net(kind, len(letters), first.shape[1], len(letters), **shape)
    try:
        net.load_state_dict(state)
    except MinigradError as error:
        raise UsageError(f"{path} does not fit: {error}") from None
    return net, letters


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _adder(text: str, bits: int, hidden: int) -> Model:
    parts = [part.strip() for part in text.split("+")]
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise UsageError(f"the adder adds two whole numbers, written like 23+42, not {text!r}")
    a, b = map(int, parts)
    if a + b >= 2**bits:
        raise UsageError(f"{a} + {b} = {a + b} does not fit into {bits} bits, whose largest number is {2**bits - 1}")
    net = Net("rnn", 2, hidden, 1)

    def run() -> Iterator[Tensor]:
        xs = [tensor([[float(a >> t & 1), float(b >> t & 1)]]) for t in range(bits)]
        for t, y in net.outputs(xs):
            bit = _named(tensor([[float(a + b >> t & 1)]]), "d", t)
            yield _named(loss.half_squared_error(_named(ops.sigmoid(y), "y", t), bit), "E", t)

    captions = tuple(f"{a >> t & 1} + {b >> t & 1} → {a + b >> t & 1}" for t in range(bits))
    return Model("adder", f"{a} + {b}, {bits} bits, the lowest first", run, bits, captions)


def _series(kind: str, path: Path, steps: int | None, hidden: int, shape: dict[str, Any]) -> Model:
    rows = read_csv(path)
    available = len(rows) - 1
    if available < 1:
        raise UsageError(f"{path} has one row of numbers: it takes two to predict one")
    if steps is not None and steps > available:
        raise UsageError(f"{steps} steps need {steps + 1} rows, and {path} has {len(rows)}")
    spread = rows.std(axis=0)
    rows = ((rows - rows.mean(axis=0)) / np.where(spread == 0, 1, spread)).astype(np.float32)
    net = Net(kind, rows.shape[1], hidden, rows.shape[1], **shape)
    count = available if steps is None else steps

    def run() -> Iterator[Tensor]:
        for t, y in net.outputs([tensor(rows[[t]]) for t in range(count)]):
            yield _named(loss.mse(_named(y, "y", t), _named(tensor(rows[[t + 1]]), "next", t)), "E", t)

    return Model(kind, f"{_described(kind, shape)} predicting the next row of {path.name}", run, count)


def read_csv(path: str | Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Read a table of finite numbers, (rows, columns); a first row without any number is a header.

    Raises:
        UsageError: the file cannot be read, holds no numbers, or a cell is none: row and column are named, from 1.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv_format.reader(file)
            rows = [(lines.line_num, row) for row in lines if any(cell.strip() for cell in row)]
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv_format.Error) as error:
        raise UsageError(f"{path} is no csv file: {error}") from None
    header: list[str] = []
    if rows and all(_number(cell) is None for cell in rows[0][1]):
        header = rows.pop(0)[1]
    if not rows:
        raise UsageError(f"{path} has no rows of numbers")
    width = len(header or rows[0][1])
    table = np.empty((len(rows), width))
    for k, (line, row) in enumerate(rows):
        if len(row) != width:
            raise UsageError(f"{path}, row {line}: {len(row)} cells, where other rows have {width}")
        for column, cell in enumerate(row):
            number = _number(cell)
            if number is None or not math.isfinite(number):
                title = f" ({header[column].strip()})" if header else ""
                raise UsageError(f"{path}, row {line}, column {column + 1}{title}: {cell!r} is no finite number")
            table[k, column] = number
    return table


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


# --- functions of users -------------------------------------------------------------------------------------


def _own(spec: str, options: list[str], seed: int) -> Model:
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(_unknown(spec))
    if options:
        raise UsageError(f"--{options[0]} is for the built-in models; {spec} decides by itself what it reads")
    _seed_all(seed)
    function = find_function(spec)
    _check_arguments(spec, function)

    def run() -> list[Tensor]:
        _seed_all(seed)
        with _blaming(spec):
            result = function()
        return _as_losses(spec, result)

    return Model(name, f"{Path(place).name}:{name}", run)


def find_function(spec: str) -> Callable[..., Any]:
    """Import what ``file.py:function`` or ``package.module:function`` names.

    Raises:
        UsageError: there is no such file, module or function, or importing it fails.
    """
    place, _, name = spec.rpartition(":")
    module = _load(place)
    function = getattr(module, name, None)
    if function is None:
        own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__]
        raise UsageError(f"{place} has no function {name!r}{_or_rather(name, own)}")
    if not callable(function):
        raise UsageError(f"{spec} is no function but {_a(function)}")
    return function


def own_modules(but: Collection[str]) -> dict[str, Path]:
    """Return names and files of the imported modules that are not in `but`, nor Python's, installed or minigrad's."""
    libraries = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name in but or name.partition(".")[0] == "minigrad":
            continue
        if file.endswith(".py") and not file.startswith(libraries):
            found[name] = Path(file)
    return found


def forget(names: Collection[str]) -> None:
    """Drop imported modules, so that the next import reads their files again."""
    for name in names:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def _unknown(spec: str) -> str:
    if spec.endswith(".py") or Path(spec).is_file():
        return f"which function of {spec}? Write {spec}:function"
    known = ", ".join(BUILT_IN)
    near = difflib.get_close_matches(spec, BUILT_IN, 1, 0.5)
    meant = f"did you mean {near[0]}? The models are" if near else "the models are"
    return f"unknown model {spec!r}: {meant} {known}, or {OWN}"


def _or_rather(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 3, 0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; it has {', '.join(sorted(known))}" if known else "; it has none"


def _seed_all(seed: int) -> None:
    manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  users' functions draw from the global generator


def _load(place: str) -> ModuleType:
    """Import a file or a module as ``python place`` or ``python -m place`` would find its neighbours."""
    if not place.endswith(".py"):
        _look_in(Path.cwd())
        with _blaming(place):
            try:
                return importlib.import_module(place)
            except ModuleNotFoundError as error:
                if error.name and (place + ".").startswith(error.name + "."):
                    raise UsageError(f"there is no module {error.name!r}") from None
                raise
    path = Path(place)
    if not path.is_file():
        raise UsageError(f"there is no file {place!r}")
    _look_in(path.resolve().parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module  # dataclasses and pickle look their classes' module up
    try:
        with _blaming(place):
            spec.loader.exec_module(module)
    finally:
        if before is not None:
            sys.modules[path.stem] = before
    return module


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@contextmanager
def _blaming(spec: str) -> Iterator[None]:
    """Turn what a user's code raises into one line that says where in that code."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, UsageError) and _last_line(error) is None:
            raise  # our own words about what was asked for
        raise UsageError(_complaint(spec, error)) from error


def _complaint(spec: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{spec} is not valid Python: {_relative(error.filename)}:{error.lineno}: {error.msg}"
    where = _last_line(error)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{spec} raised an error{f' at {where}' if where else ''}: {what}"


def _last_line(error: BaseException) -> str | None:
    """Return where in the user's code an error came up: never in minigrad, in a library only if it is nowhere else."""
    libraries = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))
    found = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("minigrad", "importlib") and not file.startswith("<"):
            found.append((file.startswith(libraries), f"{_relative(file)}:{line}"))
    own = [where for library, where in found if not library]
    last = own or [where for _, where in found]
    return last[-1] if last else None


def _relative(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def _check_arguments(spec: str, function: Callable[..., Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return  # a compiled function that does not say: calling it will
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if required:
        raise UsageError(f"{spec} is called without arguments, but it requires {', '.join(required)}")


def _as_losses(spec: str, result: Any) -> list[Tensor]:
    several = isinstance(result, list | tuple)
    parts = list(result) if several else [result]
    if not parts:
        raise UsageError(f"{spec} returned an empty {type(result).__name__}, not a loss or a list of losses")
    for k, part in enumerate(parts):
        what = f"element {k} of what {spec} returned" if several else f"what {spec} returned"
        if not isinstance(part, Tensor):
            raise UsageError(f"{what} is {_a(part)}, not a tensor: a model returns a loss or a list of losses")
        if part.size != 1:
            raise UsageError(f"{what} has shape {part.shape}: a loss is one number; reduce it with .sum() or .mean()")
        if is_grad_enabled() and not part.requires_grad:
            raise UsageError(f"{what} depends on no tensor with requires_grad=True: there is no gradient")
    return [part.reshape(()) if part.shape else part for part in parts]


def _a(value: Any) -> str:
    name = type(value).__name__
    if value is None:
        return "None"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
