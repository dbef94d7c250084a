//! When schedules are due, in every kind of time zone trouble; what is done about missed due times; what the loader says.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Timestamp;

const KNOWN: Known<'_> = Known { blueprints: &["report", "backup"], clients: &["acme", "globex"] };

fn at(text: &str) -> Timestamp {
    Timestamp::from_rfc3339(text).unwrap_or_else(|| panic!("{text} is a time"))
}

/// The timing of a schedule with these keys.
fn timing(keys: &str) -> Timing {
    let text = format!("[s]\nblueprint = \"report\"\nclient = \"acme\"\n{keys}");
    let mut schedules =
        parse("test.toml", &text, KNOWN).unwrap_or_else(|errors| panic!("{keys}: {errors:?}"));
    schedules.remove(0).timing
}

fn following(timing: &Timing, after: &str, count: usize) -> Vec<String> {
    timing.following(at(after)).take(count).map(Timestamp::to_rfc3339).collect()
}

#[test]
fn due_times_follow_from_the_rule() {
    for (keys, after, due) in [
        ("cron = '0 3 * * *'", "2026-01-01T03:00:00Z", ["2026-01-02T03:00:00Z", "2026-01-03T03:00:00Z"]),
        (
            "cron = '*/20 9-10 * * mon-fri'",
            "2026-01-02T10:35:00Z",
            ["2026-01-02T10:40:00Z", "2026-01-05T09:00:00Z"],
        ),
        (
            "cron = '*/30 * * * * *'",
            "2026-01-01T00:00:00.5Z",
            ["2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"],
        ),
        ("cron = '0 0 29 2 *'", "2024-03-01T00:00:00Z", ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]),
        ("cron = '0 12 L * *'", "2026-02-01T00:00:00Z", ["2026-02-28T12:00:00Z", "2026-03-31T12:00:00Z"]),
        ("interval = '15m'", "2026-01-01T00:00:00Z", ["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"]),
        (
            "interval_seconds = 5",
            "2026-01-01T00:00:04.999999Z",
            ["2026-01-01T00:00:05Z", "2026-01-01T00:00:10Z"],
        ),
        ("interval = '1500ms'", "2026-01-01T00:00:00Z", ["2026-01-01T00:00:01.5Z", "2026-01-01T00:00:03Z"]),
        ("daily_at = '03:00'", "2026-01-01T02:59:59Z", ["2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"]),
        (
            "daily_at = ['18:30', 06:00:30]",
            "2026-01-01T07:00:00Z",
            ["2026-01-01T18:30:00Z", "2026-01-02T06:00:30Z"],
        ),
        (
            "weekly_days = ['Fri', 'monday']\ntime = '09:00'",
            "2026-01-02T09:00:00Z",
            ["2026-01-05T09:00:00Z", "2026-01-09T09:00:00Z"],
        ),
        (
            "monthly_dates = [31]\ntime = ['00:00', '12:00']",
            "2026-01-31T12:00:00Z",
            ["2026-03-31T00:00:00Z", "2026-03-31T12:00:00Z"],
        ),
        (
            "monthly_dates = [15, 'last']\ntime = '00:00'",
            "2028-02-01T00:00:00Z",
            ["2028-02-15T00:00:00Z", "2028-02-29T00:00:00Z"],
        ),
        (
            "monthly_dates = [30]\ntime = '00:00'",
            "2026-01-30T00:00:00Z",
            ["2026-03-30T00:00:00Z", "2026-04-30T00:00:00Z"],
        ),
        (
            "daily_at = '09:00'\ntime_zone = 'Asia/Kolkata'",
            "2026-01-01T00:00:00Z",
            ["2026-01-01T03:30:00Z", "2026-01-02T03:30:00Z"],
        ),
    ] {
        assert_eq!(following(&timing(keys), after, 2), due, "{keys}");
    }
}

