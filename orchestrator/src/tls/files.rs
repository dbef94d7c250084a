//! From files to a TLS configuration, or all that is wrong with them: so that a mistake is met by whoever made it, at the start
//! or at a reload, and not by those who connect.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::Files;
use crate::{
    blueprint::{Finding, Position, Severity},
    file,
};

/// A file of certificates. A system's whole list of authorities is a quarter of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How long before its end a certificate is warned of.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);

/// What can be spoken inside, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What the files amount to.
pub(super) struct Read {
    pub(super) config: ServerConfig,
    pub(super) warnings: Vec<Finding>,
}

/// Reads them, as they are to be judged at this time.
pub(super) fn read(files: &Files, now: SystemTime) -> Result<Read, Vec<Finding>> {
    let chain = certificates(&files.cert).and_then(|chain| {
        let warnings = judge(&files.cert, &chain, now)?;
        Ok((chain, warnings))
    });
    let key = private_key(&files.key);
    let authorities = files.client_ca.as_deref().map(authorities).transpose();
    match (chain, key, authorities) {
        (Ok((chain, warnings)), Ok(key), Ok(authorities)) => match assemble(chain, key, authorities) {
            Ok(config) => Ok(Read { config, warnings }),
            Err(rustls::Error::InconsistentKeys(_)) => Err(vec![wrong(
                &files.key,
                format!("is not the key of the certificate in {}", files.cert.display()),
                "name the key that the certificate was asked for with",
            )]),
            Err(error) => Err(vec![wrong(&files.cert, error.to_string(), "have another certificate issued")]),
        },
        (chain, key, authorities) => {
            Err([chain.err(), key.err(), authorities.err()].into_iter().flatten().collect())
        }
    }
}

