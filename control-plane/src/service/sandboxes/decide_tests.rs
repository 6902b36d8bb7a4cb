//! What is done, for each that can be.

use super::*;
use crate::service::sandbox::{Resources, RestartPolicy, Spec};

const NOW_MS: i64 = 1_000_000_000;

fn running_for(ms: i64) -> Document {
    Document { start_ms: NOW_MS - ms, register_ms: NOW_MS - ms + 100, ..Document::default() }
}

fn facts(doing: Option<Doing>) -> Facts {
    Facts { now_ms: NOW_MS, doing, is_online: true, ..Facts::default() }
}

fn runs() -> Option<Doing> {
    Some(Doing::Running)
}

fn over(exit_code: i64) -> Option<Doing> {
    Some(Doing::Ended { exit_code, out_of_memory: false })
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    assert_eq!(decide(RUNNING, &running_for(5_000), &facts(runs())), Step::Nothing);
    let stopped = Document { wanted: Wanted::Stopped, ..Document::default() };
    assert_eq!(decide(STOPPED, &stopped, &facts(over(0))), Step::Nothing);
    assert_eq!(decide(STOPPED, &stopped, &facts(None)), Step::Nothing);
    assert_eq!(decide(FAILED, &stopped, &facts(over(1))), Step::Nothing);
}

#[test]
fn what_is_wanted_is_made_true() {
    let wanted = Document::default();
    assert_eq!(decide(CREATING, &wanted, &facts(None)), Step::Start);
    assert_eq!(decide(STARTING, &wanted, &facts(Some(Doing::Created))), Step::Start);
    let unheard = Facts { is_online: false, ..facts(runs()) };
    assert_eq!(decide(CREATING, &wanted, &unheard), Step::Start, "its assignment may be missing");
    assert_eq!(decide(STARTING, &running_for(1_000), &unheard), Step::Nothing);
    assert_eq!(decide(STARTING, &running_for(START_LIMIT_MS + 1), &unheard), Step::Unhealthy);
    assert_eq!(decide(STARTING, &running_for(1_000), &facts(runs())), Step::Registered);
    let stopped = Document { wanted: Wanted::Stopped, ..running_for(1_000) };
    assert_eq!(decide(STOPPING, &stopped, &facts(runs())), Step::Stop);
    assert_eq!(decide(STOPPED, &stopped, &facts(runs())), Step::Stop, "somebody has started it behind our back");
    assert_eq!(decide(STOPPING, &stopped, &facts(over(143))), Step::Stopped);
    for doing in [None, runs(), over(0)] {
        let gone = Document { wanted: Wanted::Gone, ..running_for(1_000) };
        assert_eq!(decide(DELETING, &gone, &facts(doing)), Step::Remove);
    }
}

#[test]
fn what_ends_by_itself_is_noticed() {
    let ended = Step::Ended { exit_code: 3, out_of_memory: false };
    assert_eq!(decide(RUNNING, &running_for(5_000), &facts(over(3))), ended);
    assert_eq!(decide(STARTING, &running_for(5_000), &facts(over(3))), ended);
    let gone = Step::Ended { exit_code: -1, out_of_memory: false };
    assert_eq!(decide(RUNNING, &running_for(5_000), &facts(None)), gone);
    let waits = Document { retry_ms: NOW_MS + 1, ..running_for(5_000) };
    assert_eq!(decide(RESTARTING, &waits, &facts(over(3))), Step::Nothing);
    assert_eq!(decide(RESTARTING, &Document { retry_ms: NOW_MS, ..waits }, &facts(over(3))), Step::Start);
    let silent = Facts { silent_since_ms: Some(NOW_MS - SILENCE_LIMIT_MS - 1), ..facts(runs()) };
    assert_eq!(decide(RUNNING, &running_for(SILENCE_LIMIT_MS * 2), &silent), Step::Unhealthy);
    assert_eq!(decide(RUNNING, &running_for(1_000), &silent), Step::Nothing, "it has only just been started");
}

