"""What models are made of: modules, layers, recurrent units, starting values and gradient clipping."""

from . import init
from .attention import AdditiveAttention, DotProductAttention
from .clip import clip_grad_norm_, clip_grad_value_
from .layers import Dropout, Embedding, Linear, ReLU, Sequential, Sigmoid, Tanh
from .module import Module, Parameter
from .recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .truncated import Chunk, detach, truncated_bptt

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdditiveAttention",
    "Chunk",
    "DotProductAttention",
    "Dropout",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "Module",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "clip_grad_norm_",
    "clip_grad_value_",
    "detach",
    "init",
    "truncated_bptt",
]
