use super::*;
use crate::{
    config::AlertsConfig,
    secrets::{Secret, Secrets},
    service::{
        alert::{Condition, Severity},
        alerts::{Alerts, Deliverer, NewRule, RuleChanges, Sender},
        caller::Caller,
        listing::Listing,
        scoped,
    },
};

struct Stage {
    alerts: Alerts,
    evaluator: Evaluator,
    store: Store,
    caller: Caller,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let (store, dir) = scoped::for_tests().await;
        let alerts = Alerts::new(store.clone(), Secrets::for_tests(), true);
        // What the broker sees needs one; it is told in `tests/`.
        let broker = Client::connect("http://127.0.0.1:1").unwrap();
        let evaluator = Evaluator::new(store.clone(), broker, Metrics::new());
        Self { alerts, evaluator, store, caller: Caller::for_tests(), _dir: dir }
    }

    async fn rule(&self, count: u64, quiet_seconds: u64, webhook: Option<&str>) -> Resource {
        let condition = Condition { event: AlertEvent::OutOfMemory, sandbox_id: None, count, window_seconds: 60 };
        let secret = || Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let new = NewRule {
            workspace: "w".to_owned(),
            name: random::id("name"),
            enabled: true,
            condition,
            severity: Severity::Critical,
            quiet_seconds,
            webhook: webhook.map(|url| (url.to_owned(), secret())),
        };
        self.alerts.create_rule(&self.caller, new).await.unwrap()
    }

    async fn happens(&self, sandbox: &str) {
        self.alerts.happened("w", sandbox, AlertEvent::OutOfMemory, "it had 64 MB").await.unwrap();
    }

    async fn fired(&self) -> Vec<(Resource, AlertDocument)> {
        let wanted = Listing::default().read().unwrap();
        let (rows, _) = self.alerts.fired().list(&self.caller, Some("w"), &wanted).await.unwrap();
        rows.into_iter().map(|row| (row.clone(), document(&row).unwrap())).collect()
    }

    fn deliverer(&self, attempts: u32) -> Deliverer {
        let settings = AlertsConfig { webhook_attempts: attempts, webhook_backoff_ms: 10, ..AlertsConfig::default() };
        let sender = Sender::new(Duration::from_secs(2), true).unwrap();
        Deliverer::new((self.store.clone(), Secrets::for_tests()), sender, settings, Metrics::new())
    }
}

#[tokio::test]
async fn what_happens_fires_once_and_is_counted_while_it_is_quiet() {
    let stage = Stage::new().await;
    stage.happens("nobody").await;
    assert!(stage.store.happenings("w", 10).await.unwrap().is_empty(), "no rule waits for it");
    stage.rule(2, 300, None).await;
    stage.happens("a").await;
    stage.evaluator.look().await.unwrap();
    assert!(stage.fired().await.is_empty() && stage.store.happenings("w", 10).await.unwrap().is_empty());
    // Another one goes on where this one was.
    stage.evaluator.store.give_back((TURN, &stage.evaluator.holder)).await.unwrap();
    let next = Evaluator::new(stage.store.clone(), stage.evaluator.broker.clone(), Metrics::new());
    stage.happens("b").await;
    next.look().await.unwrap();
    let fired = stage.fired().await;
    let (row, said) = &fired[0];
    assert_eq!((fired.len(), said.count, said.sandbox_id.as_str(), row.state.as_str()), (1, 2, "b", OPEN));
    assert_eq!(said.text, "out_of_memory of sandbox \"b\": it had 64 MB");
    for _ in 0..3 {
        stage.happens("c").await;
    }
    next.look().await.unwrap();
    let fired = stage.fired().await;
    assert_eq!((fired.len(), fired[0].1.count, fired[0].1.sandbox_id.as_str()), (1, 5, "b"));
    // Who has not the turn does nothing.
    stage.happens("d").await;
    stage.evaluator.look().await.unwrap();
    assert_eq!(stage.fired().await[0].1.count, 5);
}

#[tokio::test]
async fn two_who_look_at_once_tell_it_once() {
    let stage = Stage::new().await;
    stage.rule(1, 300, None).await;
    stage.happens("a").await;
    let looks = (0..4).map(|_| stage.evaluator.look_at("w"));
    for looked in futures_util::future::join_all(looks).await {
        looked.unwrap();
    }
    assert_eq!(stage.fired().await.len(), 1);
}

#[tokio::test]
async fn a_rule_that_is_off_looks_at_nothing_and_later_not_at_what_was() {
    let stage = Stage::new().await;
    let rule = stage.rule(1, 0, None).await;
    let set = |enabled| RuleChanges { enabled: Some(enabled), ..RuleChanges::default() };
    stage.alerts.change_rule(&stage.caller, (&rule.id, None), set(false)).await.unwrap();
    stage.happens("a").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    stage.alerts.change_rule(&stage.caller, (&rule.id, None), set(true)).await.unwrap();
    stage.evaluator.look().await.unwrap();
    assert!(stage.fired().await.is_empty());
    stage.happens("a").await;
    stage.evaluator.look().await.unwrap();
    assert_eq!(stage.fired().await.len(), 1);
    // An alert outlives its rule.
    stage.alerts.delete_rule(&stage.caller, &rule.id, None).await.unwrap();
    let id = stage.fired().await[0].0.id.clone();
    let seen = stage.alerts.acknowledge(&stage.caller, (&id, None)).await.unwrap();
    let again = stage.alerts.acknowledge(&stage.caller, (&id, None)).await.unwrap();
    assert_eq!(
        (seen.revision, document::<AlertDocument>(&seen).unwrap().acknowledged_by),
        (again.revision, "zoe".to_owned())
    );
    assert_eq!(stage.alerts.acknowledge(&stage.caller, ("nothing", None)).await.unwrap_err().code(), "UNKNOWN_ALERT");
}