fn assemble(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Option<RootCertStore>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            // Clients show a token and no certificate, at the same port: who must have one is decided for each call.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    // A resumed session would not look at a certificate again, and connections are few and long.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What is wrong, or odd, with our own certificate.
fn judge(path: &Path, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Vec<Finding>, Finding> {
    let broken = |error: &dyn std::fmt::Display| {
        wrong(path, format!("is no certificate that can be read: {error}"), "have it issued again")
    };
    let Some(first) = chain.first() else { return Err(broken(&"it is empty")) };
    let (_, certificate) = X509Certificate::from_der(first).map_err(|error| broken(&error))?;
    let (from, until) = (&certificate.validity().not_before, &certificate.validity().not_after);
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    if until.timestamp() < now {
        return Err(wrong(path, format!("expired on {until}"), "renew the certificate"));
    }
    if from.timestamp() > now {
        let cure = "wait, or check this machine's clock";
        return Err(wrong(path, format!("is not valid before {from}"), cure));
    }
    let mut warnings = Vec::new();
    let left = Duration::from_secs((until.timestamp() - now).unsigned_abs());
    if left < EXPIRES_SOON {
        warnings.push(odd(path, format!("expires on {until}"), "renew the certificate"));
    }
    if !matches!(certificate.subject_alternative_name(), Ok(Some(_))) {
        let cure = "have one issued with the host's name as subjectAltName";
        warnings.push(odd(path, "names no host, so clients will not believe it", cure));
    }
    Ok(warnings)
}

fn authorities(path: &Path) -> Result<RootCertStore, Finding> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            let cure = "put the certificates of authorities there, and nothing else";
            wrong(path, format!("holds what is no authority's certificate: {error}"), cure)
        })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Finding> {
    let bytes = bytes(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => {
            let cure = "it should begin with -----BEGIN CERTIFICATE-----";
            Err(wrong(path, "holds no certificate in PEM", cure))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(path, format!("is broken: {error}"), "write it again")),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Finding> {
    check_mode(path)?;
    // What the file says is never part of a message.
    PrivateKeyDer::from_pem_slice(&bytes(path)?).map_err(|_| {
        wrong(
            path,
            "holds no private key in PEM, or one with a passphrase",
            "it should begin with -----BEGIN PRIVATE KEY-----; take a passphrase off with: openssl pkey",
        )
    })
}

/// A key that everybody on the machine can read is none.
fn check_mode(path: &Path) -> Result<(), Finding> {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(path) {
        use std::os::unix::fs::PermissionsExt as _;
        if metadata.permissions().mode() & 0o007 != 0 {
            let cure = format!("take their rights away: chmod o-rwx {}", path.display());
            return Err(wrong(path, "can be read by every user of this machine", cure));
        }
    }
    Ok(())
}

fn bytes(path: &Path) -> Result<Vec<u8>, Finding> {
    file::bytes(path, FILE_BYTES_MAX)
        .map_err(|error| wrong(path, error.to_string(), "check the path, and its permissions"))
}

fn wrong(path: &Path, what: impl Into<String>, cure: impl Into<String>) -> Finding {
    finding(Severity::Error, path, what, cure)
}

fn odd(path: &Path, what: impl Into<String>, cure: impl Into<String>) -> Finding {
    finding(Severity::Warning, path, what, cure)
}

fn finding(severity: Severity, path: &Path, what: impl Into<String>, cure: impl Into<String>) -> Finding {
    let file = path.display().to_string();
    Finding { severity, file, at: Position::default(), what: what.into(), cure: cure.into() }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::tls::testing::{Authority, FAR, Issued};

    /// The first of January 2026.
    fn new_year() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_767_225_600)
    }

    /// Judges what these files hold on that day.
    fn judged(cert: &str, key: &str, client_ca: Option<&str>) -> Result<Vec<String>, Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let issued = Issued { cert: cert.to_owned(), key: key.to_owned() };
        let (cert, key) = issued.save(dir.path(), "own");
        let client_ca = client_ca.map(|text| {
            let path = dir.path().join("ca.pem");
            fs::write(&path, text).unwrap();
            path
        });
        let shown = |findings: Vec<Finding>| {
            let dir = format!("{}/", dir.path().display());
            findings.iter().map(|finding| finding.to_string().replace(&dir, "")).collect::<Vec<_>>()
        };
        let read = read(&Files { cert, key, client_ca }, new_year());
        read.map(|read| shown(read.warnings)).map_err(shown)
    }

    #[test]
    fn a_certificate_with_its_key_is_accepted_and_one_that_ends_soon_is_warned_of() {
        let authority = Authority::new();
        let good = authority.issue(&["localhost"], FAR);
        assert_eq!(judged(&good.cert, &good.key, Some(&authority.cert)), Ok(Vec::new()));
        let short = authority.issue(&["localhost"], (2026, 1, 10));
        let warnings = judged(&short.cert, &short.key, None).unwrap();
        assert!(warnings[0].starts_with("own.pem: warning: expires on Jan 10 "), "{warnings:?}");
        let nameless = authority.issue(&[], FAR);
        let warnings = judged(&nameless.cert, &nameless.key, None).unwrap();
        assert!(warnings[0].contains("names no host"), "{warnings:?}");
    }

    #[test]
    fn b80_whatever_is_wrong_is_told_at_once_with_its_file_and_its_cure() {
        let authority = Authority::new();
        let (good, other) = (authority.issue(&["localhost"], FAR), authority.issue(&["localhost"], FAR));
        let expired = authority.issue(&["localhost"], (2025, 12, 31));
        for (cert, key, client_ca, expected) in [
            (&*good.cert, &*other.key, None, "own.key: error: is not the key of the certificate in own.pem"),
            (&expired.cert, &expired.key, None, "own.pem: error: expired on Dec 31 "),
            ("", &good.key, None, "own.pem: error: holds no certificate in PEM"),
            (&good.cert, "", None, "own.key: error: holds no private key in PEM"),
            (&good.cert, &good.cert, None, "own.key: error: holds no private key in PEM"),
            (&good.cert, &good.key, Some(""), "ca.pem: error: holds no certificate in PEM"),
            ("-----BEGIN CERTIFICATE-----\nx", &good.key, None, "own.pem: error: is broken"),
        ] {
            let found = judged(cert, key, client_ca).unwrap_err();
            assert!(found[0].starts_with(expected), "{found:?}");
        }
        let all = judged("", "", Some("")).unwrap_err();
        assert_eq!(all.len(), 3, "{all:?}");
    }

    #[test]
    fn b80_a_key_that_everybody_can_read_is_refused_and_a_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = Authority::new().issue(&["localhost"], FAR).save(dir.path(), "own");
        let files = Files { cert, key, client_ca: None };
        fs::set_permissions(&files.key, Permissions::from_mode(0o644)).unwrap();
        let found = read(&files, new_year()).err().unwrap();
        assert!(found[0].what.contains("every user of this machine"), "{found:?}");
        assert!(found[0].cure.contains("chmod o-rwx"), "{found:?}");
        fs::remove_file(&files.key).unwrap();
        fs::remove_file(&files.cert).unwrap();
        fs::create_dir(&files.cert).unwrap();
        let found = read(&files, new_year()).err().unwrap();
        assert!(found[0].what.contains("it is no regular file"), "{found:?}");
        assert!(found[1].what.contains("No such file"), "{found:?}");
    }
}
