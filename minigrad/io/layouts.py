"""Gate orders of other libraries: recurrent parameters to and from ONNX, Keras and cuDNN.

A state dictionary here has PyTorch's names and layouts, for a layer ``k`` and a direction with the suffix ``""`` or
``"_reverse"``: ``weight_ih_lk`` (G*H, I), ``weight_hh_lk`` (G*H, H), ``bias_ih_lk`` and ``bias_hh_lk`` (G*H,), and
``weight_ph_lk`` (3H,) for diagonal peepholes. The rows of the gates lie one below the other:

    ============  ===============  ===============  ==========
    library       LSTM             GRU              peepholes
    ============  ===============  ===============  ==========
    here          i f g o          r z n            i f o
    ONNX          i o f g          z r n            i o f
    Keras         i f g o          z r n
    cuDNN         i f g o          r z n
    ============  ===============  ===============  ==========

g is the cell gate (ONNX and Keras write c), n the new gate (ONNX and Keras write h). `unit` is "rnn", "gru" or "lstm".
Tensors stay tensors, and gradients flow through; anything else becomes a NumPy array. `prefix` is what stands before
the names of a layer inside of a larger model, such as ``"encoder.lstm."``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..errors import ShapeError, UsageError
from ..nn.module import as_array
from ..tensor import Tensor

__all__ = ["from_cudnn", "from_keras", "from_onnx", "to_cudnn", "to_keras", "to_onnx"]

HERE = {"rnn": "h", "gru": "rzn", "lstm": "ifgo"}
ONNX = {"rnn": "h", "gru": "zrn", "lstm": "iofg"}
KERAS = {"rnn": "h", "gru": "zrn", "lstm": "ifgo"}
PEEPHOLES_HERE, PEEPHOLES_ONNX = "ifo", "iof"

WORDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_ph")
KEY = re.compile(rf"({'|'.join(WORDS)})_l(0|[1-9]\d{{0,5}})(_reverse)?")


class Part(NamedTuple):
    """Parameters of one direction of one layer, in the order of gates that is used here."""

    ih: Any  # (G*H, I)
    hh: Any  # (G*H, H)
    b_ih: Any = None  # (G*H,)
    b_hh: Any = None  # (G*H,)
    ph: Any = None  # (3H,)


Layer = list[Part]
"""One or two directions."""


# --- arrays ---------------------------------------------------------------------------------------------------


def _array(name: str, value: Any) -> Any:
    return value if isinstance(value, Tensor) else as_array(name, value)


def _joined(parts: Sequence[Any]) -> Any:
    """Concatenate along the first axis, on the tape if any part is a tensor."""
    if len(parts) == 1:
        return parts[0]
    return (ops.concatenate if any(isinstance(part, Tensor) for part in parts) else np.concatenate)(parts)


def _stacked(parts: Sequence[Any]) -> Any:
    return (ops.stack if any(isinstance(part, Tensor) for part in parts) else np.stack)(parts)


def _turned(x: Any) -> Any:
    return x.T


def _reordered(x: Any, old: str, new: str) -> Any:
    """Put the gates' blocks of rows into another order."""
    if old == new:
        return x
    size = x.shape[0] // len(old)
    return _joined([x[old.index(gate) * size : (old.index(gate) + 1) * size] for gate in new])


def _expect(name: str, x: Any, *shape: int) -> None:
    if tuple(x.shape) != shape:
        raise ShapeError(f"{name} has shape {tuple(x.shape)}; here it must be {shape}")


def _gates(unit: str) -> int:
    if unit not in HERE:
        raise UsageError(f"unit is 'rnn', 'gru' or 'lstm', not {unit!r}")
    return len(HERE[unit])


