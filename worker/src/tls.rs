//! The way to an orchestrator, encrypted where its URL says `https`: whom to believe, and who one is.
//!
//! What goes wrong is told in words that name the cure. The command line takes the same way. It refuses to know what is said
//! over the connection, and when to try again.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use avtomatika_proto::wire_error::innermost;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};

mod explain;

use explain::{Explained, explain};

/// Port of `https` when the URL names none.
const HTTPS_PORT: u16 = 443;

/// Files for encrypted connections, each in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may vouch for the orchestrator, and no others. Without it, those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// The certificate that says who we are, where the orchestrator asks for one.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// What stands in the way of an encrypted connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {hint}")]
pub struct TlsFault {
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub hint: String,
}

impl TlsFault {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// Nobody answers there: the system's own words.
    #[error("{0}")]
    Silent(String),
    /// Somebody does, but it cannot be believed, or does not believe us.
    #[error(transparent)]
    Tls(#[from] TlsFault),
}

/// What ended a connection that had come about. In TLS 1.3 a peer judges our certificate only when we already believe to be
/// connected, and the layers above forget why the connection broke.
type LastWords = Arc<Mutex<Option<TlsFault>>>;

/// The way to one orchestrator.
#[derive(Debug, Clone)]
pub struct Route {
    encrypted: Option<Encrypted>,
    last_words: LastWords,
}

#[derive(Debug, Clone)]
struct Encrypted {
    host: ServerName<'static>,
    files: TlsFiles,
    /// Whom this machine trusts, where no authority is named: read once, because a system has hundreds.
    system: Option<Arc<RootCertStore>>,
}

impl Route {
    /// The way to this URL, which must begin with `http://` or `https://`.
    ///
    /// # Errors
    /// When the files cannot be used, or the URL says that they are not.
    pub fn to(url: &str, files: TlsFiles) -> Result<Self, TlsFault> {
        let uri: Option<Uri> = url.parse().ok();
        let uri =
            uri.ok_or_else(|| TlsFault::new(format!("{url:?} is not a URL"), "write https://HOST:PORT"))?;
        if uri.scheme_str() != Some("https") {
            return match files == TlsFiles::default() {
                true => Ok(Self { encrypted: None, last_words: LastWords::default() }),
                false => Err(TlsFault::new(
                    format!("there are files for TLS, but {url} says that the connection is in clear text"),
                    "write https:// instead of http://, or leave the files out",
                )),
            };
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let host = ServerName::try_from(host.clone()).map_err(|_| {
            TlsFault::new(format!("{host:?} is no name that a certificate could be for"), "check the URL")
        })?;
        let system = files.ca.is_none().then(|| Arc::new(trusted_roots()));
        let encrypted = Encrypted { host, files, system };
        encrypted.config()?;
        Ok(Self { encrypted: Some(encrypted), last_words: LastWords::default() })
    }

    /// What the orchestrator has said of TLS since the last [`Route::connect`] that ended the connection: worth more than what a
    /// call says that failed with it.
    pub fn fault(&self) -> Option<TlsFault> {
        self.last_words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects, with the settings of this endpoint, which leads to the same URL. Files are read again each time, so that a
    /// renewed certificate is used from the next connection on.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Unreached> {
        let Some(encrypted) = &self.encrypted else {
            return endpoint.connect().await.map_err(|error| Unreached::Silent(innermost(&error)));
        };
        let connector = TlsConnector::from(Arc::new(encrypted.config()?));
        let (host, last_words) = (encrypted.host.clone(), self.last_words.clone());
        *last_words.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let dial = tower::service_fn(move |uri: Uri| {
            let (connector, host, last_words) = (connector.clone(), host.clone(), last_words.clone());
            async move {
                let stream = dial(&uri, &connector, host).await?;
                Ok::<_, Unreached>(TokioIo::new(Explained::new(stream, last_words)))
            }
        });
        endpoint.connect_with_connector(dial).await.map_err(|error| {
            let mut cause = error.source();
            while let Some(error) = cause {
                if let Some(Unreached::Tls(fault)) = error.downcast_ref() {
                    return Unreached::Tls(fault.clone());
                }
                cause = error.source();
            }
            // It may have come about, and been ended before it was handed to us.
            self.fault().map_or_else(|| Unreached::Silent(innermost(&error)), Unreached::Tls)
        })
    }
}

async fn dial(
    uri: &Uri,
    connector: &TlsConnector,
    host: ServerName<'static>,
) -> Result<TlsStream<TcpStream>, Unreached> {
    let address = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let silent = |error: io::Error| Unreached::Silent(error.to_string());
    let stream = TcpStream::connect((address, uri.port_u16().unwrap_or(HTTPS_PORT))).await.map_err(silent)?;
    stream.set_nodelay(true).map_err(silent)?;
    let connected = connector.connect(host, stream).await;
    connected.map_err(|error| explain(&error).map_or_else(|| silent(error), Unreached::Tls))
}

impl Encrypted {
    fn config(&self) -> Result<ClientConfig, TlsFault> {
        let broken =
            |error: rustls::Error| TlsFault::new(format!("TLS cannot be set up: {error}"), "check the files");
        let roots = match (&self.system, &self.files.ca) {
            (_, Some(path)) => Arc::new(authorities(path)?),
            (Some(system), None) => system.clone(),
            (None, None) => Arc::new(trusted_roots()),
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(broken)?
            .with_root_certificates(roots);
        let mut config = match (&self.files.cert, &self.files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let certificate = builder.with_client_auth_cert(certificates(cert)?, private_key(key)?);
                certificate.map_err(|error| {
                    let what = format!("{} and {} do not fit: {error}", cert.display(), key.display());
                    TlsFault::new(what, "name the key that the certificate was asked for with")
                })?
            }
            _ => {
                return Err(TlsFault::new(
                    "of a certificate and its key, only one is named",
                    "name both: --tls-cert and --tls-key",
                ));
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// Whom this machine trusts, so that an authority which a company installed there counts; when it has no such list, as in a
/// container with nothing but a program, whom Mozilla trusts.
fn trusted_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            let what = format!("{} holds what is no authority's certificate: {error}", path.display());
            TlsFault::new(what, "name the certificate of the authority that signed the orchestrator's")
        })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let bytes = bytes(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| {
        let what = format!("{} holds no certificate in PEM", path.display());
        TlsFault::new(what, "it should begin with -----BEGIN CERTIFICATE-----")
    })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    // What the file says is never part of a message.
    PrivateKeyDer::from_pem_slice(&bytes(path)?).map_err(|_| {
        let what = format!("{} holds no private key in PEM, or one with a passphrase", path.display());
        TlsFault::new(what, "it should begin with -----BEGIN PRIVATE KEY-----")
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsFault> {
    std::fs::read(path).map_err(|error| {
        TlsFault::new(
            format!("{} cannot be read: {error}", path.display()),
            "check the path, and its permissions",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(url: &str, files: TlsFiles) -> String {
        Route::to(url, files).unwrap_err().to_string()
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_their_cure_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "nothing").unwrap();
        let ca = |path: &Path| TlsFiles { ca: Some(path.to_owned()), ..TlsFiles::default() };
        let missing = dir.path().join("missing.pem");
        assert!(fault("https://x", ca(&missing)).contains("cannot be read: No such file"));
        assert!(fault("https://x", ca(&empty)).contains("holds no certificate in PEM; it should begin with"));
        assert!(fault("http://x", ca(&empty)).contains("in clear text; write https://"));
        let half = TlsFiles { cert: Some(empty.clone()), ..TlsFiles::default() };
        assert!(fault("https://x", half).contains("only one is named; name both"));
        let key = TlsFiles { cert: Some(empty.clone()), key: Some(empty), ca: None };
        assert!(fault("https://x", key).contains("holds no certificate in PEM"));
        assert!(
            fault("https://-", TlsFiles::default()).contains("is no name that a certificate could be for")
        );
    }

    #[test]
    fn a_way_in_clear_text_needs_no_files_and_an_encrypted_one_takes_the_authorities_of_the_machine() {
        assert!(Route::to("http://127.0.0.1:8000", TlsFiles::default()).is_ok());
        let route = Route::to("https://[::1]:8000", TlsFiles::default()).unwrap();
        assert!(
            route.encrypted.is_some_and(|encrypted| encrypted.system.is_some_and(|roots| !roots.is_empty()))
        );
    }
}
