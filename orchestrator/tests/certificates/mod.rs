//! Certificates for tests: an authority of one's own, and what it issues. Included by path wherever a test needs some.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd};

/// Year, month and day on which a certificate ends.
pub type Date = (i32, u8, u8);

/// An end that no test will see.
pub const FAR: Date = (4096, 1, 1);

/// Who signs.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate in PEM.
    pub cert: String,
}

/// A certificate and its key in PEM.
pub struct Issued {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { cert: issuer.pem(), issuer }
    }

    /// For these names: addresses, names of hosts, and anything else with `uri:` before it.
    pub fn issue(&self, names: &[&str], until: Date) -> Issued {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| match (name.strip_prefix("uri:"), name.parse()) {
                (Some(uri), _) => SanType::URI(uri.try_into().unwrap()),
                (None, Ok(address)) => SanType::IpAddress(address),
                (None, Err(_)) => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { cert: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Issued {
    /// As files of this name, the certificate first. The key is its owner's alone.
    pub fn save(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        fs::write(&cert, &self.cert).unwrap();
        fs::write(&key, &self.key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        (cert, key)
    }
}