def _hidden(name: str, hh: Any, gates: int, axis: int) -> int:
    """Return H, from the recurrent matrix: `axis` is its axis of length H."""
    if len(hh.shape) != 2 or hh.shape[1 - axis] != gates * hh.shape[axis] or not hh.shape[axis]:
        wanted = f"({gates}*H, H)" if axis else f"(H, {gates}*H)"
        raise ShapeError(f"{name} has shape {tuple(hh.shape)}; here it must be {wanted}")
    return int(hh.shape[axis])


# --- state dictionaries ---------------------------------------------------------------------------------------


def _suffixes(layer: int, directions: int) -> Iterator[str]:
    yield from (f"_l{layer}{way}" for way in ("", "_reverse")[:directions])


def _read(state: Mapping[str, Any], unit: str, prefix: str) -> list[Layer]:
    """Return the parameters of a state dictionary by layer and direction; refuse every key that does not belong."""
    gates = _gates(unit)
    own = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    found = {key: KEY.fullmatch(key) for key in own}
    alien = () if unit == "lstm" else ("weight_ph",)
    strange = [prefix + key for key, match in found.items() if not match or match[1] in alien]
    if strange:
        raise UsageError(f"no parameters of {unit}: {', '.join(strange)}")
    matches = [match for match in found.values() if match]
    layers = {int(match[2]) for match in matches}
    directions = 2 if any(match[3] for match in matches) else 1
    present = {match[1] for match in matches}
    words = ["weight_ih", "weight_hh"]
    words += ["bias_ih", "bias_hh"] if present & {"bias_ih", "bias_hh"} else []
    words += ["weight_ph"] if "weight_ph" in present else []
    count = max(1, len(layers))  # a number that is left out shows as missing keys
    lost = [
        prefix + word + suffix
        for k in range(count)
        for suffix in _suffixes(k, directions)
        for word in words
        if word + suffix not in own
    ]
    if lost:
        raise UsageError(f"missing parameters of {unit}: {', '.join(lost)}")
    read: list[Layer] = []
    for k in range(count):
        read.append([])
        for suffix in _suffixes(k, directions):
            part = {word: _array(prefix + word + suffix, own[word + suffix]) for word in words}
            hidden = _hidden(prefix + "weight_hh" + suffix, part["weight_hh"], gates, 1)
            first = read[0][0] if read[0] else Part(part["weight_ih"], part["weight_hh"])
            shapes = {
                "weight_ih": (gates * hidden, directions * hidden if k else first.ih.shape[-1]),
                "weight_hh": tuple(first.hh.shape),
                "weight_ph": (3 * hidden,),
            }
            for word in words:
                _expect(prefix + word + suffix, part[word], *shapes.get(word, (gates * hidden,)))
            read[k].append(Part(*(part.get(word) for word in WORDS)))
    return read


def _written(layers: Sequence[Layer], prefix: str) -> dict[str, Any]:
    """Return the state dictionary of parameters by layer and direction."""
    return {
        prefix + word + suffix: value
        for k, layer in enumerate(layers)
        for suffix, part in zip(_suffixes(k, len(layer)), layer, strict=True)
        for word, value in zip(WORDS, part, strict=True)
        if value is not None
    }


def _uniform(layers: Sequence[Layer]) -> None:
    """Refuse layers that cannot be stacked: other directions, biases or sizes than the first one's."""
    first = layers[0]
    for k, layer in enumerate(layers[1:], 1):
        if len(layer) != len(first) or any((a is None) != (b is None) for a, b in zip(layer[0], first[0], strict=True)):
            raise UsageError(f"layer {k} has other directions or biases than layer 0: they make no stack")
        _expect(f"the recurrent matrix of layer {k}", layer[0].hh, *first[0].hh.shape)
        _expect(f"the input matrix of layer {k}", layer[0].ih, first[0].ih.shape[0], len(first) * first[0].hh.shape[1])


# --- ONNX -----------------------------------------------------------------------------------------------------


