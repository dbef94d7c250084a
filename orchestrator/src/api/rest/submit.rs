//! `POST /api{endpoint}`, `POST /api/v1{endpoint}`, `POST /api/v1/jobs`: creating a job.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use avtomatika_proto::{ApiError, limits::PAYLOAD_BYTES_MAX, span};
use axum::response::Response;
use http::{HeaderValue, Request, StatusCode, header::LOCATION};
use hyper::body::Incoming;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    body,
    document::JobDocument,
    query::{self, Times},
    route::BodyForm,
};
use crate::{
    api::{
        Inside, reply,
        shown::Shown,
        submission::{self, Draft, invalid, invalid_json, quote},
        trace::Submitting,
    },
    blueprint::Blueprint,
    conductor::{Admission, Submitted},
    json::Json,
    spelling::did_you_mean,
    time::Timestamp,
};

/// At a blueprint's own endpoint.
pub(super) async fn at_endpoint(
    inside: &Inside,
    client: Arc<str>,
    blueprint: Arc<Blueprint>,
    form: BodyForm,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let submitting = inside.tracing.begin(&parts.headers);
    // Where the body has room for the start, it stands there.
    let Times { wait, delay, start_at } = match form {
        BodyForm::Raw => query::times(&parts.uri, &parts.headers)?,
        BodyForm::Wrapped => Times { wait: query::wait(&parts.uri, &parts.headers)?, ..Times::default() },
    };
    let key = query::idempotency_key(&parts.headers)?;
    let name = blueprint.name.clone();
    let bytes_max = match form {
        BodyForm::Raw => PAYLOAD_BYTES_MAX,
        BodyForm::Wrapped => body::ENVELOPE_BYTES_MAX,
    };
    let (bytes, admission) = body::admitted(inside, &parts, body, bytes_max).await?;
    let draft = match form {
        BodyForm::Raw => Draft { delay, start_at, ..Draft::new(name, submission::initial_data(&bytes)?) },
        BodyForm::Wrapped => {
            let (draft, named) = envelope(&bytes, name)?;
            if named {
                return Err(invalid("blueprint stands in the body, but the path has named it".to_owned())
                    .with_hint("Leave blueprint out, or post to /api/v1/jobs."));
            }
            draft
        }
    };
    create(inside, client, Draft { wait, idempotency_key: key, ..draft }, admission, submitting).await
}

/// Of the blueprint that the body names.
pub(super) async fn by_name(
    inside: &Inside,
    client: Arc<str>,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let submitting = inside.tracing.begin(&parts.headers);
    let wait = query::wait(&parts.uri, &parts.headers)?;
    let key = query::idempotency_key(&parts.headers)?;
    let (bytes, admission) = body::admitted(inside, &parts, body, body::ENVELOPE_BYTES_MAX).await?;
    let (draft, _) = envelope(&bytes, Arc::from(""))?;
    create(inside, client, Draft { wait, idempotency_key: key, ..draft }, admission, submitting).await
}

#[derive(Serialize)]
struct AcceptedDocument {
    status: &'static str,
    job_id: String,
}

async fn create(
    inside: &Inside,
    client: Arc<str>,
    draft: Draft<'_>,
    admission: Admission,
    submitting: Submitting,
) -> Result<Response, ApiError> {
    let mut request = draft.check()?;
    request.submission.trace = submitting.context.clone();
    let name = request.blueprint.clone();
    let submitted = inside.conductor.submit_admitted(&client, request, admission).await;
    submitting.end(&name, &submitted);
    let Submitted { job_id, job, .. } = submitted?;
    let mut response = match job.filter(|view| view.job.status.is_terminal()) {
        Some(view) => {
            reply::json(StatusCode::OK, &JobDocument { view: &view, shown: Shown::Alone, fields: None })
        }
        None => {
            let accepted = AcceptedDocument { status: "accepted", job_id: job_id.to_string() };
            reply::json(StatusCode::ACCEPTED, &accepted)
        }
    };
    let location = HeaderValue::try_from(format!("/api/jobs/{job_id}"));
    response.headers_mut().insert(LOCATION, location.expect("an id is ASCII"));
    Ok(response)
}

