//! Reads schedules from TOML: a table for each, whose keys are those of the Python system, and a few more.
//!
//! A mistake is answered with the schedule, the key, what is wrong and how to mend it; every schedule is looked at, so that one
//! start tells all of them. What the job is made of is checked as a client's submission would be.

use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

use avtomatika_proto::{limits::LABEL_VALUE_BYTES_MAX, span};
use jiff::{
    civil::{Time, Weekday},
    tz::TimeZone,
};
use toml::{Table, Value};

use super::{
    Calendar, DUE_AT_LABEL, Days, InvalidTiming, OnMissed, Overlap, Rule, SCHEDULE_LABEL, Schedule, Timing,
    calendar::short_name, time_zone,
};
use crate::{
    api::submission::{Draft, initial_data},
    engine::Submission,
    file::{self, Unreadable},
    json::Json,
    spelling::did_you_mean,
};

/// Schedules in one file.
const SCHEDULES_MAX: usize = 1000;

/// Size of the file.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Length of a schedule's name, which becomes a label.
const NAME_BYTES_MAX: usize = 63;

/// Times of day of one schedule.
const TIMES_MAX: usize = 288;

/// What schedules may refer to.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The names of the blueprints that are served.
    pub blueprints: &'a [&'a str],
    /// The names of the clients.
    pub clients: &'a [&'a str],
}

/// A mistake in a file of schedules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleError {
    /// Where: the file, and the schedule and its key where they are known.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub hint: String,
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.hint)
    }
}

impl std::error::Error for ScheduleError {}

/// The schedules in a file, by name.
///
/// # Errors
/// Everything that is wrong with them; the file cannot be read.
pub fn load(path: &Path, known: Known<'_>) -> Result<Vec<Schedule>, Vec<ScheduleError>> {
    let name = path.display().to_string();
    let text = file::text(path, FILE_BYTES_MAX).map_err(|error| {
        let hint = match error {
            Unreadable::Unusable(_) => "check the path after --schedules, and its permissions",
            Unreadable::TooLarge { .. } => "a file of schedules holds a table for each of them",
        };
        vec![ScheduleError { place: name.clone(), what: error.to_string(), hint: hint.to_owned() }]
    })?;
    parse(&name, &text, known)
}

/// The schedules in a text, by name. `file` is what errors call it.
///
/// # Errors
/// Everything that is wrong with them.
pub fn parse(file: &str, text: &str, known: Known<'_>) -> Result<Vec<Schedule>, Vec<ScheduleError>> {
    let whole = |what: String, hint: &str| {
        vec![ScheduleError { place: file.to_owned(), what, hint: hint.to_owned() }]
    };
    // A byte order mark is what some editors leave; it means nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let table: Table = toml::from_str(text).map_err(|error| {
        let start = error.span().unwrap_or_default().start;
        let line = text[..text.floor_char_boundary(start)].matches('\n').count() + 1;
        whole(format!("line {line}: {}", error.message().trim_end()), "mend the TOML there")
    })?;
    if table.len() > SCHEDULES_MAX {
        let what = format!("it has {} schedules, the limit is {SCHEDULES_MAX}", table.len());
        return Err(whole(what, "let one schedule make a job that fans out"));
    }
    let (mut schedules, mut errors) = (Vec::new(), Vec::new());
    for (name, value) in table {
        let read = match value {
            Value::Table(table) => read(&name, table, known),
            _ => Err(Mistake::new("", "it is not a table", format!("write [{name}], and its keys below"))),
        };
        match read {
            Ok(schedule) => schedules.push(schedule),
            Err(Mistake { key, what, hint }) => {
                let dot = if key.is_empty() { "" } else { "." };
                errors.push(ScheduleError { place: format!("{file}: {name}{dot}{key}"), what, hint });
            }
        }
    }
    if errors.is_empty() { Ok(schedules) } else { Err(errors) }
}

/// What is wrong with a schedule.
#[derive(Debug)]
struct Mistake {
    key: String,
    what: String,
    hint: String,
}

impl Mistake {
    fn new(key: &str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { key: key.to_owned(), what: what.into(), hint: hint.into() }
    }
}

const KEYS: [&str; 21] = [
    "blueprint",
    "initial_data",
    "input_data",
    "labels",
    "priority",
    "dispatch_timeout",
    "result_timeout",
    "webhook_url",
    "client",
    "cron",
    "interval",
    "interval_seconds",
    "daily_at",
    "weekly_days",
    "monthly_dates",
    "time",
    "time_zone",
    "on_missed",
    "overlap",
    "enabled",
    "description",
];

/// The keys that say when; a schedule has exactly one of them.
const RULES: [&str; 6] = ["cron", "interval", "interval_seconds", "daily_at", "weekly_days", "monthly_dates"];