def to_onnx(state: Mapping[str, Any], unit: str, prefix: str = "") -> list[dict[str, Any]]:
    """Return W, R, B and P of ONNX's RNN, GRU and LSTM operators, one dictionary for each layer.

    Source: the operator specification of ONNX. With D directions: W (D, G*H, I), R (D, G*H, H), B (D, 2*G*H), the
    input's biases before the state's, and P (D, 3H), present if there are peepholes.

    Raises:
        UsageError: unknown or missing keys. ShapeError: wrong shapes. All are named.

    >>> import numpy as np
    >>> rows = np.array([[1.0], [2.0], [3.0], [4.0]])                                      # i f g o
    >>> state = {"weight_ih_l0": rows, "weight_hh_l0": 10 * rows, "bias_ih_l0": rows[:, 0],
    ...          "bias_hh_l0": 10 * rows[:, 0], "weight_ph_l0": np.array([5.0, 6.0, 7.0])}  # i f o
    >>> (layer,) = to_onnx(state, "lstm")
    >>> layer["W"].ravel().tolist(), layer["R"].ravel().tolist()                           # i o f g
    ([1.0, 4.0, 2.0, 3.0], [10.0, 40.0, 20.0, 30.0])
    >>> layer["B"].tolist(), layer["P"].tolist()
    ([[1.0, 4.0, 2.0, 3.0, 10.0, 40.0, 20.0, 30.0]], [[5.0, 7.0, 6.0]])
    >>> gru = {"weight_ih_l0": rows[:3], "weight_hh_l0": 10 * rows[:3]}                     # r z n
    >>> to_onnx(gru, "gru")[0]["W"].ravel().tolist()                                       # z r n
    [2.0, 1.0, 3.0]
    """
    here, there = HERE.get(unit, ""), ONNX.get(unit, "")
    out = []
    for layer in _read(state, unit, prefix):
        values = {
            "W": _stacked([_reordered(part.ih, here, there) for part in layer]),
            "R": _stacked([_reordered(part.hh, here, there) for part in layer]),
        }
        if layer[0].b_ih is not None:
            values["B"] = _stacked(
                [_joined([_reordered(b, here, there) for b in (part.b_ih, part.b_hh)]) for part in layer]
            )
        if layer[0].ph is not None:
            values["P"] = _stacked([_reordered(part.ph, PEEPHOLES_HERE, PEEPHOLES_ONNX) for part in layer])
        out.append(values)
    return out


def from_onnx(layers: Mapping[str, Any] | Sequence[Mapping[str, Any]], unit: str, prefix: str = "") -> dict[str, Any]:
    """Return the state dictionary of ONNX's W, R, B and P: the inverse of :func:`to_onnx`.

    Args:
        layers: a dictionary for each layer, or one alone; B and P may be missing or None.

    Raises:
        UsageError: unknown or missing keys. ShapeError: wrong shapes. All are named.

    >>> import numpy as np
    >>> rows = np.array([[[1.0], [2.0], [3.0], [4.0]]])                                    # i o f g
    >>> state = from_onnx({"W": rows, "R": 10 * rows, "P": np.array([[5.0, 6.0, 7.0]])}, "lstm")
    >>> state["weight_ih_l0"].ravel().tolist(), state["weight_hh_l0"].ravel().tolist()      # i f g o
    ([1.0, 3.0, 4.0, 2.0], [10.0, 30.0, 40.0, 20.0])
    >>> state["weight_ph_l0"].tolist()                                                     # i f o
    [5.0, 7.0, 6.0]
    >>> from_onnx({"W": rows[:, :3], "R": 10 * rows[:, :3]}, "gru")["weight_ih_l0"].ravel().tolist()
    [2.0, 1.0, 3.0]
    """
    gates = _gates(unit)
    here, there = HERE[unit], ONNX[unit]
    read: list[Layer] = []
    for k, given in enumerate([layers] if isinstance(layers, Mapping) else layers):
        known = ("W", "R", "B", "P") if unit == "lstm" else ("W", "R", "B")
        wrong = [key for key in given if key not in known]
        lost = [key for key in ("W", "R") if given.get(key) is None]
        if wrong or lost:
            raise UsageError(f"layer {k}: missing {lost}, unexpected {wrong}; {unit} has {', '.join(known)}")
        W, R = (_array(key, given[key]) for key in "WR")
        B, P = (None if given.get(key) is None else _array(key, given[key]) for key in "BP")
        if len(R.shape) != 3 or R.shape[0] not in (1, 2):
            raise ShapeError(f"R has shape {tuple(R.shape)}; here it must be (1 or 2, {gates}*H, H)")
        directions, hidden = R.shape[0], _hidden("R of one direction", R[0], gates, 1)
        if len(W.shape) != 3 or tuple(W.shape[:2]) != (directions, gates * hidden):
            raise ShapeError(f"W has shape {tuple(W.shape)}; here it must be ({directions}, {gates * hidden}, I)")
        if B is not None:
            _expect("B", B, directions, 2 * gates * hidden)
        if P is not None:
            _expect("P", P, directions, 3 * hidden)
        read.append(
            [
                Part(
                    _reordered(W[d], there, here),
                    _reordered(R[d], there, here),
                    None if B is None else _reordered(B[d][: gates * hidden], there, here),
                    None if B is None else _reordered(B[d][gates * hidden :], there, here),
                    None if P is None else _reordered(P[d], PEEPHOLES_ONNX, PEEPHOLES_HERE),
                )
                for d in range(directions)
            ]
        )
    if not read:
        raise UsageError("from_onnx: no layers")
    _uniform(read)
    return _written(read, prefix)


