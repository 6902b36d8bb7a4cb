//! Who comes in, and what he may do there: every RPC of the contract, with every role.

use std::{fs, time::Duration};

use futures_util::{TryStreamExt as _, stream};
use prost::Message as _;
use tandem_broker::{
    Config,
    auth::{
        Role, Roles,
        roles::{Rule, TABLE},
    },
};
use tandem_client::{
    AuditChain, AuditKind, AuditQuery, AuditRecord, Client, Code, HistoryQuery, Settings, SubscribeOptions, Token,
};
use tandem_tests::{BrokerProcess, Home, direct, now, run_to_exit, tandem_command};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::MetadataValue,
};
use tonic_types::StatusExt as _;

use crate::stage::WORKSPACE;

/// How long a call that should be let in may go on before that counts.
const LET_IN: Duration = Duration::from_millis(500);
/// The same of one that should be refused, on a machine that is slow.
const REFUSED: Duration = Duration::from_secs(20);

/// Passes bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(out, &item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Bytes {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, body: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        bytes::Buf::advance(body, bytes::Buf::remaining(body));
        Ok(Some(()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// A broker that is closed, and the key to it.
struct Closed {
    home: Home,
    broker: BrokerProcess,
}

fn closed(home: &Home) -> Config {
    fs::write(home.path().join("key"), "a secret that is long enough for it").unwrap();
    let mut config = home.config();
    config.auth.open = false;
    config.auth.keys = vec![format!("k1=HS256:{}", home.path().join("key").display())];
    config
}

/// `tandem token create`, as its user types it.
async fn token(home: &Home, arguments: &[&str]) -> String {
    let mut command = tandem_command();
    command.args(["token", "create", "--key-id", "k1", "--subject", "zoe", "--key-file"]);
    command.arg(home.path().join("key")).args(arguments);
    let exit = run_to_exit(home, command).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    exit.stdout.trim().to_owned()
}

impl Closed {
    async fn start() -> Self {
        let home = Home::new();
        let broker = BrokerProcess::start(&home, &closed(&home)).await;
        Self { home, broker }
    }

    async fn token(&self, arguments: &[&str]) -> String {
        token(&self.home, arguments).await
    }

    async fn client(&self, arguments: &[&str]) -> Client {
        let endpoint = format!("http://{}", self.broker.grpc_address());
        let token = Some(Token::from_text(&self.token(arguments).await));
        Client::with_settings(Settings { token, ..Settings::for_endpoint(endpoint) }).unwrap()
    }

    /// Calls an RPC. None: it was let in, whatever came of it then.
    async fn refused(
        &self,
        rule: &Rule,
        token: Option<&str>,
        body: Vec<u8>,
        patience: Duration,
    ) -> Option<(Code, String)> {
        let mut grpc = Grpc::new(self.broker.channel());
        grpc.ready().await.unwrap();
        let requests = stream::iter([body]);
        let mut request = Request::new(requests);
        if let Some(token) = token {
            let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let call = async {
            let answer = grpc.streaming(request, PathAndQuery::from_static(rule.path), Bytes).await?;
            answer.into_inner().message().await.map(|_| ())
        };
        let Ok(Err(status)) = tokio::time::timeout(patience, call).await else { return None };
        let closed = matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied);
        let reason = || status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        closed.then(|| (status.code(), reason()))
    }
}

/// A request that names the workspace, where it can name one.
fn naming(path: &str, workspace: &str) -> Option<Vec<u8>> {
    let set = prost_types::FileDescriptorSet::decode(tandem_proto::FILE_DESCRIPTOR_SET).unwrap();
    let method = path.rsplit('/').next().unwrap();
    let input = format!("{method}Request");
    let message = set.file.iter().flat_map(|file| &file.message_type).find(|message| message.name() == input)?;
    let named = |message: &prost_types::DescriptorProto| {
        message.field.iter().find(|field| field.name() == "workspace_id").map(prost_types::FieldDescriptorProto::number)
    };
    let field = |number: i32, bytes: &[u8]| {
        let mut out = vec![(number as u8) << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    };
    if method == "Subscribe" {
        let open = [field(1, workspace.as_bytes()), field(2, b"a")].concat();
        return Some(field(1, &open));
    }
    named(message).map(|number| field(number, workspace.as_bytes()))
}

#[tokio::test]
async fn every_rpc_lets_in_the_roles_of_its_row_and_nobody_else() {
    let closed = Closed::start().await;
    for role in Role::ALL {
        let bound: &[&str] =
            if role == Role::Sandbox { &["--bind-workspace", "default", "--bind-sandbox", "a"] } else { &[] };
        let token = closed.token(&[&["--role", role.name()], bound].concat()).await;
        for rule in TABLE {
            let there = if rule.path.ends_with("/DeleteWorkspace") { "nowhere" } else { "default" };
            let body = naming(rule.path, there).unwrap_or_default();
            let reason = match role {
                _ if rule.is_for_nodes() => Some("ROLE_MISSING"),
                // It is bound to a workspace.
                Role::Sandbox if rule.concerns_all() => Some("OTHER_WORKSPACE"),
                _ => (!rule.roles.meets(Roles::of(role))).then_some("ROLE_MISSING"),
            };
            let expected = reason.map(|reason| (Code::PermissionDenied, reason.to_owned()));
            let patience = if expected.is_some() { REFUSED } else { LET_IN };
            let refused = closed.refused(rule, Some(&token), body, patience).await;
            assert_eq!(refused, expected, "{role} calls {}", rule.path);
        }
    }
}

#[tokio::test]
async fn no_rpc_serves_who_is_nobody_or_belongs_elsewhere() {
    let closed = Closed::start().await;
    let foreign = closed.token(&["--role", "admin", "--bind-workspace", "other"]).await;
    let mut bound = 0;
    for rule in TABLE {
        let nobody = closed.refused(rule, None, Vec::new(), REFUSED).await;
        assert_eq!(nobody, Some((Code::Unauthenticated, "TOKEN_MISSING".to_owned())), "{}", rule.path);
        let body = naming(rule.path, "default");
        if body.is_none() && !rule.concerns_all() {
            continue;
        }
        bound += 1;
        let body = body.unwrap_or_default();
        let refused = closed.refused(rule, Some(&foreign), body, REFUSED).await;
        let reason = if rule.is_for_nodes() { "ROLE_MISSING" } else { "OTHER_WORKSPACE" };
        assert_eq!(refused, Some((Code::PermissionDenied, reason.to_owned())), "{}", rule.path);
    }
    assert!(bound > 25, "{bound} RPCs are about a workspace, or about all");
}

#[tokio::test]
async fn a_sandbox_acts_as_itself_only() {
    let closed = Closed::start().await;
    let sandbox = closed.client(&["--role", "sandbox", "--bind-workspace", "default", "--bind-sandbox", "a"]).await;
    let developer = closed.client(&["--role", "developer", "--bind-workspace", "default"]).await;
    for id in ["a", "b"] {
        let sandbox = tandem_client::Sandbox { sandbox_id: id.into(), ..Default::default() };
        developer.registry("default").register(sandbox).await.unwrap();
    }
    let publisher = sandbox.publisher("default");
    publisher.publish(direct("a", "b", "from itself")).await.unwrap();
    let code = |error: tandem_client::Error| error.reason().to_owned();
    assert_eq!(code(publisher.publish(direct("b", "a", "forged")).await.unwrap_err()), "OTHER_SANDBOX");
    let stream = publisher.stream(tandem_client::PublishStreamOptions::default());
    let forged = stream.send(direct("b", "a", "forged")).await.unwrap().await;
    assert_eq!(code(forged.unwrap_err()), "OTHER_SANDBOX");
    stream.send(direct("a", "b", "from itself")).await.unwrap().await.unwrap();
    let options = SubscribeOptions::default;
    assert_eq!(code(sandbox.subscribe("default", "b", options()).await.unwrap_err()), "OTHER_SANDBOX");
    sandbox.subscribe("default", "a", options()).await.unwrap();
    assert_eq!(code(sandbox.registry("default").heartbeat("b").await.unwrap_err()), "OTHER_SANDBOX");
    assert_eq!(code(sandbox.registry("default").unregister("b").await.unwrap_err()), "OTHER_SANDBOX");
    assert_eq!(code(sandbox.history("default").get("any").await.unwrap_err()), "ROLE_MISSING");
    // What was forged is nowhere.
    let listed: Vec<_> = developer.workspaces().list().try_collect().await.unwrap();
    assert_eq!(listed.iter().map(|workspace| workspace.workspace_id.as_str()).collect::<Vec<_>>(), ["default"]);
    let log: Vec<_> = developer.history("default").list(HistoryQuery::default()).try_collect().await.unwrap();
    assert_eq!(log.iter().map(|message| message.from_sandbox_id.as_str()).collect::<Vec<_>>(), ["a", "a"]);
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let home = Home::new();
    let mut config = closed(&home);
    config.auth.clock_skew_s = 0;
    let closed = Closed { broker: BrokerProcess::start(&home, &config).await, home };
    let client = closed.client(&["--role", "developer", "--expires-in", "3s"]).await;
    client
        .registry("default")
        .register(tandem_client::Sandbox { sandbox_id: "a".into(), ..Default::default() })
        .await
        .unwrap();
    let mut subscription = client.subscribe("default", "a", SubscribeOptions::default()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), subscription.next()).await.expect("it ends");
    assert_eq!(ended.unwrap_err().reason(), "TOKEN_EXPIRED");
    assert_eq!(client.server_info().await.unwrap_err().reason(), "TOKEN_EXPIRED");
}

#[tokio::test]
async fn a_broker_without_keys_does_not_start_and_secrets_are_not_printed() {
    let home = Home::new();
    let mut config = home.config();
    config.auth.open = false;
    let exit = BrokerProcess::try_start(&home, &config).await.expect_err("nobody could come in");
    assert!(exit.stderr.contains("auth.open"), "{exit:?}");
    let closed = Closed::start().await;
    let token = closed.token(&["--role", "admin"]).await;
    let wrong = format!("{}x", &token[..token.len() - 1]);
    for token in [&token, &wrong] {
        closed.refused(&TABLE[0], Some(token), Vec::new(), LET_IN).await;
    }
    let said = closed.broker.stderr();
    assert!(!said.contains("a secret that is long") && !said.contains(token.split('.').nth(1).unwrap()), "{said}");
}

#[tokio::test]
async fn a_key_is_shown_once_and_holds_until_it_is_revoked() {
    let closed = Closed::start().await;
    let run = async |token: &str, arguments: &[&str]| {
        let file = closed.home.path().join("shown");
        fs::write(&file, token).unwrap();
        let mut command = tandem_command();
        command.args(["--json", "--server", &format!("http://{}", closed.broker.grpc_address()), "--token-file"]);
        command.arg(&file).args(arguments);
        run_to_exit(&closed.home, command).await
    };
    let json = |exit: &tandem_tests::Exit| -> Vec<serde_json::Value> {
        assert_eq!(exit.code, Some(0), "{exit:?}");
        exit.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let code = |exit: &tandem_tests::Exit| -> String {
        let told: serde_json::Value = serde_json::from_str(&exit.stderr).unwrap();
        told["code"].as_str().unwrap().to_owned()
    };
    let admin = closed.token(&["--role", "admin"]).await;
    let create = ["key", "create", "--subject", "ci", "--role", "developer", "--bind-workspace", "default"];
    let made = json(&run(&admin, &create).await).remove(0);
    let (id, secret) = (made["key_id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert!(secret.starts_with(&format!("tandem_{id}_")) && made["created_by"] == "zoe", "{made}");

    json(&run(secret, &["sandbox", "register", "a"]).await);
    assert_eq!(code(&run(secret, &["key", "list"]).await), "ROLE_MISSING");
    assert_eq!(code(&run(secret, &["--workspace", "other", "sandbox", "list"]).await), "OTHER_WORKSPACE");
    for wrong in
        [format!("{secret}x"), secret.replace(id, "0000000000000000"), format!("tandem_{id}_"), "tandem_".into()]
    {
        assert_eq!(code(&run(&wrong, &["info"]).await), "TOKEN_INVALID", "{wrong}");
    }
    // Who is bound makes keys of his workspace, and one that is a sandbox none.
    let bound = closed.token(&["--role", "admin", "--bind-workspace", "default"]).await;
    assert_eq!(code(&run(&bound, &["key", "create", "--subject", "x", "--role", "admin"]).await), "OTHER_WORKSPACE");
    let sandbox = closed.token(&["--role", "admin", "--bind-workspace", "default", "--bind-sandbox", "a"]).await;
    assert_eq!(code(&run(&sandbox, &create).await), "OTHER_SANDBOX");
    let short = json(&run(&bound, &[&create[..], &["--expires-in", "1s"]].concat()).await).remove(0);
    assert_eq!(json(&run(&bound, &["key", "list"]).await).len(), 2);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(code(&run(short["secret"].as_str().unwrap(), &["info"]).await), "TOKEN_EXPIRED");

    assert_eq!(code(&run(&admin, &["key", "revoke", "0000000000000000"]).await), "UNKNOWN_KEY");
    assert_eq!(code(&run(&admin, &["key", "revoke", "x"]).await), "INVALID_FIELD");
    json(&run(&admin, &["key", "revoke", id]).await);
    assert_eq!(code(&run(secret, &["info"]).await), "KEY_REVOKED");
    let listed = json(&run(&admin, &["key", "list"]).await);
    assert!(listed.iter().all(|key| key["secret"].is_null()) && !closed.broker.stderr().contains(secret), "{listed:?}");
}

#[tokio::test]
async fn an_open_broker_makes_no_keys() {
    let home = Home::new();
    let broker = BrokerProcess::start(&home, &home.config()).await;
    let key = tandem_client::NewKey { subject: "x".into(), roles: vec!["admin".into()], ..Default::default() };
    let refused = broker.client().keys().create(key).await.unwrap_err();
    assert_eq!(refused.reason(), "BROKER_OPEN", "{refused}");
}

/// Records of the audit about who was turned away, as soon as there are so many refusals.
async fn turned_away(client: &Client, chain: AuditChain, wanted: u64) -> Vec<AuditRecord> {
    let started = now();
    loop {
        let kinds = vec![AuditKind::AuthenticationFailed, AuditKind::CallRefused];
        let query = AuditQuery { kinds, ..AuditQuery::default() };
        let found: Vec<AuditRecord> = client.audit(chain.clone()).list(query).try_collect().await.unwrap();
        if found.iter().map(|record| record.count).sum::<u64>() >= wanted {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{found:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn promise_10_who_is_turned_away_is_in_the_audit_and_a_flood_of_them_is_counted() {
    let closed = Closed::start().await;
    let endpoint = format!("http://{}", closed.broker.grpc_address());
    let wrong =
        Settings { token: Some(Token::from_text("eyJhbGciOiJub25lIn0.e30.")), ..Settings::for_endpoint(endpoint) };
    let wrong = Client::with_settings(wrong).unwrap();
    for _ in 0..300 {
        assert_eq!(wrong.workspaces().get(WORKSPACE).await.unwrap_err().reason(), "TOKEN_INVALID");
    }
    let sandbox = ["--role", "sandbox", "--bind-workspace", WORKSPACE, "--bind-sandbox", "alice"];
    let alice = closed.client(&sandbox).await;
    assert_eq!(alice.policies(WORKSPACE).remove(None).await.unwrap_err().reason(), "ROLE_MISSING");
    let forged = alice.publisher(WORKSPACE).publish(direct("bob", "alice", "forged")).await;
    assert_eq!(forged.unwrap_err().reason(), "OTHER_SANDBOX");

    let auditor = closed.client(&["--role", "auditor"]).await;
    let failed = turned_away(&auditor, AuditChain::Shard(0), 300).await;
    assert_eq!(failed.iter().map(|record| record.count).sum::<u64>(), 300);
    assert!(failed.len() <= 20, "about a record a second: {}", failed.len());
    assert!(failed.iter().all(|record| record.kind() == AuditKind::AuthenticationFailed));
    assert!(failed[0].address.starts_with("127.0.0.1:") && failed[0].about == "GetWorkspace", "{:?}", failed[0]);
    assert!(failed[0].text.starts_with("TOKEN_INVALID: ") && !failed[0].request_id.is_empty(), "{:?}", failed[0]);

    let refused = turned_away(&auditor, AuditChain::Workspace(WORKSPACE.into()), 2).await;
    let mut told: Vec<_> = refused.iter().map(|record| (record.by.as_str(), record.about.as_str())).collect();
    told.sort_unstable();
    assert_eq!(told, [("zoe", "Publish"), ("zoe", "RemovePolicy")]);
    // Only whom it concerns may read it.
    let developer = closed.client(&["--role", "developer"]).await;
    let chain = || AuditChain::Workspace(WORKSPACE.into());
    assert_eq!(developer.audit(chain()).head().await.unwrap_err().reason(), "ROLE_MISSING");
    let bound = closed.client(&["--role", "auditor", "--bind-workspace", WORKSPACE]).await;
    assert!(bound.audit(chain()).head().await.unwrap().number >= 2);
    assert_eq!(bound.audit(AuditChain::Shard(0)).head().await.unwrap_err().reason(), "OTHER_WORKSPACE");
}
