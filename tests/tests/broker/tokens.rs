//! Tokens that the broker signs, keys of another issuer, and certificates as the third way to say who one is.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::TryStreamExt as _;
use tandem_broker::Config;
use tandem_client::{Client, KnownToken, NewToken, Sandbox, Settings, SubscribeOptions, Token};
use tandem_tests::{BrokerProcess, Exit, Home, run_to_exit, tandem_command};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Mutex,
};

use crate::stage::WORKSPACE;

const SOON: Duration = Duration::from_secs(1);

/// A broker that signs tokens itself.
struct Signing {
    home: Home,
    broker: BrokerProcess,
}

fn signing(home: &Home) -> Config {
    let key = home.path().join("key");
    fs::write(&key, "a secret that is long enough for it").unwrap();
    let mut config = home.config();
    config.auth.open = false;
    config.auth.clock_skew_s = 0;
    config.auth.keys = vec![format!("k1=HS256:{}", key.display())];
    config.auth.signing_key = format!("k1=HS256:{}", key.display());
    config
}

/// The command, as whoever has a token.
async fn tandem(home: &Home, server: &str, token: &str, arguments: &[&str]) -> Exit {
    let file = home.path().join("shown");
    fs::write(&file, token).unwrap();
    let mut command = tandem_command();
    command.args(["--json", "--server", server, "--token-file"]).arg(&file).args(arguments);
    run_to_exit(home, command).await
}

async fn offline_token(home: &Home, arguments: &[&str]) -> String {
    let mut command = tandem_command();
    command.args(["token", "create", "--key-id", "k1", "--subject", "zoe", "--key-file"]);
    command.arg(home.path().join("key")).args(arguments);
    let exit = run_to_exit(home, command).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    exit.stdout.trim().to_owned()
}

impl Signing {
    async fn start() -> Self {
        let home = Home::new();
        let broker = BrokerProcess::start(&home, &signing(&home)).await;
        Self { home, broker }
    }

    fn server(&self) -> String {
        format!("http://{}", self.broker.grpc_address())
    }

    fn client(&self, token: &str) -> Client {
        let token = Some(Token::from_text(token));
        Client::with_settings(Settings { token, ..Settings::for_endpoint(self.server()) }).unwrap()
    }

    async fn admin(&self) -> Client {
        self.client(&offline_token(&self.home, &["--role", "admin"]).await)
    }

