"""The polynomials of functions of score rules are those that scripts/fits works out."""

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from clearhead.definition import error_function, exponentials, inverse_trigonometric, logarithms, roots, trigonometric
from clearhead.definition.arithmetic import Fit

loader = SourceFileLoader("fits", str(Path(__file__).parents[2] / "scripts/fits"))
script = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(script)

MODULES = exponentials, logarithms, trigonometric, inverse_trigonometric, error_function, roots
FITS = {name: x for module in MODULES for name, x in vars(module).items() if isinstance(x, Fit)}


def test_every_polynomial_is_worked_out():
    assert set(FITS) == set(script.PARTS)


@pytest.mark.parametrize("name", FITS)
def test_coefficients_are_those_of_the_script(name):
    assert FITS[name] == script.fits(name)
