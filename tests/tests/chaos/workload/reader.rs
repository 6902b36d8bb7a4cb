//! Reads the log: one client follows it from its beginning over every break, another one looks at pages of it.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use tandem_client::{HistoryQuery, StreamQuery};
use tandem_tests::history::Act;

use super::{Desk, name_and_digest};

/// Messages noted together.
const NOTED: usize = 200;
/// Without a message the client looks whether it shall go on, and notes what it has.
const SILENCE: Duration = Duration::from_secs(1);
/// After so much of it, it turns to another node.
const SILENCES: u32 = 5;

pub(super) async fn follow(mut desk: Desk) {
    let mut cursor = 1;
    let mut read = Vec::new();
    while desk.goes_on() {
        let query = StreamQuery { from_sequence: cursor, follow: true, ..StreamQuery::default() };
        let mut stream = desk.ways.now().history(&*desk.workspace).stream_messages(query);
        let mut silences = 0;
        while desk.goes_on() && silences < SILENCES {
            match tokio::time::timeout(SILENCE, stream.next()).await {
                Ok(Ok(Some(message))) => {
                    silences = 0;
                    let (id, content) = name_and_digest(&message);
                    read.push((message.sequence, id, content));
                    cursor = stream.cursor();
                }
                Ok(Ok(None) | Err(_)) => break,
                Err(_) => silences += 1,
            }
            if read.len() == NOTED || silences > 0 {
                note(&desk, "follower", &mut read);
            }
        }
        desk.ways.turn();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    note(&desk, "follower", &mut read);
}

pub(super) async fn look_at_pages(mut desk: Desk) {
    let (mut newest, mut looks) = (1, 0);
    while desk.goes_on() {
        looks += 1;
        // Half of the time where something happens.
        let from = if desk.random.percent(50) { newest } else { desk.random.between(1, newest) };
        let query = HistoryQuery { from_sequence: from, to_sequence: from + 300, page_size: 100, ..Default::default() };
        let history = desk.ways.now().history(&*desk.workspace);
        let messages: Result<Vec<_>, _> = history.list(query).try_collect().await;
        match messages {
            Ok(messages) => {
                let mut read: Vec<_> = messages
                    .iter()
                    .map(|message| {
                        let (id, content) = name_and_digest(message);
                        (message.sequence, id, content)
                    })
                    .collect();
                newest = read.last().map_or(newest, |last| last.0.max(newest));
                note(&desk, &format!("look {looks}"), &mut read);
            }
            Err(_) => desk.ways.turn(),
        }
        tokio::time::sleep(Duration::from_millis(desk.random.between(100, 1_500))).await;
    }
}

fn note(desk: &Desk, stream: &str, read: &mut Vec<(u64, String, u64)>) {
    if !read.is_empty() {
        let messages = std::mem::take(read);
        desk.recorder.found(&desk.workspace, stream, Act::Read { stream: stream.to_owned(), messages });
    }
}
