//! Where a message goes: a URL as it may be, taken apart.
//!
//! It is parsed as browsers do it, so that every spelling of an address (`2130706433`, `0x7f.1`) is seen for what it is.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode};
use url::{Host, Url};

use super::address::is_public;

/// Length of a webhook's URL.
pub const URL_BYTES_MAX: usize = 2048;

/// Ports below this one belong to services of machines: mail, shells, databases are not to be spoken to. 80 and 443 excepted.
const SYSTEM_PORTS: u16 = 1024;

/// A webhook's URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A name, or an address.
    pub host: Host<Arc<str>>,
    /// The port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// What stands in the `host` header.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// The parts of this URL.
    ///
    /// # Errors
    /// What is wrong with it, as half a sentence.
    pub fn of(text: &str) -> Result<Self, String> {
        if text.len() > URL_BYTES_MAX {
            return Err(format!("it has {} bytes, the limit is {URL_BYTES_MAX}", text.len()));
        }
        // What a parser would skip or mend is a mistake here: two parsers that mend differently are how such checks are fooled.
        if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'\\') {
            return Err("it has a space, a control character or a backslash in it".to_owned());
        }
        let url = Url::parse(text).map_err(|error| format!("it is not a URL: {error}"))?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err("it begins with neither https:// nor http://".to_owned()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it has a user name or a password in it, which would end up in logs".to_owned());
        }
        if url.fragment().is_some() {
            return Err("it has a fragment (#), which is never sent".to_owned());
        }
        let host: Host<Arc<str>> = match url.host() {
            // One spelling for each name: the dot of the root is left out.
            Some(Host::Domain(name)) => Host::Domain(Arc::from(name.trim_end_matches('.'))),
            Some(Host::Ipv4(address)) => Host::Ipv4(address),
            Some(Host::Ipv6(address)) => Host::Ipv6(address),
            None => return Err("it names no host".to_owned()),
        };
        if matches!(&host, Host::Domain(name) if name.is_empty()) {
            return Err("it names no host".to_owned());
        }
        let port = url.port_or_known_default().ok_or_else(|| "it names no port".to_owned())?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        Ok(Self { host, port, tls, authority, path })
    }

    /// What can be said against it before anything is asked of the network.
    pub(super) fn check(&self, allow_private: bool) -> Result<(), String> {
        if allow_private {
            return Ok(());
        }
        let is_private = match &self.host {
            Host::Domain(name) => &**name == "localhost" || name.ends_with(".localhost"),
            Host::Ipv4(address) => !is_public((*address).into()),
            Host::Ipv6(address) => !is_public((*address).into()),
        };
        if is_private {
            return Err(format!("{} is not on the public Internet", self.host));
        }
        if self.port < SYSTEM_PORTS && !matches!(self.port, 80 | 443) {
            return Err(format!("port {} is for other services than webhooks", self.port));
        }
        Ok(())
    }
}

/// Whether messages may go to this URL, as far as the URL alone can tell. The address that it leads to is looked at whenever
/// one is sent.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is no such URL, `WEBHOOK_URL_FORBIDDEN` for one that leads where messages must not go.
pub fn check_url(text: &str, allow_private: bool) -> Result<(), ApiError> {
    let target = Target::of(text).map_err(|what| {
        ApiError::new(ErrorCode::InvalidArgument, format!("webhook_url cannot be used: {what}"))
            .with_hint("Write it as https://host/path.")
    })?;
    target.check(allow_private).map_err(|what| {
        ApiError::new(ErrorCode::WebhookUrlForbidden, format!("webhook_url cannot be used: {what}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let target = Target::of("HTTPS://Hooks.Example.com./a/b?c=d").unwrap();
        assert_eq!(target.host, Host::Domain(Arc::from("hooks.example.com")));
        assert_eq!((target.port, target.tls), (443, true));
        assert_eq!((&*target.authority, &*target.path), ("hooks.example.com", "/a/b?c=d"));
        let target = Target::of("http://[2606:4700::1111]:8080").unwrap();
        assert_eq!((&*target.authority, &*target.path), ("[2606:4700::1111]:8080", "/"));
    }

    #[test]
    fn what_is_no_url_for_a_message_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "it is not a URL"),
            ("/hook", "it is not a URL"),
            ("ftp://example.com/", "it begins with neither"),
            ("file:///etc/passwd", "it begins with neither"),
            ("https://", "it is not a URL"),
            ("https://user:pw@example.com/", "it has a user name"),
            ("https://user@example.com/", "it has a user name"),
            ("https://example.com/#part", "it has a fragment"),
            ("https://example.com/a b", "it has a space"),
            ("https://example.com/\r\nX-Evil: 1", "it has a space"),
            ("https://example.com\\@evil.com/", "it has a space"),
            ("https://example.com:70000/", "it is not a URL"),
        ] {
            let error = check_url(text, true).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{text}");
            assert!(error.message.contains(reason), "{text}: {}", error.message);
        }
        let long = format!("https://example.com/{}", "a".repeat(URL_BYTES_MAX));
        assert!(check_url(&long, true).unwrap_err().message.contains("the limit is 2048"));
    }

    #[test]
    fn what_leads_inside_is_refused_in_every_spelling_unless_it_is_allowed() {
        for text in [
            "http://169.254.169.254/latest/meta-data",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://localhost/",
            "http://localhost./",
            "http://LOCALHOST:8080/",
            "http://api.localhost/",
            "http://10.0.0.7/",
            "https://[fd00::1]/",
            "https://example.com:22/",
            "http://example.com:25/",
        ] {
            let error = check_url(text, false).unwrap_err();
            assert_eq!(error.code, ErrorCode::WebhookUrlForbidden, "{text}");
            assert_eq!(check_url(text, true), Ok(()), "{text}");
        }
        for text in [
            "https://example.com/",
            "http://example.com:8080/a",
            "https://1.1.1.1/",
            "http://example.com:80/",
        ] {
            assert_eq!(check_url(text, false), Ok(()), "{text}");
        }
    }
}
