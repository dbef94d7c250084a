//! What an error of TLS means to whoever has to mend it.
//!
//! A peer that does not like our certificate says so after the handshake, when we have already begun to speak: hence the
//! stream that explains what it reads.

use std::{
    io,
    pin::Pin,
    sync::PoisonError,
    task::{Context, Poll},
};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{LastWords, TlsFault};

const CHECK_CLOCK: &str = "renew it where the orchestrator runs, or check this machine's clock";

/// What this error says of TLS; `None` when it is about something else.
pub(super) fn explain(error: &io::Error) -> Option<TlsFault> {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let (what, hint) = match tls {
        Some(Error::InvalidCertificate(error)) => certificate(error),
        Some(Error::AlertReceived(alert)) => alert_of(*alert),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            ("it does not speak TLS".into(), "write http:// instead of https://, or set up TLS there")
        }
        Some(other) => (format!("TLS: {other}"), "check that it is an orchestrator"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            ("it closed the connection during the TLS handshake".into(), "look at the orchestrator's log")
        }
        None => return None,
    };
    Some(TlsFault::new(what, hint))
}

fn certificate(error: &CertificateError) -> (String, &'static str) {
    match error {
        // A signature is wrong when another authority has the same name, such as one that was made again.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "its certificate is signed by an authority that is not trusted here".into(),
            "name the authority's certificate with --tls-ca or AVTOMATIKA_TLS_CA",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("its certificate has expired".into(), CHECK_CLOCK)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("its certificate is not valid yet".into(), CHECK_CLOCK)
        }
        CertificateError::NotValidForNameContext { expected, presented } => (
            format!("its certificate is for {}, not for {}", names(presented), expected.to_str()),
            "use a URL with a name that the certificate has, or have one issued for this name",
        ),
        CertificateError::NotValidForName => (
            "its certificate is for another name than that of the URL".into(),
            "use a URL with a name that the certificate has, or have one issued for this name",
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "its certificate is not one for servers".into(),
            "have one issued with serverAuth as extendedKeyUsage",
        ),
        other => (format!("its certificate cannot be believed: {other}"), "have it issued again"),
    }
}

/// The names in a certificate as people write them. The library gives each as its debug text, such as `DnsName("jobs.example")`.
fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name".to_owned();
    }
    let plain: Vec<&str> = presented.iter().map(|name| plain(name)).collect();
    plain.join(", ")
}

fn plain(name: &str) -> &str {
    for kind in ["DnsName(", "IpAddress(", "UniformResourceIdentifier("] {
        let inner = name.strip_prefix(kind).and_then(|rest| rest.strip_suffix(')'));
        if let Some(inner) = inner {
            return inner.trim_matches('"');
        }
    }
    // A mail address and the like, of which the library gives no more than the kind.
    let is_unread = name.starts_with("Unsupported(") || name == "DirectoryName";
    if is_unread { "a name of another kind" } else { name }
}

fn alert_of(alert: AlertDescription) -> (String, &'static str) {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => (
            "it does not know the authority that signed our certificate".into(),
            "show a certificate of the authority in its tls_client_ca: --tls-cert and --tls-key",
        ),
        AlertDescription::CertificateExpired => {
            ("it says that our certificate has expired".into(), "renew it, or check both clocks")
        }
        AlertDescription::CertificateRequired => {
            ("it asks for a certificate, and we show none".into(), "name one with --tls-cert and --tls-key")
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked => (
            format!("it does not accept our certificate ({alert:?})"),
            "show one that was issued for clients (clientAuth)",
        ),
        AlertDescription::NoApplicationProtocol => {
            ("it does not speak HTTP/2".into(), "check that it is an orchestrator, with no proxy in between")
        }
        AlertDescription::ProtocolVersion => ("it speaks no TLS 1.2 or 1.3".into(), "bring it up to date"),
        other => (format!("it ended the TLS handshake with {other:?}"), "look at the orchestrator's log"),
    }
}

/// An encrypted stream whose errors explain themselves.
pub(super) struct Explained {
    stream: TlsStream<TcpStream>,
    last_words: LastWords,
}

impl Explained {
    pub(super) fn new(stream: TlsStream<TcpStream>, last_words: LastWords) -> Self {
        Self { stream, last_words }
    }

    /// The error in words that help, which are kept as well.
    fn explained(&self, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::InvalidData {
            return error;
        }
        let Some(fault) = explain(&error) else { return error };
        *self.last_words.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.clone());
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }

    /// A peer that hangs up on us has said why before; that is worth more than that it is gone.
    fn last_words<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Poll::Ready(Err(gone)) = written else { return written };
        let mut buffer = [0; 1024];
        match Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut buffer)) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Poll::Ready(Err(self.explained(error)))
            }
            _ => Poll::Ready(Err(gone)),
        }
    }
}

impl AsyncRead for Explained {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        read.map_err(|error| this.explained(error))
    }
}

impl AsyncWrite for Explained {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.last_words(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, parts);
        this.last_words(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.last_words(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn names_of_a_certificate_are_written_plainly() {
        let said = |presented: &[&str]| {
            certificate(&CertificateError::NotValidForNameContext {
                expected: ServerName::try_from("127.0.0.1").unwrap(),
                presented: presented.iter().map(|&name| name.to_owned()).collect(),
            })
            .0
        };
        assert_eq!(
            said(&[r#"DnsName("jobs.example")"#, "IpAddress(10.0.0.1)", "IpAddress(::1)"]),
            "its certificate is for jobs.example, 10.0.0.1, ::1, not for 127.0.0.1"
        );
        assert_eq!(
            said(&[r#"UniformResourceIdentifier("avtomatika://worker/w1")"#, "Unsupported(0x01)"]),
            "its certificate is for avtomatika://worker/w1, a name of another kind, not for 127.0.0.1"
        );
        assert_eq!(said(&[]), "its certificate is for no name, not for 127.0.0.1");
    }
}
