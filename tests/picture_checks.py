"""Measure a scene as a reader would: what overlaps, what leaves its box or the picture, what runs through what.

All functions take a `minigrad.render.scene.Scene` and return sentences, one for each fault; an empty list is a good
picture. Extents of text are those of the fonts that travel with the package.
"""

from bisect import bisect_left, bisect_right
from itertools import pairwise

SLACK = 0.5
"""Pixels by which things may touch."""


def overlap(a, b, slack=SLACK):
    """Say whether two rectangles (left, top, right, bottom) cover a common area."""
    return a[0] + slack < b[2] and b[0] + slack < a[2] and a[1] + slack < b[3] and b[1] + slack < a[3]


def inside(inner, outer, slack=SLACK):
    """Say whether a rectangle lies in another one."""
    return (
        inner[0] >= outer[0] - slack
        and inner[1] >= outer[1] - slack
        and inner[2] <= outer[2] + slack
        and inner[3] <= outer[3] + slack
    )


def crosses(p, q, box, slack=1.0):
    """Say whether the straight line from p to q passes through a rectangle (Liang and Barsky's clipping)."""
    enter, leave = 0.0, 1.0
    for at, by, low, high in (
        (p[0], q[0] - p[0], box[0] + slack, box[2] - slack),
        (p[1], q[1] - p[1], box[1] + slack, box[3] - slack),
    ):
        if abs(by) < 1e-9:
            if not low < at < high:
                return False
            continue
        first, second = sorted(((low - at) / by, (high - at) / by))
        enter, leave = max(enter, first), min(leave, second)
        if enter >= leave:
            return False
    return True


def free_words(scene):
    """Return all text that is in no node's box: (where, Words)."""
    found = [(wire.key, words) for wire in scene.wires for words in wire.words]
    found += [("frame", frame.words) for frame in scene.frames]
    found += [("frame", words) for frame in scene.frames for words in getattr(frame, "notes", ())]
    return found + [("words", words) for words in scene.words]


def _pairs(boxes):
    """Yield the pairs of numbered rectangles that overlap, by a sweep from left to right."""
    open_now = []
    for k in sorted(range(len(boxes)), key=lambda k: boxes[k][0]):
        open_now = [j for j in open_now if boxes[j][2] > boxes[k][0]]
        for j in open_now:
            if overlap(boxes[j], boxes[k]):
                yield j, k
        open_now.append(k)


def overlaps(scene):
    """Say which boxes, and which words beside them, lie on each other."""
    items = [(box.key, box.box) for box in scene.boxes]
    items += [(f"{words.text!r} of {where}", words.box) for where, words in free_words(scene) if words.text]
    return [f"{items[j][0]} on {items[k][0]}" for j, k in _pairs([box for _, box in items])]


def clipped(scene):
    """Say which words leave their box, and what leaves its frame or the picture."""
    found = []
    picture = (0.0, 0.0, scene.width, scene.height)
    for box in scene.boxes:
        room = (box.box[0] + 1, box.box[1], box.box[2] - 1, box.box[3])
        found += [f"{words.text!r} leaves {box.key}" for words in box.words if not inside(words.box, room, 0.0)]
        if not inside(box.box, picture):
            found.append(f"{box.key} leaves the picture")
    found += [f"{words.text!r} of {key} leaves the picture" for key, words in free_words(scene)
              if words.text and not inside(words.box, picture)]  # fmt: skip
    for frame in scene.frames:
        outline = (frame.x, frame.y, frame.x + frame.width, frame.y + frame.height)
        found += [f"{words.text!r} leaves its frame" for words in (frame.words, *getattr(frame, "notes", ()))
                  if not inside(words.box, outline)]  # fmt: skip
        for box in scene.boxes:
            if overlap(box.box, outline) and not inside(box.box, outline):
                found.append(f"{box.key} lies across a frame's edge")
    for wire in scene.wires:
        for x, y in wire.points:
            if not (0 <= x <= scene.width and 0 <= y <= scene.height):
                found.append(f"{wire.key} leaves the picture")
                break
    return found


def struck(scene):
    """Say which wires run through a box."""
    found = []
    boxes = sorted(scene.boxes, key=lambda box: box.box[0])
    widest = max((box.width for box in boxes), default=0.0)
    lefts = [box.box[0] for box in boxes]
    for wire in scene.wires:
        for p, q in pairwise(wire.points):
            low, high = min(p[0], q[0]), max(p[0], q[0])
            near = boxes[bisect_left(lefts, low - widest) : bisect_right(lefts, high)]
            found += [f"{wire.key} through {box.key}" for box in near if crosses(p, q, box.box)]
    return found


def faults(scene):
    """Return everything that a reader would call a flaw."""
    return overlaps(scene) + clipped(scene) + struck(scene)
