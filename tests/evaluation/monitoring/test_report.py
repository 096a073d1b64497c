"""Evidently's reports, their methods and thresholds, and the card."""

import json

import numpy as np
import pandas as pd
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.errors import ProfileError
from mlworkbench.evaluation.card import compose_card, describe_rule, show, write_table
from mlworkbench.evaluation.monitoring.drift import jensen_shannon, plan_drift, wasserstein
from mlworkbench.evaluation.monitoring.profile import profile_frame
from mlworkbench.evaluation.monitoring.report import ReportPlace, make_report_sides, read_drift, write_reports
from mlworkbench.scoring.frame import FeatureFrame


def make_table(count=3000, seed=0, shift=0.0):
    draws = np.random.default_rng(seed)
    wind = draws.normal(shift, 1, count)
    wind[::9] = np.nan
    carrier = draws.choice(["AA", "UA", "DL"], count).astype(object)
    carrier[::8] = None
    return pd.DataFrame({"wind": wind, "carrier": carrier, "empty": np.full(count, np.nan)})


ABOUT = {"model": "flights", "version": "flights:1f3a", "rows": "2 rows of 2013-10-01 to 2013-10-02", "run": "<r>"}
ABOUT |= {"back": "mlworkbench runs show r --model flights"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "deep"
    sides = make_table(), make_table(seed=1, shift=1.0)
    place = ReportPlace(folder=folder, html=True, about=ABOUT, workspace=tmp_path_factory.mktemp("evidently") / "own")
    return write_reports(*sides, place, numeric=["wind", "empty"], categorical=["carrier"])


def test_four_files_are_written_and_nothing_else(written):
    written = {name: path for name, path in written.items() if name != "workspace"}
    assert set(written) == {"drift_json", "drift_html", "quality_json", "quality_html"}
    folder = written["drift_json"].parent
    assert {file.name for file in folder.iterdir()} == {path.name for path in written.values()}
    assert "<html" in written["drift_html"].read_text(encoding="utf-8")[:2000].lower()
    assert json.loads(written["quality_json"].read_text(encoding="utf-8"))["metrics"]


def test_pages_are_written_where_asked_for_and_json_says_what_it_is_about(tmp_path):
    files = write_reports(make_table(50), make_table(50), ReportPlace(folder=tmp_path, about=ABOUT), numeric=["wind"])
    assert set(files) == {"drift_json", "quality_json"} == {f"{path.stem}_json" for path in tmp_path.iterdir()}
    assert json.loads(files["drift_json"].read_text(encoding="utf-8"))["about"] == ABOUT
    assert files["drift_json"].stat().st_mode & 0o077 == 0


def test_a_page_says_model_version_rows_run_and_the_way_back(written):
    for name in ("drift_html", "quality_html"):
        page = written[name].read_text(encoding="utf-8")
        header = page[page.index("<header") : page.index("</header>")]
        assert page.count("<header") == 1 and page.index("<header") > page.index("<body")
        for text in ("flights:1f3a", ABOUT["rows"], "run: &lt;r&gt;", ABOUT["back"], 'href="../"'):
            assert text in header


def test_a_workspace_is_made_and_shows_each_report_by_model_and_version(written):
    from evidently.ui.workspace import Workspace

    workspace = Workspace(str(written["workspace"]))
    (project,) = workspace.search_project("flights")
    runs = [workspace.get_run(project.id, run) for run in workspace.list_runs(project.id)]
    assert sorted(run.name for run in runs) == ["drift", "quality"]
    assert all(run.metadata == ABOUT and run.tags == ["flights", "flights:1f3a"] for run in runs)
    assert written["workspace"].stat().st_mode & 0o077 == 0


def test_a_second_run_goes_into_the_same_project(written, tmp_path):
    from evidently.ui.workspace import Workspace

    folder = written["workspace"]
    place = ReportPlace(folder=tmp_path, workspace=folder, about={**ABOUT, "version": "flights:2b"})
    write_reports(make_table(50), make_table(50), place, numeric=["wind"])
    (project,) = Workspace(str(folder)).list_projects()
    versions = [Workspace(str(folder)).get_run(project.id, run).metadata["version"] for run in project_runs(folder)]
    assert sorted(versions) == ["flights:1f3a", "flights:1f3a", "flights:2b", "flights:2b"]


def project_runs(folder):
    from evidently.ui.workspace import Workspace

    workspace = Workspace(str(folder))
    (project,) = workspace.list_projects()
    return workspace.list_runs(project.id)


def test_method_and_threshold_are_named_for_every_column(written):
    found = read_drift(written["drift_json"])
    assert {name: row["method"] for name, row in found.items()} == {"wind": "wasserstein", "carrier": "jensenshannon"}
    assert all(row["threshold"] >= 0.1 for row in found.values())
    assert (found["wind"]["drift"], found["carrier"]["drift"]) == (True, False)


def test_the_distances_are_those_evidently_computes(written):
    found, before, after = read_drift(written["drift_json"]), make_table(), make_table(seed=1, shift=1.0)
    wind = [side["wind"].dropna().to_numpy() for side in (before, after)]
    carrier = [side["carrier"].dropna().to_numpy(dtype=object) for side in (before, after)]
    assert found["wind"]["distance"] == pytest.approx(wasserstein(*wind))
    assert found["carrier"]["distance"] == pytest.approx(jensen_shannon(*carrier))


def test_a_season_inside_the_reference_raises_its_own_threshold():
    steady = np.random.default_rng(0).normal(size=2000)
    season = steady + np.linspace(0, 4, 2000)
    plan = plan_drift(pd.DataFrame({"steady": steady, "season": season}), numeric=["steady", "season"])
    assert plan["steady"]["threshold"] < 0.25 < 1 < plan["season"]["threshold"]


@pytest.mark.parametrize(("table", "message"), [(make_table(0), "no rows"), (make_table(5)[["wind"]], "'carrier'")])
def test_a_side_without_rows_or_columns_is_refused(tmp_path, table, message):
    with pytest.raises(ProfileError, match=message):
        write_reports(make_table(50), table, ReportPlace(folder=tmp_path), numeric=["wind"], categorical=["carrier"])
    assert list(tmp_path.iterdir()) == []


def test_both_sides_come_from_profile_and_log_in_the_same_words():
    carrier = np.array(["AA"] * 300 + ["UA"] * 299 + ["rare"], dtype=object)
    frame = FeatureFrame({"wind": np.arange(600.0), "late": np.arange(600) % 2 == 0, "carrier": carrier})
    profile = profile_frame(frame, np.linspace(0, 1, 600))
    before, after, kinds = make_report_sides(profile, frame, np.linspace(0, 1, 600))
    assert kinds == {"numeric": ["wind", "score"], "categorical": ["late", "carrier"]}
    pd.testing.assert_frame_equal(before, after, check_dtype=False)
    assert set(after["carrier"]) == {"AA", "UA", "(rest)"}
    several = profile_frame(frame, np.ones((600, 3)) / 3)
    named = make_report_sides(several, frame, np.ones((600, 3)) / 3, names=["score_a", "score_b", "score_c"])
    assert named[2]["numeric"] == ["wind", "score_a", "score_b", "score_c"]


REQUEST = Contract((
    Column("distance", "number", lower=0, upper=5000, unit="miles"),
    Column("carrier", "category", categories=tuple("ABCDEFGH"), nullable=True, learned=True),
    Column("tail", "text", nullable=True, allow="tails unknown to planes are allowed"),
))  # fmt: skip
METRICS = {
    "roc_auc": {"value": 0.7412, "low": 0.733, "high": 0.749, "n": 27000},
    "r2": {"value": None, "low": None, "high": None, "n": 3, "reason": "labels do not vary"},
}
GATES = {"verdict": "pass", "gates": [{"metric": "roc_auc", "rule": ">=", "bound": 0.72, "verdict": "pass"}]}


def test_a_card_says_what_how_good_what_it_takes_and_how_to_ask():
    page = compose_card(
        {"model": "flights", "task": "binary", "label": "late", "classes": [0, 1], "personal": ["tail"]},
        METRICS,
        gates=GATES,
        profile={"rows": 9, "columns": {"carrier": {"missing": 0.08}}},
        request=REQUEST,
        frame=REQUEST.select(["distance"]),
        notes=["trained on January to August"],
    )
    for part in (
        "# flights",
        "| roc_auc | 0.741 | 0.733 to 0.749 | 27000 | >= 0.72 | pass |",
        "| r2 | - | labels do not vary | 3 | - | - |",
        "| carrier | category | - | seen: A, B, C, D, E, F and 2 more, may be missing, learned | 8.0 % |",
        "carrier (8 %)",
        "Personal columns (tail)",
        "## What the model sees",
        "- trained on January to August",
        "mlworkbench serve --model flights",
    ):
        assert part in page
    example = json.loads(page.split("```json\n")[1].split("```")[0])
    assert set(example) == set(REQUEST.names)


def test_a_card_of_a_model_that_was_not_measured_says_so():
    page = compose_card({"model": "m"}, {}, gates={"verdict": "undecided", "gates": []}, profile={}, request=REQUEST)
    assert "Nothing was measured." in page and "**undecided**" in page


def test_rules_are_words_and_cells_stay_in_their_table():
    assert [describe_rule(column) for column in REQUEST.columns][::2] == [
        "0 to 5000",
        "may be missing, tails unknown to planes are allowed",
    ]
    assert describe_rule(Column("x", "number", upper=1)) == "at most 1"
    assert show("a|b\nc") == "a|b c" and write_table(["x"], [["a|b\nc"]]).endswith("| a\\|b c |")
    numbers = [show(number) for number in (0.0, 1.0, 0.5, 1e-9, 12345.6, True)]
    assert numbers == ["0", "1", "0.5", "1e-09", "12,346", "True"]
