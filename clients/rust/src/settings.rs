//! What a connection may be told.

use std::{fs, path::PathBuf, time::Duration};

use http::{Uri, uri::Authority};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::{Error, Token};

/// Settings of a [`Client`](crate::Client). Fields not named in a call take their default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where brokers listen, such as `http://127.0.0.1:8001`. With more than one, calls are spread over them.
    /// Default: `http://127.0.0.1:8001`.
    pub endpoints: Vec<String>,
    /// Who this client is. Default: nobody, which is enough for `tandem dev`.
    pub token: Option<Token>,
    /// Whose signature on a broker's certificate counts, as PEM, for `https`. Default: what the system trusts.
    pub tls_ca_file: Option<PathBuf>,
    /// Certificate and private key that this client shows, as PEM, where a broker asks for one. Default: none.
    pub tls_identity_files: Option<(PathBuf, PathBuf)>,
    /// How long one attempt to connect may take. Default: 5 s.
    pub connect_timeout: Duration,
    /// How long a unary call may take; streams have no limit. Default: 30 s.
    pub request_timeout: Duration,
    /// How often a call is tried when the broker is unavailable, or asks for a short wait. Safe for a publish, because the message
    /// keeps its id and the broker accepts an id once; what makes a key or a token is tried once. At least 1; all tries together
    /// take no longer than `request_timeout`. The waits in between (20 ms, doubled up to 1 s) are 4 s with the default, more than
    /// another node takes to become leader. All calls of a client share a budget of 1,000 retries, to which each call that
    /// succeeds gives back a fifth of one, and each second ten. Default: 10.
    pub attempts: u32,
    /// How often in a row a stream is opened again, from where it was, when the broker is unavailable: history, events, inboxes, and
    /// publish streams that do not say otherwise.
    /// With the waits in between (20 ms, doubled up to 1 s) the default bridges almost a minute. Default: 60.
    pub resume_attempts: u32,
    /// Publish single messages at the node that leads their workspace, once an answer has named it, and so spare a hop. Where
    /// it cannot be reached, or fails, `endpoints` serve. Default: true.
    pub follow_leader: bool,
    /// Bytes that the broker may send on one stream before it waits for this client. Default: 2 MiB.
    pub http2_stream_window: u32,
    /// The same for all streams of a connection together. Default: 4 MiB.
    pub http2_connection_window: u32,
    /// Time between HTTP/2 pings, sent also when nothing else is. Default: 10 s.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered before the connection counts as lost. Default: 20 s.
    pub keepalive_timeout: Duration,
    /// Send small packets at once (`TCP_NODELAY`). Default: true.
    pub tcp_nodelay: bool,
    /// Largest request, in bytes. Default: 16 MiB.
    pub max_request_bytes: usize,
    /// Largest answer, in bytes. Default: 16 MiB.
    pub max_response_bytes: usize,
    /// Default: `tandem-client/` and the version.
    pub user_agent: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:8001".to_owned()],
            token: None,
            tls_ca_file: None,
            tls_identity_files: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            attempts: 10,
            resume_attempts: 60,
            follow_leader: true,
            http2_stream_window: 2 << 20,
            http2_connection_window: 4 << 20,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(20),
            tcp_nodelay: true,
            max_request_bytes: 16 << 20,
            max_response_bytes: 16 << 20,
            user_agent: concat!("tandem-client/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl Settings {
    /// The default settings with one endpoint.
    pub fn for_endpoint(endpoint: impl Into<String>) -> Self {
        Self { endpoints: vec![endpoint.into()], ..Self::default() }
    }

    /// A channel that connects when it is first used.
    pub(crate) fn channel(&self) -> Result<Channel, Error> {
        let endpoints: Vec<_> = self.endpoints.iter().map(|url| self.endpoint(url)).collect::<Result<_, _>>()?;
        match endpoints.as_slice() {
            [] => Err(Error::Endpoint { value: String::new(), cause: "no endpoint was given".to_owned() }),
            [only] => Ok(only.connect_lazy()),
            several => Ok(Channel::balance_list(several.iter().cloned())),
        }
    }

    fn tls(&self) -> Result<ClientTlsConfig, String> {
        let read = |file: &PathBuf| fs::read(file).map_err(|error| format!("{}: {error}", file.display()));
        let mut tls = match &self.tls_ca_file {
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.tls_identity_files {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(tls)
    }

    pub(crate) fn endpoint(&self, url: &str) -> Result<Endpoint, Error> {
        let wrong = |cause: String| Error::Endpoint { value: url.to_owned(), cause };
        let mut endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| wrong(error.to_string()))?;
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => {
                let tls = self.tls().map_err(wrong)?;
                endpoint = endpoint.tls_config(tls).map_err(|error| wrong(error.to_string()))?;
            }
            Some(other) => return Err(wrong(format!("the scheme {other} is unknown"))),
            None => return Err(wrong("the scheme is missing".to_owned())),
        }
        check_port(endpoint.uri()).map_err(wrong)?;
        Ok(endpoint
            .user_agent(self.user_agent.as_str())
            .map_err(|_| wrong(format!("the user agent {:?} does not fit into a header", self.user_agent)))?
            .connect_timeout(self.connect_timeout)
            .initial_stream_window_size(self.http2_stream_window)
            .initial_connection_window_size(self.http2_connection_window)
            .http2_keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout)
            .keep_alive_while_idle(true)
            .tcp_nodelay(self.tcp_nodelay))
    }
}

/// What stands behind the host is a port: one that is none would be taken for no port at all.
fn check_port(uri: &Uri) -> Result<(), String> {
    let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let behind = place.strip_prefix(uri.host().unwrap_or_default()).unwrap_or_default();
    match behind.strip_prefix(':') {
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        Some(port) => Err(format!("{port:?} is no port; it is a number of 1 to 65535")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wrong_endpoints_are_named() {
        let ports = ["http://a:99999", "http://a:bad", "http://a:", "http://a:0", "https://u@[::1]:bad"];
        for url in ["", "127.0.0.1:8001", "ftp://x", "http://a b"].into_iter().chain(ports) {
            let error = Settings::for_endpoint(url).channel().expect_err("must be refused");
            assert_eq!(error.reason(), "INVALID_ENDPOINT", "{url}");
            assert!(error.to_string().contains(&format!("{url:?}")), "{error}");
        }
        let absent =
            Settings { tls_ca_file: Some("nowhere".into()), ..Settings::for_endpoint("https://127.0.0.1:8001") };
        assert!(absent.channel().expect_err("there is no such file").to_string().contains("nowhere"));
        let none = Settings { endpoints: Vec::new(), ..Settings::default() };
        assert!(none.channel().is_err());
        assert!(Settings::for_endpoint("http://[::1]:8001").channel().is_ok());
    }
}
