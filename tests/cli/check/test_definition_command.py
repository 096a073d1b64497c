"""`mlworkbench check` tells before training whether a definition holds: 0 it does, 1 it does not, 2 nobody knows it."""

import pytest

from mlworkbench.core.home import Home


def test_a_new_workbench_holds_and_nothing_is_trained(workbench, tell, facts):
    code, out, err = tell("check")
    assert (code, err) == (0, "")
    first, *lines = out.splitlines()
    assert first == "cars: all is well" and [line.split()[0] for line in lines] == ["ok"] * len(lines)
    assert facts("check", "definition:cars")["verdict"] == "pass"
    assert not Home.open(create=False).model("cars").exists()


def test_what_does_not_hold_comes_first_with_its_way_out_and_ends_with_one(workbench, tell):
    text = (workbench / "definition.py").read_text()
    (workbench / "definition.py").write_text(text.replace('"accuracy"', '"rmse"'))
    code, out, err = tell("check", "cars")
    assert code == 1 and out.startswith("cars: first: ") and "rmse is no metric of a multiclass model" in out
    assert err == "error: cars does not hold: gates; see the way out beside each\n"


@pytest.mark.parametrize(("wrong", "said"), [("carz", "did you mean 'cars'"), ("definition:carz", "an attribute of")])
def test_a_model_that_nobody_knows_is_one_line_and_exit_code_two(workbench, tell, wrong, said):
    code, out, err = tell("check", wrong)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