/// Where clocks go forward, a time of day may not exist: it is due when the gap is over. Where they go back, it may exist
/// twice: it is due once, the first time. What is due every so many minutes goes on being due every so many minutes.
#[test]
fn clocks_that_go_forward_or_back_neither_swallow_a_due_time_nor_repeat_it() {
    for (keys, zone, after, due) in [
        // Europe, 29 March 2026: 02:00 is followed by 03:00 at 01:00Z.
        (
            "daily_at = '02:30'",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        ),
        (
            "cron = '30 2 * * *'",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        ),
        // Two times of day that meet at the end of the gap are one due time.
        (
            "daily_at = ['02:30', '03:00']",
            "Europe/Berlin",
            "2026-03-29T00:00:00Z",
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        ),
        (
            "cron = '*/30 * * * *'",
            "Europe/Berlin",
            "2026-03-29T00:30:00Z",
            ["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"],
        ),
        // Europe, 25 October 2026: 03:00 is followed by 02:00 at 01:00Z.
        (
            "daily_at = '02:30'",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        ),
        (
            "cron = '30 2 * * *'",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        ),
        (
            "cron = '*/30 * * * *'",
            "Europe/Berlin",
            "2026-10-25T00:30:00Z",
            ["2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"],
        ),
        // The United States, 8 March and 1 November 2026.
        (
            "daily_at = '02:30'",
            "America/New_York",
            "2026-03-08T00:00:00Z",
            ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"],
        ),
        (
            "daily_at = '01:30'",
            "America/New_York",
            "2026-11-01T00:00:00Z",
            ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"],
        ),
        // Lord Howe Island moves by half an hour: on 4 October 2026 at 02:00, and back on 5 April at 02:00.
        (
            "daily_at = '02:15'",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"],
        ),
        (
            "daily_at = '01:45'",
            "Australia/Lord_Howe",
            "2026-04-04T00:00:00Z",
            ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"],
        ),
        // Lebanon changes at midnight: on 29 March 2026 there is no 00:00.
        (
            "daily_at = '00:00'",
            "Asia/Beirut",
            "2026-03-28T00:00:00Z",
            ["2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z"],
        ),
        (
            "cron = '0 0 * * *'",
            "Asia/Beirut",
            "2026-03-28T00:00:00Z",
            ["2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z"],
        ),
        // Samoa had no 30 December 2011.
        (
            "daily_at = '12:00'",
            "Pacific/Apia",
            "2011-12-29T12:00:00Z",
            ["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z"],
        ),
    ] {
        let timing = timing(&format!("{keys}\ntime_zone = '{zone}'"));
        assert_eq!(following(&timing, after, 2), due, "{keys} in {zone}");
    }
}

fn any_timing() -> impl Strategy<Value = Timing> {
    let rules = proptest::sample::select(vec![
        "cron = '30 2 * * *'",
        "cron = '*/7 * * * *'",
        "cron = '0 */3 * * *'",
        "cron = '15 1,2,3 * * sun'",
        "cron = '0 0 1 * *'",
        "cron = '10 59 1 * * *'",
        "interval = '45m'",
        "interval = '7s'",
        "daily_at = ['00:00', '01:30', '02:30', '23:59:59']",
        "weekly_days = ['sun']\ntime = ['00:00', '02:15']",
        "monthly_dates = [1, 29, 'last']\ntime = '02:45'",
    ]);
    let zones = proptest::sample::select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Beirut",
        "America/St_Johns",
    ]);
    (rules, zones).prop_map(|(rule, zone)| timing(&format!("{rule}\ntime_zone = '{zone}'")))
}

/// Around the changes of the clocks in 2026, and elsewhere.
fn any_time() -> impl Strategy<Value = Timestamp> {
    let days = proptest::sample::select(vec![
        "2026-03-08T00:00:00Z",
        "2026-03-28T12:00:00Z",
        "2026-04-04T06:00:00Z",
        "2026-07-01T00:00:00Z",
        "2026-10-03T06:00:00Z",
        "2026-10-24T12:00:00Z",
        "2026-11-01T00:00:00Z",
    ]);
    (days, 0..36 * 3_600_000_000_u64).prop_map(|(day, micros)| at(day) + Duration::from_micros(micros))
}

