"""Label sequences out of the frames of a CTC model: the best path, and prefix beam search."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._core import data_of
from .errors import ShapeError, UsageError
from .op import lane_of
from .ops._lengths import as_lengths

__all__ = ["ctc_beam", "ctc_greedy"]


def ctc_greedy(log_probs: Any, input_lengths: Any = None, blank: int = 0) -> list[Any]:
    """Return the labels of the best path: the likeliest class of each frame, repeats merged, blanks taken out.

    Args:
        log_probs: tensor or array of log-probabilities (or of any scores): (T, N, C), or (T, C) for one sequence.
        input_lengths: how many frames each sequence has, by default all.
        blank: the class of the blank. Of classes that are equally likely the lowest one is taken.

    Returns:
        A list of labels for each of the N sequences; for one sequence its list.

    Raises:
        ShapeError: `log_probs` has other axes, or a length lies outside of 0 to T.
        UsageError: a blank that is no class, or NaN or infinity among the scores.

    >>> import minigrad as mg
    >>> frames = mg.tensor([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1], [0.1, 0.6, 0.3]])
    >>> mg.decode.ctc_greedy(mg.log(frames))
    [1, 1]
    """
    sequences, single = _sequences("ctc_greedy", log_probs, input_lengths, blank)
    found = []
    for frames in sequences:
        path = frames.argmax(axis=1)
        new = np.ones(len(path), dtype=bool)
        new[1:] = path[1:] != path[:-1]
        found.append(path[new & (path != blank)].tolist())
    return found[0] if single else found


def ctc_beam(log_probs: Any, input_lengths: Any = None, blank: int = 0, beam: int = 16, top: int = 1) -> list[Any]:
    """Return the likeliest label sequences that a prefix beam search finds, with their log-probabilities.

    The search reads frame after frame and keeps the `beam` likeliest beginnings of label sequences; all alignments
    of a beginning count together (Graves: Sequence Transduction with Recurrent Neural Networks, 2012; Hannun et al.:
    First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs, 2014). A
    log-probability lacks the alignments through beginnings that were given up; with a beam that holds all of them it
    is exact, and the negative of :func:`minigrad.losses.ctc`.

    Args:
        log_probs: tensor or array of log-probabilities: (T, N, C), or (T, C) for one sequence.
        input_lengths: how many frames each sequence has, by default all.
        blank: the class of the blank.
        beam: how many beginnings are kept. Of equally likely ones those are that come first as lists.
        top: how many sequences are returned, at most `beam`; fewer where fewer are possible.

    Returns:
        A list of pairs (labels, log-probability), the likeliest first, for each of the N sequences; for one sequence
        its list.

    Raises:
        ShapeError: `log_probs` has other axes, or a length lies outside of 0 to T.
        UsageError: a blank that is no class, NaN or infinity among the scores, or a `top` outside of 1 to `beam`.

    >>> import minigrad as mg
    >>> frames = mg.tensor([[0.6, 0.4], [0.6, 0.4]])            # the best path is two blanks: 0.36
    >>> (labels, log_prob), = mg.decode.ctc_beam(mg.log(frames))
    >>> labels, round(mg.exp(log_prob).item(), 2)               # [1] has three paths: 0.16 + 0.24 + 0.24
    ([1], 0.64)
    """
    if not 1 <= top <= beam:
        raise UsageError(f"ctc_beam: top={top} and beam={beam}; 1 <= top <= beam is needed")
    sequences, single = _sequences("ctc_beam", log_probs, input_lengths, blank)
    found = [_search(frames, blank, beam)[:top] for frames in sequences]
    return found[0] if single else found


def _sequences(name: str, log_probs: Any, input_lengths: Any, blank: int) -> tuple[list[Any], bool]:
    """Return the frames of each sequence in double precision on the host, and whether there is only one."""
    data = data_of(log_probs)
    lane = lane_of(data)
    scores = np.asarray(data if lane is None else lane.to_numpy(data), dtype=np.float64)
    if scores.ndim not in (2, 3):
        raise ShapeError(f"{name}: log_probs has shape (T, N, C) or (T, C), not {scores.shape}")
    single = scores.ndim == 2
    scores = scores[:, None] if single else scores
    steps, number, classes = scores.shape
    if not 0 <= blank < classes:
        raise UsageError(f"{name}: blank={blank} is none of the classes 0 to {classes - 1}")
    given = [steps] * number if input_lengths is None else input_lengths
    lengths = as_lengths(f"{name}: input_lengths", given, number, steps)
    sequences = [scores[:length, n] for n, length in enumerate(lengths)]
    for n, frames in enumerate(sequences):
        if not (frames < np.inf).all():
            raise UsageError(f"{name}: there is NaN or infinity among the log-probabilities of sequence {n}")
    return sequences, single


def _search(frames: Any, blank: int, beam: int) -> list[tuple[list[int], float]]:
    """Return the likeliest label sequences of frames (T, C), best first."""
    prefixes: list[tuple[int, ...]] = [()]
    # Log-probability of each prefix over the alignments that end in a blank, and over those that end in its last label.
    blanks, labels = np.zeros(1), np.full(1, -np.inf)
    for frame in frames:
        # Blank stands in for the last label of the empty prefix, which none of its alignments ends in.
        last = np.array([prefix[-1] if prefix else blank for prefix in prefixes], dtype=np.intp)
        both = np.logaddexp(blanks, labels)
        longer = both[:, None] + frame
        rows = np.arange(len(prefixes))
        longer[rows, last] = blanks + frame[last]  # a label that follows itself needs a blank between
        longer[:, blank] = -np.inf
        blanks, labels = both + frame[blank], labels + frame[last]

        place = {prefix: k for k, prefix in enumerate(prefixes)}
        for k, prefix in enumerate(prefixes):
            shorter = place.get(prefix[:-1]) if prefix else None
            if shorter is not None:
                labels[k] = np.logaddexp(labels[k], longer[shorter, prefix[-1]])
                longer[shorter, prefix[-1]] = -np.inf

        scores = np.concatenate([np.logaddexp(blanks, labels), longer.ravel()])
        least = np.partition(scores, -beam)[-beam] if len(scores) > beam else -np.inf
        candidates = []
        for k in np.flatnonzero((scores >= least) & (scores > -np.inf)).tolist():
            if k < len(prefixes):
                candidates.append((-scores[k], prefixes[k], blanks[k], labels[k]))
            else:
                parent, label = divmod(k - len(prefixes), len(frame))
                candidates.append((-scores[k], (*prefixes[parent], label), -np.inf, scores[k]))
        candidates.sort(key=lambda candidate: candidate[:2])
        prefixes = [prefix for _, prefix, _, _ in candidates[:beam]]
        blanks, labels = (np.array([candidate[j] for candidate in candidates[:beam]]) for j in (2, 3))
    found = zip(prefixes, np.logaddexp(blanks, labels).tolist(), strict=True)
    return [(list(prefix), score) for prefix, score in found]
