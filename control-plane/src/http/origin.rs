//! Which pages in a browser may reach this service. Browsers ask before they let a script call (CORS), but not before it opens a
//! WebSocket, and not where a page has given its own name the address of this machine.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::problem::Problem;
use crate::{
    config::CorsConfig,
    error::{Failure, Reason},
};

/// Lets a request pass that comes from where it may.
pub(crate) async fn check(State(cors): State<Arc<CorsConfig>>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    match allowed(&cors, authority, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(why) => Problem::from(why).into_response(),
    }
}

fn allowed(cors: &CorsConfig, authority: Option<&str>, headers: &HeaderMap) -> Result<(), Failure> {
    let host = authority.or_else(|| text(headers, &header::HOST)).unwrap_or_default();
    let name = name(host);
    if !cors.allowed_hosts.is_empty() && !cors.allowed_hosts.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        let text = format!("this service does not go by the name {name:?} (cors.allowed_hosts)");
        return Err(Failure::new(Reason::OriginRefused, text));
    }
    let Some(origin) = headers.get(header::ORIGIN).filter(|_| headers.contains_key(header::UPGRADE)) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or("?");
    let own = origin.split_once("://").is_some_and(|(_, own)| own.eq_ignore_ascii_case(host));
    if own || cors.allowed_origins.iter().any(|known| known == "*" || known == origin) {
        return Ok(());
    }
    let text = format!("pages of {origin:?} may not open WebSockets here (cors.allowed_origins)");
    Err(Failure::new(Reason::OriginRefused, text))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A host without its port.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        // What is behind the last colon of a bare address of IPv6 is no port.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(cors: &CorsConfig, lines: &[(HeaderName, &str)]) -> bool {
        let headers = lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        allowed(cors, None, &headers.collect()).is_ok()
    }

    #[test]
    fn names_of_others_are_refused() {
        let hosts = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
        let cors = CorsConfig { allowed_hosts: hosts, ..CorsConfig::default() };
        for host in ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]"] {
            assert!(of(&cors, &[(header::HOST, host)]), "{host}");
        }
        for host in ["evil.example:8000", "localhost.evil.example", "", "127.0.0.1.evil.example:80"] {
            assert!(!of(&cors, &[(header::HOST, host)]), "{host}");
        }
        assert!(!of(&cors, &[]));
        assert!(of(&CorsConfig::default(), &[(header::HOST, "any.example")]));
    }

    #[test]
    fn pages_open_sockets_where_they_may() {
        let socket =
            |origin| [(header::HOST, "a.example:8000"), (header::UPGRADE, "websocket"), (header::ORIGIN, origin)];
        let cors = CorsConfig { allowed_origins: vec!["https://console.example".to_owned()], ..CorsConfig::default() };
        assert!(of(&cors, &socket("https://console.example")) && of(&cors, &socket("http://a.example:8000")));
        for origin in ["https://evil.example", "null", "http://a.example", "https://console.example.evil"] {
            assert!(!of(&cors, &socket(origin)), "{origin}");
        }
        // A program is no page, and a script that only calls is asked for by the browser.
        assert!(of(&cors, &socket("x")[..2]) && of(&cors, &[(header::ORIGIN, "https://evil.example")]));
        let all = CorsConfig { allowed_origins: vec!["*".to_owned()], ..CorsConfig::default() };
        assert!(of(&all, &socket("https://evil.example")));
    }
}
