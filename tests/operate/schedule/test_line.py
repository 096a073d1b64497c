"""Lines of the schedule: their times on both nights when the clock moves, what is due, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from mlworkbench.errors import SettingsError
from mlworkbench.operate.schedule.line import MOST_MISSED, find_due, find_span, iterate_times, list_values, read_line

NIGHTS = {  # day before the clock goes forward, day before it goes back, in 2013
    "Europe/Berlin": ("2013-03-30", "2013-10-26"),
    "America/New_York": ("2013-03-09", "2013-11-02"),
}


def times(fields: str, zone: str, day: str, number: int = 3) -> list[str]:
    line = read_line("nightly", f"{fields} {zone}: ingest")
    return [line.show(one)[5:] for one in islice(iterate_times(line, datetime.fromisoformat(f"{day}T12:00Z")), number)]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("zone", "fields", "forward", "back"),
    [
        (
            "Europe/Berlin",
            "30 2 * * *",
            ["03-31T03:00+02:00", "04-01T02:30+02:00", "04-02T02:30+02:00"],
            ["10-27T02:30+02:00", "10-28T02:30+01:00", "10-29T02:30+01:00"],
        ),
        (
            "America/New_York",
            "30 1 * * *",
            ["03-10T01:30-05:00", "03-11T01:30-04:00", "03-12T01:30-04:00"],
            ["11-03T01:30-04:00", "11-04T01:30-05:00", "11-05T01:30-05:00"],
        ),
        (
            "America/New_York",
            "15 2 * * *",
            ["03-10T03:00-04:00", "03-11T02:15-04:00", "03-12T02:15-04:00"],
            ["11-03T02:15-05:00", "11-04T02:15-05:00", "11-05T02:15-05:00"],
        ),
    ],
)
def test_the_hour_that_is_missing_runs_and_the_one_that_comes_twice_runs_once(zone, fields, forward, back) -> None:
    for day, expected in zip(NIGHTS[zone], (forward, back), strict=True):
        assert times(fields, zone, day) == expected


@pytest.mark.parametrize("fields", ["*/15 2 * * *", "0,15,30,45 2 * * *", "*/15 */2 * * *"])
def test_a_line_within_an_hour_of_the_clock_keeps_to_that_clock(fields: str) -> None:
    line = read_line("often", f"{fields} Europe/Berlin: ingest")

    def in_hour(start: str) -> list[str]:
        found = find_span(line, start=at(f"{start}T00:00Z"), end=at(f"{start}T02:00Z"))
        return [line.show(one)[11:16] for one in found if line.show(one)[11:13] in ("02", "03")]

    assert in_hour("2013-10-27") == ["02:00", "02:15", "02:30", "02:45"]
    assert in_hour("2013-03-31") == ["03:00"]


@pytest.mark.parametrize("zone", NIGHTS)
def test_a_line_of_every_hour_goes_by_the_hours_that_pass(zone: str) -> None:
    line = read_line("hourly", f"0 * * * * {zone}: batch --last hour")
    for day in NIGHTS[zone]:
        start = at(f"{day}T04:00Z")
        assert find_span(line, start=start, end=start + timedelta(days=2)) == [
            start + timedelta(hours=k) for k in range(48)
        ]


@pytest.mark.parametrize("zone", NIGHTS)
@pytest.mark.parametrize("fields", ["30 2 * * *", "0 2,3 * * *", "*/20 1,2 * * *", "59 23 * * *"])
def test_times_grow_and_each_moment_has_the_same_next_time_whoever_asks(zone: str, fields: str) -> None:
    line = read_line("nightly", f"{fields} {zone}: ingest")
    for day in NIGHTS[zone]:
        start = at(f"{day}T00:00Z")
        found = find_span(line, start=start, end=start + timedelta(days=3))
        assert found == sorted(set(found))
        for minutes in range(0, 3 * 24 * 60, 7):
            moment = start + timedelta(minutes=minutes, seconds=30)
            later = [one for one in found if one > moment]
            assert not later or next(iterate_times(line, moment)) == later[0]


def test_a_year_of_nights_has_as_many_times_as_days() -> None:
    for zone in NIGHTS:
        line = read_line("nightly", f"30 2 * * * {zone}: ingest")
        found = find_span(line, start=at("2013-01-01T12:00Z"), end=at("2014-01-01T12:00Z"))
        assert len(found) == 365


def test_weekdays_are_those_of_cron_and_two_kinds_of_days_are_either() -> None:
    assert times("0 3 * * 0", "UTC", "2013-10-01", 1) == ["10-06T03:00+00:00"]  # a Sunday
    assert times("0 3 * * 7", "UTC", "2013-10-01", 1) == ["10-06T03:00+00:00"]
    assert times("0 3 * * MON-FRI", "UTC", "2013-10-04", 1) == ["10-07T03:00+00:00"]
    assert times("0 3 15 * 1", "UTC", "2013-10-01") == ["10-07T03:00+00:00", "10-14T03:00+00:00", "10-15T03:00+00:00"]
    assert list_values(read_line("x", "0 3 15 * 1 UTC: ingest"))["either"]


def test_commands_are_read_as_a_shell_reads_them() -> None:
    line = read_line("nightly", "0 3 * * * UTC skip: ingest,\n  batch --last day --to 'a, b', label 'my file.csv'")
    assert line.commands == (("ingest",), ("batch", "--last", "day", "--to", "a, b"), ("label", "my file.csv"))
    assert line.skip
    assert read_line("nightly", "0 3 * * * UTC: certify --deployments one_off,batch").commands[0][-1] == "one_off,batch"


def line_of(text: str = "30 2 * * * UTC: ingest"):
    return read_line("nightly", text)


def test_missed_times_are_caught_up_in_order_up_to_a_limit() -> None:
    due = find_due(line_of(), after=at("2013-10-01T02:30Z"), now=at("2013-10-04T12:00Z"))
    assert [one.day for one in due.run] == [2, 3, 4]
    assert (due.missed, due.last_missed) == (0, None)
    year = find_due(line_of(), after=at("2013-01-01T02:30Z"), now=at("2014-01-01T02:29Z"))
    assert len(year.run) == MOST_MISSED
    assert year.missed == 364 - MOST_MISSED
    assert year.last_missed == year.run[0] - timedelta(days=1)
    assert year.run[-1] == at("2013-12-31T02:30Z")


def test_a_line_that_skips_runs_only_the_time_that_has_just_come() -> None:
    line = line_of("30 2 * * * UTC skip: ingest")
    fresh = find_due(line, after=at("2013-10-01T02:30Z"), now=at("2013-10-04T02:31Z"))
    assert fresh.run == (at("2013-10-04T02:30Z"),)
    assert (fresh.missed, fresh.last_missed) == (2, at("2013-10-03T02:30Z"))
    late = find_due(line, after=at("2013-10-01T02:30Z"), now=at("2013-10-04T02:41Z"))
    assert (late.run, late.missed, late.last_missed) == ((), 3, at("2013-10-04T02:30Z"))


def test_nothing_is_due_before_its_time_nor_where_the_clock_went_back() -> None:
    assert not find_due(line_of(), after=at("2013-10-01T02:30Z"), now=at("2013-10-02T02:29:59Z")).run
    assert not find_due(line_of(), after=at("2013-10-05T02:30Z"), now=at("2013-10-02T12:00Z")).run


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", "syntax", "five fields and a zone"),
        ("30 2 * * *: ingest", "syntax", "five fields and a zone"),
        ("30 2 * * Europe/Berlin: ingest", "syntax", "five fields and a zone"),
        ("0 30 2 * * * UTC: ingest", "syntax", "five fields"),
        ("30 2 * * * UTC", "syntax", "colon"),
        ("30 2 * * * UTC always: ingest", "syntax", "five fields"),
        ("@daily UTC: ingest", "syntax", "five fields"),
        ("30 2 L * * UTC: ingest", "syntax", "five fields"),
        ("30 2 * * 1#2 UTC: ingest", "syntax", "five fields"),
        ("61 2 * * * UTC: ingest", "fields", "minute"),
        ("30 25 * * * UTC: ingest", "fields", "hour"),
        ("30 2 * * FRY UTC: ingest", "fields", "week"),
        ("30 5-2 * * * UTC: ingest", "fields", "hour"),
        ("*/0 2 * * * UTC: ingest", "fields", "minute"),
        ("0 0 30 2 * UTC: ingest", "fields", "day"),
        ("30 2 * * * Europe/Berlni: ingest", "zone", "Europe/Berlin"),
        ("30 2 * * * Europe: ingest", "zone", "a zone as"),
        ("30 2 * * * ../../etc/passwd: ingest", "zone", "a zone as"),
        ("30 2 * * * UTC:", "command", "at least one command"),
        ("30 2 * * * UTC: ingest,", "command", "between two commas"),
        ("30 2 * * * UTC: ingest,, batch", "command", "between two commas"),
        ("30 2 * * * UTC: label 'my file", "command", "quotes"),
        ("30 2 * * * UTC: ingest, batsh", "command", "no such thing"),
    ],
)
def test_what_is_wrong_in_a_line_is_one_sentence_with_its_name(text: str, code: str, words: str) -> None:
    def check(command: tuple[str, ...]) -> str:
        return "no such thing" if command == ("batsh",) else ""

    with pytest.raises(SettingsError) as raised:
        read_line("nightly", text, check=check)
    assert raised.value.code == f"schedule.{code}"
    assert str(raised.value).startswith("settings.ini, [schedule] nightly: ")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_name_that_cannot_be_a_file_is_refused() -> None:
    for name in ("Nightly", "a-b", "../x", "", "a" * 41):
        with pytest.raises(SettingsError) as raised:
            read_line(name, "30 2 * * * UTC: ingest")
        assert raised.value.code == "schedule.name"


def test_any_text_is_a_line_or_one_sentence() -> None:
    from hypothesis import given, settings
    from hypothesis import strategies as st

    signs = st.text(st.sampled_from(list("0123459*,/- :UTCMONskip'\"\\\n\t%é")), max_size=40)

    @given(st.one_of(st.text(max_size=40), signs, signs.map(lambda text: f"{text} UTC: ingest")))
    @settings(max_examples=60, deadline=None)
    def read(text: str) -> None:
        try:
            assert read_line("nightly", text).commands
        except SettingsError as error:
            assert error.code.startswith("schedule.")

    read()


def test_now_is_in_utc_whatever_zone_is_shown() -> None:
    assert line_of().show(datetime(2013, 10, 2, tzinfo=UTC)) == "2013-10-02T00:00+00:00"
