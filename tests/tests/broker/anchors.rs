//! Heads of the audit that the broker writes down by itself, and what they find in an export.

use std::{fs, time::Duration};

use tandem_client::Sandbox;
use tandem_tests::{BrokerProcess, Exit, Home, direct, run_to_exit, tandem_command};

use crate::stage::WORKSPACE;

async fn tandem(home: &Home, broker: &BrokerProcess, arguments: &[&str]) -> Exit {
    let mut command = tandem_command();
    command.args(["--json", "--server", &format!("http://{}", broker.grpc_address())]).args(arguments);
    run_to_exit(home, command).await
}

#[tokio::test]
async fn promise_10_anchors_find_what_is_missing_at_the_end() {
    let home = Home::new();
    let file = |name: &str| home.path().join(name).display().to_string();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    fs::write(file("anchor.pem"), pair.serialize_pem()).unwrap();
    fs::write(file("anchor.pub"), pair.public_key_pem()).unwrap();
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    fs::write(file("other.pub"), other.public_key_pem()).unwrap();
    let mut config = home.config();
    config.audit.anchor_file = file("anchors").into();
    config.audit.anchor_key_file = file("anchor.pem").into();
    config.audit.anchor_every_s = 1;
    let broker = BrokerProcess::start(&home, &config).await;
    let client = broker.client();
    let mut lines = 0;
    for id in ["a", "b", "c"] {
        client.registry(WORKSPACE).register(Sandbox { sandbox_id: id.into(), ..Sandbox::default() }).await.unwrap();
        client.publisher(WORKSPACE).publish(direct("a", id, "x")).await.unwrap();
        for _ in 0..100 {
            let written = fs::read_to_string(file("anchors")).unwrap_or_default();
            let now = written.lines().filter(|line| line.contains(&format!("\"chain\":\"{WORKSPACE}\""))).count();
            if now > lines {
                lines = now;
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(lines, 3, "one for each head that changed");
    let quiet = fs::metadata(file("anchors")).unwrap().len();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(fs::metadata(file("anchors")).unwrap().len(), quiet, "what has not changed is not written again");

    let export = tandem(&home, &broker, &["audit", "export"]).await.stdout;
    fs::write(file("whole"), &export).unwrap();
    let records: Vec<&str> = export.lines().collect();
    fs::write(file("cut"), records[..records.len() - 1].join("\n")).unwrap();
    let (anchors, key) = (file("anchors"), file("anchor.pub"));
    let verify = async |export: &str, key: &str| {
        tandem(&home, &broker, &["audit", "verify", export, "--anchors", &anchors, "--anchor-key", key]).await
    };
    let sound = verify(&file("whole"), &key).await;
    assert!(sound.code == Some(0) && sound.stdout.contains("\"anchors\":3"), "{sound:?}");
    let cut = verify(&file("cut"), &key).await;
    assert!(cut.code == Some(1) && cut.stderr.contains("missing at the end"), "{cut:?}");
    let unsigned = verify(&file("whole"), &file("other.pub")).await;
    assert!(unsigned.code == Some(1) && unsigned.stderr.contains("ANCHORS_BROKEN"), "{unsigned:?}");
    let no_key = verify(&file("whole"), &file("whole")).await;
    assert!(no_key.code == Some(1) && no_key.stderr.contains("KEY_UNUSABLE"), "{no_key:?}");
    // Also after a restart, and in a file that somebody has put away.
    drop(broker.stop().await);
    fs::rename(file("anchors"), file("put-away")).unwrap();
    let broker = BrokerProcess::start(&home, &config).await;
    let mut again = String::new();
    for _ in 0..100 {
        again = fs::read_to_string(file("anchors")).unwrap_or_default();
        if again.contains(WORKSPACE) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(again.contains("\"signature\":\""), "{again}");
    drop(broker.stop().await);
    // A key that is none is told at the start.
    config.audit.anchor_key_file = file("anchor.pub").into();
    let exit = BrokerProcess::try_start(&home, &config).await.expect_err("it is no private key");
    assert!(exit.stderr.contains("audit.anchor_key_file"), "{exit:?}");
}
