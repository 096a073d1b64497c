"""Faults planted in running deployments are caught, and the finder names the place; clean rows are never refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults import FAULTS, Outcome, World, build_world, clean, environment, examined
from planted_steps import FAULTS as STEP_FAULTS
from planted_steps import STEPS, find_step

from mlworkbench.deploy.realtime.process import start_service

pytestmark = pytest.mark.system
NAMES = [fault.name for fault in FAULTS]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    for name in STEPS:
        find_step(name)
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        built = build_world(folder)
        with start_service("late", home=built.home, version=built.version.version) as service:
            built.urls.append(service.url)
            yield built


@pytest.fixture(scope="module")
def outcomes(world: World) -> dict[str, Outcome]:
    return {fault.name: examined(world, fault) for fault in FAULTS}


@pytest.mark.parametrize("name", STEPS)
def test_the_step_of_each_planted_fault_is_where_the_table_says(name: str) -> None:
    assert callable(find_step(name)[2])
    assert name in STEP_FAULTS


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_fault_is_caught_by_what_must_catch_it(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    assert not outcome.uncalled, f"the faulty step was never called, so nothing was planted: {outcome.uncalled}"
    assert outcome.caught, (outcome.line(), outcome.verdict)


def test_the_finder_is_right_on_at_least_95_of_100_faults_in_under_5_seconds_each(
    outcomes: dict[str, Outcome],
) -> None:
    lines = [outcome.line() for outcome in outcomes.values()]
    print("", f"{'fault':38} {'size':26} {'caught by':20} named", *lines, sep="\n")
    assert len(lines) == 34
    assert sum(outcome.found for outcome in outcomes.values()) >= 0.95 * len(lines), lines
    assert max(outcome.seconds for outcome in outcomes.values()) < 5


def test_the_faulty_service_is_right_again_when_no_fault_is_on(world: World, outcomes: dict[str, Outcome]) -> None:
    assert {one.verdict for one in clean(world, 0)} == {"equal"}


def test_thirty_clean_draws_are_not_refused(world: World) -> None:
    assert_equal(world, range(30))


@pytest.mark.long
def test_a_thousand_clean_draws_are_not_refused(world: World) -> None:
    assert_equal(world, range(1000))


def assert_equal(world: World, seeds: range) -> None:
    verdicts = [one for seed in seeds for one in clean(world, seed)]
    assert [one for one in verdicts if one.verdict != "equal"] == []
