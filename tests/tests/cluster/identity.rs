//! A cluster that is closed and encrypted: a token counts on every node, whoever leads, and nobody can speak for another.

use std::{fs, path::PathBuf, time::Duration};

use tandem_client::{Client, NewKey, Sandbox, Settings, SubscribeOptions, Token};
use tandem_proto::registry::v1::{GetSandboxRequest, registry_service_client::RegistryServiceClient};
use tandem_tests::{Home, direct, now, run_to_exit, tandem_command};
use tonic::{
    Code, Request,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

use crate::trio::{PATIENCE, Trio, WORKSPACE, insist};

/// Three nodes with certificates of one authority, and a key that signs tokens.
pub(crate) struct Closed {
    home: Home,
    pub(crate) trio: Trio,
}

/// Runs `tandem` until it is done, and returns what it printed.
async fn tandem(home: &Home, arguments: &[&str]) -> String {
    let mut command = tandem_command();
    command.current_dir(home.path()).args(arguments);
    let exit = run_to_exit(home, command).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    exit.stdout.trim().to_owned()
}

impl Closed {
    pub(crate) async fn start() -> Self {
        let home = Home::new();
        let file = |name: &str| -> PathBuf { home.path().join(name) };
        fs::write(file("key"), "a secret that is long enough for it").unwrap();
        let mut trio = Trio::prepare();
        for (number, seat) in trio.seats.iter_mut().enumerate() {
            let name = format!("n{number}");
            tandem(&home, &["certs", "create", "--dir", ".", "--name", &name, "--host", "127.0.0.1"]).await;
            seat.config.auth.open = false;
            seat.config.auth.keys = vec![format!("k1=HS256:{}", file("key").display())];
            seat.config.tls.cert_file = file(&format!("{name}.pem"));
            seat.config.tls.key_file = file(&format!("{name}-key.pem"));
            seat.config.tls.ca_file = file("ca.pem");
            // Nodes show theirs, and so do clients.
            seat.config.tls.client_ca_file = file("ca.pem");
        }
        tandem(&home, &["certs", "create", "--dir", ".", "--name", "client", "--host", "client"]).await;
        for node in 0..3 {
            trio.run(node).await;
        }
        let closed = Self { home, trio };
        for node in 0..3 {
            let client = closed.client(node, &["--role", "admin"]).await;
            let started = now();
            // As spread as they get: no leader moves by itself any more.
            while client.server_info().await.map_or(true, |info| {
                info.shards.iter().map(|shard| shard.leader_node_id).collect::<Vec<_>>() != [1, 2, 3, 1]
            }) {
                assert!(started.elapsed() < PATIENCE, "leaders do not settle");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        closed
    }

    pub(crate) async fn client(&self, node: usize, token: &[&str]) -> Client {
        self.client_of("zoe", node, token).await
    }

    pub(crate) async fn client_of(&self, subject: &str, node: usize, token: &[&str]) -> Client {
        let create = ["token", "create", "--key-file", "key", "--key-id", "k1", "--subject", subject];
        let token = tandem(&self.home, &[&create, token].concat()).await;
        self.client_with(node, Token::from_text(&token))
    }

    fn client_with(&self, node: usize, token: Token) -> Client {
        let file = |name: &str| self.home.path().join(name);
        let settings = Settings {
            token: Some(token),
            tls_ca_file: Some(file("ca.pem")),
            tls_identity_files: Some((file("client.pem"), file("client-key.pem"))),
            follow_leader: false,
            ..Settings::for_endpoint(format!("https://{}", self.trio.process(node).grpc_address()))
        };
        Client::with_settings(settings).unwrap()
    }
}

pub(crate) const ALICE: [&str; 6] = ["--role", "sandbox", "--bind-workspace", WORKSPACE, "--bind-sandbox", "alice"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_counts_on_every_node_and_its_bounds_do_too() {
    let closed = Closed::start().await;
    let developer = closed.client(0, &["--role", "developer"]).await;
    for id in ["alice", "bob"] {
        let sandbox = || Sandbox { sandbox_id: id.into(), ..Sandbox::default() };
        insist(async || developer.registry(WORKSPACE).register(sandbox()).await).await;
    }
    for node in 0..3 {
        let alice = closed.client(node, &ALICE).await;
        let publisher = alice.publisher(WORKSPACE);
        insist(async || publisher.publish(direct("alice", "bob", format!("through {node}"))).await).await;
        let forged = publisher.publish(direct("bob", "alice", "forged")).await.unwrap_err();
        assert_eq!(forged.reason(), "OTHER_SANDBOX", "node {node}");
        let options = SubscribeOptions::default;
        assert_eq!(alice.subscribe(WORKSPACE, "bob", options()).await.unwrap_err().reason(), "OTHER_SANDBOX");
        alice.subscribe(WORKSPACE, "alice", options()).await.unwrap();
        assert_eq!(alice.cluster().get().await.unwrap_err().reason(), "OTHER_WORKSPACE");
        let foreign = closed.client(node, &["--role", "admin", "--bind-workspace", "another"]).await;
        assert_eq!(foreign.workspaces().get(WORKSPACE).await.unwrap_err().reason(), "OTHER_WORKSPACE");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_a_node_can_say_who_is_behind_a_request() {
    let closed = Closed::start().await;
    let read = |name: &str| fs::read(closed.home.path().join(name)).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")))
        .identity(tonic::transport::Identity::from_pem(read("client.pem"), read("client-key.pem")));
    let url = format!("https://{}", closed.trio.process(0).grpc_address());
    let channel = Endpoint::from_shared(url.clone()).unwrap().tls_config(tls).unwrap().connect_lazy();
    let mut registry = RegistryServiceClient::new(channel);
    let body = GetSandboxRequest { workspace_id: WORKSPACE.into(), sandbox_id: "alice".into() };
    for (forwarded, caller) in [("0", "e30.e30"), ("2", "eyJzdWJqZWN0IjoieiJ9.AAAA"), ("0", "")] {
        let mut request = Request::new(body.clone());
        request.metadata_mut().insert("aintandem-forwarded", forwarded.parse().unwrap());
        request.metadata_mut().insert("aintandem-caller", caller.parse().unwrap());
        assert_eq!(registry.get_sandbox(request).await.unwrap_err().code(), Code::Unauthenticated);
    }
    // Without a certificate there is no connection at all.
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.pem")));
    let channel = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap().connect_lazy();
    let refused = RegistryServiceClient::new(channel).get_sandbox(body.clone()).await.unwrap_err();
    // The connection ends under the call; which of the layers notices first is not ours.
    let broken = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal];
    assert!(broken.contains(&refused.code()) && refused.details().is_empty(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_moves_with_its_leader_and_stays_who_it_is() {
    let mut closed = Closed::start().await;
    let developer = closed.client(0, &["--role", "developer"]).await;
    for id in ["alice", "bob"] {
        let sandbox = || Sandbox { sandbox_id: id.into(), ..Sandbox::default() };
        insist(async || developer.registry(WORKSPACE).register(sandbox()).await).await;
    }
    let info = developer.server_info().await.unwrap();
    let shard = insist(async || developer.workspaces().get(WORKSPACE).await).await.shard_id;
    let leader = info.shards.iter().find(|seen| seen.shard_id == shard).unwrap().leader_node_id as usize - 1;
    let (asked, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let alice = closed.client(asked, &ALICE).await;
    let mut inbox = alice.subscribe(WORKSPACE, "alice", SubscribeOptions::default()).await.unwrap();
    closed.trio.kill_nine(leader);
    let developer = closed.client(other, &["--role", "developer"]).await;
    let publisher = developer.publisher(WORKSPACE);
    insist(async || publisher.publish(direct("bob", "alice", "after the move")).await).await;
    let delivery = tokio::time::timeout(PATIENCE, inbox.next()).await.expect("it comes").unwrap().unwrap();
    assert_eq!(delivery.message.content.as_ref(), b"after the move");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_ends_streams_on_every_node_within_a_second() {
    let closed = Closed::start().await;
    let admin = closed.client(1, &["--role", "admin"]).await;
    for id in ["alice", "bob"] {
        let sandbox = || Sandbox { sandbox_id: id.into(), ..Sandbox::default() };
        insist(async || admin.registry(WORKSPACE).register(sandbox()).await).await;
    }
    let wanted = || NewKey {
        subject: "ci".into(),
        roles: vec!["developer".into()],
        workspace_id: Some(WORKSPACE.into()),
        ..NewKey::default()
    };
    let (key, secret) = insist(async || admin.keys().create(wanted()).await).await;
    let mut streams = Vec::new();
    for node in 0..3 {
        let client = closed.client_with(node, Token::from_text(&secret));
        // Until the node knows the key.
        insist_known(async || client.server_info().await.map(drop)).await;
        let publisher = client.publisher(WORKSPACE);
        insist(async || publisher.publish(direct("alice", "bob", "hello")).await).await;
        let mut inbox = client.subscribe(WORKSPACE, "alice", SubscribeOptions::default()).await.unwrap();
        streams.push(tokio::spawn(async move {
            let ended = tokio::time::timeout(PATIENCE, inbox.next()).await.expect("it ends");
            (ended.unwrap_err().reason().to_owned(), now())
        }));
    }
    let revoked = insist(async || admin.keys().revoke(key.key_id.as_str()).await).await;
    assert!(revoked.revoke_time.is_some());
    let told = now();
    for stream in streams {
        let (reason, ended) = stream.await.unwrap();
        let late = ended.saturating_duration_since(told);
        assert!(late < Duration::from_secs(1), "a stream went on for {late:?}");
        assert_eq!(reason, "KEY_REVOKED");
    }
    for node in 0..3 {
        let client = closed.client_with(node, Token::from_text(&secret));
        assert_eq!(client.server_info().await.unwrap_err().reason(), "KEY_REVOKED", "node {node}");
    }
}

/// Asks until the node has applied what was decided elsewhere.
async fn insist_known(mut ask: impl AsyncFnMut() -> Result<(), tandem_client::Error>) {
    let started = now();
    while let Err(error) = ask().await {
        assert!(error.reason() == "TOKEN_INVALID" && started.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
