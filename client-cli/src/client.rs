//! The way to the orchestrator: an address, a token, a connection (encrypted for `https`), and calls that end in an answer or a [`Failure`].

use std::{net::IpAddr, time::Duration};

use avtomatika_proto::trace::{TRACEPARENT, TraceContext};
use avtomatika_proto::{
    limits::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
    v1::{admin_service_client::AdminServiceClient, job_service_client::JobServiceClient},
};
use avtomatika_worker::tls::{Route, Unreached};
use hyper::header::HeaderValue;
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};

use crate::{
    args::{DEFAULT_URL, DEVELOPMENT_TOKEN, Options},
    failure::Failure,
};

/// Largest answer that is read. A page of a listing may be larger than any message the orchestrator takes; this only
/// guards the memory of this process.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A quiet connection is probed this often, so that a watcher learns of a peer that vanished without a word.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

type Authorized = InterceptedService<Channel, Bearer>;

/// A connection to one orchestrator.
pub struct Server {
    url: String,
    timeout: Duration,
    route: Route,
    channel: Channel,
    bearer: Bearer,
}

impl Server {
    /// Connects. Errors: [`Failure::Usage`] for an address or token that cannot be one, [`Failure::Unreachable`].
    pub async fn connect(options: &Options) -> Result<Self, Failure> {
        let url = if options.url.is_empty() { DEFAULT_URL } else { &options.url };
        let uri = checked_uri(url)?;
        let bearer = Bearer::from_options(options, &uri)?;
        let timeout = options.timeout.0;
        let url = url.to_owned();
        let route = Route::to(&url, options.tls.files());
        let route = route.map_err(|fault| Failure::usage(fault.what, fault.hint))?;
        let endpoint = Endpoint::from(uri)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(timeout)
            .user_agent(concat!("avtomatika-cli/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| Failure::usage(format!("cannot connect to {url}: {error}"), URL_HINT))?;
        match tokio::time::timeout(timeout, route.connect(&endpoint)).await {
            Ok(Ok(channel)) => Ok(Self { url, timeout, route, channel, bearer }),
            Ok(Err(Unreached::Silent(why))) => Err(Failure::Unreachable { url, why }),
            Ok(Err(Unreached::Tls(fault))) => {
                Err(Failure::Unreachable { url, why: fault.what }.with_hint(fault.hint))
            }
            Err(_) => Err(Failure::NoAnswer { url, waited: timeout }),
        }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Longest to wait for one answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The calls about jobs.
    pub fn jobs(&self) -> JobServiceClient<Authorized> {
        JobServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The calls about the orchestrator.
    pub fn admin(&self) -> AdminServiceClient<Authorized> {
        AdminServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Awaits the answer of a call, within the time given for one.
    pub async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(Failure::NoAnswer { url: self.url.clone(), waited: self.timeout }),
        }
    }

    /// What a status from this orchestrator means.
    pub fn failure(&self, status: &Status) -> Failure {
        match (Failure::from_status(&self.url, status), self.route.fault()) {
            (Failure::Unreachable { url, .. }, Some(fault)) => {
                Failure::Unreachable { url, why: fault.what }.with_hint(fault.hint)
            }
            (failure, _) => failure,
        }
    }
}

const URL_HINT: &str = "write it as http://HOST:PORT or https://HOST:PORT, for example http://localhost:8000";

/// The address, if it can be an orchestrator's.
pub(crate) fn checked_uri(url: &str) -> Result<Uri, Failure> {
    let refuse =
        |why: &str| Err(Failure::usage(format!("{url:?} cannot be the orchestrator's URL: {why}"), URL_HINT));
    let Ok(uri) = url.parse::<Uri>() else { return refuse("it is not a URL") };
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return refuse("it does not begin with http:// or https://"),
    }
    if uri.path() != "/" || uri.query().is_some() {
        return refuse("it has a path, and gRPC takes none");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return refuse("it holds a user name; credentials go into --token");
    }
    Ok(uri)
}

/// Puts the token on every call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// The token that was given, or, towards this machine, that of development.
    pub(crate) fn from_options(options: &Options, uri: &Uri) -> Result<Self, Failure> {
        let given = options.token.as_deref().filter(|token| !token.is_empty());
        let Some(token) = given.or(is_loopback(uri).then_some(DEVELOPMENT_TOKEN)) else {
            return Ok(Self(None));
        };
        match MetadataValue::try_from(format!("Bearer {token}")) {
            Ok(mut value) => {
                value.set_sensitive(true);
                Ok(Self(Some(value)))
            }
            Err(_) => Err(Failure::usage(
                "the token holds a character that no token has",
                "check --token or AVTOMATIKA_TOKEN for line breaks and other stray characters",
            )),
        }
    }

    /// The same as the value of an HTTP header.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut header = HeaderValue::from_bytes(self.0.as_ref()?.as_encoded_bytes()).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// Whether the address is of this machine by its very name.
pub(crate) fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        // Whoever runs this program within a trace has its jobs in that trace.
        if let Ok(trace) = std::env::var("TRACEPARENT")
            && TraceContext::parse(&trace, None).is_some()
            && let Ok(trace) = MetadataValue::try_from(trace)
        {
            request.metadata_mut().insert(TRACEPARENT, trace);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        args::{Format, Tls},
        span::Span,
    };

    fn bearer(url: &str, token: Option<&str>) -> Result<Option<String>, Failure> {
        let options = Options {
            url: url.into(),
            url_is_given: true,
            token: token.map(Into::into),
            tls: Tls::default(),
            output: Format::Table,
            timeout: Span(Duration::from_secs(1)),
        };
        let bearer = Bearer::from_options(&options, &checked_uri(url)?)?;
        Ok(bearer.0.map(|value| value.to_str().expect("is ASCII").to_owned()))
    }

    #[test]
    fn the_development_token_goes_to_this_machine_only_and_never_over_a_given_one() {
        let development = Some("Bearer test-client-token".to_owned());
        for url in ["http://localhost:8000", "http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]:8000"] {
            assert_eq!(bearer(url, None).expect(url), development, "{url}");
            assert_eq!(bearer(url, Some("")).expect(url), development, "{url}");
            assert_eq!(bearer(url, Some("mine")).expect(url), Some("Bearer mine".to_owned()), "{url}");
        }
        for url in
            ["http://example.com", "http://localhost.example.com:8000", "http://10.0.0.1", "http://[::2]"]
        {
            assert_eq!(bearer(url, None).expect(url), None, "{url}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_the_orchestrators_is_refused_before_anything_is_sent() {
        for (url, why) in [
            ("", "not a URL"),
            ("localhost:8000", "begin with http://"),
            ("ftp://localhost", "begin with http://"),
            ("https://localhost/api", "path"),
            ("http://localhost:8000/api", "path"),
            ("http://localhost:8000?x=1", "path"),
            ("http://me:secret@localhost:8000", "user name"),
            ("http://local host", "not a URL"),
        ] {
            let failure = checked_uri(url).expect_err(url);
            assert!(failure.to_string().contains(why), "{url}: {failure}");
            assert_eq!(failure.exit().code(), 2);
        }
    }

    #[test]
    fn a_token_with_a_line_break_is_refused_without_being_shown() {
        let failure = bearer("http://localhost", Some("secret\nX: y")).expect_err("no header takes it");
        assert!(!format!("{failure} {failure:?}").contains("secret"));
    }
}
