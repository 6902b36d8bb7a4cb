//! A shard that lost its state and every sound snapshot of it, while its log begins behind them, gets a snapshot of another
//! node before any shard of this one takes part again. Its log and its votes are whole, so it is still the node that it was.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clock,
    damage::Part,
    error::{FatalError, FatalSink},
    log_store::LogStore,
    peers::{
        Accept, Links,
        lender::{self, BorrowError, Lender},
        lending::Lending,
    },
    shards::Opened,
    state_home::{Sound, StateHome},
};

/// Between two rounds over the nodes that are connected.
const RETRY: Duration = Duration::from_millis(200);
/// Between two words to the operator.
const REMIND: Duration = Duration::from_secs(30);
/// Whose snapshot is damaged is not asked again for so long.
const AVOID: Duration = Duration::from_secs(60);

/// Makes the shards anew that need it, and lends what it has of them all meanwhile.
///
/// # Errors
/// What stops the node meanwhile, or a disk that does not take the snapshot.
pub(crate) async fn all(
    opened: &mut [Opened],
    links: &Links,
    accept: &mut dyn Accept,
    lender: Arc<Lender>,
    fatal: &FatalSink,
) -> Result<(), FatalError> {
    let homes = opened.iter().map(|opened| opened.home.clone()).collect();
    let lending = Lending::new(Arc::clone(&links.gate), homes, lender);
    let rebuilding = async {
        for lost in opened.iter_mut().filter(|opened| opened.sound == Sound::LogOnly) {
            from_peers(lost.shard, links, &lost.home, &mut lost.log, fatal).await?;
        }
        Ok(())
    };
    tokio::select! {
        biased;
        rebuilt = rebuilding => rebuilt,
        () = lending.run(accept) => Ok(()),
    }
}

/// Asks until some node has given a sound snapshot that reaches as far as the log is purged.
///
/// # Errors
/// What stops the node meanwhile, or a disk that does not take the snapshot.
async fn from_peers(
    shard: u32,
    links: &Links,
    home: &StateHome,
    log: &mut LogStore,
    fatal: &FatalSink,
) -> Result<(), FatalError> {
    let at_least = log.purged_index();
    let mut avoided: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut said: Option<Instant> = None;
    tracing::warn!(
        code = Part::State(shard).code(),
        shard,
        at_least,
        "asking the other nodes for a snapshot of a lost state"
    );
    loop {
        let now = clock::now();
        let others = links.connected().into_iter().filter(|node| *node != links.gate.own.node_id);
        let mut answers: BTreeMap<u64, String> = BTreeMap::new();
        for node in others {
            if avoided.get(&node).is_some_and(|until| now < *until) {
                answers.insert(node, "its snapshot is damaged".into());
                continue;
            }
            let asked = tokio::select! {
                biased;
                error = fatal.wait() => return Err(error),
                asked = ask((shard, node), links, home, log) => asked?,
            };
            match asked {
                Answer::Given => {
                    tracing::info!(shard, node, "the state is made anew from a snapshot of another node");
                    return Ok(());
                }
                Answer::Damaged(why) => {
                    avoided.insert(node, clock::now() + AVOID);
                    tracing::error!(shard, node, why, "the snapshot of another node is damaged; it is not taken");
                    answers.insert(node, why);
                }
                Answer::None(why) => drop(answers.insert(node, why)),
            }
        }
        if said.is_none_or(|said| now.saturating_duration_since(said) >= REMIND) {
            said = Some(now);
            let (code, answers) = (Part::State(shard).code(), format!("{answers:?}"));
            tracing::warn!(
                code,
                shard,
                at_least,
                answers,
                "waiting for a snapshot of another node, to make the state of it"
            );
        }
        tokio::select! {
            biased;
            error = fatal.wait() => return Err(error),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

enum Answer {
    /// It had a sound one, and that is here now.
    Given,
    /// It has one that is not.
    Damaged(String),
    /// It has none, or did not give it.
    None(String),
}

async fn ask(
    (shard, node): (u32, u64),
    links: &Links,
    home: &StateHome,
    log: &mut LogStore,
) -> Result<Answer, FatalError> {
    let ended = |error: tokio::task::JoinError| FatalError::Raft { shard, detail: error.to_string() };
    let Some(there) = links.connection(node) else { return Ok(Answer::None("it is not connected".into())) };
    let borrowed = match lender::borrow(&there, shard, log.purged_index(), home).await {
        Ok(Some(borrowed)) => borrowed,
        Ok(None) => return Ok(Answer::None("it has none that reaches far enough yet".into())),
        Err(BorrowError::Here(error)) => return Err(stored(error)),
        Err(error @ BorrowError::Damaged(_)) => return Ok(Answer::Damaged(error.to_string())),
        Err(error) => return Ok(Answer::None(error.to_string())),
    };
    let received = borrowed.snapshot.clone();
    let checking = (home.clone(), received.clone());
    // Nobody is served by this node meanwhile, so this may take all of it.
    let checked = crate::blocking::run(move || checking.0.check_received(&checking.1, &mut |_| true)).await;
    match checked.map_err(ended)? {
        Ok(()) => {}
        Err(error) if error.is_damage() => {
            home.remove_received().map_err(stored)?;
            borrowed.complain(&there).await;
            return Ok(Answer::Damaged(error.to_string()));
        }
        Err(error) => return Err(error),
    }
    // What a node wrote behind the end of its reign, and others overruled, goes as when a leader sends the snapshot.
    if let Some(reached) = received.contents.meta.last_log_id {
        log.give_way_to(reached).await?;
    }
    let adopting = home.clone();
    crate::blocking::run(move || adopting.adopt(&received)).await.map_err(ended)??;
    Ok(Answer::Given)
}

fn stored(source: io::Error) -> FatalError {
    let doing = "storing a snapshot of another node";
    match source.kind() {
        io::ErrorKind::StorageFull => tandem_storage::Error::Full { doing }.into(),
        _ => tandem_storage::Error::Io { doing, source }.into(),
    }
}
