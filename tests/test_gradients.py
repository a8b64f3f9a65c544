import math

import numpy as np
import pytest
from data import SHARED, coil_file
from scipy.special import lpmv

from bundle.errors import InputError
from bundle.gradients import Coefficients, GradientField, Term, read_coefficients

DUMMY = SHARED / "data" / "gradients" / "gradunwarp_coeffs_dummy.grad"


def independent(coefficients, points):
    """The displacement by angles and scipy's Legendre functions, term by term (its sign of odd orders taken out)."""
    x, y, z = points
    r = np.sqrt(x**2 + y**2 + z**2)
    cosine, phi = np.divide(z, r, out=np.ones_like(r), where=r > 0), np.arctan2(y, x)
    result = np.zeros_like(points)
    for kind, n, m, value, axis in coefficients.terms:
        norm = math.sqrt((2 * n + 1) * math.factorial(n - m) / (2 * math.factorial(n + m))) if m else 1.0
        angle = np.cos(m * phi) if kind == "A" else np.sin(m * phi)
        part = (-1) ** m * norm * lpmv(m, n, cosine) * angle * (r / coefficients.radius) ** n
        result[axis] += coefficients.radius * value * part
    return result


def grid(side, n):
    return np.stack(np.meshgrid(*[np.linspace(-side, side, n)] * 3, indexing="ij"))


def test_the_file_is_read_term_by_term(tmp_path):
    coefficients = read_coefficients(coil_file(tmp_path))
    assert coefficients.radius == 250 and len(coefficients.terms) == 5
    assert coefficients.terms[0] == Term("A", 3, 0, -0.24, 2) and coefficients.terms[4] == Term("B", 5, 3, 1.5e-3, 1)


@pytest.mark.parametrize("source", ["own", "shared"])
def test_the_field_is_that_of_scipys_legendre_functions(source, tmp_path):
    if source == "shared" and not DUMMY.exists():
        pytest.skip("the made-up coil of the shared data is not here")
    coefficients = read_coefficients(DUMMY if source == "shared" else coil_file(tmp_path))
    points = grid(300.0, 25)  # holds the isocentre and the axis, where angles are undefined
    expected = independent(coefficients, points)
    found = GradientField(coefficients).displacement(points)
    assert np.abs(expected).max() > 1
    assert np.abs(found - expected).max() < 1e-5


def test_every_term_up_to_degree_12_agrees():
    points = grid(300.0, 6)
    for n in range(13):
        for m in range(n + 1):
            coil = Coefficients(250.0, tuple(Term(k, n, m, 0.01, 0) for k in ("AB" if m else "A")))
            assert np.allclose(GradientField(coil).displacement(points), independent(coil, points), atol=1e-5), (n, m)


def test_the_derivative_and_the_determinant_are_those_of_the_series(tmp_path):
    field = GradientField(read_coefficients(coil_file(tmp_path)))
    point, step = np.array([60.0, -40.0, 90.0]), 1e-3
    for axis in range(3):
        shift = step * np.eye(3)[axis]
        slope = (field.displacement(point + shift) - field.displacement(point - shift)) / (2 * step)
        assert np.allclose(field.derivative(point)[:, axis], slope, atol=1e-6)
    matrix = np.eye(3) + field.derivative(point)
    assert field.jacobian(point) == pytest.approx(np.linalg.det(matrix), rel=1e-9) and field.jacobian(point) != 1


def test_the_inverse_leads_back_inside_the_valid_radius(tmp_path):
    field = GradientField(read_coefficients(coil_file(tmp_path)))
    assert 100 < field.valid_radius <= 250
    points = grid(0.55 * field.valid_radius, 9)
    shown = field.shown_at(points)
    assert np.abs(shown - points).max() > 1
    assert np.abs(field.lies_at(shown) - points).max() < 0.01


def test_beyond_the_valid_radius_the_displacement_stays_as_it_is_there():
    strong = Coefficients(250.0, (Term("A", 7, 0, 0.9, 2), Term("A", 3, 0, 0.2, 2)))
    field = GradientField(strong)
    assert 20 < field.valid_radius < 240
    axis = np.array([[0.0, 0.0], [0.0, 0.0], [field.valid_radius, 2 * field.valid_radius]])
    moved = field.shown_at(axis) - axis
    assert np.allclose(moved[:, 0], moved[:, 1])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0.25 m = R0, ", "", r"line 6: the table begins, and no line above it says R0"),
        ("0.25 m = R0", "2.5 m = R0", r"line 2: R0 of 2.5 m; allowed is 0.05 to 1 m"),
        ("lnorm = 4", "lnorm = 2", r"line 2: .*only the normalisation lnorm = 4 is known"),
        ("A( 3, 1)", "C( 3, 1)", r"line 9: '101 .*C\( 3, 1\) .*a term reads"),
        (" x\n", " w\n", r"line 9: .*a term reads"),
        ("-0.0300", "-0.03OO", r"line 9: .*a term reads"),
        ("A( 3, 1)", "A( 1, 3)", r"line 9: .*order is at most the degree"),
        ("B( 3, 1)", "B( 3, 0)", r"line 10: .*no term B of order 0"),
        ("A( 5, 0)", "A( 3, 0)", r"line 8: .*this term was there before"),
        ("NO. TYPE", "NUMBER", r"line 1: '# made-up coil'; .*no Siemens .grad file"),
    ],
)
def test_bad_files_are_refused_with_the_line_at_fault(tmp_path, old, new, words):
    path = coil_file(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=words):
        read_coefficients(path)


def test_a_file_that_is_not_there_or_holds_no_terms_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_coefficients(tmp_path / "gone.grad")
    path = coil_file(tmp_path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:6]))
    with pytest.raises(InputError, match="line 6: .*no terms follow"):
        read_coefficients(path)
