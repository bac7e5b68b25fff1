"""`clearhead doctor` shows each card and whether it gives the CPU's bits."""

import pytest

from clearhead.cli import doctor
from clearhead.gpu import driver
from tests.gpu.stand_in import StandIn


@pytest.fixture
def card(monkeypatch):
    """A function that installs a stand-in; only one dim is examined."""

    def install(**properties):
        stand_in = StandIn(**properties)
        monkeypatch.setattr(driver, "library", lambda: stand_in)
        driver.opened.forget()

    monkeypatch.setattr(doctor, "DIMS", (32,))
    yield install
    driver.opened.forget()


def test_a_card(card):
    card()
    facts, checks = doctor.gpus()
    assert facts == {"GPU": "Stand-in, compute capability 9.0, driver for CUDA 13.0"}
    assert [(check.isa, check.dtype, check.fault) for check in checks] == [("GPU dim 32", "float32", "")]


def test_a_card_with_other_bits(card):
    card(spoil=lambda ptx: ptx.replace("0f3F800000", "0f3F800001"), cards=2)
    _, checks = doctor.gpus()
    assert [check.isa for check in checks] == ["GPU 0 dim 32", "GPU 1 dim 32"]
    assert all("numbers differ from the CPU's" in check.fault for check in checks)


def test_no_card_and_an_old_one(card):
    card(refuse={"cuInit": 100})
    assert doctor.gpus() == ({"GPU": "none, for NVIDIA's driver refuses cuInit with error 100"}, [])
    card(_75=7, _76=5)
    facts, checks = doctor.gpus()
    assert "not used: Stand-in has compute capability 7.5" in facts["GPU"]
    assert not checks