// ---- the wrapped form ----

const KEYS: [&str; 9] = [
    "blueprint",
    "initial_data",
    "webhook_url",
    "dispatch_timeout",
    "result_timeout",
    "start_at",
    "delay",
    "priority",
    "labels",
];

/// The members of the body's one object, each still as it was written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Self::Value = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    // Refused here and not later: a list of unknown keys has no other bound.
                    if !KEYS.contains(&key.as_str()) {
                        let meant = did_you_mean(&key, KEYS);
                        return Err(A::Error::custom(format_args!("unknown key {}{meant}", quote(&key))));
                    }
                    if members.iter().any(|(known, _)| *known == key) {
                        return Err(A::Error::custom(format_args!("the key {key:?} stands twice")));
                    }
                    members.push((key, map.next_value()?));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Collect).map(Members)
    }
}

/// Reads the wrapped form, and says whether it names the blueprint. A member that is `null` is as good as absent.
fn envelope(bytes: &[u8], blueprint: Arc<str>) -> Result<(Draft<'static>, bool), ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| invalid_json(format_args!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let Members(members) = serde_json::from_str(text).map_err(invalid_json)?;
    let mut draft = Draft::new(blueprint, Json::empty());
    let mut named = false;
    for (key, value) in members {
        if value.get() == "null" {
            continue;
        }
        match key.as_str() {
            "blueprint" => {
                draft.blueprint = Arc::from(member::<String>("blueprint", value, "a text")?);
                named = true;
            }
            "initial_data" => draft.initial_data = submission::initial_data(value.get().as_bytes())?,
            "webhook_url" => {
                draft.webhook_url = Some(member::<String>("webhook_url", value, "a text")?.into())
            }
            "dispatch_timeout" => draft.dispatch_timeout = Some(timeout("dispatch_timeout", value)?),
            "result_timeout" => draft.result_timeout = Some(timeout("result_timeout", value)?),
            "start_at" => draft.start_at = Some(start_at(value)?),
            "delay" => draft.delay = Some(timeout("delay", value)?),
            "priority" => draft.priority = member("priority", value, "a whole number")?,
            // The last of KEYS.
            _ => draft.labels = labels(value)?,
        }
    }
    Ok((draft, named))
}

fn member<'a, T: Deserialize<'a>>(key: &str, value: &'a RawValue, expected: &str) -> Result<T, ApiError> {
    serde_json::from_str(value.get())
        .map_err(|_| invalid(format!("{key} is {}; expected {expected}", quote(value.get()))))
}

fn labels(value: &RawValue) -> Result<BTreeMap<String, String>, ApiError> {
    // Through the gate first: it knows a key that stands twice.
    Json::object(value.get()).map_err(|error| invalid(format!("labels: {error}")))?;
    member("labels", value, "an object of texts")
}

fn start_at(value: &RawValue) -> Result<Timestamp, ApiError> {
    const EXPECTED: &str = "a time such as \"2026-12-24T18:00:00Z\"";
    let text: String = member("start_at", value, EXPECTED)?;
    Timestamp::from_rfc3339(&text)
        .ok_or_else(|| invalid(format!("start_at is {}; expected {EXPECTED}", quote(&text))))
}

/// A number of seconds, or a text such as `30s`.
fn timeout(key: &str, value: &RawValue) -> Result<Duration, ApiError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Seconds(f64),
        Text(String),
    }
    let written = member(key, value, "a number of seconds or a text such as \"30s\"")?;
    let span = match written {
        Written::Seconds(seconds) => span::from_seconds(seconds),
        Written::Text(text) => span::parse_or_seconds(&text),
    };
    span.map_err(|error| invalid(format!("{key} is {}: {error}", quote(value.get()))))
}

#[cfg(test)]
mod tests {
    use avtomatika_proto::ErrorCode;

    use super::*;

