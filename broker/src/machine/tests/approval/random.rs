//! Random steps against the plainest reading of the rules.

use super::*;

/// What a run of random steps says.
#[derive(Debug, Clone, Copy)]
enum Step {
    Publish { named: bool },
    Decide { number: u64, who: u8, approve: bool },
    Pass { ms: u64 },
    SetPolicy { holds: bool },
    Restart,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let step = prop_oneof![
        4 => any::<bool>().prop_map(|named| Step::Publish { named }),
        6 => (1..12_u64, 0..3_u8, any::<bool>())
            .prop_map(|(number, who, approve)| Step::Decide { number, who, approve }),
        2 => (1..2_000_u64).prop_map(|ms| Step::Pass { ms }),
        1 => any::<bool>().prop_map(|holds| Step::SetPolicy { holds }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest::proptest! {
    /// Against the plainest reading of the rules: an approval ends once, and what is in the inbox is what ended approved.
    #[test]
    fn an_approval_ends_once_and_as_the_rules_say(steps in steps()) {
        let mut shard = TestShard::with_sandboxes();
        let policy = hold(json!({"approvals": 2, "approval_timeout_s": 3}));
        set(&mut shard, &policy);
        let (mut holds, mut arrived, mut ids) = (true, 0, 0);
        // Deadline, who has approved, and how it ended.
        let mut model: Vec<(u64, std::collections::BTreeSet<u8>, Option<ApprovalState>)> = Vec::new();
        for step in steps {
            match step {
                Step::Publish { named } => {
                    ids += 1;
                    let id = format!("m{ids}");
                    let record = Record { id: if named { &id } else { "" }, digest: 5, ..direct("a", "b") };
                    let seen = publish(&mut shard, record);
                    if holds {
                        model.push((shard.time_ms + 3_000, Default::default(), None));
                        proptest::prop_assert_eq!(seen, held(model.len() as u64));
                    } else {
                        arrived += 1;
                        proptest::prop_assert!(seen.is_ok());
                    }
                }
                Step::Decide { number, who, approve } => {
                    let seen = decide(&mut shard, decision(number, ["x", "y", "z"][usize::from(who)], approve));
                    let Some((deadline, approved, ended)) = model.get_mut(number as usize - 1) else {
                        proptest::prop_assert_eq!(seen, Err(Reason::UnknownApproval));
                        continue;
                    };
                    if ended.is_none() && shard.time_ms >= *deadline {
                        *ended = Some(Expired);
                    } else if ended.is_none() && approve {
                        approved.insert(who);
                        if approved.len() == 2 {
                            *ended = Some(Approved);
                            arrived += 1;
                        }
                    } else if ended.is_none() {
                        *ended = Some(Denied);
                    }
                    if let Ok((state, _)) = seen {
                        proptest::prop_assert_eq!(state, ended.unwrap_or(Waiting));
                    } else {
                        // Those that ended long ago are forgotten.
                        let forgotten = state(&shard, number).is_none();
                        let why = if forgotten { Reason::UnknownApproval } else { Reason::ApprovalEnded };
                        proptest::prop_assert_eq!(seen, Err(why));
                        proptest::prop_assert!(ended.is_some());
                    }
                }
                Step::Pass { ms } => {
                    shard.time_ms += ms;
                    shard.tick();
                    for (deadline, _, ended) in &mut model {
                        if shard.time_ms >= *deadline && ended.is_none() {
                            *ended = Some(Expired);
                        }
                    }
                }
                Step::SetPolicy { holds: wanted } => {
                    holds = wanted;
                    set_if(&mut shard, &if wanted { policy.to_string() } else { String::new() }, None).unwrap();
                }
                Step::Restart => shard.restart(),
            }
            proptest::prop_assert_eq!(shard.pending("b"), arrived);
            for (number, (_, _, ended)) in (1..).zip(&model) {
                if let Some(seen) = state(&shard, number) {
                    proptest::prop_assert_eq!(seen, ended.unwrap_or(Waiting), "approval {}", number);
                } else {
                    proptest::prop_assert!(ended.is_some());
                }
            }
        }
    }
}