#[tokio::test]
async fn only_the_newest_alerts_are_kept() {
    let stage = Stage::new().await;
    stage.rule(1, 0, None).await;
    for number in 0..ALERT.most {
        let old = Resource {
            kind: ALERT.name.to_owned(),
            id: format!("alert-{number:04}"),
            scope: "w".to_owned(),
            name: format!("r/{number}"),
            state: OPEN.to_owned(),
            revision: 1,
            document: String::new(),
            create_ms: i64::from(number),
            update_ms: 1,
            due_ms: 0,
        };
        stage.store.insert(&old).await.unwrap();
    }
    stage.happens("a").await;
    stage.evaluator.look().await.unwrap();
    let kept = stage.store.all_within(ALERT.name, "w", 2_000).await.unwrap();
    assert_eq!(kept.len(), ALERT.most as usize);
    assert!(!kept.iter().any(|row| row.id == "alert-0000") && kept.iter().any(|row| row.id == "alert-0001"));
}

#[tokio::test]
async fn what_was_gone_before_it_was_looked_at_is_said() {
    let stage = Stage::new().await;
    let mut outcome = Outcome { workspace: "w".to_owned(), fired: Vec::new(), grown: Vec::new() };
    let row = stage.rule(1, 0, None).await;
    let own = Rule { id: row.id.clone(), name: row.name.clone(), document: document(&row).unwrap() };
    let mut of_broker = own.clone();
    of_broker.document.condition.event = AlertEvent::SandboxOffline;
    outcome.say_missed(&[own, of_broker], (7, 12));
    let (_, said, _) = &outcome.fired[0];
    assert_eq!((outcome.fired.len(), said.event.as_str(), said.count), (1, MISSED, 5));
    assert!(said.text.contains("events 7 to 11"), "{}", said.text);
}

/// A receiver that answers so, one request after the other, and says what it was sent.
async fn receiver(answers: &'static [&'static str]) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (heard, hearing) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut asked, mut part) = (String::new(), [0; 8192]);
            while !asked.ends_with("\"alert.fired\"}") {
                let read = stream.read(&mut part).await.unwrap();
                asked.push_str(std::str::from_utf8(&part[..read]).unwrap());
            }
            heard.send(asked).unwrap();
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, hearing)
}

fn id(asked: &str) -> &str {
    asked.lines().find_map(|line| line.strip_prefix("webhook-id: ")).unwrap()
}

async fn until(stage: &Stage, state: DeliveryState) -> AlertDocument {
    for _ in 0..100 {
        let (_, said) = stage.fired().await.remove(0);
        if said.delivery == state {
            return said;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("in 10 s it is not {state:?}: {:?}", stage.fired().await);
}

#[tokio::test]
async fn a_webhook_is_told_until_it_has_heard() {
    let stage = Stage::new().await;
    let (url, mut hearing) = receiver(&["500 Oh", "200 OK"]).await;
    stage.rule(1, 300, Some(&url)).await;
    stage.happens("a").await;
    stage.evaluator.look().await.unwrap();
    assert_eq!(stage.fired().await[0].1.delivery, DeliveryState::Waiting);
    let (stop, stopping) = watch::channel(false);
    // Two of them: each attempt is made by one.
    let first = tokio::spawn(stage.deliverer(5).run(stopping.clone()));
    let second = tokio::spawn(stage.deliverer(5).run(stopping));
    let said = until(&stage, DeliveryState::Delivered).await;
    assert_eq!((said.attempts, said.delivery_error.as_str()), (2, ""));
    let (refused, heard) = (hearing.recv().await.unwrap(), hearing.recv().await.unwrap());
    assert_eq!(id(&refused), id(&heard), "the same each time");
    let body: serde_json::Value = serde_json::from_str(heard.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((&body["type"], &body["data"]["event"]), (&"alert.fired".into(), &"out_of_memory".into()), "{body}");
    assert_eq!(stage.store.waiting_deliveries("w").await.unwrap(), 0);
    stop.send_replace(true);
    first.await.unwrap();
    second.await.unwrap();
}

#[tokio::test]
async fn a_webhook_that_never_hears_is_given_up_and_that_is_said() {
    let stage = Stage::new().await;
    let (url, mut hearing) = receiver(&["500 Oh", "503 Busy", "500 Oh"]).await;
    let rule = stage.rule(1, 0, Some(&url)).await;
    stage.happens("a").await;
    stage.evaluator.look().await.unwrap();
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(stage.deliverer(2).run(stopping));
    let said = until(&stage, DeliveryState::Failed).await;
    assert_eq!((said.attempts, said.delivery_error.as_str()), (2, "it answers 503"));
    assert!(hearing.recv().await.is_some() && hearing.recv().await.is_some() && hearing.try_recv().is_err());
    // What belongs to a rule that is gone is told to nobody.
    stop.send_replace(true);
    running.await.unwrap();
    stage.happens("b").await;
    stage.evaluator.look().await.unwrap();
    assert_eq!(stage.store.waiting_deliveries("w").await.unwrap(), 1);
    stage.alerts.delete_rule(&stage.caller, &rule.id, None).await.unwrap();
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(stage.deliverer(2).run(stopping));
    for _ in 0..50 {
        if stage.store.waiting_deliveries("w").await.unwrap() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(stage.store.waiting_deliveries("w").await.unwrap(), 0);
    assert!(hearing.try_recv().is_err());
    stop.send_replace(true);
    running.await.unwrap();
}