    fn read(body: &str) -> Result<Draft<'static>, ApiError> {
        envelope(body.as_bytes(), Arc::from("given")).map(|(draft, _)| draft)
    }

    #[test]
    fn an_envelope_holds_what_the_later_contract_names() {
        let draft = read(
            r#"{"initial_data": {"a": 1.50}, "dispatch_timeout": "30s", "result_timeout": 1.5,
                "priority": -3, "labels": {"team": "a"}, "webhook_url": null, "blueprint": "b"}"#,
        )
        .unwrap();
        assert_eq!(draft.initial_data.as_str(), r#"{"a": 1.50}"#);
        assert_eq!(draft.dispatch_timeout, Some(Duration::from_secs(30)));
        assert_eq!(draft.result_timeout, Some(Duration::from_millis(1500)));
        assert_eq!((draft.priority, &*draft.blueprint), (-3, "b"));
        assert_eq!(draft.labels["team"], "a");
        let draft = read(r#"{"start_at": "2023-11-14T23:13:20+01:00"}"#).unwrap();
        assert_eq!(draft.start_at, Some(Timestamp::from_micros(1_700_000_000_000_000)));
        assert_eq!(read(r#"{"delay": "10m"}"#).unwrap().delay, Some(Duration::from_secs(600)));
        let draft = read(r#"{"webhook_url": "https://example.com/h\u006fok"}"#).unwrap();
        assert_eq!(
            draft.check().unwrap().submission.webhook_url.as_deref(),
            Some("https://example.com/hook")
        );
        let draft = read("{}").unwrap();
        assert_eq!((draft.initial_data.as_str(), &*draft.blueprint), ("{}", "given"));
    }

    #[test]
    fn initial_data_may_be_as_deep_in_an_envelope_as_alone() {
        let deep = |levels: usize| {
            format!("{{\"initial_data\":{}1{}}}", "{\"a\":".repeat(levels), "}".repeat(levels))
        };
        assert!(read(&deep(127)).is_ok());
        assert_eq!(read(&deep(128)).unwrap_err().code, ErrorCode::InvalidJson);
        assert_eq!(read(&deep(50_000)).unwrap_err().code, ErrorCode::InvalidJson);
    }

    #[test]
    fn everything_else_is_refused_with_its_place() {
        for (body, message, hint) in [
            ("", "Invalid JSON body", "line 1 column 0"),
            ("[]", "Invalid JSON body", "expected a JSON object"),
            ("{\"pririty\": 1}", "Invalid JSON body", "unknown key \"pririty\"; did you mean \"priority\"?"),
            ("{\"priority\": 1, \"priority\": 2}", "Invalid JSON body", "\"priority\" stands twice"),
            ("{\"initial_data\": []}", "Invalid JSON body", "expected a JSON object, got an array"),
            ("{\"initial_data\": {\"a\":1,\"a\":2}}", "Invalid JSON body", "\"a\" stands twice"),
            ("{\"priority\": \"high\"}", "priority is \"\\\"high\\\"\"; expected a whole number", ""),
            ("{\"priority\": 1.5}", "priority is \"1.5\"; expected a whole number", ""),
            ("{\"labels\": {\"a\": 1}}", "labels is \"{\\\"a\\\": 1}\"; expected an object of texts", ""),
            (
                "{\"labels\": {\"a\":\"1\",\"a\":\"2\"}}",
                "labels: the key \"a\" stands twice in one object",
                "",
            ),
            ("{\"result_timeout\": -1}", "result_timeout is \"-1\": expected a span of time", ""),
            ("{\"result_timeout\": \"soon\"}", "result_timeout is \"\\\"soon\\\"\": expected a span", ""),
            ("{\"start_at\": 17}", "start_at is \"17\"; expected a time such as", ""),
            ("{\"start_at\": \"tomorrow\"}", "start_at is \"tomorrow\"; expected a time such as", ""),
            ("{\"start_at\": \"2026-12-24T18:00:00\"}", "start_at is \"2026-12-24T18:00:00\"; expected", ""),
            ("{\"delay\": \"later\"}", "delay is \"\\\"later\\\"\": expected a span", ""),
            ("{\"result_timeout\": {}}", "result_timeout is \"{}\"; expected a number of seconds", ""),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.message.starts_with(message), "{body}: {}", error.message);
            assert!(error.hint.contains(hint), "{body}: {}", error.hint);
        }
    }
}
