"""Measure a scene as a reader would: what overlaps, what leaves its box or the picture, what runs through what.

All functions take a `minigrad.render.scene.Scene` and return sentences, one for each fault; an empty list is a good
picture. Extents of text are those of the fonts that travel with the package.
"""

import math
from bisect import bisect_left, bisect_right
from itertools import combinations, pairwise, product

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


def reaches(box, left, top, right, bottom, slack=SLACK):
    """Say whether a rectangle reaches into a node; into a circle, not only into the corners around it."""
    if not overlap((left, top, right, bottom), box.box, slack) or box.shape != "circle":
        return overlap((left, top, right, bottom), box.box, slack)
    near = (min(max(box.x, left), right), min(max(box.y, top), bottom))
    return math.dist(near, (box.x, box.y)) < box.width / 2 - slack


def holds(box, words):
    """Say whether a node's box or circle holds a line of text; signs do not fill the corners of their line."""
    left, top, right, bottom = words.box
    if box.shape != "circle":
        margin = 0.0 if box.shape == "bare" else 1.0
        return inside(words.box, (box.box[0] + margin, box.box[1], box.box[2] - margin, box.box[3]), 0.01)
    corners = product((left, right), (top + 0.12 * words.size, bottom - 0.08 * words.size))
    return all(math.dist(corner, (box.x, box.y)) <= box.width / 2 for corner in corners)


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
    round_ones = {k: box for k, box in enumerate(scene.boxes) if box.shape == "circle"}
    return [
        f"{items[j][0]} on {items[k][0]}"
        for j, k in _pairs([box for _, box in items])
        if all(reaches(round_ones[a], *items[b][1]) for a, b in ((j, k), (k, j)) if a in round_ones)
    ]


def clipped(scene):
    """Say which words leave their box, and what leaves its frame or the picture."""
    found = []
    picture = (0.0, 0.0, scene.width, scene.height)
    for box in scene.boxes:
        found += [f"{words.text!r} leaves {box.key}" for words in box.words if not holds(box, words)]
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
            found += [f"{wire.key} through {box.key}" for box in near if crosses(p, q, box.box) and _cuts(p, q, box)]
    return found


def _cuts(p, q, box):
    """Say whether a line that crosses the box around a circle also crosses the circle."""
    if box.shape != "circle":
        return True
    length = math.dist(p, q) or 1.0
    along = ((box.x - p[0]) * (q[0] - p[0]) + (box.y - p[1]) * (q[1] - p[1])) / length
    share = min(max(along / length, 0.0), 1.0)
    near = (p[0] + share * (q[0] - p[0]), p[1] + share * (q[1] - p[1]))
    return math.dist(near, (box.x, box.y)) < box.width / 2 - 1.5


def crossed_out(scene):
    """Say which wires, or sides of frames, run through words; for pictures whose words stand beside their wires."""
    texts = [words for _, words in free_words(scene) if words.text]
    texts += [words for box in scene.boxes for words in box.words]
    ink = [(w.box[0], w.box[1] + 0.12 * w.size, w.box[2], w.box[3] - 0.08 * w.size) for w in texts]
    lines = [(wire.key, p, q) for wire in scene.wires for p, q in pairwise(wire.points)]
    for f in scene.frames:
        corners = [(f.x, f.y), (f.x + f.width, f.y), (f.x + f.width, f.y + f.height), (f.x, f.y + f.height)]
        lines += [("a frame", p, q) for p, q in pairwise([*corners, corners[0]])]
    return [
        f"{key} through {words.text!r}" for key, p, q in lines for words, box in zip(texts, ink, strict=True)
        if crosses(p, q, box, 0.2)
    ]  # fmt: skip


def doubled(scene):
    """Say which wires of two kinds run on top of each other."""
    found = []
    for a, b in combinations(scene.wires, 2):
        if a.style != b.style and any(_along(*p, *q) for p, q in product(pairwise(a.points), pairwise(b.points))):
            found.append(f"{a.key} along {b.key}")
    return found


def _along(a, b, c, d):
    for x, y in ((0, 1), (1, 0)):
        if abs(a[x] - b[x]) < 0.05 and abs(c[x] - d[x]) < 0.05 and abs(a[x] - c[x]) < 2.0:
            low, high = max(min(a[y], b[y]), min(c[y], d[y])), min(max(a[y], b[y]), max(c[y], d[y]))
            if high - low > 3.0:
                return True
    return False


def faults(scene):
    """Return everything that a reader would call a flaw."""
    return overlaps(scene) + clipped(scene) + struck(scene)