    /// A token of sandbox `a`.
    async fn sandbox(&self, lifetime: Duration, renewable_for: Duration) -> (KnownToken, String) {
        let wanted = NewToken {
            subject: "build".into(),
            roles: vec!["sandbox".into()],
            workspace_id: Some(WORKSPACE.into()),
            sandbox_id: Some("a".into()),
            lifetime: Some(lifetime),
            renewable_for: Some(renewable_for),
        };
        let (known, made) = self.admin().await.tokens().create(wanted).await.unwrap();
        (known, made.signed)
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, tandem_client::Error>) -> String {
    result.unwrap_err().reason().to_owned()
}

#[tokio::test]
async fn a_token_is_renewed_with_itself_and_ends_with_all_that_came_of_it() {
    let signing = Signing::start().await;
    let (known, first) = signing.sandbox(Duration::from_secs(60), Duration::from_secs(3_600)).await;
    let sandbox = signing.client(&first);
    sandbox.registry(WORKSPACE).register(Sandbox { sandbox_id: "a".into(), ..Default::default() }).await.unwrap();
    assert_eq!(reason(sandbox.registry(WORKSPACE).heartbeat("b").await), "OTHER_SANDBOX");
    // A token is as many as it is renewed to.
    tokio::time::sleep(SOON).await;
    let second = sandbox.tokens().renew().await.unwrap();
    assert_ne!(second.signed, first);
    let renewed = signing.client(&second.signed);
    renewed.registry(WORKSPACE).heartbeat("a").await.unwrap();
    sandbox.registry(WORKSPACE).heartbeat("a").await.unwrap();
    let mut subscription = renewed.subscribe(WORKSPACE, "a", SubscribeOptions::default()).await.unwrap();

    let admin = signing.admin().await;
    let listed: Vec<KnownToken> = admin.tokens().list().try_collect().await.unwrap();
    assert_eq!((listed.len(), listed[0].token_id.as_str()), (1, known.token_id.as_str()));
    assert_eq!((listed[0].created_by.as_str(), listed[0].sandbox_id.as_str()), ("zoe", "a"));
    admin.tokens().revoke(&known.token_id, "", None).await.unwrap();
    let ended = tokio::time::timeout(SOON, subscription.next()).await.expect("within a second");
    assert_eq!(reason(ended), "TOKEN_REVOKED");
    for token in [&sandbox, &renewed] {
        assert_eq!(reason(token.registry(WORKSPACE).heartbeat("a").await), "TOKEN_REVOKED");
        assert_eq!(reason(token.tokens().renew().await), "TOKEN_REVOKED");
    }
    let listed: Vec<KnownToken> = admin.tokens().list().try_collect().await.unwrap();
    assert!(listed[0].revoke_time.is_some());
    assert!(!signing.broker.stderr().contains(&first));
}

#[tokio::test]
async fn a_token_is_not_renewed_beyond_its_end() {
    let signing = Signing::start().await;
    let (_, token) = signing.sandbox(Duration::from_secs(10), Duration::from_secs(12)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let renewed = signing.client(&token).tokens().renew().await.unwrap();
    let client = signing.client(&renewed.signed);
    // It would hold ten seconds more, and holds nine at the most.
    for _ in 0..120 {
        if client.server_info().await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(reason(client.server_info().await), "TOKEN_EXPIRED");
}

#[tokio::test]
async fn who_may_make_which_tokens() {
    let signing = Signing::start().await;
    let bound =
        signing.client(&offline_token(&signing.home, &["--role", "admin", "--bind-workspace", WORKSPACE]).await);
    let wanted = |workspace: Option<&str>, roles: &[&str]| NewToken {
        subject: "x".into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        workspace_id: workspace.map(str::to_owned),
        ..NewToken::default()
    };
    bound.tokens().create(wanted(Some(WORKSPACE), &["developer"])).await.unwrap();
    for (workspace, roles, expected) in [
        (None, &["developer"][..], "OTHER_WORKSPACE"),
        (Some("other"), &["developer"], "OTHER_WORKSPACE"),
        (Some(WORKSPACE), &["sandbox"], "INVALID_FIELD"),
        (Some(WORKSPACE), &["root"], "INVALID_FIELD"),
        (Some(WORKSPACE), &[], "INVALID_FIELD"),
    ] {
        assert_eq!(reason(bound.tokens().create(wanted(workspace, roles)).await), expected, "{workspace:?} {roles:?}");
    }
    let long = NewToken { lifetime: Some(Duration::from_secs(86_401)), ..wanted(Some(WORKSPACE), &["developer"]) };
    assert_eq!(reason(bound.tokens().create(long).await), "INVALID_FIELD");
    // What he cannot see is not there for him.
    let (foreign, _) = signing.admin().await.tokens().create(wanted(Some("other"), &["developer"])).await.unwrap();
    let listed: Vec<KnownToken> = bound.tokens().list().try_collect().await.unwrap();
    assert!(listed.len() == 1 && listed[0].token_id != foreign.token_id, "{listed:?}");
    assert_eq!(reason(bound.tokens().revoke(&foreign.token_id, "", None).await), "UNKNOWN_TOKEN");
    let developer = signing.client(&offline_token(&signing.home, &["--role", "developer"]).await);
    assert_eq!(reason(developer.tokens().create(wanted(None, &["developer"])).await), "ROLE_MISSING");
    assert_eq!(reason(developer.tokens().renew().await), "TOKEN_NOT_RENEWABLE");
}

#[tokio::test]
async fn the_command_makes_renews_lists_and_revokes() {
    let signing = Signing::start().await;
    let (home, server) = (&signing.home, &signing.server());
    let json = |exit: &Exit| -> Vec<serde_json::Value> {
        assert_eq!(exit.code, Some(0), "{exit:?}");
        exit.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let code = |exit: &Exit| -> String {
        let told: serde_json::Value = serde_json::from_str(&exit.stderr).unwrap();
        told["code"].as_str().unwrap().to_owned()
    };
    let admin = offline_token(home, &["--role", "admin"]).await;
    let issue = ["token", "issue", "--subject", "ci", "--role", "developer", "--lifetime", "1h"];
    let made = json(&tandem(home, server, &admin, &issue).await).remove(0);
    let token = made["token"].as_str().unwrap();
    let renewed = json(&tandem(home, server, token, &["token", "renew"]).await).remove(0);
    json(&tandem(home, server, renewed["token"].as_str().unwrap(), &["info"]).await);
    assert_eq!(code(&tandem(home, server, &admin, &["token", "renew"]).await), "TOKEN_NOT_RENEWABLE");
    let listed = json(&tandem(home, server, &admin, &["token", "list"]).await);
    assert_eq!((listed.len(), &listed[0]["token_id"]), (1, &made["token_id"]));
    json(&tandem(home, server, &admin, &["token", "revoke", made["token_id"].as_str().unwrap()]).await);
    assert_eq!(code(&tandem(home, server, token, &["info"]).await), "TOKEN_REVOKED");
    // One that was made elsewhere is revoked with the token itself.
    let other = offline_token(home, &["--role", "developer"]).await;
    json(&tandem(home, server, &other, &["info"]).await);
    let file = home.path().join("other");
    fs::write(&file, &other).unwrap();
    json(&tandem(home, server, &admin, &["token", "revoke", "--token", file.to_str().unwrap()]).await);
    assert_eq!(code(&tandem(home, server, &other, &["info"]).await), "TOKEN_REVOKED");
    fs::write(&file, "no token").unwrap();
    let unusable = tandem(home, server, &admin, &["token", "revoke", "--token", file.to_str().unwrap()]).await;
    assert_eq!(code(&unusable), "TOKEN_UNUSABLE");
    assert_eq!(json(&tandem(home, server, &admin, &["token", "list"]).await).len(), 2);
}

#[tokio::test]
async fn a_file_is_kept_fresh() {
    let signing = Signing::start().await;
    let (_, token) = signing.sandbox(Duration::from_secs(10), Duration::from_secs(600)).await;
    let file = signing.home.path().join("fresh");
    fs::write(&file, &token).unwrap();
    let mut command = tandem_command();
    command.args(["--server", &signing.server(), "--token-file"]).arg(&file).args(["token", "renew", "--keep"]);
    let mut keeping = command.spawn().unwrap();
    // Longer than the first one holds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let ended = keeping.try_wait().unwrap();
    keeping.kill().unwrap();
    keeping.wait().unwrap();
    assert!(ended.is_none(), "it goes on: {ended:?}");
    let fresh = fs::read_to_string(&file).unwrap();
    assert_ne!(fresh.trim(), token);
    signing.client(&fresh).server_info().await.unwrap();
    assert_eq!(reason(signing.client(&token).server_info().await), "TOKEN_EXPIRED");
}

#[tokio::test]
async fn a_broker_without_a_key_to_sign_with_says_so() {
    let home = Home::new();
    let mut config = signing(&home);
    config.auth.signing_key = String::new();
    let broker = BrokerProcess::start(&home, &config).await;
    let token = Some(Token::from_text(&offline_token(&home, &["--role", "admin"]).await));
    let endpoint = format!("http://{}", broker.grpc_address());
    let admin = Client::with_settings(Settings { token, ..Settings::for_endpoint(endpoint) }).unwrap();
    let wanted = NewToken { subject: "x".into(), roles: vec!["admin".into()], ..NewToken::default() };
    assert_eq!(reason(admin.tokens().create(wanted).await), "NO_SIGNING_KEY");
    drop(broker);
    // A key that is not the counterpart of what is checked with would make tokens that nobody accepts.
    let home = Home::new();
    let mut config = signing(&home);
    let other = home.path().join("other");
    fs::write(&other, "another secret that is long enough").unwrap();
    config.auth.signing_key = format!("k1=HS256:{}", other.display());
    let exit = BrokerProcess::try_start(&home, &config).await.expect_err("no counterpart");
    assert!(exit.stderr.contains("auth.signing_key"), "{exit:?}");
}

/// Answers every request with what it is told to.
async fn published(body: Arc<Mutex<String>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_ok_and(|got| got > 0) {
                let body = body.lock().await.clone();
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.ok();
            }
        }
    });
    address
}

#[tokio::test]
async fn keys_of_another_issuer_count_as_soon_as_it_publishes_them() {
    let home = Home::new();
    // What `tandem token create` signs with, as the issuer publishes it.
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    fs::write(home.path().join("key"), key.serialize_pem()).unwrap();
    let x = base64_url(key.public_key_raw());
    let body = Arc::new(Mutex::new("{\"keys\":[]}".to_owned()));
    let address = published(Arc::clone(&body)).await;
    let mut config = home.config();
    config.auth.open = false;
    config.auth.jwks_url = format!("http://{address}/keys");
    config.auth.jwks_issuer = "https://issuer".into();
    config.auth.jwks_refresh_s = 10;
    let broker = BrokerProcess::start(&home, &config).await;
    let endpoint = format!("http://{}", broker.grpc_address());
    let client = |token: &str| {
        let token = Some(Token::from_text(token));
        Client::with_settings(Settings { token, ..Settings::for_endpoint(&endpoint) }).unwrap()
    };
    let token =
        offline_token(&home, &["--role", "developer", "--algorithm", "EdDSA", "--issuer", "https://issuer"]).await;
    assert_eq!(reason(client(&token).server_info().await), "TOKEN_INVALID");
    *body.lock().await = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"{x}"}}]}}"#);
    let mut accepted = false;
    for _ in 0..150 {
        accepted = client(&token).server_info().await.is_ok();
        if accepted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(accepted, "{}", broker.stderr());
    let other =
        offline_token(&home, &["--role", "developer", "--algorithm", "EdDSA", "--issuer", "https://other"]).await;
    assert_eq!(reason(client(&other).server_info().await), "TOKEN_INVALID");
}