# --- Keras ----------------------------------------------------------------------------------------------------


def to_keras(state: Mapping[str, Any], unit: str, reset_after: bool = True, prefix: str = "") -> list[list[Any]]:
    """Return the weights of Keras's SimpleRNN, GRU and LSTM, in the order of ``get_weights()``, a list for each layer.

    Source: Keras's layer documentation. kernel (I, G*H), recurrent_kernel (H, G*H), bias (G*H,), the sum of both of
    ours; a GRU with `reset_after` has both, (2, G*H). Two directions are those of ``Bidirectional``: the forward
    weights, then the backward ones. Keras has no peepholes.

    Raises:
        UsageError: unknown or missing keys, peepholes. ShapeError: wrong shapes. All are named.

    >>> import numpy as np
    >>> rows = np.array([[1.0], [2.0], [3.0]])                                              # r z n
    >>> state = {"weight_ih_l0": rows, "weight_hh_l0": 10 * rows, "bias_ih_l0": rows[:, 0], "bias_hh_l0": -rows[:, 0]}
    >>> ((kernel, recurrent_kernel, bias),) = to_keras(state, "gru")
    >>> kernel.tolist(), recurrent_kernel.tolist()                                          # z r n
    ([[2.0, 1.0, 3.0]], [[20.0, 10.0, 30.0]])
    >>> bias.tolist()
    [[2.0, 1.0, 3.0], [-2.0, -1.0, -3.0]]
    >>> rows = np.array([[1.0], [2.0], [3.0], [4.0]])                                       # i f g o
    >>> to_keras({"weight_ih_l0": rows, "weight_hh_l0": rows}, "lstm")[0][0].tolist()       # i f g o
    [[1.0, 2.0, 3.0, 4.0]]
    """
    here, there = HERE.get(unit, ""), KERAS.get(unit, "")
    out = []
    for layer in _read(state, unit, prefix):
        values = []
        for part in layer:
            if part.ph is not None:
                raise UsageError("Keras's LSTM has no peepholes")
            values += [_turned(_reordered(matrix, here, there)) for matrix in (part.ih, part.hh)]
            if part.b_ih is not None:
                biases = [_reordered(b, here, there) for b in (part.b_ih, part.b_hh)]
                values.append(_stacked(biases) if unit == "gru" and reset_after else biases[0] + biases[1])
        out.append(values)
    return out


