"""A card for tests: a stand-in for NVIDIA's driver, whose kernels no self-test has compared."""

import pytest

from clearhead.gpu import driver
from tests.gpu.stand_in import StandIn


class Cards:
    """A card whose kernels are not compared before: a test tells whether the self-test would refuse them."""

    def __init__(self, monkeypatch) -> None:
        self.monkeypatch = monkeypatch

    def __call__(self, **properties) -> driver.Card:
        stand_in = StandIn(**properties)
        self.monkeypatch.setattr(driver, "library", lambda: stand_in)
        driver.opened.forget()
        return driver.driver().card(0)


@pytest.fixture
def cards(monkeypatch):
    yield Cards(monkeypatch)
    driver.opened.forget()
