"""Every CUDA kernel compiles to machine code of every GPU since 2018, by NVIDIA's compiler, without a GPU."""

import functools
from collections.abc import Iterator

import fake_cupy
import pytest
from nvrtc import ARCHITECTURES, compile_cuda

from minigrad import _cuda_recurrent, formula
from minigrad.op import PAGE

pytestmark = pytest.mark.needs("nvrtc")


@pytest.fixture(scope="module")
def cuda() -> Iterator[object]:
    import sys

    with fake_cupy.pretended():
        yield sys.modules["minigrad._cuda"]


def spelled_out(name: str, inputs: str, output: str, body: str) -> str:
    """Write an element-wise kernel as CuPy would: a loop in which parameters are references to elements."""
    lines, reads, letters = [], [], []
    for k, text in enumerate([*inputs.split(", "), output]):
        *raw, kind, word = text.split()
        if len(kind) == 1:
            letters.append(kind)
        kind = fake_cupy.WORDS.get(kind, kind)
        constant = "" if k == inputs.count(",") + 1 else "const "
        lines.append(f"{constant}{kind} *{'' if raw else 'at_'}{word}")
        if not raw:
            reads.append(f"{constant}{kind} &{word} = at_{word}[i];")
    head = f"template <{', '.join(f'typename {letter}' for letter in dict.fromkeys(letters))}> " if letters else ""
    return (
        f"{head}__global__ void {name}({', '.join(lines)}, long long size) {{\n"
        "  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;\n"
        "  for (; i < size; i += blockDim.x * gridDim.x) {\n"
        f"    {' '.join(reads)}\n    {body};\n  }}\n}}\n"
    )


def elementwise(cuda: object) -> tuple[str, list[str]]:
    """Return one program of all element-wise kernels, and what is to be instantiated of it."""
    texts, names = [formula.CUDA_PREAMBLE, cuda.PHILOX], []
    for source in cuda.elementwise_sources(PAGE):
        texts.append(spelled_out(source.name, source.inputs, source.output, source.body))
        open_types = sum(len(part.split()[0]) == 1 for part in source.inputs.split(", "))
        names += (
            [f"{source.name}<{kind}>" for kind in ("bool", "float", "double", "long long")]
            if open_types
            else [source.name]
        )
    for (kind, dtype), body in cuda.DRAWS.items():
        inputs = "raw uint64 key_, raw uint64 start_"
        body = f"const unsigned long long key = key_[0], start = start_[0]; {body}"
        texts.append(spelled_out(f"draw_{kind}_{dtype}", inputs, f"{dtype} out", body))
        names.append(f"draw_{kind}_{dtype}")
    inputs = "T before, raw int64 places, raw int64 order, raw T values, raw int64 count_, raw int64 width_"
    body = "const long long count = count_[0], width = width_[0];" + cuda.SUM_AT
    texts.append(spelled_out("sum_at", inputs, "T out", body))
    names += ["sum_at<float>", "sum_at<double>", "sum_at<long long>"]
    return "\n".join(texts), names


def updates(cuda: object) -> str:
    """Return one program of all updates, and of the sums of squares."""
    parts = [cuda.update_source(update, dtype) for update in PAGE.updates.values() for dtype in cuda.C_TYPES]
    parts = [formula.CUDA_PREAMBLE, *(part.replace(formula.CUDA_PREAMBLE, "") for part in parts)]
    return "\n".join([*parts, *(cuda.squares_source(dtype) for dtype in cuda.C_TYPES)])


def complaint(source: str, architecture: str, **more: object) -> str:
    size, said = compile_cuda(source, architecture, **more)
    return said if not size or "warning" in said else ""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_element_wise_page(cuda: object, architecture: str) -> None:
    source, names = elementwise(cuda)
    assert len(names) > 150
    assert not complaint(source, architecture, options=cuda.OPTIONS, expressions=names)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_updates(cuda: object, architecture: str) -> None:
    assert not complaint(updates(cuda), architecture, options=cuda.OPTIONS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_recurrent_layers(architecture: str) -> None:
    names = [f"{kernel}<{kind}>" for kernel in _cuda_recurrent.KERNELS for kind in ("float", "double")]
    source = formula.CUDA_PREAMBLE + _cuda_recurrent.SOURCE.read_text()
    assert not complaint(source, architecture, expressions=names)


def test_a_wrong_kernel_is_refused(cuda: object) -> None:
    source, names = elementwise(cuda)
    spoilt = functools.partial(complaint, architecture="sm_90", expressions=names)
    assert "tanhg" in spoilt(source.replace("tanhf(", "tanhg(", 1))
