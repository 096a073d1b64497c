"""More refused rows than `[contract] max_refused` end a command with exit code 1, and what was scored is kept."""

from pathlib import Path

import pytest

from mlworkbench.cli.context import Context, open_context, refuse_too_many
from mlworkbench.cli.operate.runs import conclude
from mlworkbench.core.settings import load_settings
from mlworkbench.errors import RefusedError, SettingsError
from mlworkbench.operate.running.runner import RunResult


@pytest.fixture
def bad(workbench, facts):
    """Write the model's 150 rows with so many bad ones among them."""
    from sklearn.datasets import load_iris

    facts("train")

    def write(count):
        table = load_iris(as_frame=True).data.rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))
        table = table.astype(object)
        table.loc[: count - 1, "sepal_length"] = "tall"
        table.to_csv("rows.csv", index=False)

    return write


def allow(text):
    file = Path("settings.ini")
    file.write_text(file.read_text() + f"\n[contract]\nmax_refused = {text}\n")


def test_a_few_refused_rows_are_told_and_more_are_exit_code_one_with_the_output_kept(bad, tell, monkeypatch):
    bad(1)
    code, out, _ = tell("score", "rows.csv")
    assert code == 0 and "1 rows refused" in out
    bad(2)
    code, out, err = tell("score", "rows.csv", "--out", "kept.csv")
    assert code == 1 and "148 rows scored" in out and err.count("\n") == 1
    assert "2 of 150 rows (1.3%) were refused, at most 1.0% may be; the output is kept" in err
    assert len(Path("kept.csv").read_text().splitlines()) == 149
    allow("2 %")
    assert tell("score", "rows.csv")[0] == 0
    monkeypatch.setenv("MLWORKBENCH_CONTRACT_MAX_REFUSED", "0")
    assert tell("score", "rows.csv")[0] == 1


@pytest.mark.parametrize(("scored", "rejected", "refused"), [(148, 2, True), (150, 0, False), (99, 1, False)])
def test_a_batch_is_judged_by_what_its_run_counted(workbench, capsys, scored, rejected, refused):
    result = {"metrics": {"scored": scored, "rejected": rejected}}
    run = RunResult("b", "cars", "batch_score", "done", "pass", "", result, Path("r.json"), Path("b.ipynb"))
    try:
        conclude(open_context(), run, as_json=True)
        assert not refused
    except RefusedError as error:
        assert refused and error.code == "contract.max_refused"
    assert '"verdict": "pass"' in capsys.readouterr().out


def test_a_command_without_any_row_is_no_matter_of_shares(workbench):
    refuse_too_many(open_context(), 0, 0)


@pytest.mark.parametrize(("text", "share"), [("0", 0.0), ("5 %", 0.05), ("0.25", 0.25), ("100%", 1.0)])
def test_the_share_is_a_number_or_percent(workbench, text, share):
    allow(text)
    assert load_settings().max_refused == pytest.approx(share)
    refuse_too_many(Context(load_settings(), open_context().home), scored=1 - share, rejected=share)


@pytest.mark.parametrize("text", ["many", "5", "-1 %", "200 %", "nan", "% %"])
def test_another_share_is_refused_in_one_line(workbench, text):
    allow(text)
    with pytest.raises(SettingsError, match="max_refused"):
        load_settings()
