//! What somebody does who wants in, or wants the broker to fall: none of it may work, others must not feel it, and the audit tells.

mod raw;

use std::{fs, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tandem_client::{
    AuditChain, AuditKind, AuditQuery, Client, Decision, HistoryQuery, Quotas, Sandbox, Settings, SubscribeOptions,
    Token,
};
use tandem_tests::{BrokerProcess, Home, direct, run_to_exit, tandem_command};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use self::raw::*;
use crate::stage::WORKSPACE;

const SOON: Duration = Duration::from_secs(10);
/// How much larger the broker may become by an attack.
const MAX_GROWTH: usize = 128 << 20;

/// A broker that is closed, and somebody who works with it all the time.
struct Victim {
    home: Home,
    broker: BrokerProcess,
    honest: Client,
}

impl Victim {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut tandem_broker::Config)) -> Self {
        let home = Home::new();
        let key = home.path().join("key");
        fs::write(&key, "a secret that is long enough for it").unwrap();
        let mut config = home.config();
        config.auth.open = false;
        config.auth.keys = vec![format!("k1=HS256:{}", key.display())];
        change(&mut config);
        let broker = BrokerProcess::start(&home, &config).await;
        let admin = token(&home, &["--role", "admin"]).await;
        let honest = client(broker.grpc_address(), &admin);
        for id in ["a", "b"] {
            let sandbox = Sandbox { sandbox_id: id.into(), ..Sandbox::default() };
            honest.registry(WORKSPACE).register(sandbox).await.unwrap();
        }
        Self { home, broker, honest }
    }

    fn address(&self) -> SocketAddr {
        self.broker.grpc_address()
    }

    async fn token(&self, arguments: &[&str]) -> String {
        token(&self.home, arguments).await
    }

    /// Somebody else can work, at once.
    async fn serves(&self) {
        let publishing = self.honest.publisher(WORKSPACE);
        let published = timeout(Duration::from_secs(5), publishing.publish(direct("a", "b", "honest"))).await;
        published.expect("others do not wait").unwrap();
    }

    /// Whether the audit of shard 0 tells this of connections.
    async fn told_of_connections(&self, text: &str) -> bool {
        self.told(AuditChain::Shard(0), Some("connection"), text).await
    }

    /// Whether a chain tells of a refusal in these words.
    async fn told(&self, chain: AuditChain, about: Option<&str>, text: &str) -> bool {
        let kinds = vec![AuditKind::CallRefused, AuditKind::AuthenticationFailed];
        let query = AuditQuery { kinds, about: about.map(str::to_owned), ..AuditQuery::default() };
        for _ in 0..100 {
            let found = self.honest.audit(chain.clone()).list(query.clone());
            let records: Vec<_> = found.try_collect().await.unwrap();
            if records.iter().any(|record| record.text.contains(text)) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }
}

async fn token(home: &Home, arguments: &[&str]) -> String {
    let mut command = tandem_command();
    command.args(["token", "create", "--key-id", "k1", "--subject", "zoe", "--key-file"]);
    command.arg(home.path().join("key")).args(arguments);
    let exit = run_to_exit(home, command).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    exit.stdout.trim().to_owned()
}

fn client(address: SocketAddr, token: &str) -> Client {
    let token = Some(Token::from_text(token));
    Client::with_settings(Settings { token, ..Settings::for_endpoint(format!("http://{address}")) }).unwrap()
}

fn reason<T: std::fmt::Debug>(result: Result<T, tandem_client::Error>) -> String {
    result.unwrap_err().reason().to_owned()
}

