"""The run notebook evaluate, on a registered model, with a real kernel."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

NOTEBOOK = Path(__file__).parents[2] / "nbs" / "runs" / "evaluate.ipynb"


def test_the_notebook_has_one_parameters_cell_and_no_stored_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    source = "".join(tagged[0]["source"])
    for name in ("home", "model", "run_id", "start", "end", "version", "known_at"):
        assert f"{name} = " in source
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.system
def test_an_evaluation_run_judges_each_deployment_and_writes_reports(tmp_path, monkeypatch):
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    from mlworkbench import evaluate
    from mlworkbench.core.home import Home
    from mlworkbench.evaluation.log.rows import input_identities, log_rows
    from mlworkbench.evaluation.log.writer import PredictionLog, append_labels
    from mlworkbench.operate.running.runner import run_notebook
    from mlworkbench.operate.training.register import register
    from mlworkbench.scoring.registry.registry import Registry
    from mlworkbench.scoring.version.version import predict

    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("MLWORKBENCH_HOME", str(tmp_path / "home"))
    rows, labels = load_iris(return_X_y=True, as_frame=True)
    rows.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    names = np.array(["setosa", "versicolor", "virginica"], dtype=object)[labels]
    home = Home.open(tmp_path / "home")
    made = register(LogisticRegression(max_iter=500).fit(rows, names), rows, names, name="iris", home=home)
    version = Registry(home).open("iris", made.content_id[:12])
    predictions = predict(version, {name: rows[name].to_numpy() for name in rows}, {})
    with PredictionLog(home.log("iris")) as log:
        for deployment in ("one_off", "batch"):
            log.write(logged := log_rows(
                predictions, model="iris", version=version.version, scorer="reference", deployment=deployment,
                input_ids=input_identities("iris", len(rows)), logged_at=1_700_000_000_000_000,
            ))  # fmt: skip
            known = [
                {"model": "iris", "prediction_id": row["prediction_id"], "value": name, "available_at": 1}
                for row, name in zip(logged, names, strict=True)
            ]
            append_labels(home.log("iris"), known[:140])
    future = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
    append_labels(home.log("iris"), [{**row, "value": "virginica", "available_at": future} for row in known])
    append_labels(home.log("iris"), [{**known[0], "value": "bar", "available_at": 2}])
    ran = run_notebook(NOTEBOOK, {"model": "iris", "version": made.content_id[:12]}, home=home, seconds=300)
    assert (ran.state, ran.error) == ("done", "")
    result = json.loads(ran.result_path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert result["said"][0].startswith("verdict: undecided - the rows are of the same kind as in training (iris:")
    shown = [
        output["data"]
        for cell in json.loads(Path(ran.output).read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", ())
        if "data" in output
    ]
    first, pictures, *tables = shown[:6]
    assert "".join(first["text/markdown"]).startswith("**verdict: undecided - "), "the page begins with the verdict"
    assert "".join(pictures["text/html"]).count("data:image/svg+xml") == 3, "a picture for each class, none of columns"
    assert all("text/markdown" in table for table in tables), "tables come after the pictures"
    assert result["labels"]["skipped"] == 1 and "row 430 (prediction" in result["said"][3]
    assert set(result["reports"]) == {"drift_json", "quality_json"}, "pages of 4 MB are written where asked for"
    assert (result["labels"]["held"], result["drift"]["verdict"]) == (150, "none")
    for name in ("drift_json", "quality_json"):
        json.loads(Path(result["reports"][name]).read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert result["verdict"] == "undecided", "a registered model has no gates"
    assert result["metrics"]["one_off"] == result["metrics"]["batch"]
    assert result["metrics"]["batch"]["accuracy"]["value"] > 0.9
    assert result["rows"]["batch"] == {"rows": 150, "labelled": 140}
    assert max(result["shift"].values()) < 1e-9, "the rows are those it was trained on"
    for path in result["reports"].values():
        assert Path(path).stat().st_size > 1000
    then = {"known_at": "2030-01-02T00:00:00Z", "model": "iris", "version": made.content_id[:12]}
    later = run_notebook(NOTEBOOK, then, home=home, seconds=300)
    assert later.result["metrics"]["batch"]["accuracy"]["value"] < 0.4, "then all are said to be virginica"
    again = evaluate("iris", home=home, version=made.content_id[:12], known_at="2030-01-02T00:00:00Z")
    assert again.metrics == later.result["metrics"] and again.lines[1:] == later.result["said"][1:]
    assert (len(again.pictures), again.reports) == (3, {})
    assert again.reports_line == "no reports: no folder was named for them"
    assert again.metrics_table.count("| batch | accuracy |") == 1, "labels of batch came later: it stands by itself"
    assert again.counts_table.count("\n") == 3 and "declares no gates" in again.gates_table
    assert again.drift_table.startswith("| column | finding |") and "(score_setosa)" in again.drift_table
    then = {"model": "iris", "version": made.content_id[:12], "start": "2030-01-01T00:00:00Z"}
    nothing = run_notebook(NOTEBOOK, then, home=home, seconds=300)
    assert nothing.state == "failed" and "no prediction in the interval" in nothing.error