def from_keras(layers: Sequence[Any], unit: str, bidirectional: bool = False, prefix: str = "") -> dict[str, Any]:
    """Return the state dictionary of Keras's weights: the inverse of :func:`to_keras`.

    A single bias becomes ``bias_ih``, and ``bias_hh`` is zero. A GRU's bias (2, 3H) belongs to
    ``GRU(reset_after=True)``, (3H,) to ``GRU(reset_after=False)``.

    Args:
        layers: for each layer the list of ``get_weights()``, or one such list alone.
        bidirectional: whether the lists are those of ``Bidirectional``.

    Raises:
        UsageError: lists of another length. ShapeError: wrong shapes.

    >>> import numpy as np
    >>> columns = np.array([[1.0, 2.0, 3.0]])                                               # z r n
    >>> state = from_keras([columns, 10 * columns, np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]])], "gru")
    >>> state["weight_ih_l0"].ravel().tolist(), state["bias_hh_l0"].tolist()                # r z n
    ([2.0, 1.0, 3.0], [-2.0, -1.0, -3.0])
    >>> columns = np.array([[1.0, 2.0, 3.0, 4.0]])                                          # i f g o
    >>> from_keras([columns, 10 * columns, columns[0]], "lstm")["weight_hh_l0"].ravel().tolist()
    [10.0, 20.0, 30.0, 40.0]
    """
    gates = _gates(unit)
    here, there = HERE[unit], KERAS[unit]
    alone = bool(layers) and len(getattr(layers[0], "shape", ())) == 2
    read: list[Layer] = []
    for k, given in enumerate([layers] if alone else layers):
        ways = 2 if bidirectional else 1
        if len(given) not in (2 * ways, 3 * ways):
            raise UsageError(
                f"layer {k} has {len(given)} arrays; {'two directions have' if bidirectional else 'a layer has'} "
                f"{2 * ways} without biases and {3 * ways} with them"
            )
        each = len(given) // ways
        read.append([])
        for d in range(ways):
            names = [f"{word} of layer {k}" for word in ("kernel", "recurrent_kernel", "bias")[:each]]
            arrays = [_array(n, x) for n, x in zip(names, given[d * each : (d + 1) * each], strict=True)]
            hidden = _hidden(names[1], arrays[1], gates, 0)
            if len(arrays[0].shape) != 2 or arrays[0].shape[1] != gates * hidden:
                shape = tuple(arrays[0].shape)
                raise ShapeError(f"{names[0]} has shape {shape}; here it must be (I, {gates * hidden})")
            ih, hh = (_reordered(_turned(matrix), there, here) for matrix in arrays[:2])
            b_ih = b_hh = None
            if each == 3:
                bias = arrays[2]
                double = unit == "gru" and len(bias.shape) == 2
                _expect(names[2], bias, *((2, gates * hidden) if double else (gates * hidden,)))
                b_ih, b_hh = (_reordered(b, there, here) for b in ((bias[0], bias[1]) if double else (bias, bias)))
                b_hh = b_hh if double else b_hh * 0
            read[k].append(Part(ih, hh, b_ih, b_hh))
    if not read:
        raise UsageError("from_keras: no layers")
    _uniform(read)
    return _written(read, prefix)


# --- cuDNN ----------------------------------------------------------------------------------------------------


