//! What stands behind the question mark, and the headers that mean the same. Unknown names are refused: a typo would otherwise
//! be an answer to another question.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use avtomatika_proto::{ApiError, limits::LABELS_MAX, span};
use axum::extract::Query;
use http::{HeaderMap, Uri};

use crate::{
    api::{
        convert,
        submission::{self, invalid, quote},
    },
    engine::JobStatus,
    graph::Format,
    spelling::did_you_mean,
    store::ListQuery,
    time::Timestamp,
};

/// What may stand in a query more than once: each is one more of its kind. Of anything else one of two would have to be passed over, and
/// whoever sent both would not know which.
const REPEATED: [&str; 3] = ["status", "label", "fields"];

/// The pairs of a query, every name one of `known`, and there once unless it may be there again.
fn pairs(uri: &Uri, known: &[&str]) -> Result<Vec<(String, String)>, ApiError> {
    if uri.query().is_none() {
        return Ok(Vec::new());
    }
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| invalid(format!("the query cannot be read: {error}")))?;
    for (index, (name, _)) in pairs.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            let meant = did_you_mean(name, known.iter().copied());
            let hint = match known {
                [] => "This endpoint takes none.".to_owned(),
                known => format!("This endpoint takes: {}.", known.join(", ")),
            };
            return Err(invalid(format!("unknown query parameter {}{meant}", quote(name))).with_hint(hint));
        }
        let is_second = pairs[..index].iter().any(|(before, _)| before == name);
        if is_second && !REPEATED.contains(&name.as_str()) {
            return Err(invalid(format!("the query parameter {name} stands there twice"))
                .with_hint("Say it once, with the one value that is meant."));
        }
    }
    Ok(pairs)
}

/// Refuses every parameter.
pub(super) fn none(uri: &Uri) -> Result<(), ApiError> {
    pairs(uri, &[]).map(drop)
}

/// How long to hold the answer: `?wait=30s`, or the header `Prefer: wait=30`.
pub(super) fn wait(uri: &Uri, headers: &HeaderMap) -> Result<Duration, ApiError> {
    let mut wait = prefer(headers)?;
    for (_, value) in pairs(uri, &["wait"])? {
        wait = Some(span_of("wait", &value)?);
    }
    Ok(wait.unwrap_or_default())
}

/// What a body that is `initial_data` itself cannot say about time.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Times {
    /// How long to hold the answer.
    pub wait: Duration,
    /// The job's start, from its acceptance on.
    pub delay: Option<Duration>,
    /// The job's start.
    pub start_at: Option<Timestamp>,
}

/// `?wait=30s`, or the header `Prefer: wait=30`; `?delay=10m`; `?start_at=2026-12-24T18:00:00Z`.
pub(super) fn times(uri: &Uri, headers: &HeaderMap) -> Result<Times, ApiError> {
    let mut times = Times { wait: prefer(headers)?.unwrap_or_default(), ..Times::default() };
    for (name, value) in pairs(uri, &["wait", "delay", "start_at"])? {
        match name.as_str() {
            "wait" => times.wait = span_of("wait", &value)?,
            "delay" => times.delay = Some(span_of("delay", &value)?),
            _ => times.start_at = Some(time("start_at", &value)?),
        }
    }
    Ok(times)
}

/// Whether it is only asked what would happen: `?dry_run=true`.
pub(super) fn dry_run(uri: &Uri) -> Result<bool, ApiError> {
    let mut dry_run = false;
    for (name, value) in pairs(uri, &["dry_run"])? {
        dry_run = value
            .parse()
            .map_err(|_| invalid(format!("{name} is {}, neither true nor false", quote(&value))))?;
    }
    Ok(dry_run)
}

fn prefer(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    for value in headers.get_all("prefer") {
        // A preference that is not known is not an error, says RFC 7240.
        let Ok(value) = value.to_str() else { continue };
        for preference in value.split([',', ';']) {
            if let Some((name, value)) = preference.split_once('=')
                && name.trim().eq_ignore_ascii_case("wait")
            {
                return span_of("Prefer: wait", value.trim().trim_matches('"')).map(Some);
            }
        }
    }
    Ok(None)
}

fn span_of(name: &str, value: &str) -> Result<Duration, ApiError> {
    span::parse_or_seconds(value).map_err(|error| invalid(format!("{name} is {}: {error}", quote(value))))
}