#[tokio::test]
async fn floods_of_http_2_end_their_connection_and_nobody_elses() {
    let victim = Victim::start().await;
    victim.serves().await;
    let before = victim.broker.resident_bytes();
    let address = victim.address();
    let reset = |at: u32| {
        let stream = 2 * at + 1;
        let opened = frame(HEADERS, 4, stream, &call(INFO));
        [opened, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    let rapid = Raw::connect(address).await.flood((0..50_000).map(reset)).await;
    assert_eq!(rapid, Some(ENHANCE_YOUR_CALM), "streams that are reset at once");
    victim.serves().await;
    let most = (1_u32 << 31) - 1;
    let windows = (0..3).map(move |_| frame(WINDOW_UPDATE, 0, 0, &most.to_be_bytes()));
    assert_eq!(Raw::connect(address).await.flood(windows).await, Some(FLOW_CONTROL_ERROR));
    let long = std::iter::once([&[0xff, 0xff, 0xff, DATA, 0][..], &[0; 4], &[0; 100]].concat());
    assert_eq!(Raw::connect(address).await.flood(long).await, Some(FRAME_SIZE_ERROR));
    // Headers that never end.
    let endless = (0..20_000).map(|at| {
        let more = field(&format!("x-{at}"), &"y".repeat(100));
        if at == 0 { frame(HEADERS, 0, 1, &[call(INFO), more].concat()) } else { frame(CONTINUATION, 0, 1, &more) }
    });
    assert!(Raw::connect(address).await.flood(endless).await.is_some(), "headers without an end");
    victim.serves().await;
    // Headers of 3 KiB that unfold to 150 and 600 KiB: one that is remembered, and then named so often.
    for (times, expected) in [(50, None), (200, Some(ENHANCE_YOUR_CALM))] {
        let remembered = [vec![0x40], field("x-bomb", &"y".repeat(3_000))[1..].to_vec(), vec![0xbe; times]].concat();
        let bomb = std::iter::once(frame(HEADERS, 4, 1, &[call(INFO), remembered].concat()));
        assert_eq!(Raw::connect(address).await.flood(bomb).await, expected, "{times} times");
    }
    let grown = victim.broker.resident_bytes().saturating_sub(before);
    assert!(grown < MAX_GROWTH, "grown by {grown} bytes");
    assert!(victim.told_of_connections("error 11").await && victim.told_of_connections("HEADERS_TOO_LARGE").await);
    assert!(victim.broker.metric("tandem_connections_refused_total").await >= 3.0);
}

#[tokio::test]
async fn frames_that_carry_nothing_end_their_connection() {
    let victim = Victim::start().await;
    let (address, before) = (victim.address(), victim.broker.resident_bytes());
    // What a client may send at any time, and as often as it likes.
    for (kind, payload) in [
        (PING, &[0; 8][..]),
        (SETTINGS, &[0, 3, 0, 0, 0, 100]),
        (WINDOW_UPDATE, &[0, 0, 0, 1]),
        (PRIORITY, &[0, 0, 0, 0, 1]),
        (UNHEARD_OF, b"what is this?"),
    ] {
        let stream = if kind == PRIORITY { 1 } else { 0 };
        let many = (0..300_000).map(move |_| frame(kind, 0, stream, payload));
        let ended = Raw::connect(address).await.flood(many).await;
        assert_eq!(ended, Some(ENHANCE_YOUR_CALM), "frames of type {kind}");
    }
    victim.serves().await;
    let grown = victim.broker.resident_bytes().saturating_sub(before);
    assert!(grown < MAX_GROWTH, "grown by {grown} bytes");
    assert!(victim.told_of_connections("the connection sent pings").await, "the audit tells");
    assert!(victim.broker.metric("tandem_connections_refused_total").await >= 5.0);
}

#[tokio::test]
async fn pings_that_nobody_reads_the_answers_of_pile_up_nowhere() {
    let victim = Victim::start().await;
    let before = victim.broker.resident_bytes();
    let mut deaf = Raw::connect(victim.address()).await;
    let many: Vec<u8> = (0..10_000_u64).flat_map(|at| frame(PING, 0, 0, &at.to_be_bytes())).collect();
    // The broker stops to read when nobody reads what it says.
    let sent = timeout(Duration::from_secs(5), async {
        let mut sent = 0_usize;
        while deaf.0.write_all(&many).await.is_ok() && sent < 500 {
            sent += 1;
        }
        sent
    })
    .await;
    assert!(sent.is_err() || sent.is_ok_and(|sent| sent < 500), "17 MB of pings and more were taken");
    victim.serves().await;
    let grown = victim.broker.resident_bytes().saturating_sub(before);
    assert!(grown < MAX_GROWTH, "grown by {grown} bytes");
}

#[tokio::test]
async fn who_is_slow_holds_nobody_up() {
    let victim = Victim::with(|config| config.limits.request_timeout_ms = 2_000).await;
    let address = victim.address();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // Requests that begin and do not go on, each on a stream of its own.
    let developer = victim.token(&["--role", "developer"]).await;
    let (mut send, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let mut begun = Vec::new();
    for _ in 0..500 {
        send = send.ready().await.unwrap();
        let request = request(INFO, &developer).body(()).unwrap();
        begun.push(send.send_request(request, false).unwrap());
    }
    // The same without a token, where none is asked for.
    for _ in 0..100 {
        send = send.ready().await.unwrap();
        let health =
            http::Request::post("http://x/grpc.health.v1.Health/Check").header("content-type", "application/grpc");
        let (answer, mut sending) = send.send_request(health.body(()).unwrap(), false).unwrap();
        sending.send_data(Bytes::from_static(&[0, 0, 0, 0]), false).unwrap();
        begun.push((answer, sending));
    }
    victim.serves().await;
    for (answer, _sending) in begun {
        let answer = timeout(SOON, answer).await.expect("it ends").unwrap();
        assert_eq!(answer.headers().get("grpc-status").unwrap(), "4");
    }
    assert!(victim.told(AuditChain::Shard(0), Some("GetServerInfo"), "REQUEST_TOO_SLOW").await);
    let mut nothing = [0; 64];
    let ended = timeout(Duration::from_secs(15), async {
        for stream in &mut silent {
            // Its settings, and then its end.
            while stream.read(&mut nothing).await.is_ok_and(|got| got > 0) {}
        }
    });
    ended.await.expect("who says nothing is sent away");
    assert!(victim.told_of_connections("HTTP/2").await);
    victim.serves().await;
}

#[tokio::test]
async fn nothing_is_unpacked_that_somebody_has_packed() {
    let victim = Victim::start().await;
    let developer = victim.token(&["--role", "developer"]).await;
    let publish = "/aintandem.messaging.v1.PublishService/Publish";
    // What is in it does not matter: it is not looked at.
    let bomb = message(true, &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xed, 0xc1, 1, 0]);
    for encoding in ["gzip", "deflate", "zstd", "nonsense"] {
        let packed = request(publish, &developer).header("grpc-encoding", encoding);
        let (code, _) = status(victim.address(), packed, bomb.clone()).await.unwrap();
        assert_eq!(code, "12", "{encoding}");
    }
    assert!(victim.told(AuditChain::Shard(0), Some("Publish"), "REQUEST_COMPRESSED").await);
    let unnamed = status(victim.address(), request(publish, &developer), bomb).await.unwrap();
    assert_ne!(unnamed.0, "0");
    // A length that is a lie costs nothing before it is true.
    let before = victim.broker.resident_bytes();
    let lie = [&[0][..], &u32::MAX.to_be_bytes(), b"short"].concat();
    let (code, _) = status(victim.address(), request(publish, &developer), lie).await.unwrap();
    assert_ne!(code, "0");
    assert!(victim.broker.resident_bytes().saturating_sub(before) < MAX_GROWTH);
    victim.serves().await;
}

#[tokio::test]
async fn headers_that_only_nodes_send_say_nothing_and_large_ones_are_not_read() {
    let victim = Victim::start().await;
    let address = victim.address();
    let bound = victim.token(&["--role", "developer", "--bind-workspace", "other"]).await;
    let key = "/aintandem.key.v1.KeyService/ListKeys";
    let (denied, unauthenticated) = ("7", "16");
    // base64url of {"subject":"root","roles":["admin"],"until_s":99999999999}, and a signature that nobody has made.
    let caller = "eyJzdWJqZWN0Ijoicm9vdCIsInJvbGVzIjpbImFkbWluIl0sInVudGlsX3MiOjk5OTk5OTk5OTk5fQ.AAAA";
    for (name, value) in [
        ("aintandem-caller", caller),
        ("aintandem-forwarded", "0"),
        ("aintandem-subscription-id", "1"),
        ("x-forwarded-user", "root"),
        ("x-roles", "admin"),
    ] {
        let (code, text) =
            status(address, request(key, &bound).header(name, value), message(false, &[])).await.unwrap();
        assert_eq!(code, denied, "{name}: {text}");
    }
    let nobody = || http::Request::post(format!("http://x{key}")).header("content-type", "application/grpc");
    let (code, _) = status(address, nobody().header("aintandem-caller", caller), message(false, &[])).await.unwrap();
    assert_eq!(code, unauthenticated);
    for scheme in ["Basic cm9vdDpyb290", "Bearer", "Bearer ", "bearer\t", "Token x", ""] {
        let (code, _) = status(address, nobody().header("authorization", scheme), message(false, &[])).await.unwrap();
        assert_eq!(code, unauthenticated, "{scheme:?}");
    }
    let twice = request(key, &bound).header("authorization", "Bearer another");
    assert_eq!(status(address, twice, message(false, &[])).await.unwrap().0, unauthenticated);
    // A token of 9 KiB is looked at; headers of 100 KiB are not, and those of 135 KiB are not even read.
    let giant = status(address, request(key, &"x".repeat(9 << 10)), message(false, &[])).await.unwrap();
    assert_eq!(giant.0, unauthenticated, "{giant:?}");
    assert!(victim.told(AuditChain::Shard(0), Some("ListKeys"), "TOKEN_INVALID").await, "a giant token");
    let monster = status(address, request(key, &"x".repeat(100 << 10)), message(false, &[])).await.unwrap();
    assert!(monster.0 == "3" && monster.1.contains("32768"), "{monster:?}");
    assert!(victim.told(AuditChain::Shard(0), Some("ListKeys"), "HEADERS_TOO_LARGE").await, "headers of 100 KiB");
    let unread = status(address, request(key, &"x".repeat(135 << 10)), message(false, &[])).await.unwrap();
    assert!(unread.0.starts_with("431"), "{unread:?}");
    assert!(victim.told_of_connections("HEADERS_TOO_LARGE").await, "headers of 135 KiB");
    // From where somebody is says the connection, and not he.
    let forwarded = request(key, &bound).header("x-forwarded-for", "10.9.8.7").header("x-request-id", "attack-1");
    status(address, forwarded, message(false, &[])).await.unwrap();
    let query = AuditQuery { kinds: vec![AuditKind::CallRefused], ..AuditQuery::default() };
    let mut told = Vec::new();
    for _ in 0..100 {
        let chain = victim.honest.audit(AuditChain::Shard(0));
        told = chain.list(query.clone()).try_collect::<Vec<_>>().await.unwrap();
        if !told.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(told.iter().all(|record| record.address.starts_with("127.0.0.1:")), "{told:?}");
    assert!(told.iter().any(|record| record.about.ends_with("ListKeys") && record.by == "zoe"), "{told:?}");
}

#[tokio::test]
async fn names_are_names_and_no_paths() {
    let victim = Victim::start().await;
    let bound = client(victim.address(), &victim.token(&["--role", "developer", "--bind-workspace", WORKSPACE]).await);
    let long = "x".repeat(129);
    for name in [
        "../other",
        "./default",
        "default/../other",
        "/default",
        "default\0",
        "default\n",
        "%2e%2e",
        "..",
        ".",
        "",
        " ",
        "def\u{430}ult",
        "\u{202e}default",
        "default;drop",
        "~",
        "*",
        "\\\\host",
        &long,
    ] {
        for refused in [
            reason(bound.workspaces().get(name).await),
            reason(bound.registry(name).heartbeat("a").await),
            reason(bound.publisher(name).publish(direct("a", "b", "x")).await),
            reason(bound.subscribe(name, "a", SubscribeOptions::default()).await),
            reason(bound.history(name).list(HistoryQuery::default()).try_collect::<Vec<_>>().await),
        ] {
            assert!(["INVALID_FIELD", "OTHER_WORKSPACE"].contains(&refused.as_str()), "{name:?}: {refused}");
        }
        let sandbox = Sandbox { sandbox_id: name.into(), ..Sandbox::default() };
        let refused = reason(bound.registry(WORKSPACE).register(sandbox).await);
        assert_eq!(refused, "INVALID_FIELD", "{name:?}");
        assert_eq!(reason(bound.subscribe(WORKSPACE, name, SubscribeOptions::default()).await), "INVALID_FIELD");
    }
    // The same of RPCs.
    let token = victim.token(&["--role", "sandbox", "--bind-workspace", WORKSPACE, "--bind-sandbox", "a"]).await;
    for path in [
        "/aintandem.server.v1.ServerService/../../aintandem.key.v1.KeyService/ListKeys",
        "//aintandem.key.v1.KeyService/ListKeys",
        "/aintandem.key.v1.KeyService/ListKeys/",
        "/aintandem.key.v1.KeyService/listkeys",
        "/aintandem.key.v1.KeyService%2FListKeys",
        "/aintandem.key.v1.KeyService/ListKeys?x=/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Check/../../../aintandem.key.v1.KeyService/ListKeys",
        "/grpc.reflection.v1.ServerReflection/../aintandem.key.v1.KeyService/ListKeys",
    ] {
        let (code, text) = status(victim.address(), request(path, &token), message(false, &[])).await.unwrap();
        assert!(["7", "12", "404 Not Found"].contains(&code.as_str()), "{path}: {code} {text}");
    }
    for text in ["INVALID_FIELD", "UNKNOWN_METHOD"] {
        assert!(victim.told(AuditChain::Workspace(WORKSPACE.into()), None, text).await, "{text}");
    }
    victim.serves().await;
}

#[tokio::test]
async fn an_approval_that_is_sent_again_decides_nothing() {
    let victim = Victim::start().await;
    let policy = r#"{"policy":"allow_list","rules":[{"from":"*","to":["*"],"approval_required":true}]}"#;
    victim.honest.policies(WORKSPACE).set(policy, None).await.unwrap();
    let receipt = victim.honest.publisher(WORKSPACE).publish(direct("a", "b", "risky")).await.unwrap();
    let number = receipt.approval_id.unwrap();
    let approver = client(victim.address(), &victim.token(&["--role", "approver"]).await);
    let approvals = approver.approvals(WORKSPACE);
    let sandbox = victim.token(&["--role", "sandbox", "--bind-workspace", WORKSPACE, "--bind-sandbox", "a"]).await;
    let own = client(victim.address(), &sandbox);
    assert_eq!(reason(own.approvals(WORKSPACE).decide(number, Decision::Approve, "").await), "ROLE_MISSING");
    approvals.decide(number, Decision::Approve, "fine").await.unwrap();
    // Whoever has decided hears again what he has; nothing else comes of it.
    let again = approvals.decide(number, Decision::Approve, "again").await.unwrap();
    assert_eq!(again.votes.len(), 1);
    assert_eq!(reason(approvals.decide(number, Decision::Deny, "again").await), "APPROVAL_ENDED");
    assert!(victim.told(AuditChain::Shard(0), Some("DenyMessage"), "APPROVAL_ENDED").await);
    for decision in [Decision::Approve, Decision::Deny] {
        let other = victim.honest.approvals(WORKSPACE).decide(number + 1, decision, "").await;
        assert_eq!(reason(other), "UNKNOWN_APPROVAL");
    }
    assert_eq!(reason(approvals.decide(number + 1, Decision::Approve, "").await), "UNKNOWN_APPROVAL");
    let log: Vec<_> = victim.honest.history(WORKSPACE).list(HistoryQuery::default()).try_collect().await.unwrap();
    assert_eq!(log.iter().filter(|message| message.content == b"risky"[..]).count(), 1);
    let chain = victim.honest.audit(AuditChain::Workspace(WORKSPACE.into()));
    let query = AuditQuery { kinds: vec![AuditKind::MessageApproved], ..AuditQuery::default() };
    let told: Vec<_> = chain.list(query).try_collect().await.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test]
async fn connections_have_a_limit_and_those_of_a_workspace_another() {
    let victim = Victim::with(|config| config.limits.max_connections = 4).await;
    let quotas = Quotas { max_connections: 1, ..Quotas::default() };
    victim.honest.workspaces().set_quotas(WORKSPACE, quotas).await.unwrap();
    let bound = victim.token(&["--role", "developer", "--bind-workspace", WORKSPACE]).await;
    let (first, second) = (client(victim.address(), &bound), client(victim.address(), &bound));
    first.server_info().await.unwrap();
    assert_eq!(reason(second.server_info().await), "QUOTA_EXCEEDED");
    first.server_info().await.unwrap();
    drop(first);
    let mut waited = second.server_info().await;
    for _ in 0..50 {
        if waited.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        waited = second.server_info().await;
    }
    waited.unwrap();
    drop(second);
    // All places are taken: who comes then is sent away at once, and the others do not notice.
    let mut held = Vec::new();
    let mut closed = false;
    for _ in 0..8 {
        let mut stream = TcpStream::connect(victim.address()).await.unwrap();
        let mut byte = [0; 1];
        let answer = timeout(Duration::from_millis(200), stream.read(&mut byte)).await;
        closed |= answer.is_ok();
        held.push(stream);
    }
    for stream in &mut held {
        // On a busy machine it is sent away a little later.
        closed = closed || timeout(Duration::from_secs(2), stream.read(&mut [0; 1])).await.is_ok();
    }
    assert!(closed);
    victim.serves().await;
    drop(held);
    assert!(victim.told_of_connections("max_connections").await);
}
