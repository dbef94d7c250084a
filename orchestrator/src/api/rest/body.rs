//! Reading a request's body: never further than its limit, never longer than its time; and what it says, where that is one object.

use std::{fmt, marker::PhantomData};

use avtomatika_proto::{ApiError, ErrorCode, limits::PAYLOAD_BYTES_MAX};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Version,
    header::{CONTENT_ENCODING, CONTENT_LENGTH},
    request::Parts,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    api::{
        Inside,
        intake::Turn,
        limits::BODY_READ_TIMEOUT,
        submission::{body_timeout, invalid, invalid_json, quote, too_large},
    },
    conductor::Admission,
};

/// Largest body of a wrapped submission: the payload, with room for labels and the rest.
pub(super) const ENVELOPE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 64 * 1024;

/// Nothing in the body is wrong that could be named: what is around it is.
const BROKE_OFF: &str = "Send the body whole, with its length in content-length or in chunks of which each has its length and the last is empty.";

/// The whole body, as [`read`] has it, and leave to look into it. Others may be read then.
///
/// # Errors
/// Those of [`read`].
pub(super) async fn admitted(
    inside: &Inside,
    parts: &Parts,
    body: Incoming,
    limit_bytes: usize,
) -> Result<(Bytes, Admission), ApiError> {
    let bytes = read(parts, body, limit_bytes).await?;
    let admission = inside.conductor.admit(bytes.len()).await;
    if let Some(turn) = parts.extensions.get::<Turn>() {
        turn.let_go();
    }
    Ok((bytes, admission))
}

/// The whole body, when it is within the limit and arrives in time. Waits until it has its turn to be read, and keeps that for as long
/// as the request is there.
///
/// # Errors
/// `OVERLOADED` when its turn does not come; `PAYLOAD_TOO_LARGE` at the first byte over the limit, and before any byte when the announced length is over it;
/// `REQUEST_TIMEOUT`; `INVALID_ARGUMENT` when the connection breaks off; `UNSUPPORTED_MEDIA_TYPE` for a body that is
/// compressed, because what it would unpack to has no limit.
pub(super) async fn read(parts: &Parts, body: Incoming, limit_bytes: usize) -> Result<Bytes, ApiError> {
    let headers = &parts.headers;
    if let Some(coding) = headers.get_all(CONTENT_ENCODING).iter().find(|coding| !is_identity(coding)) {
        let coding = quote(&String::from_utf8_lossy(coding.as_bytes()));
        let text = format!("The request body has the content-encoding {coding}; it is read as it is");
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, text));
    }
    if announced_bytes(headers, &body) > limit_bytes as u64 {
        return Err(too_large(limit_bytes));
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if let Some(turn) = parts.extensions.get::<Turn>() {
        // What does not say how long it is may be as long as it may be.
        let announced = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        if let Err(error) = turn.take(announced.unwrap_or(limit_bytes)).await {
            // To break it off would take a reset, and a peer that meets many of those loses its connection.
            if parts.version == Version::HTTP_2 {
                let _ =
                    tokio::time::timeout(BODY_READ_TIMEOUT, pass_by(Limited::new(body, limit_bytes))).await;
            }
            return Err(error);
        }
    }
    match tokio::time::timeout(BODY_READ_TIMEOUT, Limited::new(body, limit_bytes).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit_bytes)),
        Ok(Err(_)) => {
            Err(invalid("the request body broke off before its end".to_owned()).with_hint(BROKE_OFF))
        }
        Err(_) => Err(body_timeout()),
    }
}

/// What a body says that may be left out.
///
/// # Errors
/// `INVALID_JSON` for whatever is not one JSON object with the members that it may have.
pub(super) fn object<'a, T: Default + Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    let Object(value) = serde_json::from_slice(bytes).map_err(invalid_json)?;
    Ok(value)
}

/// What is written as a JSON object, and as nothing else. Derived code takes an array as well, its items for the fields in their order,
/// and that is never what somebody means.
#[derive(Default)]
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Named<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(Named(PhantomData)).map(Self)
    }
}

/// Lets a body come to its end, or to its limit.
async fn pass_by(mut body: Limited<Incoming>) {
    while let Some(Ok(_)) = body.frame().await {}
}

fn is_identity(coding: &HeaderValue) -> bool {
    coding
        .as_bytes()
        .split(|byte| *byte == b',')
        .all(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

fn announced_bytes(headers: &HeaderMap, body: &Incoming) -> u64 {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    length.unwrap_or(0).max(body.size_hint().lower())
}
