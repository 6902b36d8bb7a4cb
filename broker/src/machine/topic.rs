//! Topics, and who follows them.

use bytes::Bytes;

use super::{
    Effect,
    follow::TopicCursors,
    keys::{self, CURSORS, RECORDS, RUNS, TOPIC_BIT},
    state::{State, StateError},
    workspace::ByPriority,
};
use crate::{
    batch::MAX_BATCH_LEN,
    command::topics::{CreateTopic, DeleteTopic, FollowTopics, Followed, TopicCreated, UnfollowTopics},
    encoding::{Field as _, encoded},
    rejection::{Reason, Rejection},
};

encoded! {
    /// A named stream of a workspace. The key tells its name.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Topic {
        /// The source of its runs; never given twice in a workspace.
        pub(crate) number: u32,
        pub(crate) create_time_ms: u64,
        pub(crate) messages: u64,
        /// The newest message of each priority.
        pub(crate) newest: ByPriority,
    }
}

/// Whether a topic fits a pattern: `*` stands for one part, `>` at the end for one or more.
pub(crate) fn matches(pattern: &str, topic: &str) -> bool {
    let mut parts = topic.split('.');
    for wanted in pattern.split('.') {
        match parts.next() {
            None => return false,
            Some(_) if wanted == ">" => return true,
            Some(part) if wanted == "*" || wanted == part => {}
            Some(_) => return false,
        }
    }
    parts.next().is_none()
}

pub(super) fn create(state: &mut State, verb: &CreateTopic) -> Result<Result<TopicCreated, Rejection>, StateError> {
    let Some(mut workspace) = state.workspace(&verb.workspace)?.cloned() else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let key = keys::topic(workspace.number, &verb.topic);
    if state.get(RECORDS, &key)?.is_some() {
        return Ok(Ok(TopicCreated { created: false }));
    }
    if workspace.topics >= verb.max_topics {
        let text =
            format!("workspace {:?} has {} topics, as many as it may; delete one", verb.workspace, verb.max_topics);
        return Ok(Err(Rejection::new(Reason::TooManyTopics, text)));
    }
    let topic = Topic {
        number: TOPIC_BIT | workspace.next_topic,
        create_time_ms: state.now_ms(),
        messages: 0,
        newest: ByPriority::default(),
    };
    workspace.next_topic += 1;
    workspace.topics += 1;
    state.put(RECORDS, key, topic.to_bytes());
    state.put_workspace(&verb.workspace, workspace);
    Ok(Ok(TopicCreated { created: true }))
}

pub(super) fn delete(state: &mut State, verb: &DeleteTopic) -> Result<Result<(), Rejection>, StateError> {
    let Some(mut workspace) = state.workspace(&verb.workspace)?.cloned() else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let key = keys::topic(workspace.number, &verb.topic);
    let Some(topic) = state.read::<Topic>(RECORDS, &key, "topic")? else {
        return Ok(Err(Rejection::unknown_topic(&verb.topic)));
    };
    state.delete(RECORDS, key);
    state.delete_range(CURSORS, keys::cursors_of(workspace.number, topic.number));
    state.delete_range(RUNS, keys::runs_of(workspace.number, topic.number));
    state.effect(Effect::TopicGone { workspace: workspace.number });
    workspace.topics -= 1;
    state.put_workspace(&verb.workspace, workspace);
    Ok(Ok(()))
}

pub(super) fn follow(state: &mut State, verb: &FollowTopics) -> Result<Result<Followed, Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.cloned() else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let Some(sandbox) = state.sandbox_number(workspace.number, &verb.sandbox)? else {
        return Ok(Err(Rejection::unknown_sandbox(&verb.sandbox)));
    };
    let key = keys::follow(workspace.number, sandbox, &verb.pattern);
    if let Some(from_sequence) = state.read::<u64>(RECORDS, &key, "follow")? {
        return Ok(Ok(Followed { created: false, from_sequence }));
    }
    let follows = patterns(state, workspace.number, sandbox)?;
    if follows.len() >= verb.max_follows as usize {
        let text = format!(
            "sandbox {:?} follows {} patterns, as many as it may; unfollow one",
            verb.sandbox, verb.max_follows
        );
        return Ok(Err(Rejection::new(Reason::TooManyFollows, text)));
    }
    // A start in the future is now: what lies between would wait for nobody.
    let next = workspace.last_sequence + 1;
    let from_sequence = verb.from_sequence.unwrap_or(next).min(next).max(workspace.first_sequence);
    state.put(RECORDS, key, from_sequence.to_bytes());
    for (name, topic) in topics(state, workspace.number)? {
        // Another pattern that covers it has begun somewhere already.
        if !matches(&verb.pattern, &name) || follows.iter().any(|pattern| matches(pattern, &name)) {
            continue;
        }
        let before = if from_sequence > workspace.last_sequence {
            topic.messages
        } else {
            topic.messages.saturating_sub(count_from(state, workspace.number, &topic, from_sequence)?)
        };
        let cursors = TopicCursors::new(from_sequence - 1, before);
        state.put(CURSORS, keys::cursors(workspace.number, topic.number, sandbox), cursors.to_bytes());
    }
    if let Some(inbox) = state.inbox_mut(workspace.number, sandbox)? {
        inbox.counters.follows += 1;
    }
    state.effect(Effect::FollowsChanged { workspace: workspace.number, sandbox });
    Ok(Ok(Followed { created: true, from_sequence }))
}

