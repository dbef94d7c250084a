//! Who is at the other end of a connection, as far as a certificate says.
//!
//! A worker's certificate names it in its subjectAltName: by the URI `avtomatika://worker/NAME`, or, when it has no URI of that
//! kind, by its one DNS name. Nothing else names a worker: not the subject, not a pattern, and not one name out of several.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode, names::is_name};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// What stands before the name in a URI.
const WORKER_URI: &str = "avtomatika://worker/";

/// What a connection knows of its peer. In the extensions of its requests; nothing is known without it.
#[derive(Debug, Clone, Default)]
pub struct Peer(Shown);

#[derive(Debug, Clone, Default)]
enum Shown {
    /// Nobody asks for certificates here.
    #[default]
    NotAsked,
    /// No certificate.
    Nothing,
    /// One that names this worker.
    Worker(Arc<str>),
    /// One that names no worker.
    Nobody(&'static str),
}

impl Peer {
    /// Where certificates are asked for: what this one, which was verified, says.
    pub(crate) fn with(certificate: Option<&CertificateDer<'_>>) -> Self {
        Self(match certificate.map(|certificate| name(certificate)) {
            None => Shown::Nothing,
            Some(Ok(name)) => Shown::Worker(name.into()),
            Some(Err(why)) => Shown::Nobody(why),
        })
    }

    /// Lets a worker's call in.
    ///
    /// # Errors
    /// `WORKER_CERTIFICATE_REQUIRED` when a certificate is asked for, and there is none that names a worker.
    pub(crate) fn admit(&self) -> Result<(), ApiError> {
        let refuse = |text: &str| Err(ApiError::new(ErrorCode::WorkerCertificateRequired, text.to_owned()));
        match &self.0 {
            Shown::NotAsked | Shown::Worker(_) => Ok(()),
            Shown::Nothing => refuse("The connection shows no certificate, and workers need one here"),
            Shown::Nobody(why) => refuse(why),
        }
    }

    /// Lets a worker have this name.
    ///
    /// # Errors
    /// `WORKER_CERTIFICATE_REQUIRED`, and `WORKER_CERTIFICATE_MISMATCH` when it is another one's.
    pub(crate) fn vouch(&self, worker_id: &str) -> Result<(), ApiError> {
        self.admit()?;
        match &self.0 {
            Shown::Worker(name) if **name != *worker_id => {
                let text = format!("The certificate is that of worker {name:?}, not of {worker_id:?}");
                Err(ApiError::new(ErrorCode::WorkerCertificateMismatch, text)
                    .with_hint(format!("Start the worker as {name}, or give it its own certificate.")))
            }
            _ => Ok(()),
        }
    }

    /// A worker's credential, bound to the name in its certificate: what was registered with one certificate cannot be opened
    /// with the token and another one. A renewed certificate has the same name and changes nothing.
    pub(crate) fn bind(&self, credential: [u8; 32]) -> [u8; 32] {
        match &self.0 {
            Shown::Worker(name) => {
                Sha256::new().chain_update(credential).chain_update(&**name).finalize().into()
            }
            _ => credential,
        }
    }
}

/// The one name of a worker that the certificate holds.
fn name(certificate: &CertificateDer<'_>) -> Result<String, &'static str> {
    const UNREADABLE: &str = "The names in the certificate cannot be read";
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| UNREADABLE)?;
    let names = certificate.subject_alternative_name().map_err(|_| UNREADABLE)?;
    let names = names.map(|names| &*names.value.general_names).unwrap_or_default();
    let uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(WORKER_URI),
        _ => None,
    });
    let hosts = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(host) => Some(*host),
        _ => None,
    });
    let found = match only(uris)? {
        Some(name) => name,
        None => only(hosts)?.ok_or("The certificate names no worker")?,
    };
    // No pattern either: an asterisk is not part of a name.
    match is_name(found) {
        true => Ok(found.to_owned()),
        false => Err("What the certificate names is no name of a worker"),
    }
}

fn only<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<Option<&'a str>, &'static str> {
    match (names.next(), names.next()) {
        (_, Some(_)) => Err("The certificate names several workers"),
        (name, None) => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::tls::testing::{Authority, FAR};

    fn peer(names: &[&str]) -> Peer {
        let issued = Authority::new().issue(names, FAR);
        Peer::with(Some(&CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap()))
    }

    #[test]
    fn s_23_a_certificate_names_its_worker_by_uri_or_by_its_one_host_name() {
        for (names, worker) in [
            (&["uri:avtomatika://worker/gpu-1"][..], "gpu-1"),
            (&["gpu-1.example"], "gpu-1.example"),
            (&["uri:avtomatika://worker/gpu-1", "gpu-1.example", "other.example"], "gpu-1"),
            (&["uri:spiffe://example/gpu", "gpu-1.example"], "gpu-1.example"),
        ] {
            let peer = peer(names);
            assert!(peer.vouch(worker).is_ok(), "{names:?}: {peer:?}");
            let refused = peer.vouch("gpu-2").unwrap_err();
            assert_eq!(refused.code, ErrorCode::WorkerCertificateMismatch);
            assert_eq!(
                refused.message,
                format!("The certificate is that of worker {worker:?}, not of \"gpu-2\"")
            );
        }
    }

    #[test]
    fn s_23_a_certificate_that_names_nobody_or_several_lets_nobody_in() {
        for (names, why) in [
            (&[][..], "The certificate names no worker"),
            (&["uri:spiffe://example/gpu"], "The certificate names no worker"),
            (&["a.example", "b.example"], "The certificate names several workers"),
            (
                &["uri:avtomatika://worker/a", "uri:avtomatika://worker/b"],
                "The certificate names several workers",
            ),
            (&["*.example"], "What the certificate names is no name of a worker"),
            (&["uri:avtomatika://worker/gpu-*"], "What the certificate names is no name of a worker"),
            (&["uri:avtomatika://worker/"], "What the certificate names is no name of a worker"),
        ] {
            let refused = peer(names).vouch("a").unwrap_err();
            assert_eq!(refused.code, ErrorCode::WorkerCertificateRequired, "{names:?}");
            assert_eq!(refused.message, why, "{names:?}");
        }
        let nothing = Peer::with(None);
        assert_eq!(nothing.admit().unwrap_err().code, ErrorCode::WorkerCertificateRequired);
        assert!(Peer::default().vouch("anybody").is_ok(), "where nobody asks");
    }

    #[test]
    fn a_credential_is_bound_to_the_name_and_not_to_the_certificate() {
        let token = [7; 32];
        let names = &["uri:avtomatika://worker/a"];
        assert_eq!(peer(names).bind(token), peer(names).bind(token), "renewed");
        assert_ne!(peer(names).bind(token), peer(&["b"]).bind(token));
        assert_ne!(peer(names).bind(token), token);
        assert_eq!(Peer::default().bind(token), token);
    }
}