proptest! {
    /// Looking back and looking ahead, everybody sees the same due times: no restart, and no policy, depends on the direction.
    #[test]
    fn the_due_times_are_the_same_in_both_directions(timing in any_timing(), from in any_time()) {
        let ahead: Vec<Timestamp> = timing.following(from).take(12).collect();
        prop_assert_eq!(ahead.len(), 12);
        prop_assert!(ahead[0] > from && ahead.is_sorted_by(|a, b| a < b), "{:?}", ahead);
        let mut back: Vec<Timestamp> = timing.preceding(ahead[11]).take_while(|due| *due > from).collect();
        back.reverse();
        prop_assert_eq!(&back, &ahead, "{}", timing);
        // And from any point in between.
        let between = ahead[4] + ahead[5].saturating_since(ahead[4]) / 2;
        prop_assert_eq!(timing.next_after(between), Some(ahead[5]));
        prop_assert_eq!(timing.last_until(between), Some(ahead[4]));
    }
}

#[test]
fn a_timing_reads_as_what_it_is_and_another_one_reads_otherwise() {
    for (keys, text) in [
        ("cron = '0  3 * * *'\ntime_zone = 'europe/berlin'", "cron 0 3 * * * Europe/Berlin"),
        ("interval_seconds = 7200", "every 2h"),
        ("interval = '90s'", "every 90s"),
        ("daily_at = ['12:00', '03:00', '12:00']", "daily at 03:00, 12:00 UTC"),
        ("weekly_days = ['sun', 'tue']\ntime = '09:00:01'", "weekly on tue, sun at 09:00:01 UTC"),
        ("monthly_dates = ['last', 15, 1]\ntime = '00:00'", "monthly on 1, 15, last at 00:00 UTC"),
    ] {
        assert_eq!(timing(keys).to_string(), text);
    }
}

// ---- What is due ----

#[test]
fn missed_due_times_are_let_go_made_up_by_one_or_made_up_one_by_one() {
    let hourly = timing("interval = '1h'");
    let decided = at("2026-01-01T00:00:00Z");
    let due_at = |on_missed, now| {
        let Due { let_go, runs } = due(&hourly, on_missed, decided, at(now));
        let hours = |time: Timestamp| time.saturating_since(decided).as_secs() / 3600;
        (let_go.map(hours), runs.into_iter().map(hours).collect::<Vec<_>>())
    };
    for (on_missed, now, let_go, runs) in [
        // Nothing is due, and then something is, and was noticed in time.
        (OnMissed::Skip, "2026-01-01T00:59:59Z", None, vec![]),
        (OnMissed::Skip, "2026-01-01T01:00:00Z", None, vec![1]),
        (OnMissed::Skip, "2026-01-01T01:01:00Z", None, vec![1]),
        (OnMissed::Once, "2026-01-01T01:00:00Z", None, vec![1]),
        (OnMissed::All, "2026-01-01T01:00:00Z", None, vec![1]),
        // A minute and more is late.
        (OnMissed::Skip, "2026-01-01T01:01:01Z", Some(1), vec![]),
        (OnMissed::Once, "2026-01-01T01:01:01Z", None, vec![1]),
        // Several were missed.
        (OnMissed::Skip, "2026-01-01T03:30:00Z", Some(3), vec![]),
        (OnMissed::Skip, "2026-01-01T03:00:30Z", Some(2), vec![3]),
        (OnMissed::Once, "2026-01-01T03:30:00Z", Some(2), vec![3]),
        (OnMissed::All, "2026-01-01T03:30:00Z", None, vec![1, 2, 3]),
        // A clock that was set back is met by nothing that is due.
        (OnMissed::All, "2025-12-31T12:00:00Z", None, vec![]),
    ] {
        assert_eq!(due_at(on_missed, now), (let_go, runs), "{on_missed:?} at {now}");
    }
}

#[test]
fn what_is_made_up_has_a_limit() {
    let every_second = timing("interval = '1s'");
    let decided = at("2026-01-01T00:00:00Z");
    let Due { let_go, runs } =
        due(&every_second, OnMissed::All, decided, decided + Duration::from_secs(200_000));
    assert_eq!((runs.len(), runs[0]), (CATCH_UP_MAX, decided + Duration::from_secs(199_001)));
    assert_eq!(let_go, Some(decided + Duration::from_secs(199_000)));
}

