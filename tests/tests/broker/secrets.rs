//! Secrets: what messages say, encrypted at rest, and that no secret stands where it should not.

use std::{fs, path::Path, time::Duration};

use futures_util::TryStreamExt as _;
use tandem_broker::Config;
use tandem_client::{
    AuditChain, AuditQuery, Client, DeadLetterQuery, HistoryQuery, Nack, NewToken, Sandbox, Settings, SubscribeOptions,
    Subscription, Token,
};
use tandem_tests::{BrokerProcess, Home, broker_command, direct, run_to_exit, tandem_command};

use crate::stage::WORKSPACE;

/// What must stand nowhere.
const CONTENT: &str = "planted-content-4b1d";
const SIGNING: &str = "planted-signing-secret-that-is-long-enough";
const CLUSTER: &str = "planted-cluster-secret-that-is-long-enough";
/// 32 bytes as base64, as the file has them; and others.
const ENCRYPTION: &str = "cGxhbnRlZC1lbmNyeXB0aW9uLWtleS0wMDAwMDAwMDE=";
const NEWER: &str = "cGxhbnRlZC1lbmNyeXB0aW9uLWtleS0wMDAwMDAwMDI=";

fn write(home: &Home, name: &str, text: &str) -> std::path::PathBuf {
    let file = home.path().join(name);
    fs::write(&file, text).unwrap();
    file
}

fn sealed(home: &Home) -> Config {
    let mut config = home.config();
    config.encryption.key_file = write(home, "keys", &format!("k1 {ENCRYPTION}\n"));
    config.encryption.workspaces = vec![WORKSPACE.into()];
    config.storage.snapshot_every_bytes = 1 << 20;
    config
}

/// Files below a directory that hold a text, and how many there are in all.
fn holding(dir: &Path, text: &str) -> (Vec<String>, usize) {
    let (mut found, mut files) = (Vec::new(), 0);
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
                continue;
            }
            files += 1;
            let bytes = fs::read(entry.path()).unwrap();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    (found, files)
}

async fn next(subscription: &mut Subscription) -> tandem_client::Delivery {
    let next = tokio::time::timeout(Duration::from_secs(10), subscription.next()).await.expect("in time");
    next.unwrap().expect("there is one more")
}

async fn register(client: &Client, ids: &[&str]) {
    for id in ids {
        let retry = tandem_client::RetryPolicy { max_attempts: 1, ..Default::default() };
        let sandbox = Sandbox { sandbox_id: (*id).into(), retry_policy: Some(retry), ..Default::default() };
        client.registry(WORKSPACE).register(sandbox).await.unwrap();
    }
}

#[tokio::test]
async fn what_messages_say_stands_nowhere_on_the_disk_and_is_delivered_as_it_was() {
    let home = Home::new();
    let config = sealed(&home);
    let broker = BrokerProcess::start(&home, &config).await;
    let client = broker.client();
    register(&client, &["a", "b", "c"]).await;
    let publisher = client.publisher(WORKSPACE);
    // Enough for snapshots, and for the engines to write tables.
    for number in 0..600 {
        let mut message = direct("a", "b", format!("{CONTENT}-{number}-{}", "x".repeat(4_000)));
        message.metadata.insert("kind".into(), "planted-metadata".into());
        publisher.publish(message).await.unwrap();
    }
    publisher.publish(direct("a", "c", CONTENT)).await.unwrap();
    let mut dying = client.subscribe(WORKSPACE, "c", SubscribeOptions::default()).await.unwrap();
    let delivery = next(&mut dying).await;
    assert_eq!(delivery.message.content, CONTENT.as_bytes());
    dying.nack(&delivery, Nack { reason: "no use".into(), ..Nack::default() });
    let letters = || async {
        let query = DeadLetterQuery { sandbox_id: Some("c".into()), ..DeadLetterQuery::default() };
        let letters: Vec<_> = client.dead_letters(WORKSPACE).list(query).try_collect().await.unwrap();
        letters
    };
    let mut dead = letters().await;
    for _ in 0..100 {
        if !dead.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        dead = letters().await;
    }
    assert_eq!(dead[0].message.as_ref().unwrap().content, CONTENT.as_bytes());
    drop((dying, client));
    drop(broker.stop().await);

    let (found, files) = holding(&home.data(), CONTENT);
    assert!(found.is_empty() && files > 10, "{found:?} of {files} files");
    let (readable, _) = holding(&home.data(), "planted-metadata");
    assert!(!readable.is_empty(), "what is not encrypted is found, so what is would be");

    // With a key that came first meanwhile.
    write(&home, "keys", &format!("k2 {NEWER}\nk1 {ENCRYPTION}\n"));
    let broker = BrokerProcess::start(&home, &config).await;
    let client = broker.client();
    client.publisher(WORKSPACE).publish(direct("a", "b", CONTENT)).await.unwrap();
    let mut inbox = client.subscribe(WORKSPACE, "b", SubscribeOptions::default()).await.unwrap();
    for number in 0..600 {
        let delivery = next(&mut inbox).await;
        assert!(delivery.message.content.starts_with(format!("{CONTENT}-{number}-").as_bytes()));
        inbox.ack(&delivery);
    }
    assert_eq!(next(&mut inbox).await.message.content, CONTENT.as_bytes());
    let history: Vec<_> = client.history(WORKSPACE).list(HistoryQuery::default()).try_collect().await.unwrap();
    assert!(history.iter().all(|message| message.content.starts_with(CONTENT.as_bytes())), "{}", history.len());
    drop((inbox, client));
    drop(broker.stop().await);

    // Without the old key what it has sealed is not handed out, and nothing of it is lost.
    write(&home, "keys", &format!("k2 {NEWER}\n"));
    let broker = BrokerProcess::start(&home, &config).await;
    let client = broker.client();
    let read = async || {
        client.history(WORKSPACE).list(HistoryQuery::default()).try_collect::<Vec<tandem_client::Message>>().await
    };
    let refused = read().await.unwrap_err();
    assert!(refused.reason() == "CONTENT_UNREADABLE" && refused.to_string().contains("k1"), "{refused}");
    write(&home, "keys", &format!("k2 {NEWER}\nk1 {ENCRYPTION}\n"));
    let all = read().await.unwrap();
    assert!(all[0].content.starts_with(CONTENT.as_bytes()));
    drop(broker.stop().await);
}

