"""`mlworkbench monitor`: by the command line, in its notebook, the last day by default."""

import json
from pathlib import Path

import pytest
from sklearn.datasets import load_iris

NOTEBOOK = Path(__file__).parents[3] / "nbs" / "runs" / "monitor.ipynb"


@pytest.mark.system
def test_the_last_day_is_watched_shown_and_kept(workbench, facts):
    trained = facts("train")
    rows = load_iris(as_frame=True).data
    rows.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    rows.to_csv("flowers.csv", index=False)
    facts("score", "flowers.csv")
    found = facts("monitor")
    (window,) = found["windows"]
    assert (window["deployment"], window["version"]) == ("one_off", trained["version"])
    assert window["rows"] == found["metrics"]["rows"] == 150
    assert found["said"][0].startswith(f"verdict: {found['verdict']} (cars, ")
    page = json.loads(Path(found["output"]).read_text(encoding="utf-8"))
    shown = [name for cell in page["cells"] for out in cell.get("outputs", ()) for name in out.get("data", ())]
    assert shown.count("image/svg+xml") == 5 and "text/markdown" in shown
    assert not [out for cell in page["cells"] for out in cell.get("outputs", ()) if out["output_type"] == "error"]
    lines = (workbench / ".workbench" / "cars" / "monitor").glob("*.jsonl")
    assert [len(path.read_text().splitlines()) for path in lines] == [1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--last", "soon"], "--last: 'soon' is no span of time"),
        (["--last", "day", "--start", "2013-10-01"], "--start: not with --last"),
        (["--model", "carz"], "did you mean 'cars'?"),
        (["--start", "2013-10-02", "--end", "2013-10-01"], "start"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(workbench, tell, words, said):
    code, out, err = tell("monitor", *words)
    assert (code, out) == (2, "") and said in err and err.strip().splitlines()[-1].startswith("error: ")


def test_the_notebook_stores_no_output_and_takes_the_shared_parameters_alone():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (tagged,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    names = [line.partition(" = ")[0] for line in "".join(tagged["source"]).splitlines()]
    assert names == ["home", "model", "run_id", "start", "end", "version"]
    assert not any(cell.get("outputs") for cell in cells)
