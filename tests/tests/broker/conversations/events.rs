//! Line 14: what happens in a workspace is told, each thing once, over reconnects and restarts.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use tandem_client::{
    Client, Code, Event, EventQuery, EventStream, EventType, InboxLimits, Liveness, Message, MessageBuilder, Nack,
    ReportedEvent, RetryPolicy, Sandbox, Settings, WorkspaceSettings, to_sandbox,
};
use tandem_tests::{Refused, Relay, direct};

use crate::stage::{Stage, WORKSPACE};

async fn next(events: &mut EventStream) -> Event {
    let next = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
    next.expect("the event is told").unwrap().expect("a stream that follows has no end")
}

/// All that happened from a cursor on.
async fn since(stage: &Stage, from_event: u64) -> Vec<Event> {
    let query = EventQuery { from_event, follow: false, ..Default::default() };
    stage.client.events(WORKSPACE, query).await.unwrap().into_stream().try_collect().await.unwrap()
}

fn follow(from_event: u64) -> EventQuery {
    EventQuery { from_event, ..Default::default() }
}

fn summary(event: &Event) -> (EventType, &str, u64, u64) {
    (event.r#type(), event.sandbox_id.as_str(), event.sequence, event.count)
}

fn brief(from: &str, to: &str) -> MessageBuilder {
    MessageBuilder::notification(from, to_sandbox(to), "brief").ttl(Duration::from_secs(1))
}

#[tokio::test]
async fn who_runs_sandboxes_reports_what_he_sees_and_nothing_else() {
    let stage = Stage::with(&["alice"]).await;
    let mut live = stage.client.events(WORKSPACE, EventQuery::default()).await.unwrap();
    let seen = |kind: EventType, sandbox: &str, text: &str| ReportedEvent {
        r#type: kind.into(),
        sandbox_id: sandbox.to_owned(),
        text: text.to_owned(),
    };
    let fine = seen(EventType::SandboxOutOfMemory, "alice", "64 MiB");
    // One that nobody has registered is told of, too.
    let other = seen(EventType::SandboxIdleStopped, "zoe", "");
    stage.client.report_events(WORKSPACE, vec![fine.clone(), other]).await.unwrap();
    let event = next(&mut live).await;
    assert_eq!(summary(&event), (EventType::SandboxOutOfMemory, "alice", 0, 1));
    assert_eq!(event.text, "64 MiB");
    assert_eq!(summary(&next(&mut live).await), (EventType::SandboxIdleStopped, "zoe", 0, 1));
    let wanted = EventQuery { types: vec![EventType::SandboxIdleStopped], ..follow(1) };
    let mut idle = stage.client.events(WORKSPACE, wanted).await.unwrap();
    assert_eq!(next(&mut idle).await.sandbox_id, "zoe");

    let wrong = [
        (seen(EventType::MessageDeadLettered, "alice", "made up"), "events[1].type"),
        (seen(EventType::Unspecified, "alice", ""), "events[1].type"),
        (ReportedEvent { r#type: 4_000, ..fine.clone() }, "events[1].type"),
        (seen(EventType::SandboxFailed, "", ""), "events[1].sandbox_id"),
        (seen(EventType::SandboxFailed, "alice", &"x".repeat(1_025)), "events[1].text"),
    ];
    for (event, field) in wrong {
        let refused = stage.client.report_events(WORKSPACE, vec![fine.clone(), event]).await.unwrap_err();
        Refused::from(refused).at(field);
    }
    for many in [Vec::new(), vec![fine.clone(); 101]] {
        let refused = stage.client.report_events(WORKSPACE, many).await.unwrap_err();
        Refused::from(refused).at("events");
    }
    let nowhere = stage.client.report_events("nowhere", vec![fine]).await.unwrap_err();
    assert_eq!(nowhere.reason(), "UNKNOWN_WORKSPACE");
    assert_eq!(live.cursor(), since(&stage, 1).await.last().unwrap().event_id + 1, "of what was refused nothing stays");
}

#[tokio::test]
async fn line_14_every_kind_of_event_is_told_with_what_it_is_about() {
    let stage = Stage::with(&["alice"]).await;
    let registry = stage.client.registry(WORKSPACE);
    let mut live = stage.client.events(WORKSPACE, EventQuery::default()).await.unwrap();
    assert_eq!(live.cursor(), 2, "alice was before");
    let small = Sandbox {
        sandbox_id: "bob".into(),
        inbox_limits: Some(InboxLimits { max_messages: 1, max_bytes: 0 }),
        retry_policy: Some(RetryPolicy { max_attempts: 1, ..Default::default() }),
        ..Default::default()
    };
    registry.register(small.clone()).await.unwrap();
    registry.register(small).await.unwrap();
    assert_eq!(summary(&next(&mut live).await), (EventType::SandboxRegistered, "bob", 0, 0));

    // Its attempts are used up.
    let sequence = stage.publish(direct("alice", "bob", "bad")).await.sequence;
    let mut bob = stage.client.subscribe(WORKSPACE, "bob", Default::default()).await.unwrap();
    let delivery = bob.next().await.unwrap().unwrap();
    bob.nack(&delivery, Nack::because("no idea"));
    bob.flush_acks().await.unwrap();
    let event = next(&mut live).await;
    assert_eq!(summary(&event), (EventType::MessageDeadLettered, "bob", sequence, 1));
    assert!(event.text.contains("ATTEMPTS_EXHAUSTED"), "{event:?}");
    bob.close().await.unwrap();

    // Told once, until there is room again; two refusals are one event.
    for _ in 0..2 {
        let waiting = stage.publish(brief("alice", "bob").build()).await.sequence;
        for _ in 0..2 {
            stage.try_publish(direct("alice", "bob", "too much")).await.unwrap_err();
        }
        let event = next(&mut live).await;
        assert_eq!((event.r#type(), event.sandbox_id.as_str()), (EventType::InboxFull, "bob"));
        assert!(event.text.contains("1 messages"), "{event:?}");
        assert_eq!(summary(&next(&mut live).await), (EventType::MessageExpired, "bob", waiting, 1));
    }

    // An expired message that was to become a dead letter is both.
    let buried = stage.publish(brief("alice", "bob").dead_letter_on_expiry().build()).await.sequence;
    let event = next(&mut live).await;
    assert_eq!(summary(&event), (EventType::MessageDeadLettered, "bob", buried, 1));
    assert!(event.text.contains("EXPIRED"), "{event:?}");
    assert_eq!(summary(&next(&mut live).await), (EventType::MessageExpired, "bob", buried, 1));

    let settings = WorkspaceSettings { max_hops: 1, ..Default::default() };
    stage.client.workspaces().update(WORKSPACE, settings).await.unwrap();
    let say = |from: &str, to: &str| Message { correlation_id: "c".into(), ..direct(from, to, "and you?") };
    stage.publish_all([say("alice", "bob"), say("bob", "alice")]).await;
    let over = stage.publish_all([say("alice", "alice")]).await[0].sequence;
    assert_eq!(summary(&next(&mut live).await), (EventType::MessageLooped, "alice", over, 1));
    assert_eq!(registry.unregister("bob").await.unwrap(), 1);
    assert_eq!(summary(&next(&mut live).await), (EventType::SandboxGone, "bob", 0, 1));

    // The same again from the log of events, numbered without a hole, after a crash.
    let cursor = live.cursor();
    let stage = stage.crash_and_start().await;
    let all = since(&stage, 1).await;
    assert!(all.iter().map(|event| event.event_id).eq(1..cursor), "{all:?}");
    assert!(all.is_sorted_by_key(|event| event.time.map(|time| (time.seconds, time.nanos))));
    filters_choose(&stage, &all).await;
}

#[tokio::test]
async fn line_14_a_sandbox_that_is_not_heard_goes_offline_and_comes_back() {
    let stage = Stage::set_up(&["quiet", "reader"], |config| config.limits.heartbeat_timeout_ms = 1_000).await;
    let registry = stage.client.registry(WORKSPACE);
    let reader = stage.subscribe("reader").await;
    // Behind the two registrations: on a busy machine the first is offline before anybody asks for what happens from now on.
    let mut live = stage.client.events(WORKSPACE, follow(3)).await.unwrap();
    for _ in 0..2 {
        let event = next(&mut live).await;
        assert_eq!(summary(&event), (EventType::SandboxOffline, "quiet", 0, 0));
        let unheard = event.text.strip_prefix("not heard for ").and_then(|text| text.split(' ').next());
        assert!(unheard.and_then(|ms| ms.parse::<u64>().ok()).is_some_and(|ms| ms >= 1_000), "{event:?}");
        assert_eq!(registry.get("quiet").await.unwrap().liveness(), Liveness::Offline);
        assert_eq!(registry.get("reader").await.unwrap().liveness(), Liveness::Online, "its subscription is open");
        registry.heartbeat("quiet").await.unwrap();
        assert_eq!(summary(&next(&mut live).await), (EventType::SandboxOnline, "quiet", 0, 0));
    }
    drop(reader);
    let mut gone = [next(&mut live).await.sandbox_id, next(&mut live).await.sandbox_id];
    gone.sort();
    assert_eq!(gone, ["quiet", "reader"]);
    // Who went while the broker was away is told when it is back.
    registry.heartbeat("quiet").await.unwrap();
    assert_eq!(summary(&next(&mut live).await), (EventType::SandboxOnline, "quiet", 0, 0));
    let cursor = live.cursor();
    let stage = stage.crash_and_start().await;
    let mut live = stage.client.events(WORKSPACE, follow(cursor)).await.unwrap();
    assert_eq!(summary(&next(&mut live).await), (EventType::SandboxOffline, "quiet", 0, 0));
}

/// By type and by sandbox, alone and together.
async fn filters_choose(stage: &Stage, all: &[Event]) {
    let types = vec![EventType::SandboxGone, EventType::MessageExpired];
    for (types, sandbox_id) in [
        (types.clone(), None),
        (Vec::new(), Some("bob".to_owned())),
        (types, Some("bob".to_owned())),
        (vec![EventType::InboxTrimmed], None),
    ] {
        let fits = |event: &&Event| {
            (types.is_empty() || types.contains(&event.r#type()))
                && sandbox_id.as_ref().is_none_or(|sandbox| *sandbox == event.sandbox_id)
        };
        let query = EventQuery { from_event: 1, types: types.clone(), sandbox_id: sandbox_id.clone(), follow: false };
        let stream = stage.client.events(WORKSPACE, query).await.unwrap();
        let found: Vec<Event> = stream.into_stream().try_collect().await.unwrap();
        assert_eq!(
            found.iter().collect::<Vec<_>>(),
            all.iter().filter(fits).collect::<Vec<_>>(),
            "{types:?} {sandbox_id:?}"
        );
    }
}

/// One stream, cut and killed under while things happen: each event comes once, in order.
#[tokio::test]
async fn promise_7_a_stream_of_events_goes_on_over_cuts_and_restarts_without_a_gap() {
    const SANDBOXES: u64 = 40;
    let mut stage = Stage::with(&[]).await;
    let relay = Relay::to(stage.broker.grpc_address()).await;
    let mut live = relay.client().events(WORKSPACE, follow(1)).await.unwrap();
    for number in 1..=SANDBOXES {
        if number == 10 || number == 30 {
            // What happens while nobody is connected is told later.
            relay.lead_to_nobody();
        }
        if number == 20 {
            stage = stage.crash_and_start().await;
            relay.lead_to(stage.broker.grpc_address());
        }
        stage.register(&format!("s-{number}")).await;
        if number == 15 || number == 35 {
            relay.lead_to(stage.broker.grpc_address());
        }
        if number % 5 == 0 && number != 10 && number != 30 {
            while live.cursor() <= number {
                let cursor = live.cursor();
                let event = next(&mut live).await;
                assert_eq!((event.event_id, event.sandbox_id), (cursor, format!("s-{cursor}")));
            }
        }
    }
    // A program that starts anew goes on where it stood; from now on means from now on.
    let cursor = live.cursor();
    drop(live);
    let stage = stage.stop_and_start().await;
    stage.register("while-away").await;
    let mut resumed = stage.client.events(WORKSPACE, follow(cursor)).await.unwrap();
    let mut fresh = stage.client.events(WORKSPACE, follow(0)).await.unwrap();
    stage.register("new").await;
    let told = [next(&mut resumed).await.sandbox_id, next(&mut resumed).await.sandbox_id];
    assert_eq!(told, ["while-away", "new"]);
    assert_eq!(next(&mut fresh).await.sandbox_id, "new");
}

/// The newest 100,000 are kept. Who comes for older ones learns which are missing, and where to go on.
#[tokio::test]
async fn line_14_a_cursor_older_than_what_is_kept_is_refused_with_the_missing_range() {
    const KEPT: u64 = 100_000;
    let stage = Stage::with(&["alice", "bob"]).await;
    let settings = WorkspaceSettings { max_hops: 1, ..Default::default() };
    stage.client.workspaces().update(WORKSPACE, settings).await.unwrap();
    let say = |from: &str, to: &str| Message { correlation_id: "c".into(), ..direct(from, to, "x") };
    stage.publish_all([say("alice", "bob"), say("bob", "alice")]).await;
    // Open before it all and not read: it has a small buffer, and behind that it is overtaken.
    let mut settings = Settings::for_endpoint(format!("http://{}", stage.broker.grpc_address()));
    settings.http2_stream_window = 64 << 10;
    let slow = Client::with_settings(settings).unwrap();
    let mut overtaken = slow.events(WORKSPACE, follow(1)).await.unwrap();
    // Each message over the limit is an event: the cheapest there are.
    let wanted = KEPT + 20_000;
    let mut stream = stage.client.publisher(WORKSPACE).batch_stream();
    for _ in 0..wanted.div_ceil(1_000) {
        stream.send(vec![say("alice", "bob"); 1_000].iter().collect()).unwrap();
        stream.next().await.unwrap().unwrap();
    }
    let refused = until_refused(&mut overtaken).await;
    let missing = format!("events {} to ", overtaken.cursor());
    refused.expect(Code::OutOfRange, "EVENT_GAP", &[&missing, "go on with from_event"]).at("from_event");
    let stage = stage.crash_and_start().await;
    let mut cursor = stage.client.events(WORKSPACE, follow(0)).await.unwrap().cursor();
    assert!(cursor > wanted, "{cursor} events");
    let oldest = cursor - KEPT;
    for from in [1, oldest - 1] {
        let refused = Refused::from(stage.client.events(WORKSPACE, follow(from)).await.unwrap_err());
        let range = format!("events {from} to {} of workspace \"default\"", oldest - 1);
        let says = [range.as_str(), "are not kept any more", &format!("go on with from_event {oldest}")];
        refused.expect(Code::OutOfRange, "EVENT_GAP", &says).at("from_event");
    }
    let kept = since(&stage, oldest).await;
    assert_eq!((kept.len() as u64, kept[0].event_id), (KEPT, oldest));
    // With each event the oldest goes.
    stage.register("one-more").await;
    cursor += 1;
    let refused = Refused::from(stage.client.events(WORKSPACE, follow(oldest)).await.unwrap_err());
    assert_eq!(refused.reason, "EVENT_GAP");
    assert_eq!(since(&stage, cursor - 1).await[0].sandbox_id, "one-more");
}

/// Reads what is left of a stream that was overtaken, without a hole before its end.
async fn until_refused(events: &mut EventStream) -> Refused {
    loop {
        let cursor = events.cursor();
        let next = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
        match next.expect("the stream goes on or ends") {
            Ok(event) => assert_eq!(event.map(|event| event.event_id), Some(cursor), "no event is left out unsaid"),
            Err(error) => return Refused::from(error),
        }
    }
}

#[tokio::test]
async fn line_14_wrong_questions_are_refused() {
    let stage = Stage::with(&["alice"]).await;
    let unknown = stage.client.events("nowhere", follow(1)).await.unwrap_err();
    Refused::from(unknown).expect(Code::NotFound, "UNKNOWN_WORKSPACE", &["\"nowhere\""]);
    let query = EventQuery { types: vec![EventType::Unspecified], ..follow(1) };
    let refused = Refused::from(stage.client.events(WORKSPACE, query).await.unwrap_err());
    refused.expect(Code::InvalidArgument, "INVALID_FIELD", &["1 to 20"]).at("types");
    // A cursor in the future waits for it.
    let mut ahead = stage.client.events(WORKSPACE, follow(3)).await.unwrap();
    for sandbox in ["two", "three"] {
        stage.register(sandbox).await;
    }
    assert_eq!(next(&mut ahead).await.sandbox_id, "three");
}