#[tokio::test]
async fn what_was_published_once_stays_so_where_it_is_encrypted() {
    let home = Home::new();
    let broker = BrokerProcess::start(&home, &sealed(&home)).await;
    let client = broker.client();
    register(&client, &["a", "b"]).await;
    let mut message = direct("a", "b", CONTENT);
    message.message_id = "m1".into();
    let publisher = client.publisher(WORKSPACE);
    let first = publisher.publish(message.clone()).await.unwrap();
    let again = publisher.publish(message.clone()).await.unwrap();
    assert_eq!((again.sequence, again.duplicate), (first.sequence, true));
    message.content = "something longer than that".into();
    assert_eq!(publisher.publish(message).await.unwrap_err().reason(), "MESSAGE_ID_REUSED");
}

#[tokio::test]
async fn no_secret_stands_where_it_should_not() {
    let home = Home::new();
    let mut config = sealed(&home);
    let key = write(&home, "signing", SIGNING);
    config.auth.open = false;
    config.auth.keys = vec![format!("k1=HS256:{}", key.display())];
    config.auth.signing_key = format!("k1=HS256:{}", key.display());
    config.cluster.secret_file = write(&home, "cluster-secret", CLUSTER);
    config.log.filter = "trace".into();
    let broker = BrokerProcess::start(&home, &config).await;
    let server = format!("http://{}", broker.grpc_address());
    let client = |token: &str| {
        let token = Some(Token::from_text(token));
        Client::with_settings(Settings { token, ..Settings::for_endpoint(&server) }).unwrap()
    };
    let mut command = tandem_command();
    command.args(["token", "create", "--key-id", "k1", "--subject", "zoe", "--role", "admin", "--key-file"]).arg(&key);
    let token = run_to_exit(&home, command).await.stdout.trim().to_owned();
    let admin = client(&token);
    register(&admin, &["a", "b"]).await;
    let new_key = tandem_client::NewKey { subject: "ci".into(), roles: vec!["developer".into()], ..Default::default() };
    let (_, api_key) = admin.keys().create(new_key).await.unwrap();
    let wanted = NewToken { subject: "ci".into(), roles: vec!["developer".into()], ..NewToken::default() };
    let (_, made) = admin.tokens().create(wanted).await.unwrap();
    let mut said = String::new();
    for secret in [&api_key, &made.signed] {
        client(secret).publisher(WORKSPACE).publish(direct("a", "b", CONTENT)).await.unwrap();
        // Refused, with what is almost right.
        said += &client(&format!("{secret}x")).server_info().await.unwrap_err().to_string();
        said += &client(secret).keys().revoke("0000000000000000").await.unwrap_err().to_string();
    }
    said += &broker.get("/metrics").await.body;
    let audit = admin.audit(AuditChain::Shard(0)).list(AuditQuery::default());
    let audit: Vec<_> = audit.try_collect().await.unwrap();
    said += &format!("{audit:?}");
    let mut print = broker_command();
    print.arg("--config").arg(write(&home, "printed.toml", &toml::to_string(&config).unwrap())).arg("--print-config");
    let printed = run_to_exit(&home, print).await;
    assert!(printed.stdout.contains("signing_key"), "{printed:?}");
    said += &printed.stdout;
    said += &broker.stderr();
    assert_eq!(broker.max_core_bytes(), 0, "a core dump would hold all of them");
    drop(broker.stop().await);
    let id = api_key.split('_').nth(1).unwrap().to_owned();
    let api_secret = api_key.rsplit_once('_').unwrap().1;
    let signature = |token: &str| token.rsplit_once('.').unwrap().1.to_owned();
    assert!(said.contains(&id), "what was made is told of, by its id");
    for secret in [CONTENT, SIGNING, CLUSTER, ENCRYPTION, api_secret, &signature(&token), &signature(&made.signed)] {
        assert!(!said.contains(secret), "{secret} was told");
        let (found, _) = holding(&home.data(), secret);
        assert!(found.is_empty(), "{secret} stands in {found:?}");
    }
}
