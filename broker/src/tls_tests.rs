use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;

/// An authority, and a directory with what it has signed.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for this machine, of a new key.
    fn sign(&self) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        fs::write(self.file("key.pem"), key.serialize_pem()).unwrap();
        fs::write(self.file("cert.pem"), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
    }

    fn config(&self) -> TlsConfig {
        TlsConfig { cert_file: self.file("cert.pem"), key_file: self.file("key.pem"), ..TlsConfig::default() }
    }

    /// What a client sees that trusts this authority: the certificate, or why it goes.
    async fn meet(
        &self,
        address: SocketAddr,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> io::Result<Vec<u8>> {
        let authority = authority("test", &self.file("ca.pem")).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(authority)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let name = "localhost".try_into().unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        // With TLS 1.3 who asks for a certificate says no only then.
        stream.write_all(b"x").await?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await?;
        Ok(certificate)
    }
}

/// Sends back what comes first, to whoever is let in.
async fn echo(settings: &TlsConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = ServerTls::new(settings, HTTP_2).unwrap().unwrap();
    let mut connections = tls.connections(listener);
    tokio::spawn(async move {
        while let Some((mut stream, _)) = connections.connections.recv().await {
            tokio::spawn(async move {
                let mut byte = [0];
                if stream.read_exact(&mut byte).await.is_ok() {
                    stream.write_all(&byte).await.ok();
                }
            });
        }
    });
    address
}

const NOW: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[tokio::test]
async fn a_certificate_that_changes_is_shown_without_a_restart() {
    let authority = Authority::new();
    authority.sign();
    let address = echo(&authority.config()).await;
    let first = authority.meet(address, NOW).await.unwrap();
    assert_eq!(authority.meet(address, NOW).await.unwrap(), first);
    // Half of a change is no change.
    let key = fs::read(authority.file("key.pem")).unwrap();
    fs::write(authority.file("key.pem"), "half").unwrap();
    tokio::time::sleep(LOOK_AGAIN).await;
    assert_eq!(authority.meet(address, NOW).await.unwrap(), first);
    fs::write(authority.file("key.pem"), key).unwrap();
    authority.sign();
    tokio::time::sleep(LOOK_AGAIN).await;
    assert_ne!(authority.meet(address, NOW).await.unwrap(), first);
}

#[tokio::test]
async fn old_versions_and_strangers_stay_outside() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign();
    let address = echo(&authority.config()).await;
    assert!(other.meet(address, NOW).await.is_err(), "it does not know who has signed that");
    let before: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    assert!(authority.meet(address, before).await.is_err());
    let asks = TlsConfig { client_ca_file: authority.file("ca.pem"), ..authority.config() };
    let address = echo(&asks).await;
    assert!(authority.meet(address, NOW).await.is_err(), "it has no certificate to show");
}

#[tokio::test]
async fn who_says_nothing_keeps_nobody_else_out() {
    let authority = Authority::new();
    authority.sign();
    let address = echo(&authority.config()).await;
    let silent =
        futures_util::future::join_all((0..MAX_HANDSHAKES_OF_A_HOST).map(|_| TcpStream::connect(address))).await;
    // Of this host nobody else comes in meanwhile; a place is free again after a while.
    assert!(authority.meet(address, NOW).await.is_err());
    drop(silent);
    let mut met = authority.meet(address, NOW).await;
    for _ in 0..100 {
        if met.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        met = authority.meet(address, NOW).await;
    }
    met.unwrap();
}

#[test]
fn files_that_are_no_certificates_are_refused_at_the_start() {
    let authority = Authority::new();
    authority.sign();
    fs::write(authority.file("garbage"), "no certificate").unwrap();
    let garbage = || authority.file("garbage");
    for (settings, key) in [
        (TlsConfig { cert_file: garbage(), ..authority.config() }, "tls.cert_file"),
        (TlsConfig { key_file: garbage(), ..authority.config() }, "tls.key_file"),
        (TlsConfig { key_file: authority.file("nowhere"), ..authority.config() }, "tls.key_file"),
        (TlsConfig { client_ca_file: garbage(), ..authority.config() }, "tls.client_ca_file"),
    ] {
        let error = ServerTls::new(&settings, HTTP_2).err().expect(key).to_string();
        assert!(error.contains(key), "{error}");
    }
    let towards = TlsConfig { ca_file: garbage(), ..authority.config() };
    assert!(TowardsNodes::new(&towards).err().expect("garbage").to_string().contains("tls.ca_file"));
    assert!(ServerTls::new(&TlsConfig::default(), HTTP_2).unwrap().is_none());
}
