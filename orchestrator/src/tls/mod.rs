//! TLS of the port: which certificate it shows, and whose certificates it believes workers.
//!
//! What is in force can be replaced while the orchestrator runs, as a whole: connections that exist go on with what they
//! began with, and new ones meet what was read last. It refuses to know what is said over a connection.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use rustls::ServerConfig;

use crate::{blueprint::Finding, reload::Fresh};

mod files;
mod peer;
#[cfg(test)]
#[path = "../../tests/certificates/mod.rs"]
pub(crate) mod testing;

pub use peer::Peer;

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate in PEM, first our own, then those that lead from it to its authority.
    pub cert: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
    /// The authorities, in PEM, that sign the certificates of workers. With it, a worker without one is refused.
    pub client_ca: Option<PathBuf>,
}

/// What is in force. Cheap to clone; every clone sees a replacement.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Tls {
    /// Reads the files. Returns what should be looked at beside it, such as a certificate that expires soon.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn open(files: Files) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let read = files::read(&files, SystemTime::now())?;
        let current = Arc::new(RwLock::new(Arc::new(read.config)));
        Ok((Self { files: Arc::new(files), current }, read.warnings))
    }

    /// Reads the files again. Nothing is in force before [`Fresh::enforce`].
    ///
    /// # Errors
    /// All that is wrong with them; what is in force stays so.
    pub fn read_again(&self) -> Result<Fresh, Vec<Finding>> {
        let files::Read { config, warnings } = files::read(&self.files, SystemTime::now())?;
        let (current, config) = (self.current.clone(), Arc::new(config));
        let enforce = Box::new(move || {
            *current.write().unwrap_or_else(PoisonError::into_inner) = config;
            tracing::info!("TLS certificates reloaded; connections that are open keep theirs");
        });
        Ok(Fresh { warnings, enforce })
    }

    /// Whether workers must show a certificate.
    pub fn asks_workers(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// For the next connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