def to_cudnn(state: Mapping[str, Any], unit: str, prefix: str = "") -> dict[tuple[int, int], tuple[Any, Any]]:
    """Return cuDNN's matrices and biases by (pseudo-layer, linear layer), the arguments of cudnnGetRNNWeightParams.

    Source: cuDNN's reference. The pseudo-layer is ``layer * directions + direction``. Linear layers 0 to G-1 read the
    input, G to 2G-1 the state, in the order i, f, g, o, or r, z, n. Each entry is a matrix (H, I) or (H, H) and its
    bias (H,), None without biases. cuDNN has no peepholes.

    Raises:
        UsageError: unknown or missing keys, peepholes. ShapeError: wrong shapes. All are named.

    >>> import numpy as np
    >>> rows = np.array([[1.0], [2.0], [3.0]])                                              # r z n
    >>> blocks = to_cudnn({"weight_ih_l0": rows, "weight_hh_l0": 10 * rows}, "gru")
    >>> {place: float(matrix[0, 0]) for place, (matrix, _) in blocks.items()}
    {(0, 0): 1.0, (0, 1): 2.0, (0, 2): 3.0, (0, 3): 10.0, (0, 4): 20.0, (0, 5): 30.0}
    """
    gates = _gates(unit)
    blocks: dict[tuple[int, int], tuple[Any, Any]] = {}
    parts = [part for layer in _read(state, unit, prefix) for part in layer]
    for pseudo, part in enumerate(parts):
        if part.ph is not None:
            raise UsageError("cuDNN's LSTM has no peepholes")
        size = part.hh.shape[1]
        for side, (matrix, bias) in enumerate([(part.ih, part.b_ih), (part.hh, part.b_hh)]):
            for gate in range(gates):
                rows = slice(gate * size, (gate + 1) * size)
                blocks[pseudo, side * gates + gate] = matrix[rows], None if bias is None else bias[rows]
    return blocks


def from_cudnn(
    blocks: Mapping[tuple[int, int], tuple[Any, Any]], unit: str, bidirectional: bool = False, prefix: str = ""
) -> dict[str, Any]:
    """Return the state dictionary of cuDNN's matrices and biases: the inverse of :func:`to_cudnn`.

    Raises:
        UsageError: unknown or missing blocks. ShapeError: wrong shapes.

    >>> import numpy as np
    >>> blocks = {(0, k): (np.array([[float(k)]]), np.array([-float(k)])) for k in range(8)}
    >>> state = from_cudnn(blocks, "lstm")
    >>> state["weight_ih_l0"].ravel().tolist(), state["bias_hh_l0"].tolist()                # i f g o
    ([0.0, 1.0, 2.0, 3.0], [-4.0, -5.0, -6.0, -7.0])
    """
    gates = _gates(unit)
    ways = 2 if bidirectional else 1
    count = max(1, -(-len(blocks) // (2 * gates * ways)))
    wanted = [(pseudo, k) for pseudo in range(count * ways) for k in range(2 * gates)]
    lost = [place for place in wanted if place not in blocks]
    wrong = [place for place in blocks if place not in set(wanted)]
    if lost or wrong:
        raise UsageError(f"blocks by (pseudo-layer, linear layer) of {unit}: missing {lost}, unexpected {wrong}")
    parts = []
    for pseudo in range(count * ways):
        pairs = [blocks[pseudo, k] for k in range(2 * gates)]
        biased = [bias is not None for _, bias in pairs]
        if any(biased) != all(biased):
            raise UsageError(f"pseudo-layer {pseudo}: some of its biases are missing")
        matrices = [_array(f"matrix {pseudo, k}", matrix) for k, (matrix, _) in enumerate(pairs)]
        size = matrices[gates].shape[0] if matrices[gates].shape else 0
        for k, matrix in enumerate(matrices):
            inputs = matrices[0].shape[-1] if k < gates and matrices[0].shape else size
            _expect(f"matrix {pseudo, k}", matrix, size, inputs)
        ih, hh = _joined(matrices[:gates]), _joined(matrices[gates:])
        if not all(biased):
            parts.append(Part(ih, hh))
            continue
        biases = [_array(f"bias {pseudo, k}", bias) for k, (_, bias) in enumerate(pairs)]
        for k, bias in enumerate(biases):
            _expect(f"bias {pseudo, k}", bias, size)
        parts.append(Part(ih, hh, _joined(biases[:gates]), _joined(biases[gates:])))
    layers = [parts[k : k + ways] for k in range(0, len(parts), ways)]
    _uniform(layers)
    return _written(layers, prefix)