fn read(name: &str, table: Table, known: Known<'_>) -> Result<Schedule, Mistake> {
    let fits = (1..=NAME_BYTES_MAX.min(LABEL_VALUE_BYTES_MAX)).contains(&name.len());
    if !fits || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        let what = format!("the name is not 1 to {NAME_BYTES_MAX} characters of a-z A-Z 0-9 . _ -");
        return Err(Mistake::new("", what, "give it another one"));
    }
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let meant = did_you_mean(key, KEYS);
        return Err(Mistake::new(
            key,
            format!("a schedule has no such key{meant}"),
            format!("keys: {}", KEYS.join(", ")),
        ));
    }
    let mut keys = Keys(table);
    // What is for people only.
    keys.text("description")?;
    let timing = timing(&mut keys)?;
    let blueprint = keys.text("blueprint")?;
    let blueprint = one_of("blueprint", blueprint, known.blueprints, "blueprints")?;
    let client = match (keys.text("client")?, known.clients) {
        (None, [only]) => (*only).to_owned(),
        (client, clients) => one_of("client", client, clients, "clients")?,
    };
    Ok(Schedule {
        name: name.into(),
        submission: submission(&mut keys, name, &blueprint)?,
        blueprint: blueprint.into(),
        client: client.into(),
        timing,
        on_missed: policy(&mut keys, "on_missed", OnMissed::ALL, OnMissed::as_str)?,
        overlap: policy(&mut keys, "overlap", Overlap::ALL, Overlap::as_str)?,
        enabled: keys.flag("enabled")?.unwrap_or(true),
    })
}

/// A name that must be among the known ones.
fn one_of(key: &str, name: Option<String>, known: &[&str], what: &str) -> Result<String, Mistake> {
    let hint = match known {
        [] => format!("there are no {what}"),
        known => format!("{what}: {}", known.join(", ")),
    };
    match name {
        None => Err(Mistake::new(key, "it is missing", hint)),
        Some(name) if known.contains(&name.as_str()) => Ok(name),
        Some(name) => {
            let meant = did_you_mean(&name, known.iter().copied());
            Err(Mistake::new(key, format!("there is no {name:?}{meant}"), hint))
        }
    }
}

fn policy<P: Default + Copy, const N: usize>(
    keys: &mut Keys,
    key: &str,
    all: [P; N],
    name: impl Fn(P) -> &'static str,
) -> Result<P, Mistake> {
    let Some(text) = keys.text(key)? else { return Ok(P::default()) };
    let names = all.map(&name);
    all.into_iter().find(|policy| name(*policy) == text).ok_or_else(|| {
        let meant = did_you_mean(&text, names);
        Mistake::new(key, format!("there is no {text:?}{meant}"), format!("write {}", names.join(", ")))
    })
}

// ---- When ----

fn timing(keys: &mut Keys) -> Result<Timing, Mistake> {
    let given: Vec<&str> = RULES.into_iter().filter(|rule| keys.0.contains_key(*rule)).collect();
    let [rule_key] = given[..] else {
        let (what, hint) = match given[..] {
            [] => ("it does not say when".to_owned(), format!("give one of {}", RULES.join(", "))),
            _ => {
                (format!("it says more than once when: {}", given.join(", ")), "keep one of them".to_owned())
            }
        };
        return Err(Mistake::new("", what, hint));
    };
    let zone = zone(keys)?;
    let times = keys.0.remove("time").map(|value| times("time", value)).transpose()?;
    let needs_times = matches!(rule_key, "weekly_days" | "monthly_dates");
    let times = match (times, needs_times) {
        (Some(times), true) => times,
        (None, false) => Vec::new(),
        (None, true) => {
            return Err(Mistake::new(
                "time",
                "it is missing",
                "say at what time of those days: time = \"09:00\"",
            ));
        }
        (Some(_), false) => {
            let hint = "time belongs to weekly_days and monthly_dates; leave it out";
            return Err(Mistake::new("time", format!("{rule_key} has its own"), hint));
        }
    };
    let rule = rule(keys, rule_key, times)?;
    Ok(Timing::new(rule, zone))
}

fn zone(keys: &mut Keys) -> Result<TimeZone, Mistake> {
    let Some(name) = keys.text("time_zone")? else { return Ok(TimeZone::UTC) };
    time_zone(&name).map_err(|InvalidTiming(what)| {
        Mistake::new("time_zone", format!("{name:?}: {what}"), "write a name such as Europe/Berlin or UTC")
    })
}

