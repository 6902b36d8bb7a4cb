//! The control plane, as this command speaks to it: JSON over HTTP.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};
use serde_json::Value;

use crate::{address, exit::Failure, run::Context};

/// How long an answer may take; a start of a sandbox takes the longest.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// What the control plane refused: a problem document (RFC 9457).
#[derive(Debug, Clone)]
pub struct Problem {
    /// Of HTTP.
    pub status: u16,
    /// Stable, in capitals.
    pub code: String,
    /// For people.
    pub text: String,
    /// The fields at fault, with what is wrong with them.
    pub fields: Vec<(String, String)>,
    /// When another try may help, in seconds.
    pub retry_after_s: Option<u64>,
    /// What to do, where the command knows better than the code tells.
    pub next: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// TLS with those whose certificates this authority has signed, or one that the system trusts.
fn trusting(file: &Path) -> Result<ClientConfig, Failure> {
    let wrong = |error: &dyn fmt::Display| {
        Failure::usage(format!("--ca-file {} holds no certificates as PEM ({error})", file.display()))
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| match error {
        pem::Error::Io(error) => Failure::file(file, &error),
        error => wrong(&error),
    })?;
    for certificate in certificates {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"it is empty"));
    }
    // The broker may have an authority of its own, and the control plane one that everybody knows. What the system has and cannot be
    // read is not needed.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A control plane. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ControlPlane {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Without a slash at its end.
    url: String,
    token: Option<String>,
}

impl ControlPlane {
    /// The one that the arguments name. Does not connect yet.
    pub(crate) fn of(context: &Context) -> Result<Self, Failure> {
        let mut plane = Self::at(&context.control_plane, context.settings.tls_ca_file.as_deref())?;
        if let Some(file) = &context.control_plane_token_file {
            let text = std::fs::read_to_string(file).map_err(|error| Failure::file(file, &error))?;
            plane.token = Some(text.trim().to_owned());
        }
        Ok(plane)
    }

