"""Gradient nonlinearity: the displacement that spherical-harmonic coefficients of a coil describe, and its removal.

Gradient coils are linear near the isocentre only. A scanner that takes them for linear shows what lies at ``p`` at
``p + u(p)``. Manufacturers describe ``u`` by a series of solid harmonics (Janke et al., MRM 2004; Jovicich et al.,
NeuroImage 2006). Coordinates are those of the coil, in mm from the isocentre: for a patient on the back, head first, x
points to the left, y to the front and z to the feet.
"""

import math
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import InputError

WORLD_TO_COIL = np.array([-1.0, 1.0, -1.0])  # from right, anterior, superior
LARGEST_STRETCH = 0.8  # Frobenius norm of the derivative of u, below which the inverse is found by iteration
_FORMAT = "a term reads ` 1  A( 3, 0)  -0.0954  z`: number, A or B, degree and order, value, axis"
_TERM = re.compile(r"\s*\d+\s+([AB])\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)\s+([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s+([xyz])\s*$")
_RADIUS = re.compile(r"([-+]?\d*\.?\d+)\s*m\s*=\s*R0\b")
_NORM = re.compile(r"\blnorm\s*=\s*(\d+)")
_LARGEST_DEGREE = 30  # beyond it factorials overflow, and no coil is described that finely


class Term(NamedTuple):
    """``value`` times one solid harmonic, in the displacement along ``axis`` (0, 1, 2 for x, y, z).

    ``kind`` A goes with ``cos(order phi)``, B with ``sin(order phi)``.
    """

    kind: str
    degree: int
    order: int
    value: float
    axis: int


class Coefficients(NamedTuple):
    """A coil: its reference radius in mm and its terms."""

    radius: float
    terms: tuple[Term, ...]


