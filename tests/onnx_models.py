"""Random ONNX models of the recurrent operators, for tests of the reader."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
T, N, I, H = 5, 3, 2, 7
STATES = {"RNN": ("Y", "Y_h"), "GRU": ("Y", "Y_h"), "LSTM": ("Y", "Y_h", "Y_c")}


def model_of(
    nodes: list[Any], inputs: dict[str, Any], outputs: list[str], values: dict[str, Any], opset: int = 20
) -> Any:
    """Make a model; `inputs` are examples, whose shapes are not declared."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), None) for k, v in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def recurrent(
    op: str,
    direction: str = "forward",
    *,
    bias: bool = True,
    lengths: list[int] | None = None,
    initial: bool = True,
    peepholes: bool = False,
    outputs: tuple[str, ...] | None = None,
    dtype: str = "float32",
    scale: float = 0.3,
    seed: int = 0,
    **attributes: Any,
) -> tuple[Any, np.ndarray[Any, Any]]:
    """Make a model of one recurrent node, named "unit", and its input X."""
    rng = np.random.default_rng(seed)
    ways, rows = (2 if direction == "bidirectional" else 1), GATES[op] * H
    swapped = attributes.get("layout", 0) == 1
    state = (N, ways, H) if swapped else (ways, N, H)
    parts = {
        "W": rng.standard_normal((ways, rows, I)) * scale,
        "R": rng.standard_normal((ways, rows, H)) * scale / 2,
        "B": rng.standard_normal((ways, 2 * rows)) * scale if bias else None,
        "sequence_lens": None if lengths is None else np.array(lengths, np.int32),
        "initial_h": rng.standard_normal(state) if initial else None,
    }
    if op == "LSTM":
        parts["initial_c"] = rng.standard_normal(state) if initial else None
        parts["P"] = rng.standard_normal((ways, 3 * H)) if peepholes else None
    values = {k: v if v.dtype == np.int32 else v.astype(dtype) for k, v in parts.items() if v is not None}
    names = ["X", *(name if name in values else "" for name in parts)]
    X = rng.standard_normal((N, T, I) if swapped else (T, N, I)).astype(dtype)
    outs = list(STATES[op] if outputs is None else outputs)
    node = helper.make_node(op, names, outs, name="unit", hidden_size=H, direction=direction, **attributes)
    made = model_of([node], {"X": X}, [name for name in outs if name], values, opset=14)
    if dtype == "float64":
        for port in made.graph.output:
            port.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    return made, X
