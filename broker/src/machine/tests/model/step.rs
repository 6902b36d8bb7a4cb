//! Random steps: what clients, subscribers, time and crashes do to a shard.

use proptest::prelude::*;

/// One step, after a pause.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) pause_ms: u64,
    pub(super) act: Act,
}

/// Small numbers choose among what is there: names, streams, dead letters.
#[derive(Debug, Clone)]
pub(super) enum Act {
    CreateWorkspace {
        other: bool,
    },
    UpdateWorkspace {
        other: bool,
        max_hops: u8,
    },
    DeleteWorkspace {
        other: bool,
    },
    Register {
        other: bool,
        sandbox: usize,
        settings: usize,
        capable: bool,
    },
    Unregister {
        other: bool,
        sandbox: usize,
    },
    Heartbeat {
        sandbox: usize,
    },
    Alive {
        sandbox: usize,
    },
    Publish {
        other: bool,
        drafts: Vec<Draft>,
    },
    CreateTopic {
        topic: usize,
    },
    DeleteTopic {
        topic: usize,
    },
    Follow {
        sandbox: usize,
        pattern: usize,
        back: Option<u64>,
    },
    Unfollow {
        sandbox: usize,
        pattern: usize,
    },
    Redrive {
        letters: Letters,
        to: Option<usize>,
    },
    Purge {
        letters: Letters,
    },
    Replay {
        sandbox: usize,
        back: u64,
        count: u64,
    },
    Answered {
        at: usize,
    },
    Tick {
        max_entries: u32,
    },
    Open {
        sandbox: usize,
    },
    Take {
        stream: usize,
        count: usize,
    },
    Ack {
        stream: usize,
        ranges: Vec<(u64, u64)>,
        lenient: bool,
        again: bool,
    },
    Nack {
        stream: usize,
        ranges: Vec<(u64, u64)>,
        delay_ms: Option<u64>,
        dead_letter: bool,
    },
    Lapse {
        stream: usize,
    },
    Close {
        stream: usize,
    },
    Break {
        stream: usize,
    },
    Crash {
        keep: usize,
        chunk: usize,
    },
    Sync,
    /// Several as one command.
    Together(Vec<Act>),
}

/// Which dead letters.
#[derive(Debug, Clone)]
pub(super) enum Letters {
    All,
    One(usize),
    Of(usize),
    Nobodys,
}

/// A message as a client writes it.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) from: usize,
    pub(super) to: Address,
    pub(super) priority: u8,
    pub(super) kind: u8,
    pub(super) id: Option<u8>,
    pub(super) size: u8,
    pub(super) ttl_s: Option<u64>,
    pub(super) delay_ms: Option<u64>,
    pub(super) key: Option<u8>,
    pub(super) correlation: Option<u8>,
    pub(super) requires_response: bool,
    pub(super) dead_letter_on_expiry: bool,
    /// Producer, and the position from the next one on.
    pub(super) producer: Option<(u8, i64)>,
    pub(super) reply_timeout_s: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) enum Address {
    Sandbox(usize),
    Broadcast,
    Topic(usize),
    /// All that have the capability.
    Capable,
}

fn sandbox() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0usize..3, 1 => 3usize..5]
}

fn other() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.06)
}

fn draft() -> impl Strategy<Value = Draft> {
    let to = prop_oneof![
        6 => sandbox().prop_map(Address::Sandbox),
        2 => Just(Address::Broadcast),
        3 => (0usize..3).prop_map(Address::Topic),
        1 => Just(Address::Capable),
    ];
    let what = (sandbox(), to, prop::sample::select(vec![2u8, 5, 5, 5, 8]), 1u8..5, 0u8..12);
    let when = (prop::option::weighted(0.3, 1u64..12), prop::option::weighted(0.15, 1u64..9_000));
    let ids = (
        prop::option::weighted(0.25, 0u8..4),
        prop::option::weighted(0.3, 0u8..2),
        prop::option::weighted(0.4, 0u8..3),
        prop::option::weighted(0.2, (0u8..2, prop::sample::select(vec![0i64, 0, 0, -1, -2, 1]))),
    );
    let more = (any::<bool>(), any::<bool>(), prop::option::weighted(0.3, 1u64..15));
    (what, when, ids, more).prop_map(
        |((from, to, priority, kind, size), (ttl_s, delay_ms), (id, key, correlation, producer), more)| {
            let (requires_response, dead_letter_on_expiry, reply_timeout_s) = more;
            Draft {
                from,
                to,
                priority,
                kind,
                id,
                size,
                ttl_s,
                delay_ms,
                key,
                correlation,
                requires_response,
                dead_letter_on_expiry,
                producer,
                reply_timeout_s,
            }
        },
    )
}

