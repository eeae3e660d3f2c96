"""Small pictures, drawn: what the worlds show. Every function takes a generator and returns unsigned bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SHAPES = ("bars", "cross", "disc", "ring", "square", "triangle")
TEXTURES = ("blobs", "checks", "diagonal", "flat", "stripes")


def shape(rng: np.random.Generator, kind: int, size: int = 16) -> Bytes:
    """A shape [3, size, size] of any place, size, turn and colour before a textured ground of another colour."""
    radius = rng.uniform(0.28, 0.40) * size
    middle = rng.uniform(0.42, 0.58, 2) * size
    cover = _inside(kind, size, middle, radius, rng.uniform(-0.3, 0.3))
    front, back = _two_colours(rng, least=100)
    picture = np.where(cover, front[:, None, None], back[:, None, None] + _texture(rng, size, 16.0))
    return _bytes(picture + rng.normal(0, rng.uniform(4, 16), picture.shape))


def scene(rng: np.random.Generator, size: int = 24) -> tuple[Bytes, Ints]:
    """One to three objects of different kinds, and the class of each pixel [size, size].

    0 is the ground, 1 a disc (it tends to red), 2 a square (to green), 3 a triangle (to blue).
    """
    ground = rng.uniform(60, 150) + rng.normal(0, 12, 3)
    picture = np.broadcast_to(ground[:, None, None], (3, size, size)) + _texture(rng, size, 15.0)
    truth = np.zeros((size, size), np.int64)
    for kind in rng.permutation(3)[: rng.integers(1, 4)]:
        middle, radius = rng.uniform(0.15, 0.85, 2) * size, rng.uniform(0.15, 0.28) * size
        cover = _inside((2, 4, 5)[kind], size, middle, radius, rng.uniform(-0.5, 0.5))
        colour = rng.uniform(60, 150, 3) + 75 * (np.arange(3) == kind)
        picture = np.where(cover, colour[:, None, None], picture)
        truth[cover] = kind + 1
    return _bytes(picture + rng.normal(0, rng.uniform(4, 15), picture.shape)), truth


def dots(rng: np.random.Generator, size: int = 16) -> tuple[Bytes, int]:
    """Between 1 and 7 bright dots that do not touch, on grey [1, size, size], and how many they are."""
    number, places = int(rng.integers(1, 8)), []
    while len(places) < number:
        place = rng.uniform(2.5, size - 2.5, 2)
        if all(np.hypot(*(place - other)) > 3.8 for other in places):
            places.append(place)
    rows, columns = np.mgrid[:size, :size] + 0.5
    picture = np.full((size, size), rng.uniform(40, 90)) + _texture(rng, size, 12.0)
    for row, column in places:
        distance = (rows - row) ** 2 + (columns - column) ** 2
        picture += rng.uniform(90, 150) * np.exp(-distance / (2 * rng.uniform(0.9, 1.3) ** 2))
    return _bytes(picture[None] + rng.normal(0, 8, (1, size, size))), number


def texture(rng: np.random.Generator, kind: int, size: int = 16) -> Bytes:
    """A grey texture [1, size, size] of any phase, scale and contrast; the kinds are ``TEXTURES``."""
    rows, columns = np.mgrid[:size, :size]
    phase, turn = rng.uniform(0, 2 * np.pi, 2), rng.uniform(-0.3, 0.3)
    pitch = rng.uniform(0.9, 1.6)
    along = np.cos(turn) * columns + np.sin(turn) * rows
    across = np.cos(turn) * rows - np.sin(turn) * columns
    pattern = {
        "stripes": lambda: np.sin(pitch * along + phase[0]),
        "diagonal": lambda: np.sin(pitch * (along + across) / np.sqrt(2) + phase[0]),
        "checks": lambda: np.sign(np.sin(pitch * along + phase[0]) * np.sin(pitch * across + phase[1])),
        "blobs": lambda: _texture(rng, size, 1.0),
        "flat": lambda: np.zeros((size, size)),
    }[TEXTURES[kind]]()
    picture = rng.uniform(90, 160) + rng.uniform(22, 50) * pattern
    return _bytes(picture[None] + rng.normal(0, rng.uniform(15, 32), (1, size, size)))


def _inside(kind: int, size: int, middle: Floats, radius: float, turn: float) -> npt.NDArray[np.bool_]:
    """The pixels of a shape of ``SHAPES``: [size, size]."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    down, right = rows - middle[0], columns - middle[1]
    y, x = np.cos(turn) * down + np.sin(turn) * right, np.cos(turn) * right - np.sin(turn) * down
    distance = np.hypot(x, y)
    box = np.maximum(abs(x), abs(y))
    return {
        "bars": lambda: (box < radius) & (np.floor((x + radius) / (radius * 0.4)) % 2 == 0),
        "cross": lambda: (box < radius) & (np.minimum(abs(x), abs(y)) < radius * 0.33),
        "disc": lambda: distance < radius * 1.05,
        "ring": lambda: (distance < radius * 1.1) & (distance > radius * 0.62),
        "square": lambda: box < radius * 0.92,
        "triangle": lambda: (y < radius * 0.85) & (y > -radius * 1.1 + 2.0 * abs(x)),
    }[SHAPES[kind]]()


def _texture(rng: np.random.Generator, size: int, strength: float) -> Floats:
    """Smooth noise [size, size] whose standard deviation is ``strength``."""
    coarse = rng.normal(size=(size // 3 + 2, size // 3 + 2))
    fine = np.kron(coarse, np.ones((3, 3)))
    smooth = (fine + np.roll(fine, 1, 0) + np.roll(fine, 1, 1) + np.roll(fine, (1, 1), (0, 1)))[
        1 : size + 1, 1 : size + 1
    ]
    return np.asarray(strength * smooth / (smooth.std() + 1e-9))


def _colour(rng: np.random.Generator) -> Floats:
    return rng.uniform(30, 225, 3)


def _two_colours(rng: np.random.Generator, least: float) -> tuple[Floats, Floats]:
    back = _colour(rng)
    while True:
        front = _colour(rng)
        if np.abs(front - back).max() > least:
            return front, back


def _bytes(picture: Floats) -> Bytes:
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)
