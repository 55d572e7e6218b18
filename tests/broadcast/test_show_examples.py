"""The examples of shows, each a process of its own: what they say at the end is what happened to sound and money."""

from pathlib import Path

import pytest
from example_runs import run_python

EXAMPLES = Path(__file__).parents[2] / "examples"


def said_by(name):
    return run_python(EXAMPLES / name)


def test_a_producer_and_a_relay_that_are_blocked_are_missed_by_nobody():
    assert said_by("show_radio.py") == [
        "on air: evening news, heard from the producer",
        "the producer's address is blocked",
        "the relay that is heard instead is gone",
        "good evening this is the news which nobody stops",
    ]


@pytest.mark.slow
def test_three_pay_for_a_radio_and_the_rest_comes_back():
    said = said_by("show_paid_radio.py")
    assert [line for line in said if line.startswith("the radio is")] == [
        "the radio is funding",
        "the radio is on air",
        "the radio is paused",
        "the radio is on air",
    ]
    assert "Carla has something back" in said
    assert said[-2:] == [
        "what was paid is what the station has and what came back: True",
        "all three heard it: True",
    ]


@pytest.mark.slow
def test_a_concert_is_heard_by_who_has_a_ticket_and_one_without_enough_is_paid_back():
    assert said_by("show_concert.py")[-4:] == [
        "Anna hears la la la!",
        "Ben hears la la la!",
        "Zoe hears nothing: no-ticket",
        "of the second concert Anna has 0.1 SUI back",
    ]


@pytest.mark.slow
def test_requests_are_sorted_by_what_was_paid():
    said = said_by("show_requests.py")
    assert said[0] == "a request for 1 MIST isn't taken"
    assert said[2:5] == [
        "  0.011 SUI, request: the one with the whale",
        "  0.008 SUI, request: something slow",
        "  0.001 SUI, tip: for you alone",
    ]
    assert said[8] == "  0.001 SUI, tip: (sealed)"
    assert said[10:] == [
        "  0.008 SUI, request: something slow",
        "  0.001 SUI, tip: for you alone",
        "the station has 0.020 SUI",
    ]
