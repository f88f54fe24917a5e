"""State dictionaries in safetensors files: round trips, PyTorch's side of the format, and files that are not whole."""

import doctest
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad.errors import FormatError, MissingExtraError, UsageError
from minigrad.io import state

safetensors = pytest.importorskip("safetensors")


def model() -> mg.nn.Module:
    mg.manual_seed(5)
    return mg.nn.Sequential(mg.nn.LSTM(3, 5, num_layers=2, bidirectional=True), mg.nn.Linear(10, 7))


def raw(header: dict[str, Any], data: bytes) -> bytes:
    """Write a file by hand, from the format's description."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_examples() -> None:
    result = doctest.testmod(state)
    assert result.attempted >= 2
    assert result.failed == 0


def test_a_module_comes_back(tmp_path: Path) -> None:
    mg.io.save(tmp_path / "m.safetensors", old := model())
    new = mg.nn.Sequential(mg.nn.LSTM(3, 5, num_layers=2, bidirectional=True), mg.nn.Linear(10, 7))
    assert not np.array_equal(new.state_dict()["1.weight"].numpy(), old.state_dict()["1.weight"].numpy())
    loaded = mg.io.load(tmp_path / "m.safetensors")
    # The format sorts its entries; the names are what counts.
    assert sorted(loaded) == sorted(old.state_dict())
    new.load_state_dict(loaded)
    for name, value in old.state_dict().items():
        assert np.array_equal(new.state_dict()[name].numpy(), value.numpy())


def test_every_dtype_and_layout(tmp_path: Path) -> None:
    state = {
        "scalar": np.array(2.5),
        "empty": np.zeros((3, 0), np.float32),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "strided": np.arange(10, dtype=np.int16)[::-3],
        "flags": np.array([True, False]),
        "unsigned": np.array([2**63 + 1], np.uint64),
        "tensor": mg.tensor([[1, 2]]),
    }
    mg.io.save(tmp_path / "x", state)
    found = mg.io.load(tmp_path / "x")
    for name, value in state.items():
        want = np.asarray(value)
        assert found[name].dtype == want.dtype
        assert found[name].shape == want.shape
        assert np.array_equal(found[name].numpy(), want)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    half = np.array([1.5, -0.25], "<f2").tobytes()
    brain = np.array([0x3FC0, 0xC2F7], "<u2").tobytes()  # 1.5 and -123.5
    header = {
        "half": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        "brain": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [4, 8]},
    }
    (tmp_path / "x").write_bytes(raw(header, half + brain))
    found = mg.io.load(tmp_path / "x")
    assert {name: (v.tolist(), str(v.dtype)) for name, v in found.items()} == {
        "half": ([1.5, -0.25], "float32"),
        "brain": ([[1.5, -123.5]], "float32"),
    }


def test_metadata(tmp_path: Path) -> None:
    mg.io.save(tmp_path / "x", {"a": np.ones(2)}, metadata={"epoch": "3"})
    assert mg.io.metadata(tmp_path / "x") == {"format": "pt", "epoch": "3"}
    with pytest.raises(UsageError, match="text"):
        mg.io.save(tmp_path / "x", {"a": np.ones(2)}, metadata={"epoch": 3})  # type: ignore[dict-item]


@pytest.mark.needs("torch")
def test_pytorch_reads_ours_and_we_read_pytorchs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    files = pytest.importorskip("safetensors.torch")
    theirs = torch.nn.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2, dtype=torch.float64)
    files.save_file(theirs.state_dict(), str(tmp_path / "theirs"))
    ours = mg.nn.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2, dtype="float64")
    ours.load_state_dict(mg.io.load(tmp_path / "theirs"))
    x = np.random.default_rng(0).standard_normal((7, 2, 3))
    want = theirs(torch.from_numpy(x))[0].detach().numpy()
    assert np.allclose(ours(x)[0].numpy(), want, rtol=0, atol=1e-12)
    mg.io.save(tmp_path / "ours", ours)
    theirs.load_state_dict(files.load_file(str(tmp_path / "ours")), strict=True)
    mg.io.save(tmp_path / "again", theirs.state_dict())
    assert (tmp_path / "again").read_bytes() == (tmp_path / "ours").read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mg.io.save(tmp_path / "x", {"a": np.ones(2)})
    before = (tmp_path / "x").read_bytes()

    def broken(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(UsageError, match="full"):
        mg.io.save(tmp_path / "x", {"a": np.zeros(2)})
    assert (tmp_path / "x").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_values_that_are_no_arrays(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name"):
        mg.io.save(tmp_path / "x", {"name": "text"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("state", [5, {5: np.ones(2)}, [np.ones(2)]])
def test_states_that_are_no_dictionaries(tmp_path: Path, state: Any) -> None:
    with pytest.raises(UsageError, match="a dictionary from names to arrays"):
        mg.io.save(tmp_path / "a.safetensors", state)
    assert not list(tmp_path.iterdir())


def test_booleans_are_0_and_1_whatever_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw({"a": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}, b"\x02\x00\xff"))
    array = mg.io.load(path)["a"].numpy()
    assert array.view("u1").tolist() == [1, 0, 1]


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    for protocol in (2, 3, 4, 5):
        (tmp_path / "x").write_bytes(pickle.dumps(Harm(), protocol))
        with pytest.raises(FormatError, match=r"torch\.load\(path, weights_only=True\)"):
            mg.io.load(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(FormatError, match="pickle"):
        mg.io.load(tmp_path / "x")
    assert not (tmp_path / "harm").exists()


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room on the disk
    with pytest.raises(FormatError, match="1099511627776 bytes"):
        mg.io.load(tmp_path / "x")
    with pytest.raises(FormatError, match="max_bytes"):
        mg.io.metadata(tmp_path / "x")


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}, b"8 bytes!"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**50]}}, b"8 bytes!"),
        ({"a": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 8]}}, b"8 bytes!"),
        ({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, b"8 bytes!"),
        ({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, b"8 bytes!"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"more than 8 bytes"),
        ({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, b"8 bytes!"),
    ],
)
def test_malformed_headers(tmp_path: Path, header: dict[str, Any], data: bytes) -> None:
    (tmp_path / "x").write_bytes(raw(header, data))
    with pytest.raises(FormatError):
        mg.io.load(tmp_path / "x")


def test_every_truncation(tmp_path: Path) -> None:
    mg.io.save(tmp_path / "x", {"a": np.arange(5.0), "b": np.ones((2, 3), np.float32)})
    whole = (tmp_path / "x").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(FormatError):
            mg.io.load(tmp_path / "x")


SAMPLE = raw({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}, np.arange(3, dtype="<f4").tobytes())


@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_damaged_bytes(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(SAMPLE)
    for place, byte in changes:
        damaged[place] = byte
    path = tmp_path_factory.mktemp("damaged") / "x"
    path.write_bytes(damaged)
    try:
        found = mg.io.load(path)
    except FormatError:
        return
    assert sum(value.size for value in found.values()) <= len(SAMPLE)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(MissingExtraError, match=r"minigrad-tape\[io\]"):
        mg.io.save(tmp_path / "x", {})
    with pytest.raises(MissingExtraError, match=r"minigrad-tape\[io\]"):
        mg.io.load(tmp_path / "x")