#[test]
fn limits_end_a_sandbox() {
    let resources = Resources { timeout_seconds: Some(300), disk_mb: 1, ..Resources::default() };
    let spec = Spec { resources, idle_timeout_seconds: Some(60), ..Spec::default() };
    let old = |ms| Document { spec: spec.clone(), ..running_for(ms) };
    assert_eq!(decide(RUNNING, &old(299_000), &facts(runs())), Step::Nothing);
    assert_eq!(decide(RUNNING, &old(300_000), &facts(runs())), Step::StopFor(Why::TimedOut));
    let full = |bytes| Facts { disk_bytes: Some(bytes), ..facts(runs()) };
    assert_eq!(decide(RUNNING, &old(1_000), &full(1 << 20)), Step::Nothing);
    assert_eq!(decide(RUNNING, &old(1_000), &full((1 << 20) + 1)), Step::StopFor(Why::DiskLimit));
    let idle = |ms, waiting| Facts { idle_since_ms: Some(NOW_MS - ms), waiting, ..facts(runs()) };
    assert_eq!(decide(RUNNING, &old(200_000), &idle(60_000, 0)), Step::StopFor(Why::Idle));
    assert_eq!(decide(RUNNING, &old(200_000), &idle(59_000, 0)), Step::Nothing);
    assert_eq!(decide(RUNNING, &old(200_000), &idle(60_000, 1)), Step::Nothing, "somebody waits for it");
    assert_eq!(decide(RUNNING, &old(30_000), &idle(60_000, 0)), Step::Nothing, "it has not run that long");
}

#[test]
fn a_message_wakes_who_wants_to_be_woken() {
    let asleep = |wake_on_message| Document {
        spec: Spec { wake_on_message, ..Spec::default() },
        wanted: Wanted::Stopped,
        ..running_for(1_000)
    };
    let with = |waiting| Facts { waiting, ..facts(over(143)) };
    assert_eq!(decide(STOPPED, &asleep(true), &with(1)), Step::Wake);
    assert_eq!(decide(STOPPED, &asleep(true), &with(0)), Step::Nothing);
    assert_eq!(decide(STOPPED, &asleep(false), &with(1)), Step::Nothing);
    assert_eq!(decide(FAILED, &asleep(true), &with(1)), Step::Nothing, "it would fail again");
}

#[test]
fn who_fails_again_and_again_waits_longer_and_longer() {
    let mut document = running_for(1_000);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let (state, next) = ended(&document, 1, NOW_MS);
        assert_eq!(state, RESTARTING);
        pauses.push(next.retry_ms - NOW_MS);
        document = next;
    }
    assert_eq!(pauses[..3], [500, 1_000, 2_000]);
    assert!(pauses.is_sorted() && pauses.last() == Some(&LONGEST_RETRY_MS), "{pauses:?}");
    let stood = Document { register_ms: NOW_MS - 6_000, start_ms: NOW_MS - 7_000, ..document.clone() };
    let (state, asked) = ended(&stood, 143, NOW_MS);
    assert_eq!((state, asked.retries), (RESTARTING, document.retries), "whoever was asked to stop has not failed");
    let fresh = Document { start_ms: NOW_MS - 100, ..stood };
    assert_eq!(ended(&fresh, 143, NOW_MS).1.retries, document.retries + 1, "a command that ends so at once has");
    let healthy = Document { register_ms: NOW_MS - HEALTHY_MS, start_ms: NOW_MS - HEALTHY_MS, ..document };
    assert_eq!(ended(&healthy, 1, NOW_MS).1.retry_ms - NOW_MS, 500);
}

#[test]
fn the_policy_says_who_is_started_again() {
    let of = |condition, max_retries, exit_code| {
        let spec = Spec { restart_policy: RestartPolicy { condition, max_retries }, ..Spec::default() };
        ended(&Document { spec, retries: 2, ..running_for(1_000) }, exit_code, NOW_MS).0
    };
    assert_eq!(of(RestartCondition::OnFailure, None, 0), STOPPED);
    assert_eq!(of(RestartCondition::OnFailure, None, 137), RESTARTING);
    assert_eq!(of(RestartCondition::OnFailure, Some(2), 137), FAILED);
    assert_eq!(of(RestartCondition::OnFailure, Some(3), 137), RESTARTING);
    assert_eq!(of(RestartCondition::Always, None, 0), RESTARTING);
    assert_eq!(of(RestartCondition::Never, None, 0), STOPPED);
    assert_eq!(of(RestartCondition::Never, None, 1), FAILED);
}
