"""`clearhead doctor` shows each card and whether it gives the CPU's bits."""

import pytest

from clearhead.cli import doctor
from clearhead.gpu import driver, programs, tile
from tests.gpu.stand_in import StandIn

ALL = programs.KINDS


@pytest.fixture
def card(monkeypatch):
    """A function that installs a stand-in; only one dim is examined, and one kind of kernel unless a test wants all."""

    def install(kind=StandIn, **properties):
        stand_in = kind(**properties)
        monkeypatch.setattr(driver, "library", lambda: stand_in)
        driver.opened.forget()
        return stand_in

    monkeypatch.setattr(tile, "DIMS", (32,))
    monkeypatch.setattr(programs, "KINDS", {"attention": ALL["attention"]})
    yield install
    driver.opened.forget()


def test_a_card(card, monkeypatch):
    card()
    monkeypatch.setattr(programs, "KINDS", ALL)
    facts, checks = doctor.gpus()
    assert facts.pop("GPU") == "Stand-in, compute capability 9.0, driver for CUDA 13.0"
    assert [(check.isa, check.dtype, check.fault) for check in checks] == [
        (f"GPU {kind} 32", "float32", "")
        for kind in ("attention", "windowed", "weights", "numbers", "picture", "received", "pooled")
    ]
    confirmed, emulated = facts["GPU bits"].split("; only in emulation: ")
    assert confirmed == "confirmed: attention (NVIDIA H100 80GB HBM3 and H200, driver 580.159.04, 2026-11-27)"
    assert emulated == (
        "attention with windows and sinks, weights and scores, numbers of each query, maps by the largest weight, "
        "what each key receives in total, maps by sum or mean, score rules and masks beyond windows"
    )


def test_a_card_with_other_bits(card):
    stand_in = card(spoil=lambda ptx: ptx.replace("0f3F800000", "0f3F800001"), cards=2)
    _, checks = doctor.gpus()
    assert not stand_in.texts  # nothing stays loaded
    assert [check.isa for check in checks] == ["GPU 0 attention 32", "GPU 1 attention 32"]
    assert all("numbers differ from the CPU's" in check.fault for check in checks)


def test_no_card_and_an_old_one(card):
    card(refuse={"cuInit": 100})
    assert doctor.gpus() == ({"GPU": "none, for NVIDIA's driver refuses cuInit with error 100"}, [])
    card(_75=7, _76=5)
    facts, checks = doctor.gpus()
    assert "not used: Stand-in has compute capability 7.5" in facts["GPU"]
    assert not checks


def test_no_cards(card):
    card(cards=0)
    assert doctor.gpus() == ({"GPU": "none"}, [])


class FirstIsBroken(StandIn):
    def device_primary_ctx_retain(self, out, handle):
        return 2 if handle.value == 0 else super().device_primary_ctx_retain(out, handle)


def test_a_card_that_cannot_be_opened(card):
    """The others are examined all the same."""
    card(FirstIsBroken, cards=2)
    facts, checks = doctor.gpus()
    assert facts["GPU 0"].startswith("card 0, not used: NVIDIA's driver refuses cuDevicePrimaryCtxRetain with error 2")
    assert facts["GPU 1"].startswith("Stand-in")
    assert [(check.isa, check.fault) for check in checks] == [("GPU 1 attention 32", "")]