// ---- The loader ----

#[test]
fn a_schedule_is_read_with_all_that_it_may_say() {
    let text = r#"
        [nightly]
        description = "The report of the day before"
        blueprint = "report"
        client = "globex"
        initial_data = { kind = "full", since = 2026-01-01, depth = [1, 2.5, true] }
        labels = { team = "billing" }
        priority = -7
        dispatch_timeout = "10m"
        result_timeout = 7200
        webhook_url = "https://example.com/hook"
        daily_at = ["03:00"]
        time_zone = "Europe/Berlin"
        on_missed = "all"
        overlap = "cancel"
        enabled = false

        [tick]
        blueprint = "backup"
        client = "acme"
        input_data = { old = "name" }
        interval_seconds = 60
    "#;
    let schedules = parse("test.toml", text, KNOWN).unwrap();
    let [nightly, tick] = &schedules[..] else { panic!("{schedules:?}") };
    let submission = &nightly.submission;
    assert_eq!((&*nightly.name, &*nightly.blueprint, &*nightly.client), ("nightly", "report", "globex"));
    assert_eq!(
        submission.initial_data.as_str(),
        r#"{"depth":[1,2.5,true],"kind":"full","since":"2026-01-01"}"#
    );
    assert_eq!(submission.labels.iter().collect::<Vec<_>>(), [(&"team".to_owned(), &"billing".to_owned())]);
    assert_eq!(submission.priority, -7);
    assert_eq!(submission.dispatch_timeout, Some(Duration::from_secs(600)));
    assert_eq!(submission.result_timeout, Some(Duration::from_secs(7200)));
    assert_eq!(submission.webhook_url.as_deref(), Some("https://example.com/hook"));
    assert_eq!(
        (nightly.on_missed, nightly.overlap, nightly.enabled),
        (OnMissed::All, Overlap::Cancel, false)
    );
    assert_eq!(tick.submission.initial_data.as_str(), r#"{"old":"name"}"#);
    assert_eq!((tick.on_missed, tick.overlap, tick.enabled), (OnMissed::Once, Overlap::Allow, true));
    let one_client = Known { clients: &["acme"], ..KNOWN };
    let schedules = parse("test.toml", "[s]\nblueprint = 'report'\ninterval = '1s'", one_client).unwrap();
    assert_eq!(&*schedules[0].client, "acme", "the only client need not be named");
    assert!(parse("test.toml", "", KNOWN).unwrap().is_empty());
}

/// The file that people begin with.
const EXAMPLE: &str = include_str!("../../../examples/schedules.toml");

#[test]
fn the_example_is_sound_and_shows_every_rule() {
    let known = Known { blueprints: &["test_workflow"], clients: &["default"] };
    let schedules = parse("examples/schedules.toml", EXAMPLE, known).unwrap();
    let timings: Vec<String> =
        schedules.iter().map(|schedule| format!("{}: {}", schedule.name, schedule.timing)).collect();
    assert_eq!(
        timings,
        [
            "cleanup: weekly on tue, fri at 22:30 UTC",
            "invoices: monthly on 1, last at 06:00 UTC",
            "nightly-report: daily at 03:00 Europe/Berlin",
            "office-hours: cron */15 9-17 * * mon-fri Europe/Berlin",
            "poll: every 30s",
        ]
    );
}

#[test]
fn a_mistake_is_told_with_the_schedule_the_key_and_the_cure() {
    let base = "blueprint = 'report'\nclient = 'acme'\n";
    let rows = [
        ("interval = '1m'\ncorn = 'x'", "s.corn: a schedule has no such key; did you mean \"cron\"?; keys: "),
        ("", "s: it does not say when; give one of cron, interval"),
        ("cron = '* * * * *'\ninterval = '1m'", "s: it says more than once when: cron, interval; keep one"),
        ("cron = '99 * * * *'", "s.cron: Component error: "),
        ("cron = '0 3 * *'", "s.cron: "),
        ("cron = '0 0 30 2 *'", "s.cron: \"0 0 30 2 *\" is never due; check its day and month"),
        ("cron = 5", "s.cron: 5 is not a text; put it in quotes"),
        ("interval = '10ms'", "s.interval: an interval is 1 second to 366 days long; write a span"),
        ("interval = 'often'", "s.interval: \"often\": expected a span of time such as 30s"),
        ("daily_at = '3:00'", "s.daily_at: \"3:00\" is not a time of day; write a time such as \"09:00\""),
        ("daily_at = '24:00'", "s.daily_at: \"24:00\" is not a time of day"),
        ("daily_at = []", "s.daily_at: there are 0 times, and there may be 1 to 288"),
        ("daily_at = '03:00'\ntime = '04:00'", "s.time: daily_at has its own; time belongs to weekly_days"),
        ("weekly_days = ['mon']", "s.time: it is missing; say at what time of those days"),
        ("weekly_days = ['mo']\ntime = '09:00'", "s.weekly_days: \"mo\" is not a weekday; write mon, tue"),
        (
            "weekly_days = []\ntime = '09:00'",
            "s.weekly_days: it is not a list of days; write weekly_days = [...]",
        ),
        (
            "monthly_dates = [32]\ntime = '09:00'",
            "s.monthly_dates: 32 is not a day of a month; write days from 1",
        ),
        (
            "interval = '1m'\ntime_zone = 'Europe/Berln'",
            "s.time_zone: \"Europe/Berln\": it is not a time zone of the IANA database; write a name such as",
        ),
        (
            "interval = '1m'\non_missed = 'onec'",
            "s.on_missed: there is no \"onec\"; did you mean \"once\"?; write skip, once, all",
        ),
        ("interval = '1m'\noverlap = 'never'", "s.overlap: there is no \"never\"; write allow, skip, cancel"),
        ("interval = '1m'\nenabled = 'yes'", "s.enabled: \"yes\" is neither; write true or false"),
        ("interval = '1m'\npriority = 101", "s: priority is 101; it may be -100 to 100; "),
        ("interval = '1m'\nlabels = { 'a b' = 'c' }", "s: the label key \"a b\" is not 1 to 63 characters"),
        (
            "interval = '1m'\nlabels = { schedule = 'x' }",
            "s.labels: the label schedule is the schedule's own; the",
        ),
        ("interval = '1m'\nlabels = { a = 1 }", "s.labels: the value of a is not a text; put it in quotes"),
        ("interval = '1m'\ninitial_data = 5", "s.initial_data: it is not a table; write initial_data = {"),
        (
            "interval = '1m'\ninitial_data = { x = nan }",
            "s.initial_data: NaN is not a number that JSON knows",
        ),
        (
            "interval = '1m'\ninitial_data = {}\ninput_data = {}",
            "s.input_data: initial_data says the same; keep",
        ),
    ];
    for (keys, expected) in rows {
        let errors = parse("test.toml", &format!("[s]\n{base}{keys}"), KNOWN).unwrap_err();
        let [error] = &errors[..] else { panic!("{keys}: {errors:?}") };
        let text = error.to_string();
        assert!(text.starts_with(&format!("test.toml: {expected}")), "{keys}: {text}");
    }
}

#[test]
fn every_schedule_is_looked_at_and_mistakes_outside_of_them_are_told_with_their_line() {
    let text = "[a]\nblueprint = 'reprot'\ninterval = '1m'\nclient = 'acme'\n[b]\nblueprint = 'report'\ninterval = '1m'\n";
    let errors = parse("test.toml", text, KNOWN).unwrap_err();
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "test.toml: a.blueprint: there is no \"reprot\"; did you mean \"report\"?; blueprints: report, backup",
            "test.toml: b.client: it is missing; clients: acme, globex",
        ]
    );
    for (text, expected) in [
        ("[a]\nx = ", "test.toml: line 2: "),
        ("a = 1", "test.toml: a: it is not a table; write [a], and its keys below"),
        ("[\"a b\"]\ninterval = '1m'", "test.toml: a b: the name is not 1 to 63 characters"),
        ("[a]\n[a]", "test.toml: line 2: "),
    ] {
        let errors = parse("test.toml", text, KNOWN).unwrap_err();
        assert!(errors[0].to_string().starts_with(expected), "{text}: {}", errors[0]);
    }
}