    /// The one of an address, without a token.
    fn at(url: &str, ca_file: Option<&Path>) -> Result<Self, Failure> {
        let url = url.trim_end_matches('/').to_owned();
        address::check("--control-plane", &url, "http://127.0.0.1:8000")?;
        let builder = HttpsConnectorBuilder::new();
        let builder = match ca_file {
            Some(file) => builder.with_tls_config(trusting(file)?),
            None => builder
                .with_native_roots()
                .map_err(|error| Failure::failed("CONTROL_PLANE_UNREACHABLE", format!("no certificates: {error}")))?,
        };
        let connector = builder.https_or_http().enable_http1().build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), url, token: None })
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}/api/v1{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(bytes));
        let request = request.map_err(|error| Failure::usage(format!("{path}: {error}")))?;
        match tokio::time::timeout(TIMEOUT, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_) => Err(Failure::TimedOut(format!("no answer to {path} within {} s", TIMEOUT.as_secs()))),
        }
    }

    fn unreachable(&self, error: &legacy::Error) -> Failure {
        let cause = innermost(error);
        let next = if error.is_connect() {
            let otherwise = "is it running? try: tandem dev; elsewhere say where: --control-plane URL";
            address::next_unreachable(&self.url, &cause, otherwise)
        } else {
            address::next_lost(&self.url, "the control plane's port (8000), not the broker's (8001)")
        };
        Failure::Failed {
            code: "CONTROL_PLANE_UNREACHABLE",
            text: format!("the control plane at {} does not answer: {cause}", self.url),
            next: Some(next),
        }
    }

    /// Asks for something, and returns the answer: null where it is empty.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let response = self.send(method, path, body).await?;
        let (parts, body) = response.into_parts();
        let retry_after_s = parts.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let limited = http_body_util::Limited::new(body, MAX_ANSWER_BYTES);
        let read = tokio::time::timeout(TIMEOUT, limited.collect()).await;
        let broken = || Failure::failed("CONTROL_PLANE_UNREACHABLE", format!("the answer to {path} broke off"));
        let bytes = read.map_err(|_| broken())?.map_err(|_| broken())?.to_bytes();
        if parts.status.is_success() {
            return answer(&self.url, &bytes);
        }
        Err(refused(&self.url, parts.status, &bytes, retry_after_s))
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Server-sent events as they come: each with its name and its data. Ends when the server does.
    pub(crate) async fn follow(
        &self,
        path: &str,
        mut told: impl FnMut(&str, &Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let response = self.send(Method::GET, path, None).await?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(refused(&self.url, status, &bytes, None));
        }
        let (mut text, mut name) = (Vec::new(), String::new());
        while let Some(frame) = body.frame().await {
            let broken = |error| Failure::failed("CONTROL_PLANE_UNREACHABLE", format!("the stream broke off: {error}"));
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            text.extend_from_slice(&data);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                match line.trim_end().split_once(": ") {
                    Some(("event", event)) => event.clone_into(&mut name),
                    Some(("data", data)) => {
                        told(&name, &serde_json::from_str(data).unwrap_or(Value::Null))?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// What is at the bottom of an error: those above it say that something failed, and not what.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source()).last().unwrap_or(error).to_string()
}

/// What an answer says: null where it is empty.
fn answer(url: &str, bytes: &[u8]) -> Result<Value, Failure> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|error| strange(url, &format!("no JSON ({error})")))
}

/// What answers is no control plane.
pub(crate) fn strange(url: &str, what: &str) -> Failure {
    Failure::Failed {
        code: "CONTROL_PLANE_ANSWER",
        text: format!("{url} answers, but not as a control plane does: {what}"),
        next: Some("something else may listen there; say where the control plane is: --control-plane URL".to_owned()),
    }
}

/// What was refused; a status without a code is of something else.
fn refused(url: &str, status: StatusCode, bytes: &[u8], retry_after_s: Option<u64>) -> Failure {
    let problem = problem(status, bytes, retry_after_s);
    // What stands before a control plane answers so where it is too busy, or away.
    let may_pass = matches!(status.as_u16(), 408 | 429 | 502..=504);
    if problem.code == "CONTROL_PLANE_ANSWER" && !may_pass {
        return strange(url, &format!("HTTP status {status}"));
    }
    Failure::Problem(problem)
}

fn problem(status: StatusCode, bytes: &[u8], retry_after_s: Option<u64>) -> Problem {
    let document: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
    let text = |name: &str| document[name].as_str().map(str::to_owned);
    let fields = document["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |field: &Value, name: &str| field[name].as_str().unwrap_or_default().to_owned();
    Problem {
        status: status.as_u16(),
        code: text("code").unwrap_or_else(|| "CONTROL_PLANE_ANSWER".to_owned()),
        text: text("detail").unwrap_or_else(|| format!("the control plane answered {status}")),
        fields: fields.iter().map(|field| (of(field, "field"), of(field, "detail"))).collect(),
        retry_after_s,
        next: None,
    }
}

/// A part of a path or a query.
pub(crate) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read as _, Write as _},
        net::TcpListener,
        path::PathBuf,
        thread,
    };

    use rcgen::{CertificateParams, KeyPair};
    use rustls::{ServerConfig, ServerConnection, pki_types::PrivateKeyDer};

    use super::*;

    /// Something of this machine that shakes hands, with a certificate for this name; and where the certificate lies.
    fn tls_server(name: &str, dir: &Path) -> (String, PathBuf) {
        let pair = KeyPair::generate().unwrap();
        let pem = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&pair).unwrap().pem();
        let file = dir.join(name);
        fs::write(&file, &pem).unwrap();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.serialize_pem().as_bytes()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = Arc::new(builder.with_single_cert(vec![certificate], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap().to_string();
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                // Where it fails, it says why before it hangs up.
                connection.complete_io(&mut stream).ok();
            }
        });
        (place, file)
    }

    /// Something that speaks HTTP without TLS.
    fn plain_server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                if stream.read(&mut [0; 4_096]).is_ok_and(|read| read > 0) {
                    stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").ok();
                }
            }
        });
        place
    }

    #[tokio::test]
    async fn why_nobody_was_reached_is_said_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (here, of_here) = tls_server("127.0.0.1", dir.path());
        let (elsewhere, of_elsewhere) = tls_server("elsewhere.test", dir.path());
        let plain = plain_server();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // Where, whom to trust, and what is said and advised.
        for (url, ca_file, says, advises) in [
            (format!("https://{here}"), &of_elsewhere, "invalid peer certificate", "--ca-file"),
            (format!("https://{elsewhere}"), &of_elsewhere, "not valid for name", "other names"),
            (format!("http://{here}"), &of_here, "does not answer", "https://"),
            (format!("https://{plain}"), &of_here, "InvalidContentType", "http://"),
            (format!("http://{closed}"), &of_here, "refused", "is it running?"),
        ] {
            let failure = ControlPlane::at(&url, Some(ca_file)).unwrap().get("/workspaces").await.unwrap_err();
            let (text, next) = (failure.to_string(), failure.next().unwrap_or_default());
            assert_eq!(failure.code(), "CONTROL_PLANE_UNREACHABLE", "{url}: {text}");
            assert!(text.contains(says) && next.contains(advises), "{url}: {text}; {next}");
        }
        let wrong = ControlPlane::at("http://127.0.0.1:99999", None).err().map(|failure| failure.exit_code());
        assert_eq!(wrong, Some(2));
        let absent = dir.path().join("absent");
        let absent = ControlPlane::at("https://b", Some(&absent)).err().unwrap();
        assert_eq!(absent.code(), "FILE_UNREADABLE");
    }

    #[test]
    fn a_status_without_a_code_is_of_something_else() {
        let of = |status, text: &str| refused("http://p", status, text.as_bytes(), None);
        let other = of(StatusCode::NOT_FOUND, "<html>");
        assert_eq!((other.code(), other.exit_code()), ("CONTROL_PLANE_ANSWER", 1));
        assert!(other.to_string().contains("http://p") && other.next().unwrap().contains("--control-plane"));
        assert_eq!(of(StatusCode::NOT_FOUND, r#"{"code":"UNKNOWN_WORKSPACE"}"#).exit_code(), 3);
        assert_eq!(of(StatusCode::BAD_GATEWAY, "<html>").exit_code(), 5);
    }

    #[test]
    fn a_problem_is_read() {
        let text =
            br#"{"code":"BUSY","detail":"it is starting","status":409,"errors":[{"field":"name","detail":"no"}]}"#;
        let read = problem(StatusCode::CONFLICT, text, Some(1));
        assert_eq!((read.code.as_str(), read.to_string().as_str()), ("BUSY", "it is starting"));
        assert_eq!(read.fields, [("name".to_owned(), "no".to_owned())]);
        assert_eq!(problem(StatusCode::BAD_GATEWAY, b"<html>", None).code, "CONTROL_PLANE_ANSWER");
        assert_eq!(escaped("a b/ä"), "a%20b%2F%C3%A4");
    }

    #[test]
    fn what_is_no_json_is_no_answer() {
        assert_eq!(answer("http://p", b" ").unwrap(), Value::Null);
        assert_eq!(answer("http://p", b"[1]").unwrap(), serde_json::json!([1]));
        assert_eq!(answer("http://p", b"<html>").unwrap_err().code(), "CONTROL_PLANE_ANSWER");
    }
}