fn rule(keys: &mut Keys, key: &str, times_of_day: Vec<Time>) -> Result<Rule, Mistake> {
    const CRON: &str = "five fields: minute hour day-of-month month day-of-week, such as \"0 3 * * mon-fri\"; six with \
                        seconds before them";
    let invalid = |hint: &str| {
        let hint = hint.to_owned();
        move |InvalidTiming(what)| Mistake::new(key, what, hint)
    };
    match key {
        "cron" => {
            let text = keys.text(key)?.unwrap_or_default();
            let rule = Rule::cron(&text).map_err(invalid(CRON))?;
            // An expression may be sound and never true: the 30th of February.
            let never = || Mistake::new(key, format!("{text:?} is never due"), "check its day and month");
            let now = crate::time::Timestamp::from_micros(0);
            Timing::new(rule.clone(), TimeZone::UTC).next_after(now).ok_or_else(never)?;
            Ok(rule)
        }
        "interval" | "interval_seconds" => {
            let interval = keys.span(key)?.unwrap_or_default();
            Rule::interval(interval).map_err(invalid("write a span such as 30s, 15m or 2h"))
        }
        "daily_at" => {
            let value = keys.0.remove(key).unwrap_or(Value::Array(Vec::new()));
            Ok(Rule::Calendar(Calendar::new(Days::Every, times(key, value)?)))
        }
        "weekly_days" => {
            let weekdays =
                keys.list(key)?.iter().map(|value| weekday(key, value)).collect::<Result<_, _>>()?;
            Ok(Rule::Calendar(Calendar::new(Days::Weekly(weekdays), times_of_day)))
        }
        // The last of RULES.
        _ => Ok(Rule::Calendar(Calendar::new(monthly(key, &keys.list(key)?)?, times_of_day))),
    }
}

fn weekday(key: &str, value: &Value) -> Result<Weekday, Mistake> {
    let weekdays = Weekday::Monday.cycle_forward().take(7);
    let named = |weekday: &Weekday| {
        let name = value.as_str().unwrap_or_default().to_ascii_lowercase();
        name == short_name(*weekday) || name == format!("{weekday:?}").to_ascii_lowercase()
    };
    weekdays.into_iter().find(named).ok_or_else(|| {
        Mistake::new(key, format!("{value} is not a weekday"), "write mon, tue, wed, thu, fri, sat, sun")
    })
}

fn monthly(key: &str, values: &[Value]) -> Result<Days, Mistake> {
    let (mut dates, mut last) = (Vec::new(), false);
    for value in values {
        match (value.as_integer(), value.as_str()) {
            (Some(date @ 1..=31), _) => dates.push(date as i8),
            (_, Some("last")) => last = true,
            _ => {
                let hint = "write days from 1 to 31, or \"last\" for the last day of the month";
                return Err(Mistake::new(key, format!("{value} is not a day of a month"), hint));
            }
        }
    }
    Ok(Days::Monthly { dates, last })
}

/// One time of day, or a list of them.
fn times(key: &str, value: Value) -> Result<Vec<Time>, Mistake> {
    const HINT: &str = "write a time such as \"09:00\" or \"09:00:30\", or a list of them";
    let values = match value {
        Value::Array(values) => values,
        value => vec![value],
    };
    if !(1..=TIMES_MAX).contains(&values.len()) {
        let what = format!("there are {} times, and there may be 1 to {TIMES_MAX}", values.len());
        return Err(Mistake::new(key, what, HINT));
    }
    let time = |value: &Value| {
        let time = match value {
            Value::String(text) => time_of_day(text),
            Value::Datetime(time) if time.date.is_none() && time.offset.is_none() => {
                time_of_day(&time.to_string())
            }
            _ => None,
        };
        time.ok_or_else(|| Mistake::new(key, format!("{value} is not a time of day"), HINT))
    };
    values.iter().map(time).collect()
}

/// `HH:MM` or `HH:MM:SS`.
fn time_of_day(text: &str) -> Option<Time> {
    let mut parts =
        text.split(':').map(|part| match part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()) {
            true => part.parse::<i8>().ok(),
            false => None,
        });
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().map_or(Some(0), |second| second)?;
    match parts.next() {
        None => Time::new(hour, minute, second, 0).ok(),
        Some(_) => None,
    }
}

// ---- What ----

fn submission(keys: &mut Keys, name: &str, blueprint: &str) -> Result<Submission, Mistake> {
    let mut draft = Draft::new(blueprint.into(), data(keys)?);
    draft.labels = labels(keys, name)?;
    draft.priority = keys.integer("priority")?.unwrap_or(0);
    draft.dispatch_timeout = keys.span("dispatch_timeout")?;
    draft.result_timeout = keys.span("result_timeout")?;
    draft.webhook_url = keys.text("webhook_url")?.map(Into::into);
    // Its errors name the field.
    let request = draft.check().map_err(|error| Mistake::new("", error.message, error.hint))?;
    let mut submission = request.submission;
    // They are there to be counted against the limit.
    submission.labels.retain(|key, _| key != SCHEDULE_LABEL && key != DUE_AT_LABEL);
    Ok(submission)
}