fn base64_url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let sextet = |bits: &[u8]| (0..6).fold(0, |sum, at| sum << 1 | bits.get(at).copied().unwrap_or(0));
    bits.chunks(6).map(|bits| char::from(LETTERS[usize::from(sextet(bits))])).collect()
}

/// What makes certificates: `tandem certs create`.
async fn certificate(home: &Home, name: &str, host: &str) {
    let mut command = tandem_command();
    command.args(["certs", "create", "--name", name, "--host", host, "--dir"]).arg(home.path());
    let exit = run_to_exit(home, command).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

#[tokio::test]
async fn a_certificate_says_who_somebody_is_where_no_token_does() {
    let home = Home::new();
    for (name, host) in [("broker", "127.0.0.1"), ("build", "build.example"), ("other", "other.example")] {
        certificate(&home, name, host).await;
    }
    let file = |name: &str| home.path().join(name);
    let mut config = signing(&home);
    config.auth.certificates = vec![format!("build.example=sandbox@{WORKSPACE},a")];
    config.tls.cert_file = file("broker.pem");
    config.tls.key_file = file("broker-key.pem");
    config.tls.client_ca_file = file("ca.pem");
    config.tls.client_certs_optional = true;
    let broker = BrokerProcess::start(&home, &config).await;
    let client = |name: Option<&str>, token: Option<&str>| {
        let identity = name.map(|name| (file(&format!("{name}.pem")), file(&format!("{name}-key.pem"))));
        Client::with_settings(Settings {
            token: token.map(Token::from_text),
            tls_ca_file: Some(file("ca.pem")),
            tls_identity_files: identity,
            ..Settings::for_endpoint(format!("https://{}", broker.grpc_address()))
        })
        .unwrap()
    };
    let build = client(Some("build"), None);
    build.registry(WORKSPACE).register(Sandbox { sandbox_id: "a".into(), ..Default::default() }).await.unwrap();
    assert_eq!(reason(build.registry(WORKSPACE).heartbeat("b").await), "OTHER_SANDBOX");
    assert_eq!(reason(build.workspaces().create("w").await), "ROLE_MISSING");
    // Signed by the authority, and nobody that the settings name.
    assert_eq!(reason(client(Some("other"), None).server_info().await), "TOKEN_MISSING");
    assert_eq!(reason(client(None, None).server_info().await), "TOKEN_MISSING");
    let token = offline_token(&home, &["--role", "admin"]).await;
    client(None, Some(&token)).workspaces().create("w").await.unwrap();
    // Who shows both is whom the token says, and a bad one is not made good by a certificate.
    assert_eq!(client(Some("build"), Some(&token)).workspaces().get("w").await.unwrap().workspace_id, "w");
    assert_eq!(reason(client(Some("build"), Some("nonsense")).server_info().await), "TOKEN_INVALID");
}
