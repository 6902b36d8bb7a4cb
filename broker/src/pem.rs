//! Keys and certificates in files, as settings name them.

use std::path::Path;

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::config::ConfigError;

/// Certificates, one at least.
pub(crate) fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let expected = "a file with certificates as PEM";
    let failed = |error: &dyn std::fmt::Display| wrong(key, file, error, expected);
    let read = CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    if found.is_empty() { Err(failed(&"it has none")) } else { Ok(found) }
}

/// What is wrong with the file of a setting.
pub(crate) fn wrong(
    key: &'static str,
    file: &Path,
    error: &dyn std::fmt::Display,
    expected: &'static str,
) -> ConfigError {
    ConfigError::Value { key, value: format!("{} ({error})", file.display()), expected }
}

/// The private key of a certificate.
pub(crate) fn private_key(key: &'static str, file: &Path) -> Result<PrivateKeyDer<'static>, ConfigError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| wrong(key, file, &error, "a private key as PEM"))
}

/// Certificates of those whose signature counts.
pub(crate) fn authority(key: &'static str, file: &Path) -> Result<RootCertStore, ConfigError> {
    let mut authority = RootCertStore::empty();
    for certificate in certificates(key, file)? {
        let expected = "certificates of an authority as PEM";
        authority.add(certificate).map_err(|error| wrong(key, file, &error, expected))?;
    }
    Ok(authority)
}