fn letters() -> impl Strategy<Value = Letters> {
    prop_oneof![
        3 => Just(Letters::All),
        3 => (0usize..8).prop_map(Letters::One),
        2 => sandbox().prop_map(Letters::Of),
        1 => Just(Letters::Nobodys),
    ]
}

/// What one verb does.
fn verb() -> impl Strategy<Value = Act> {
    let pattern = 0usize..5;
    let topic = 0usize..4;
    prop_oneof![
        1 => other().prop_map(|other| Act::CreateWorkspace { other }),
        1 => (other(), 0u8..4).prop_map(|(other, max_hops)| Act::UpdateWorkspace { other, max_hops }),
        6 => (other(), sandbox(), 0usize..3, any::<bool>())
            .prop_map(|(other, sandbox, settings, capable)| Act::Register { other, sandbox, settings, capable }),
        1 => (other(), sandbox()).prop_map(|(other, sandbox)| Act::Unregister { other, sandbox }),
        1 => sandbox().prop_map(|sandbox| Act::Heartbeat { sandbox }),
        1 => sandbox().prop_map(|sandbox| Act::Alive { sandbox }),
        24 => (other(), prop::collection::vec(draft(), 1..6)).prop_map(|(other, drafts)| Act::Publish { other, drafts }),
        4 => topic.clone().prop_map(|topic| Act::CreateTopic { topic }),
        1 => topic.prop_map(|topic| Act::DeleteTopic { topic }),
        4 => (sandbox(), pattern.clone(), prop::option::of(0u64..12))
            .prop_map(|(sandbox, pattern, back)| Act::Follow { sandbox, pattern, back }),
        2 => (sandbox(), pattern).prop_map(|(sandbox, pattern)| Act::Unfollow { sandbox, pattern }),
        3 => (letters(), prop::option::weighted(0.4, sandbox())).prop_map(|(letters, to)| Act::Redrive { letters, to }),
        1 => letters().prop_map(|letters| Act::Purge { letters }),
        2 => (sandbox(), 0u64..12, 1u64..6).prop_map(|(sandbox, back, count)| Act::Replay { sandbox, back, count }),
        1 => (0usize..3).prop_map(|at| Act::Answered { at }),
    ]
}

/// What subscribers do.
fn stream() -> impl Strategy<Value = Act> {
    let stream = 0usize..4;
    let ranges = || prop::collection::vec((0u64..10, 0u64..5), 1..3);
    prop_oneof![
        5 => sandbox().prop_map(|sandbox| Act::Open { sandbox }),
        10 => (stream.clone(), 1usize..7).prop_map(|(stream, count)| Act::Take { stream, count }),
        6 => (stream.clone(), ranges(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(stream, ranges, lenient, again)| Act::Ack { stream, ranges, lenient, again }),
        7 => (stream.clone(), ranges(), prop::option::of(0u64..3_000), prop::bool::weighted(0.3))
            .prop_map(|(stream, ranges, delay_ms, dead_letter)| Act::Nack { stream, ranges, delay_ms, dead_letter }),
        2 => stream.clone().prop_map(|stream| Act::Lapse { stream }),
        1 => stream.clone().prop_map(|stream| Act::Close { stream }),
        2 => stream.prop_map(|stream| Act::Break { stream }),
    ]
}

fn tick() -> impl Strategy<Value = Act> {
    prop::sample::select(vec![2u32, 1_000_000, 1_000_000, 1_000_000]).prop_map(|max_entries| Act::Tick { max_entries })
}

fn act() -> impl Strategy<Value = Act> {
    let whole_tick = Just(Act::Tick { max_entries: 1_000_000 });
    let part = prop_oneof![6 => verb(), 3 => stream(), 1 => whole_tick];
    prop_oneof![
        50 => verb(),
        40 => stream(),
        18 => tick(),
        8 => prop::collection::vec(part, 2..5).prop_map(Act::Together),
        4 => (0usize..101, 1usize..5).prop_map(|(keep, chunk)| Act::Crash { keep, chunk }),
        2 => Just(Act::Sync),
        1 => prop::bool::weighted(0.7).prop_map(|other| Act::DeleteWorkspace { other }),
    ]
}

/// Steps of one history.
pub(super) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![6 => 0u64..40, 4 => 40u64..2_500, 1 => 2_500u64..30_000];
    prop::collection::vec((pause, act()).prop_map(|(pause_ms, act)| Step { pause_ms, act }), 1..most)
}
