use std::{fs, net::SocketAddr, path::Path};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::*;

/// What who dials says at once, as the first frame of replication.
const GREETING: [u8; 200] = [7; 200];

/// An authority that makes certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes a certificate for a host, and what goes with it.
    fn write(&self, dir: &Path, host: &str) -> ClusterConfig {
        self.write_for(dir, host, &[])
    }

    /// The same, for these uses only; none: for any.
    fn write_for(&self, dir: &Path, host: &str, uses: &[ExtendedKeyUsagePurpose]) -> ClusterConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.extended_key_usages = uses.to_vec();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |name: &str| dir.join(name);
        fs::write(file("cert.pem"), certificate.pem()).unwrap();
        fs::write(file("key.pem"), key.serialize_pem()).unwrap();
        fs::write(file("ca.pem"), &self.pem).unwrap();
        ClusterConfig {
            tls_cert_file: file("cert.pem"),
            tls_key_file: file("key.pem"),
            tls_ca_file: file("ca.pem"),
            ..ClusterConfig::default()
        }
    }
}

struct Side {
    dir: tempfile::TempDir,
    tls: PeerTls,
}

fn side(authority: &Authority, host: &str) -> Side {
    let dir = tempfile::tempdir().unwrap();
    let tls = PeerTls::new(&authority.write(dir.path(), host)).unwrap().unwrap();
    Side { dir, tls }
}

/// Listens, and sends a word to whoever is let in and has greeted.
async fn listen(tls: &PeerTls) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut accept = TlsAccept::new(tls.clone(), listener);
    tokio::spawn(async move {
        loop {
            let mut wire = accept.accept().await.unwrap();
            wire.read_exact(&mut [0; GREETING.len()]).await.unwrap();
            wire.write_all(b"hello").await.unwrap();
            wire.flush().await.unwrap();
        }
    });
    address
}

/// The word, once both sides have accepted each other.
async fn meet(dialer: &PeerTls, address: SocketAddr) -> io::Result<String> {
    let mut wire = dialer.dial(2, &address.to_string()).await?;
    wire.write_all(&GREETING).await?;
    wire.flush().await?;
    let mut word = [0; 5];
    wire.read_exact(&mut word).await?;
    Ok(String::from_utf8_lossy(&word).into_owned())
}

#[tokio::test]
async fn nodes_with_certificates_of_one_authority_meet_and_others_do_not() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (one, two) = (side(&ours, "127.0.0.1"), side(&ours, "127.0.0.1"));
    let address = listen(&two.tls).await;
    assert_eq!(meet(&one.tls, address).await.unwrap(), "hello");

    let stranger = side(&theirs, "127.0.0.1");
    let text = meet(&stranger.tls, address).await.unwrap_err().to_string();
    assert!(text.contains("do not agree on TLS") && text.contains("tls_ca_file"), "{text}");
    // It accepts the one that it dials, and is not accepted: the certificate of the dialer counts, too.
    let gullible = side(&theirs, "127.0.0.1");
    fs::copy(one.dir.path().join("ca.pem"), gullible.dir.path().join("ca.pem")).unwrap();
    // Its greeting, which nobody reads, never costs it the answer.
    for _ in 0..20 {
        let error = meet(&gullible.tls, address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("did not accept this node's certificate"), "{error}");
    }

    let elsewhere = side(&ours, "n2.example");
    let address = listen(&elsewhere.tls).await;
    let text = meet(&one.tls, address).await.unwrap_err().to_string();
    assert!(text.contains("127.0.0.1") && text.contains("not valid for"), "{text}");
}

#[tokio::test]
async fn a_certificate_for_one_part_only_is_named_as_the_reason() {
    let ours = Authority::new();
    let two = side(&ours, "127.0.0.1");
    let address = listen(&two.tls).await;
    let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
    let one = side(&ours, "127.0.0.1");
    ours.write_for(one.dir.path(), "127.0.0.1", &[client, server.clone()]);
    assert_eq!(meet(&one.tls, address).await.unwrap(), "hello");
    ours.write_for(one.dir.path(), "127.0.0.1", &[server]);
    let error = meet(&one.tls, address).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("it needs clientAuth and serverAuth"), "{error}");
}

#[tokio::test]
async fn who_only_looks_whether_the_port_is_open_is_no_refusal() {
    let two = side(&Authority::new(), "127.0.0.1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    drop(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    let (stream, _) = listener.accept().await.unwrap();
    assert!(welcome(two.tls.clone(), stream).await.unwrap().is_none());
}

#[test]
fn a_host_is_told_of_once_until_it_has_another_reason_or_came_in() {
    let (told, peer) = (Told::default(), IpAddr::from([127, 0, 0, 1]));
    assert!(told.is_news(peer, "no certificate"));
    assert!(!told.is_news(peer, "no certificate"));
    assert!(told.is_news(IpAddr::from([127, 0, 0, 2]), "no certificate"));
    assert!(told.is_news(peer, "an expired one"));
    told.forget(peer);
    assert!(told.is_news(peer, "an expired one"));
    for host in 0..=MAX_TOLD as u32 {
        told.is_news(IpAddr::V4(host.into()), "no certificate");
    }
    assert!(told.0.lock().len() <= MAX_TOLD, "strangers take no more memory than that");
}

#[tokio::test]
async fn new_certificates_are_used_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let (one, two) = (side(&old, "127.0.0.1"), side(&old, "127.0.0.1"));
    let address = listen(&two.tls).await;
    meet(&one.tls, address).await.unwrap();
    new.write(one.dir.path(), "127.0.0.1");
    assert!(meet(&one.tls, address).await.is_err(), "only one of them has new ones");
    new.write(two.dir.path(), "127.0.0.1");
    meet(&one.tls, address).await.unwrap();
}

#[tokio::test]
async fn who_comes_without_tls_is_told_in_its_own_words() {
    let ours = Authority::new();
    let two = side(&ours, "127.0.0.1");
    let mut plain = TcpStream::connect(listen(&two.tls).await).await.unwrap();
    // A frame begins with its length.
    plain.write_all(&[0, 0, 0, 100]).await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, Refusal::new(RefusalCode::Tls, String::from_utf8_lossy(&answer[22..])).on_wire());
    assert!(String::from_utf8_lossy(&answer).contains("with TLS only"));
}

#[test]
fn files_that_cannot_be_used_are_named_at_start() {
    let (ours, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let good = ours.write(dir.path(), "127.0.0.1");
    let text = |settings: ClusterConfig| PeerTls::new(&settings).unwrap_err().to_string();
    let missing = ClusterConfig { tls_ca_file: dir.path().join("nothing"), ..good.clone() };
    assert!(text(missing).contains("cluster.tls_ca_file"));
    let swapped = ClusterConfig { tls_cert_file: good.tls_key_file.clone(), ..good.clone() };
    assert!(text(swapped).contains("cluster.tls_cert_file"));
    let another = tempfile::tempdir().unwrap();
    let another = ours.write(another.path(), "127.0.0.1").tls_key_file;
    let gone = ClusterConfig { tls_key_file: another, ..good };
    assert!(text(gone).contains("cluster.tls_key_file"));
    assert!(PeerTls::new(&ClusterConfig::default()).unwrap().is_none());
}
