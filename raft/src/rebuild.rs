//! A shard that lost its state and every sound snapshot of it, while its log begins behind them, gets a snapshot of another
//! node before it takes part again. Its log and its votes are whole, so it is still the node that it was.

use std::{fs, io, time::Duration};

use crate::{
    damage::Part,
    error::{FatalError, FatalSink},
    peers::{Links, lender},
    state_home::StateHome,
};

/// Between two rounds over the nodes that are connected.
const RETRY: Duration = Duration::from_millis(200);

/// Asks until some node has given a sound snapshot that reaches at least `at_least`.
///
/// # Errors
/// What stops the node meanwhile, or a disk that does not take the snapshot.
pub(crate) async fn from_peers(
    shard: u32,
    links: &Links,
    home: &StateHome,
    at_least: u64,
    fatal: &FatalSink,
) -> Result<(), FatalError> {
    tracing::warn!(code = Part::State(shard).code(), shard, at_least, "the state comes from another node");
    loop {
        for node in links.connected().into_iter().filter(|node| *node != links.gate.own.node_id) {
            if ask(shard, links, home, at_least, node).await? {
                tracing::info!(shard, node, "the state is made anew from a snapshot of another node");
                return Ok(());
            }
        }
        tokio::select! {
            biased;
            error = fatal.wait() => return Err(error),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Whether a node had a sound snapshot, and it is here now.
async fn ask(shard: u32, links: &Links, home: &StateHome, at_least: u64, node: u64) -> Result<bool, FatalError> {
    let Some(there) = links.connection(node) else { return Ok(false) };
    let dir = home.lent();
    match fs::remove_dir_all(&dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(tandem_storage::Error::Io { doing: "removing a part of a snapshot", source }.into());
        }
        _ => {}
    }
    match lender::borrow(&there, shard, at_least, &dir).await {
        Ok(true) => {}
        Ok(false) => return Ok(false),
        Err(error) => {
            tracing::warn!(shard, node, %error, "a snapshot was not fetched");
            return Ok(false);
        }
    }
    let adopting = home.clone();
    let adopted = crate::blocking::run(move || adopting.adopt(&dir)).await;
    match adopted.map_err(|error| FatalError::Raft { shard, detail: error.to_string() })? {
        Ok(()) => Ok(true),
        Err(error) if error.is_damage() => {
            tracing::error!(shard, node, %error, "the snapshot of another node is damaged; it is not taken");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
