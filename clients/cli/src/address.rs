//! Where somebody listens, as a user writes it, and what to do where nobody is reached.

use hyper::Uri;

use crate::exit::Failure;

/// Refuses what cannot be dialled before anybody tries: `Uri` takes a port that is no number, or too large, for none at all.
pub(crate) fn check(option: &str, url: &str, example: &str) -> Result<(), Failure> {
    let wrong = |why: &str| Err(Failure::usage(format!("{option} is {url:?}{why}; write it like {example}")));
    if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        return wrong("");
    }
    let uri: Option<Uri> = url.parse().ok();
    let Some(authority) = uri.as_ref().and_then(Uri::authority) else { return wrong(", which is no address") };
    let place = authority.as_str().rsplit('@').next().unwrap_or_default();
    // Colons in brackets are those of an IPv6 address.
    let behind = place.rsplit(']').next().unwrap_or_default();
    match behind.split_once(':') {
        Some((_, port)) if !is_port(port) => wrong(", whose port is no number of 1 to 65535"),
        _ if authority.host().is_empty() => wrong(", which names no host"),
        _ => Ok(()),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// What to do where no connection is made. The client of the broker passes on the text of the cause and nothing else, so it is the
/// text that counts; a test compares it with that of rustls.
pub(crate) fn next_unreachable(url: &str, cause: &str, otherwise: &str) -> String {
    let says = |text: &str| cause.contains(text);
    let next = if says("invalid peer certificate") && says("not valid for") {
        "the certificate is for other names: write the address with one of them"
    } else if says("invalid peer certificate") && (says("expired") || says("not valid yet")) {
        "renew the certificate there, or set the clocks"
    } else if says("invalid peer certificate") {
        "say whose signature counts: --ca-file FILE, or TANDEM_CA_FILE"
    } else if url.starts_with("https://") && says("InvalidContentType") {
        "no TLS is spoken there: is it http://?"
    } else {
        otherwise
    };
    next.to_owned()
}

/// What to do where somebody listens who does not answer as expected.
pub(crate) fn next_lost(url: &str, port: &str) -> String {
    let tls = if url.starts_with("http://") { "; or write https://, if TLS is spoken there" } else { "" };
    format!("try again; if it stays so, something else may listen there: is it {port}?{tls}")
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, Error, InvalidMessage, pki_types::ServerName};

    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_a_port_that_is_one() {
        let of = |url: &str| check("--server", url, "http://127.0.0.1:8001");
        for right in ["http://127.0.0.1:8001", "https://b", "http://[::1]:8001", "http://[::1]", "https://b:65535/a:b"]
        {
            assert!(of(right).is_ok(), "{right}");
        }
        for wrong in ["", "127.0.0.1:8001", "ftp://b", "http://", "http://:8001", "http://a b"] {
            assert_eq!(of(wrong).unwrap_err().code(), "USAGE", "{wrong}");
        }
        for port in ["bad", "99999", "65536", "0", "-1", "+80", ""] {
            for host in ["127.0.0.1", "[::1]"] {
                assert_eq!(of(&format!("http://{host}:{port}")).unwrap_err().code(), "USAGE", "{host} {port}");
            }
        }
        assert!(of("http://b:99999").unwrap_err().to_string().contains("no number of 1 to 65535"));
    }

    #[test]
    fn what_to_do_fits_what_was_wrong() {
        let next = |url: &str, error: Error| next_unreachable(url, &error.to_string(), "is it running?");
        let of_certificate = |error: CertificateError| next("https://b", Error::InvalidCertificate(error));
        assert!(of_certificate(CertificateError::UnknownIssuer).contains("--ca-file"));
        assert!(of_certificate(CertificateError::BadSignature).contains("--ca-file"));
        let expected = ServerName::try_from("b").unwrap();
        let other = CertificateError::NotValidForNameContext { expected, presented: vec!["c".to_owned()] };
        assert!(of_certificate(other).contains("other names"));
        let plain = || Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert!(next("https://b", plain()).contains("http://"));
        assert_eq!(next("http://b", plain()), "is it running?");
        assert!(next_lost("http://b", "its port").contains("https://"));
        assert!(!next_lost("https://b", "its port").contains("https://"));
    }
}
