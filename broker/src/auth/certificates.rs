//! Client certificates as a way to say who one is. That an authority has signed a certificate is checked where the connection
//! begins (`tls`); here its names decide who it is.

use std::collections::HashMap;

use tonic::codegen::http::Extensions;
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

use super::{Caller, Identity};
use crate::{
    config::{AuthConfig, ConfigError, auth::CertificateName},
    connections::Arrived,
    field,
    rejection::{Reason, Rejection},
};

/// Tells whose certificate one is.
pub(crate) struct Certificates(HashMap<String, CertificateName>);

impl Certificates {
    /// As the settings have it.
    pub(crate) fn new(config: &AuthConfig) -> Result<Self, ConfigError> {
        let named = config.named_certificates()?;
        Ok(Self(named.into_iter().map(|named| (named.name.clone(), named)).collect()))
    }

    /// Who has shown a certificate when he connected; None: nobody has, or none of these names is in it.
    pub(crate) fn identify(&self, connection: &Extensions) -> Result<Option<Caller>, Rejection> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let Some(arrived) = connection.get::<Arrived>() else { return Ok(None) };
        let Some(end) = arrived.certificates.first() else { return Ok(None) };
        // It stays the same for as long as the connection does.
        let whose = arrived.place.whose.get_or_init(|| self.whose(end)).clone()?;
        whose.map(|caller| caller.in_time().map(|()| caller)).transpose()
    }

    /// What a certificate that was shown says to be, for people; None: nobody has shown one, or it is not asked for who he is.
    pub(crate) fn names(&self, connection: &Extensions) -> Option<String> {
        let shown = connection.get::<Arrived>().and_then(|arrived| arrived.certificates.first());
        let (_, certificate) = x509_parser::parse_x509_certificate(shown.filter(|_| !self.0.is_empty())?).ok()?;
        let names: Vec<_> = names(&certificate).take(4).map(field::shown).collect();
        Some(names.join(", "))
    }

    fn whose(&self, der: &[u8]) -> Result<Option<Caller>, Rejection> {
        let invalid =
            |text: &str| Rejection::new(Reason::TokenInvalid, format!("the certificate is not accepted: {text}"));
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| invalid("it cannot be read"))?;
        let mut found = names(&certificate).filter_map(|name| self.0.get(name));
        let Some(named) = found.next() else { return Ok(None) };
        if found.any(|other| other != named) {
            return Err(invalid("several of its names are in auth.certificates, and they are not the same one"));
        }
        Ok(Some(Caller::new(Identity {
            subject: named.name.clone(),
            roles: named.roles,
            workspace: named.workspace.clone(),
            sandbox: named.sandbox.clone(),
            // A connection outlives the certificate that it began with.
            ends_s: Some(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0)),
        })))
    }
}

/// What a certificate says to be. The common name is not looked at: it is text for people.
fn names<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = &'a str> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.into_iter().flat_map(|extension| &extension.value.general_names);
    names.filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some(*name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;
    use crate::{auth::Role, auth::Roles, clock};

    fn certificates(named: &[&str]) -> Certificates {
        let certificates = named.iter().map(|text| (*text).to_owned()).collect();
        Certificates::new(&AuthConfig { certificates, ..AuthConfig::default() }).unwrap()
    }

    fn certificate(names: &[&str], ends_in_s: i64) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "ops.example");
        for name in names {
            let name = (*name).try_into().unwrap();
            params.subject_alt_names.push(if names[0].contains(':') {
                SanType::URI(name)
            } else {
                SanType::DnsName(name)
            });
        }
        let now = i64::try_from(clock::unix_ms() / 1_000).unwrap();
        params.not_before = (std::time::UNIX_EPOCH).into();
        params.not_after = (std::time::UNIX_EPOCH + std::time::Duration::from_secs((now + ends_in_s) as u64)).into();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_decide_who_somebody_is() {
        let known = certificates(&["ops.example=operator", "spiffe://a/build=sandbox@w,build"]);
        let ops = known.whose(&certificate(&["x.example", "ops.example"], 60)).unwrap().unwrap();
        assert_eq!((ops.identity().subject.as_str(), ops.identity().roles), ("ops.example", Roles::of(Role::Operator)));
        let build = known.whose(&certificate(&["spiffe://a/build"], 60)).unwrap().unwrap();
        assert_eq!(build.identity().sandbox.as_deref(), Some("build"));
        assert!(build.identity().ends_s.unwrap() > clock::unix_ms() / 1_000);
        // The common name of all of them is ops.example, and means nothing.
        for other in [&["x.example"][..], &["*.example"], &["OPS.example.evil"], &[]] {
            assert!(known.whose(&certificate(other, 60)).unwrap().is_none(), "{other:?}");
        }
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        let known = certificates(&["a.example=operator", "b.example=admin"]);
        let reason = |der: &[u8]| known.whose(der).unwrap_err().reason;
        assert_eq!(reason(&certificate(&["a.example", "b.example"], 60)), Reason::TokenInvalid);
        assert_eq!(reason(b"no certificate"), Reason::TokenInvalid);
        let late = known.whose(&certificate(&["a.example"], -1)).unwrap().unwrap();
        assert_eq!(late.in_time().unwrap_err().reason, Reason::TokenExpired);
    }
}
