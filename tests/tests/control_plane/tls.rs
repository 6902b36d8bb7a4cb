//! The REST port with TLS, as the command sees it.

use std::{fs, process::Output};

use rcgen::{CertificateParams, KeyPair};
use tandem_control_plane::{ControlPlane, TlsConfig};
use tandem_tests::tandem_command;

use crate::stage::{self, Stage, until};

/// A certificate for this machine that has signed itself, and its key.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_with_the_certificate_that_is_there_by_now() {
    let stage = Stage::start().await;
    let at = |name: &str| stage.home.path().join(name);
    let (certificate, key) = pair();
    fs::write(at("cert.pem"), &certificate).unwrap();
    fs::write(at("key.pem"), &key).unwrap();
    fs::write(at("token"), &stage.admin).unwrap();
    let mut config = stage::config(&stage.home, stage.broker.as_ref().unwrap().grpc_address());
    config.tls = TlsConfig { cert_file: at("cert.pem"), key_file: at("key.pem") };
    let secure = ControlPlane::start(config.clone()).await.unwrap();
    let address = secure.address();
    let list = |url: String, ca: &str| -> Output {
        let mut command = tandem_command();
        command.args(["--json", "--control-plane", &url, "--ca-file"]).arg(at(ca)).arg("--token-file").arg(at("token"));
        command.args(["--workspace", "default", "sandbox", "ls"]).output().unwrap()
    };
    let url = format!("https://{address}");
    until("the workspace is taken in", async || list(url.clone(), "cert.pem").status.success()).await;

    // Who is no such authority's, and who speaks no TLS, is not spoken to.
    fs::write(at("other.pem"), pair().0).unwrap();
    for (url, ca) in [(url.clone(), "other.pem"), (format!("http://{address}"), "cert.pem")] {
        let refused = list(url, ca);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("CONTROL_PLANE_UNREACHABLE"), "{said}");
    }
    fs::write(at("none.pem"), "not one").unwrap();
    let refused = list(url.clone(), "none.pem");
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));

    // Half of a new pair is no reason to stop; with the other half it is used.
    let (renewed, renewed_key) = pair();
    fs::write(at("cert.pem"), &renewed).unwrap();
    fs::write(at("ca.pem"), &certificate).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    assert!(list(url.clone(), "ca.pem").status.success());
    fs::write(at("key.pem"), &renewed_key).unwrap();
    until("the new one is shown", async || list(url.clone(), "cert.pem").status.success()).await;
    assert!(!list(url.clone(), "ca.pem").status.success());
    secure.shutdown().await;

    fs::write(at("key.pem"), &key).unwrap();
    let refused = ControlPlane::start(config).await.unwrap_err();
    assert_eq!(refused.code(), "INVALID_CONFIG");
    assert!(refused.to_string().contains("tls.key_file"), "{refused}");
}