fn data(keys: &mut Keys) -> Result<Json, Mistake> {
    let key = match (keys.0.contains_key("initial_data"), keys.0.contains_key("input_data")) {
        (true, true) => {
            return Err(Mistake::new("input_data", "initial_data says the same", "keep initial_data"));
        }
        (false, true) => "input_data",
        _ => "initial_data",
    };
    let Some(value) = keys.0.remove(key) else { return Ok(Json::empty()) };
    if !value.is_table() {
        let hint = format!("write {key} = {{ name = \"value\" }}, or a table of its own");
        return Err(Mistake::new(key, "it is not a table", hint));
    }
    let text = json(value).map_err(|what| Mistake::new(key, what, "JSON has no such value"))?.to_string();
    initial_data(text.as_bytes()).map_err(|error| Mistake::new(key, error.message, error.hint))
}

/// A value of TOML as one of JSON; times become texts.
fn json(value: Value) -> Result<serde_json::Value, String> {
    Ok(match value {
        Value::String(text) => text.into(),
        Value::Integer(number) => number.into(),
        Value::Float(number) => match serde_json::Number::from_f64(number) {
            Some(number) => number.into(),
            None => return Err(format!("{number} is not a number that JSON knows")),
        },
        Value::Boolean(flag) => flag.into(),
        Value::Datetime(time) => time.to_string().into(),
        Value::Array(values) => values.into_iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        Value::Table(table) => {
            let entries = table.into_iter().map(|(key, value)| Ok((key, json(value)?)));
            serde_json::Value::Object(entries.collect::<Result<_, String>>()?)
        }
    })
}

fn labels(keys: &mut Keys, name: &str) -> Result<BTreeMap<String, String>, Mistake> {
    let mut labels = BTreeMap::new();
    let table = match keys.0.remove("labels") {
        None => Table::new(),
        Some(Value::Table(table)) => table,
        Some(_) => {
            return Err(Mistake::new("labels", "it is not a table", "write labels = { team = \"billing\" }"));
        }
    };
    for (key, value) in table {
        if [SCHEDULE_LABEL, DUE_AT_LABEL].contains(&key.as_str()) {
            let hint = "the orchestrator sets it; leave it out";
            return Err(Mistake::new("labels", format!("the label {key} is the schedule's own"), hint));
        }
        let Value::String(value) = value else {
            return Err(Mistake::new(
                "labels",
                format!("the value of {key} is not a text"),
                "put it in quotes",
            ));
        };
        labels.insert(key, value);
    }
    labels.insert(SCHEDULE_LABEL.to_owned(), name.to_owned());
    labels.insert(DUE_AT_LABEL.to_owned(), String::new());
    Ok(labels)
}

/// The keys of a schedule that have not been read yet.
struct Keys(Table);

impl Keys {
    fn text(&mut self, key: &str) -> Result<Option<String>, Mistake> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Mistake::new(key, format!("{other} is not a text"), "put it in quotes")),
        }
    }

    fn integer(&mut self, key: &str) -> Result<Option<i64>, Mistake> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => Ok(Some(number)),
            Some(other) => {
                Err(Mistake::new(key, format!("{other} is not a whole number"), "write digits alone"))
            }
        }
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, Mistake> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(Value::Boolean(flag)) => Ok(Some(flag)),
            Some(other) => Err(Mistake::new(key, format!("{other} is neither"), "write true or false")),
        }
    }

    /// A text such as `30s`, or a number of seconds.
    fn span(&mut self, key: &str) -> Result<Option<Duration>, Mistake> {
        let Some(value) = self.0.remove(key) else { return Ok(None) };
        let span = match &value {
            Value::String(text) => span::parse_or_seconds(text),
            Value::Integer(seconds) => span::from_seconds(*seconds as f64),
            Value::Float(seconds) => span::from_seconds(*seconds),
            _ => Err(span::InvalidSpan),
        };
        let invalid = |error| Mistake::new(key, format!("{value}: {error}"), "a number alone counts seconds");
        span.map(Some).map_err(invalid)
    }

    fn list(&mut self, key: &str) -> Result<Vec<Value>, Mistake> {
        match self.0.remove(key) {
            Some(Value::Array(values)) if !values.is_empty() => Ok(values),
            _ => Err(Mistake::new(
                key,
                "it is not a list of days",
                format!("write {key} = [...], with at least one"),
            )),
        }
    }
}
