//! The connection to a receiver. Whatever name a URL has: the address that is connected to was judged a moment before, and it is
//! that address and no other, so that a name which leads elsewhere the second time gains nothing.
//!
//! No proxy is asked and no connection is shared.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{self, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsConnector;
use url::Host;

use super::{address::is_public, target::Target};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// The addresses of a name, when they are known.
pub type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Who knows the addresses of names.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of this name, the better ones first.
    fn resolve(&self, name: Arc<str>) -> Addresses;
}

/// Names that are looked up at once. A lookup that hangs keeps a thread of those that also read the store, for as long as it hangs.
const LOOKUPS_MAX: usize = 32;

static LOOKUPS: Semaphore = Semaphore::const_new(LOOKUPS_MAX);

/// The machine's own resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Arc<str>) -> Addresses {
        Box::pin(async move {
            let place = LOOKUPS.acquire().await.map_err(io::Error::other)?;
            // Whoever asked may give up; the thread does not, and neither does its place.
            let looking = tokio::spawn(async move {
                let found = net::lookup_host((&*name, 0)).await;
                drop(place);
                Ok(found?.map(|address| address.ip()).collect())
            });
            looking.await.map_err(io::Error::other)?
        })
    }
}

/// A connection, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// How receivers are reached.
pub(super) struct Connector {
    resolver: Arc<dyn Resolve>,
    allow_private: bool,
    tls: TlsConnector,
}

impl Connector {
    /// Trusts these authorities.
    pub(super) fn new(
        resolver: Arc<dyn Resolve>,
        allow_private: bool,
        roots: RootCertStore,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { resolver, allow_private, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Connects, or says why not. The text is for the client: it names no address that the client did not name.
    pub(super) async fn connect(&self, target: &Target) -> Result<Box<dyn Stream>, String> {
        let stream = self.reach(target).await?;
        // Small messages, one for each connection.
        let _ = stream.set_nodelay(true);
        if !target.tls {
            return Ok(Box::new(stream));
        }
        let name = match &target.host {
            Host::Domain(name) => ServerName::try_from(name.to_string())
                .map_err(|_| format!("{name:?} is not a name that a certificate could be for"))?,
            Host::Ipv4(address) => ServerName::from(IpAddr::V4(*address)),
            Host::Ipv6(address) => ServerName::from(IpAddr::V6(*address)),
        };
        let encrypted = self.tls.connect(name, stream).await;
        encrypted.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|error| format!("TLS: {error}"))
    }

    async fn reach(&self, target: &Target) -> Result<TcpStream, String> {
        target.check(self.allow_private)?;
        let found = match &target.host {
            Host::Ipv4(address) => vec![IpAddr::V4(*address)],
            Host::Ipv6(address) => vec![IpAddr::V6(*address)],
            Host::Domain(name) => {
                let found = self.resolver.resolve(name.clone()).await;
                found.map_err(|error| format!("the name {name} cannot be resolved: {error}"))?
            }
        };
        let may_be_told = |address: &IpAddr| self.allow_private || is_public(*address);
        let addresses: Vec<IpAddr> = found.into_iter().filter(may_be_told).take(ADDRESSES_MAX).collect();
        let mut problem = format!("{} leads to no address on the public Internet", target.host);
        for address in addresses {
            match TcpStream::connect(SocketAddr::new(address, target.port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => problem = format!("cannot connect: {error}"),
            }
        }
        Err(problem)
    }
}

/// Whom this machine trusts; when it has no such list, whom Mozilla trusts.
pub(super) fn trusted_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