/// The key that makes a submission safe to repeat.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(key), None) => Ok(Some(key)),
        (Err(_), _) => Err(invalid("Idempotency-Key is not printable ASCII".to_owned())),
        (_, Some(_)) => Err(invalid("Idempotency-Key was sent more than once".to_owned())),
    }
}

/// The token of an approval, as the Python system lets it stand in the URL: `?token=...`.
pub(super) fn token(uri: &Uri) -> Result<Option<String>, ApiError> {
    Ok(pairs(uri, &["token"])?.pop().map(|(_, token)| token))
}

/// The names in `?fields=a,b`; none means all.
pub(super) fn fields(uri: &Uri, known: &[&str]) -> Result<Option<Vec<String>>, ApiError> {
    let mut fields = None;
    for (_, value) in pairs(uri, &["fields"])? {
        for name in list(&value) {
            if !known.contains(&name) {
                let meant = did_you_mean(name, known.iter().copied());
                return Err(invalid(format!("a job has no field {}{meant}", quote(name)))
                    .with_hint(format!("Fields: {}.", known.join(", "))));
            }
            fields.get_or_insert_with(Vec::new).push(name.to_owned());
        }
    }
    Ok(fields)
}

/// Which jobs to list.
pub(super) fn list_query(uri: &Uri, client: Arc<str>) -> Result<ListQuery, ApiError> {
    const KNOWN: [&str; 7] =
        ["status", "blueprint", "label", "created_after", "created_before", "limit", "cursor"];
    let mut query = ListQuery { client, limit: submission::JOBS_PAGE_DEFAULT as usize, ..Default::default() };
    for (name, value) in pairs(uri, &KNOWN)? {
        match name.as_str() {
            "status" => {
                for name in list(&value) {
                    query.statuses.push(status(name)?);
                }
            }
            "blueprint" => query.blueprint = Some(Arc::from(value)),
            "label" => add_label(&mut query.labels, &value)?,
            "created_after" => query.created_from = Some(time("created_after", &value)?),
            "created_before" => query.created_before = Some(time("created_before", &value)?),
            "limit" => query.limit = limit(&value, submission::JOBS_PAGE_DEFAULT)?,
            // The last one that is known.
            _ => query.below_key = convert::jobs_cursor(&value)?,
        }
    }
    Ok(query)
}

/// Which part of a history to show: where it begins, and how long it is at most.
pub(super) fn history_query(uri: &Uri) -> Result<(u64, usize), ApiError> {
    let (mut from, mut len) = (0, submission::HISTORY_PAGE_DEFAULT as usize);
    for (name, value) in pairs(uri, &["limit", "cursor"])? {
        match name.as_str() {
            "limit" => len = limit(&value, submission::HISTORY_PAGE_DEFAULT)?,
            _ => from = convert::history_cursor(&value)?,
        }
    }
    Ok((from, len))
}

/// How to write a graph; DOT when nobody says.
pub(super) fn graph_format(uri: &Uri) -> Result<Format, ApiError> {
    let mut format = Format::Dot;
    for (_, value) in pairs(uri, &["format"])? {
        format = Format::from_name(&value).ok_or_else(|| {
            let names = Format::ALL.map(Format::as_str);
            let meant = did_you_mean(&value, names);
            invalid(format!("{} is not a format of graphs{meant}", quote(&value)))
                .with_hint(format!("Formats: {}.", names.join(", ")))
        })?;
    }
    Ok(format)
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty())
}

pub(super) fn status(name: &str) -> Result<JobStatus, ApiError> {
    JobStatus::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = JobStatus::ALL.iter().map(|status| status.as_str()).collect();
        let meant = did_you_mean(name, names.iter().copied());
        invalid(format!("{} is not a status{meant}", quote(name)))
            .with_hint(format!("Statuses: {}.", names.join(", ")))
    })
}

fn add_label(labels: &mut BTreeMap<String, String>, pair: &str) -> Result<(), ApiError> {
    let Some((key, value)) = pair.split_once(':') else {
        return Err(invalid(format!("label is {}; write it as key:value", quote(pair))));
    };
    if labels.insert(key.to_owned(), value.to_owned()).is_some() {
        return Err(invalid(format!("the label {} is asked for twice", quote(key)))
            .with_hint("A job has one value for each label; list once for each value."));
    }
    match labels.len() <= LABELS_MAX {
        true => Ok(()),
        false => Err(invalid(format!("more than {LABELS_MAX} labels"))),
    }
}

fn limit(value: &str, default: u32) -> Result<usize, ApiError> {
    match value.parse() {
        Ok(asked) if asked > 0 => submission::page_size(asked, default),
        _ => Err(invalid(format!("limit is {}; it must be a number from 1", quote(value)))),
    }
}

