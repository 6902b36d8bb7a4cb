//! docs/guides/rust.md, followed: its programs are the examples of the client, and say what stands there.

use std::{fs, process::Command};

use tandem_tests::{BrokerProcess, Home, example};

fn guide() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/rust.md")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tutorial_says_what_happens() {
    let guide = guide();
    for name in ["reviewer", "author"] {
        let path = format!("{}/../clients/rust/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        let program = fs::read_to_string(path).unwrap();
        // Without what is for this repository alone.
        let program = &program[program.find("use std").unwrap()..];
        assert!(guide.contains(&format!("```rust\n{program}```")), "{name} stands otherwise in the tutorial");
    }
    let home = Home::new();
    let broker = BrokerProcess::start(&home, &home.config()).await;
    let server = format!("http://{}", broker.grpc_address());
    let mut reviewer = Command::new(example("reviewer")).arg(&server).spawn().unwrap();
    let registry = broker.client().registry("default");
    let mut tries = 0;
    while registry.get("review-team").await.map_or(true, |found| found.liveness() != tandem_client::Liveness::Online) {
        tries += 1;
        assert!(tries < 200, "the reviewer does not come");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let author = Command::new(example("author")).arg(&server).output().unwrap();
    reviewer.kill().unwrap();
    reviewer.wait().unwrap();
    let said = String::from_utf8(author.stdout).unwrap();
    assert!(author.status.success() && guide.contains(&format!("--bin author\n{said}```")), "{said}");
}