pub(super) fn unfollow(state: &mut State, verb: &UnfollowTopics) -> Result<Result<(), Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let Some(sandbox) = state.sandbox_number(workspace, &verb.sandbox)? else {
        return Ok(Err(Rejection::unknown_sandbox(&verb.sandbox)));
    };
    let key = keys::follow(workspace, sandbox, &verb.pattern);
    if state.get(RECORDS, &key)?.is_none() {
        let text = format!("sandbox {:?} does not follow {:?}", verb.sandbox, verb.pattern);
        return Ok(Err(Rejection::new(Reason::UnknownFollow, text)));
    }
    state.delete(RECORDS, key);
    let left = patterns(state, workspace, sandbox)?;
    for (name, topic) in topics(state, workspace)? {
        if matches(&verb.pattern, &name) && !left.iter().any(|pattern| matches(pattern, &name)) {
            state.delete(CURSORS, keys::cursors(workspace, topic.number, sandbox));
        }
    }
    if let Some(inbox) = state.inbox_mut(workspace, sandbox)? {
        inbox.counters.follows = inbox.counters.follows.saturating_sub(1);
    }
    state.effect(Effect::FollowsChanged { workspace, sandbox });
    Ok(Ok(()))
}

/// A sandbox goes: it follows nothing any more. Returns how many messages of topics it gives up.
pub(super) fn forget(state: &mut State, workspace: u32, sandbox: u32) -> Result<u64, StateError> {
    if state.inbox(workspace, sandbox)?.is_none_or(|inbox| inbox.counters.follows == 0) {
        return Ok(0);
    }
    let patterns = patterns(state, workspace, sandbox)?;
    let mut given_up = 0;
    for (name, topic) in topics(state, workspace)? {
        let key = keys::cursors(workspace, topic.number, sandbox);
        let cursors: Option<TopicCursors> = state.read(CURSORS, &key, "topic cursors")?;
        if cursors.is_some() {
            state.delete(CURSORS, key);
        }
        if patterns.iter().any(|pattern| matches(pattern, &name)) {
            given_up += topic.messages.saturating_sub(cursors.map_or(0, |cursors| cursors.done));
        }
    }
    state.delete_range(RECORDS, keys::follows(workspace, sandbox));
    Ok(given_up)
}

/// What a sandbox follows.
fn patterns(state: &State, workspace: u32, sandbox: u32) -> Result<Vec<String>, StateError> {
    let found = state.scan(RECORDS, &keys::follows(workspace, sandbox), usize::MAX)?;
    Ok(found.iter().map(|(key, _)| keys::follow_pattern(key)).collect())
}

/// All topics of a workspace, by name.
fn topics(state: &State, workspace: u32) -> Result<Vec<(String, Topic)>, StateError> {
    let found = state.scan(RECORDS, &keys::topics(workspace), usize::MAX)?;
    let decode = |(key, value): (Bytes, Bytes)| Ok((keys::sandbox_name(&key), Topic::from_bytes(value, "topic")?));
    found.into_iter().map(decode).collect()
}

/// How many messages of a topic lie at or behind a sequence, which must not lie before the history: what was trimmed cannot be
/// counted.
///
/// Counts runs, not messages; only a follower that begins in the past pays for it.
fn count_from(state: &State, workspace: u32, topic: &Topic, sequence: u64) -> Result<u64, StateError> {
    let mut count = 0;
    for priority in 0..10 {
        // The batch that holds the sequence may begin before it.
        let from = keys::run(workspace, topic.number, priority, sequence.saturating_sub(MAX_BATCH_LEN));
        let to = keys::behind(&keys::run(workspace, topic.number, priority, u64::MAX));
        state.visit(RUNS, &(from, to), |key, run| {
            let first = keys::sequence_of(key);
            let indexes = super::publish::decode_run(run);
            count += indexes.iter().filter(|index| first + u64::from(**index) >= sequence).count() as u64;
        })?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_parts() {
        for (pattern, topic) in
            [("a", "a"), ("a.*", "a.b"), ("a.>", "a.b"), ("a.>", "a.b.c"), ("*.b", "a.b"), (">", "a")]
        {
            assert!(matches(pattern, topic), "{pattern} {topic}");
        }
        for (pattern, topic) in [("a", "b"), ("a", "a.b"), ("a.*", "a"), ("a.*", "a.b.c"), ("a.>", "a"), ("*", "a.b")] {
            assert!(!matches(pattern, topic), "{pattern} {topic}");
        }
    }
}
