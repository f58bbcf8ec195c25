//! Who signs certificates, for tests of servers that ask for them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// See the module.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// There are no good random numbers.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Makes a folder with `tls.crt` and `tls.key` for a name, and `ca.crt` of those whom its owner believes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn folder(&self, path: &Path, name: &str, believed: &Self) -> anyhow::Result<PathBuf> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        fs::create_dir_all(path)?;
        fs::write(path.join("tls.crt"), certificate.pem())?;
        fs::write(path.join("tls.key"), key.serialize_pem())?;
        fs::write(path.join("ca.crt"), believed.0.pem())?;
        Ok(path.to_owned())
    }
}
