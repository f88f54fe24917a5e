"""ONNX models in and out: graphs as differentiable modules, and modules as graphs."""

from ._export import save
from ._model import OnnxModel, load

__all__ = ["OnnxModel", "load", "save"]
