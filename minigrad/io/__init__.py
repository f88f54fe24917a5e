"""Weights and models in and out: safetensors files, the gate orders of other libraries, and ONNX graphs."""

from . import layouts, onnx
from .state import load, metadata, save

__all__ = ["layouts", "load", "metadata", "onnx", "save"]
