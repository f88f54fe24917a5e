"""``python -m benchmarks [TABLE ...]``: print tables of ratios. One thread unless OMP_NUM_THREADS says otherwise.

The tables: tape, product, lstm, cells, steps, train; gpu only if it is named.
"""

from __future__ import annotations

import os
import sys

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before anybody imports NumPy

from . import gpu, product, recurrent, tape, train  # noqa: E402

TABLES = {
    "tape": tape.main,
    "product": product.main,
    "lstm": recurrent.lstm,
    "cells": recurrent.cells,
    "steps": recurrent.steps,
    "train": train.main,
}
ON_REQUEST = {"gpu": gpu.main}


def main() -> int:
    """Run the named tables, all of them by default."""
    names = sys.argv[1:] or list(TABLES)
    tables = {**TABLES, **ON_REQUEST}
    unknown = [name for name in names if name not in tables]
    if unknown:
        print(f"unknown table {unknown[0]!r}; known: {', '.join(tables)}", file=sys.stderr)
        return 2
    for name in names:
        tables[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
