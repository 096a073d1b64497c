"""What a certificate proves, said for a person, and the passport of one prediction."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mlworkbench.core.home import Home
from mlworkbench.lab.certificate.evidence import (
    draw_differences,
    list_differences,
    list_faults,
    list_standing,
    tell_age,
    tell_difference,
)
from mlworkbench.lab.certificate.widgets import CertificatePage
from mlworkbench.operate.certify.certificate import (
    certificate_hashes,
    certificate_rows,
    collect_fields,
    write_certificate,
)
from mlworkbench.operate.certify.reference import predict_reference
from mlworkbench.operate.certify.verdict import DeploymentVerdict
from mlworkbench.scoring.registry.registry import Registry

from ..conftest import read_widget

PARTS = ("standing", "deployments", "differences", "faults", "served", "passport")


def certify_some(home: Home, ref: str = "champion", **changes: object):
    """Sign a certificate of a version: batch is equal, edge as `changes` say."""
    version = Registry(home).open("late", ref)
    rows = certificate_rows(version, home=home, rows=50)
    reference = predict_reference(version, rows, home=home)
    counts = {"rows": 50, "tolerance": 1e-9}
    equal = DeploymentVerdict("batch", "equal", max_difference=8e-16, **counts)
    edge = DeploymentVerdict("edge", "equal", max_difference=0.0, **counts)
    for name, value in changes.items():
        object.__setattr__(edge, name, value)
    fields = collect_fields(version, reference=reference, verdicts=[equal, edge])
    fields |= {"available": 300, "hashes": certificate_hashes(version, rows, reference.lake)}
    return write_certificate(fields, home=home)


def test_every_part_of_a_certificate_is_said_in_words(late: Home) -> None:
    certify_some(late)
    page = CertificatePage(late)
    shown = {name: read_widget(page.part(name)) for name in PARTS}
    assert "less than a minute ago" in shown["standing"] and "yes, champion" in shown["standing"]
    assert "valid, by" in shown["standing"] and "50 of 300" in shown["standing"]
    assert "batch" in shown["deployments"] and "largest difference" in shown["deployments"]
    assert (
        "1,250,000 times smaller than the tolerance" in shown["differences"] and "no difference" in shown["differences"]
    )
    assert "Every row came out equal" in shown["faults"]


def test_rows_that_differ_name_the_step_that_parted(late: Home) -> None:
    certify_some(late, verdict="refused", max_difference=2e-8, mismatches=3, finding="step view, wind")
    page = CertificatePage(late)
    assert "step view, wind" in read_widget(page.part("faults")) and "3 mismatches" in read_widget(page.part("faults"))
    assert "20 times the tolerance" in read_widget(page.part("differences"))


def test_a_certificate_of_another_version_does_not_count_for_this_one(late: Home) -> None:
    other = next(one["tag"] for one in Registry(late).versions("late") if not one["aliases"])
    certificate = certify_some(late, other)
    page = CertificatePage(late)
    shown = read_widget(page.part("standing"))
    assert "has no certificate" in shown and f"{other.partition(':')[2][:8]} has one" in shown
    page.version_menu.value = other
    assert "no, " in read_widget(page.part("standing"))
    assert list_standing(certificate.fields, certificate.path, home=late)["serves"].startswith("no, ")


def test_a_certificate_that_was_altered_is_told(late: Home) -> None:
    certificate = certify_some(late)
    certificate.path.chmod(0o644)
    certificate.path.write_text(certificate.path.read_text().replace('"rows": 50', '"rows": 51', 1))
    assert "altered" in read_widget(CertificatePage(late).part("standing"))


def test_without_a_certificate_the_page_says_which_command_makes_one(late: Home) -> None:
    page = CertificatePage(late)
    assert all("run mlworkbench certify late:" in read_widget(page.part(name)) for name in PARTS[:4])


def test_a_prediction_has_a_passport_and_comes_out_again(late: Home) -> None:
    page = CertificatePage(late)
    page.part("passport")
    assert len(page.prediction.options) == 10
    page.prediction.value = f" {page.prediction.options[3][:8]} "
    page.show.press()
    assert page.prediction.options[3] in page.show.said and "distance" in page.show.said
    page.again.press()
    assert "replay: equal, bit for bit" in page.again.said


@pytest.mark.parametrize(
    ("text", "told"), [("ffffffff", "no prediction begins"), ("ab", "too short"), ("", "too short")]
)
def test_an_id_that_is_none_is_one_line(text: str, told: str, late: Home) -> None:
    page = CertificatePage(late)
    page.part("passport")
    page.prediction.value = text
    page.show.press()
    assert told in page.show.said and "Traceback" not in page.show.said


def test_a_model_that_answered_nothing_says_so(rooms) -> None:
    page = CertificatePage(rooms.home, "trips")
    assert "trips has logged no prediction yet" in read_widget(page.part("passport"))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "less than a minute ago"), (59, "less than a minute ago"), (60, "1 minute ago"), (7200, "2 hours ago"),
     (86_400, "1 day ago"), (-5, "less than a minute ago")],
)  # fmt: skip
def test_an_age_is_told_in_its_largest_unit(seconds: int, told: str) -> None:
    issued = datetime(2026, 11, 30, tzinfo=UTC)
    now = datetime.fromtimestamp(issued.timestamp() + seconds, UTC)
    assert tell_age(issued.isoformat(), now=now) == told


def test_differences_of_any_size_have_words_and_a_bar() -> None:
    row = {"verdict": "equal", "tolerance": 1e-9}
    values = [0.0, 5e-324, 1e-9, 1.0, float("inf"), float("nan")]
    rows = [{"deployment": str(k), "max_difference": value, **row} for k, value in enumerate(values)]
    rows.append({"deployment": "edge", "verdict": "not_declared", "max_difference": None, "tolerance": None})
    told = [one["in words"] for one in list_differences({"deployments": rows})]
    assert len(told) == 6 and told[0] == "no difference" and told[-1] == told[-2] == "beyond any tolerance"
    assert "<svg" in draw_differences({"deployments": rows})
    assert tell_difference(1e-9, 0.0) == "a difference where none is allowed"
    assert list_faults({"deployments": rows}) == []
