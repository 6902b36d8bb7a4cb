//! Three brokers whose peer ports speak TLS.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tandem_tests::{BrokerProcess, direct};

use crate::trio::{Seat, Trio, WORKSPACE};

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

    fn write(&self, dir: &Path) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        fs::write(dir.join("ca.pem"), &self.pem).unwrap();
    }

    fn give(&self, seat: &mut Seat) {
        let dir = seat.home.path().to_owned();
        self.write(&dir);
        let cluster = &mut seat.config.cluster;
        (cluster.tls_cert_file, cluster.tls_key_file, cluster.tls_ca_file) =
            (dir.join("cert.pem"), dir.join("key.pem"), dir.join("ca.pem"));
    }
}

/// What the first node says of the third: whether it is connected, and if not, why.
async fn third(trio: &Trio) -> (bool, String) {
    let info = trio.client(0).server_info().await.unwrap();
    let member = info.members.iter().find(|member| member.node_id == 3).unwrap();
    (member.connected, member.reason.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_certificates_form_a_cluster_and_one_without_is_told_why_not() {
    let authority = Authority::new();
    let mut trio = Trio::prepare();
    for seat in &mut trio.seats[..2] {
        authority.give(seat);
    }
    trio.run(0).await;
    trio.run(1).await;
    trio.until_served().await;
    trio.register("alice").await;

    // It has no certificates: each side names the reason.
    let (home, config) = (std::sync::Arc::clone(&trio.seats[2].home), trio.seats[2].config.clone());
    trio.seats[2].process = Some(BrokerProcess::start(&home, &config).await);
    trio.until("the reason is known", async |trio: &Trio| third(trio).await == (false, "PEER_TLS_FAILED".into())).await;
    trio.until("it is told, too", async |trio: &Trio| {
        let said = trio.process(2).stderr();
        said.contains("PEER_TLS_FAILED") && said.contains("with TLS only") && said.contains("this node takes none")
    })
    .await;
    trio.kill_nine(2);

    authority.give(&mut trio.seats[2]);
    trio.run(2).await;
    trio.until_spread().await;
    trio.client(2).publisher(WORKSPACE).publish(direct("alice", "alice", "sealed")).await.unwrap();

    // New certificates of a new authority, without a restart of those that have them: connections that are open stay.
    let renewed = Authority::new();
    for seat in &trio.seats {
        renewed.write(seat.home.path());
    }
    trio.kill_nine(2);
    trio.run(2).await;
    trio.until_spread().await;
    assert_eq!(trio.history(2).await.len(), 1);
}