pub(super) fn time(name: &str, value: &str) -> Result<Timestamp, ApiError> {
    match value.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Timestamp::from_micros(time.as_microsecond())),
        Err(_) => Err(invalid(format!("{name} is {}, which is no time in RFC 3339", quote(value)))
            .with_hint("Write it as 2026-01-18T06:05:00Z; a plus sign in an offset is %2B in a URL.")),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn uri(query: &str) -> Uri {
        format!("/api/jobs?{query}").parse().unwrap()
    }

    fn listed(query: &str) -> Result<ListQuery, String> {
        list_query(&uri(query), Arc::from("alice")).map_err(|error| error.message.into_owned())
    }

    #[test]
    fn a_listing_is_asked_for_with_filters_that_add_up() {
        let query = listed(
            "status=running,failed&blueprint=b&label=team:a&label=env:x%20y&created_after=2026-01-18T06:05:00Z&limit=7",
        )
        .unwrap();
        assert_eq!(query.statuses, [JobStatus::Running, JobStatus::Failed]);
        assert_eq!(query.blueprint.as_deref(), Some("b"));
        assert_eq!(query.labels["env"], "x y");
        assert_eq!(query.created_from.unwrap().to_string(), "2026-01-18T06:05:00.000000Z");
        assert_eq!(query.limit, 7);
        assert_eq!(&*query.client, "alice");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (query, text) in [
            ("stauts=running", "unknown query parameter \"stauts\"; did you mean \"status\"?"),
            ("status=runing", "\"runing\" is not a status; did you mean \"running\"?"),
            ("limit=0", "limit is \"0\"; it must be a number from 1"),
            ("limit=-1", "limit is \"-1\"; it must be a number from 1"),
            ("limit=1000000000", "a page holds at most 1000 entries, 1000000000 were asked for"),
            ("cursor=zzz", "the cursor is not one that this listing gave out"),
            ("label=team", "label is \"team\"; write it as key:value"),
            ("created_before=yesterday", "created_before is \"yesterday\", which is no time in RFC 3339"),
        ] {
            assert_eq!(listed(query).unwrap_err(), text, "{query}");
        }
    }

    #[test]
    fn what_has_one_value_is_said_once() {
        for (query, name) in [
            ("limit=10&limit=20", "limit"),
            ("limit=10&limit=10", "limit"),
            ("cursor=a&cursor=b", "cursor"),
            ("status=failed&blueprint=a&blueprint=b", "blueprint"),
            ("created_after=2026-01-18T06:05:00Z&created_after=2026-01-19T06:05:00Z", "created_after"),
        ] {
            assert_eq!(listed(query).unwrap_err(), format!("the query parameter {name} stands there twice"));
        }
        assert_eq!(listed("label=team:a&label=team:b").unwrap_err(), "the label \"team\" is asked for twice");
        assert!(wait(&uri("wait=1s&wait=2s"), &HeaderMap::new()).is_err());
        assert!(dry_run(&uri("dry_run=true&dry_run=false")).is_err());
        assert!(token(&uri("token=a&token=b")).is_err());
        assert!(graph_format(&uri("format=dot&format=svg")).is_err());
        let query = listed("status=running&status=failed&label=team:a&label=env:x").unwrap();
        assert_eq!((query.statuses.len(), query.labels.len()), (2, 2));
        let several = fields(&uri("fields=id&fields=status"), &["id", "status"]).unwrap().unwrap();
        assert_eq!(several, ["id", "status"]);
    }

    #[test]
    fn a_wait_is_a_parameter_or_a_preference() {
        let prefer =
            |value| HeaderMap::from_iter([("prefer".parse().unwrap(), HeaderValue::from_static(value))]);
        let seconds =
            |query: &str, headers: &HeaderMap| wait(&uri(query), headers).map(|wait| wait.as_secs());
        assert_eq!(seconds("", &HeaderMap::new()), Ok(0));
        assert_eq!(seconds("wait=30s", &HeaderMap::new()), Ok(30));
        assert_eq!(seconds("", &prefer("respond-async, wait=10")), Ok(10));
        assert_eq!(seconds("wait=5", &prefer("wait=10")), Ok(5));
        assert!(seconds("wait=soon", &HeaderMap::new()).is_err());
        assert!(seconds("", &prefer("wait=-1")).is_err());
        assert!(seconds("wiat=5", &HeaderMap::new()).is_err());
    }
}
