"""ONNX models in and out: graphs as differentiable modules, and modules as graphs."""

from ._model import OnnxModel, load

__all__ = ["OnnxModel", "load"]