def read_coefficients(path: str | Path) -> Coefficients:
    """Coefficients of a coil in Siemens' text format (``.grad``).

    Raises:
        InputError: no such file, no ``R0``, a line of the table that is no term, a term twice, no terms; with the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); --gradient_coefficients wants a .grad") from error
    starts = [i for i, line in enumerate(lines) if re.match(r"\s*NO\.?\s+TYPE\s+SPECTRUM\s+AXIS\s*$", line)]
    if not starts:
        first = lines[0][:60] if lines else ""
        raise InputError(
            f"{path}, line 1: {first!r}; no line 'NO. TYPE SPECTRUM AXIS' follows, so this is no Siemens .grad file"
        )
    radius = _read_radius(path, lines[: starts[0]])
    terms: dict[tuple, Term] = {}
    for number, line in enumerate(lines[starts[0] + 1 :], start=starts[0] + 2):
        if line.strip() and not line.lstrip().startswith("#"):
            term = _read_term(f"{path}, line {number}: {line.strip()[:80]!r}", line)
            if terms.setdefault((term.kind, term.degree, term.order, term.axis), term) is not term:
                raise InputError(f"{path}, line {number}: {line.strip()[:80]!r}; this term was there before")
    if not terms:
        raise InputError(f"{path}, line {starts[0] + 1}: {lines[starts[0]].strip()!r}; no terms follow; {_FORMAT}")
    return Coefficients(radius, tuple(terms.values()))


def _read_radius(path: Path, header: Sequence[str]) -> float:
    """R0 in mm, from the lines above the table."""
    for number, line in enumerate(header, start=1):
        if line.lstrip().startswith("#"):
            continue
        norm, found = _NORM.search(line), _RADIUS.search(line)
        if norm and norm[1] != "4":
            raise InputError(f"{path}, line {number}: {line.strip()[:80]!r}; only the normalisation lnorm = 4 is known")
        if found:
            radius = 1000 * float(found[1])
            if not 50 <= radius <= 1000:
                raise InputError(f"{path}, line {number}: R0 of {found[1]} m; allowed is 0.05 to 1 m")
            return radius
    raise InputError(
        f"{path}, line {len(header) + 1}: the table begins, and no line above it says R0; it reads `0.25 m = R0`"
    )


def _read_term(where: str, line: str) -> Term:
    found = _TERM.match(line)
    if not found:
        raise InputError(f"{where}; {_FORMAT}")
    kind, degree, order, value, axis = found.groups()
    term = Term(kind, int(degree), int(order), float(value), "xyz".index(axis))
    if term.order > term.degree or term.degree > _LARGEST_DEGREE:
        raise InputError(f"{where}; the order is at most the degree, and the degree at most {_LARGEST_DEGREE}")
    if term.kind == "B" and term.order == 0:
        raise InputError(f"{where}; there is no term B of order 0, since sin(0) is 0")
    return term


def solid_harmonics(points: np.ndarray, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], tuple]:
    """``N r^n P_n^m(cos theta)`` times ``cos(m phi)`` and ``sin(m phi)`` for the wanted ``(n, m)``.

    ``N`` is 1 for ``m = 0`` and ``sqrt((2n + 1) (n - m)! / (2 (n + m)!))`` else; ``P`` has no Condon-Shortley sign.
    All of it are polynomials in x, y, z, and made as such: no angle, no division by ``r``.

    Args:
        points: (3, ...), relative to the reference radius.
        wanted: degrees and orders.
    """
    x, y, z = points
    square, result = x * x + y * y + z * z, {}
    cosine, sine, double_factorial = np.ones_like(x), np.zeros_like(x), 1.0
    for m in range(1 + max((order for _, order in wanted), default=0)):
        if m:
            cosine, sine = x * cosine - y * sine, x * sine + y * cosine
            double_factorial *= 2 * m - 1
        before, now = np.zeros_like(x), np.full_like(x, double_factorial)
        for n in range(m, 1 + max((degree for degree, order in wanted if order == m), default=-1)):
            if n > m:
                before, now = now, ((2 * n - 1) * z * now - (n + m - 1) * square * before) / (n - m)
            if (n, m) in wanted:
                norm = math.sqrt((2 * n + 1) * math.factorial(n - m) / (2 * math.factorial(n + m))) if m else 1.0
                result[n, m] = norm * now * cosine, norm * now * sine
    return result


class GradientField:
    """The displacement of a coil, in its own coordinates (mm).

    Args:
        coefficients: of the coil.
    """

    def __init__(self, coefficients: Coefficients) -> None:
        self.coefficients = coefficients

    def displacement(self, points: np.ndarray) -> np.ndarray:
        """``u`` at ``points``, both (3, ...) in mm: the series as it stands, wherever the points lie."""
        radius, terms = self.coefficients
        points = np.asarray(points, dtype=np.float64) / radius
        harmonics = solid_harmonics(points, {(t.degree, t.order) for t in terms})
        result = np.zeros_like(points)
        for term in terms:
            result[term.axis] += radius * term.value * harmonics[term.degree, term.order]["AB".index(term.kind)]
        return result

    def derivative(self, points: np.ndarray, step: float = 0.1) -> np.ndarray:
        """``du_i / dp_j`` as (3, 3, ...), by central differences over ``step`` mm."""
        points = np.asarray(points, dtype=np.float64)
        columns = []
        for axis in range(3):
            shift = np.zeros((3, *[1] * (points.ndim - 1)))
            shift[axis] = step
            columns.append((self.displacement(points + shift) - self.displacement(points - shift)) / (2 * step))
        return np.stack(columns, axis=1)

    def jacobian(self, points: np.ndarray) -> np.ndarray:
        """Determinant of ``I + du/dp``: how much larger the scanner shows what lies at ``points`` (3, ...)."""
        matrix = np.moveaxis(self.derivative(points), (0, 1), (-2, -1)) + np.eye(3)
        return np.linalg.det(matrix)

    @cached_property
    def valid_radius(self) -> float:
        """mm from the isocentre within which the map is one to one, and the series means something (at most R0)."""
        angles = np.linspace(0, np.pi, 13)[:, None], np.linspace(0, 2 * np.pi, 24, endpoint=False)[None]
        theta, phi = np.broadcast_arrays(*angles)
        sphere = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
        radii = np.linspace(0, self.coefficients.radius, 26)[1:]
        for before, radius in zip([0, *radii[:-1]], radii, strict=True):
            matrix = np.moveaxis(self.derivative(sphere * radius), (0, 1), (-2, -1))
            if np.linalg.norm(matrix, axis=(-2, -1)).max() > LARGEST_STRETCH:
                return float(before)
        return float(radii[-1])

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Points beyond the valid radius brought back to its sphere: there the displacement stays as it is."""
        distance = np.sqrt((np.asarray(points, dtype=np.float64) ** 2).sum(0))
        return points * np.minimum(1.0, self.valid_radius / np.maximum(distance, 1e-9))

    def shown_at(self, points: np.ndarray) -> np.ndarray:
        """Where the scanner shows what lies at ``points``."""
        return points + self.displacement(self.inside(points))

    def lies_at(self, points: np.ndarray, tolerance: float = 1e-3, iterations: int = 60) -> np.ndarray:
        """Where that lies which the scanner shows at ``points``: the inverse of :meth:`shown_at`, by iteration.

        Args:
            points: (3, ...), mm.
            tolerance: mm, of the change at which the iteration ends.
            iterations: at most.
        """
        result = np.array(points, dtype=np.float64)
        for _ in range(iterations):
            before, result = result, points - self.displacement(self.inside(result))
            if np.abs(result - before).max() < tolerance:
                break
        return result
