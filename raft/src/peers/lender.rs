//! Snapshots that are lent to a node that lost its state: it asks for their files piece by piece, before it takes part in
//! anything. The other way round, a leader that sends one, needs a group on the other side.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use super::{
    connection::{CallError, Connection},
    frame::kind,
};
use crate::{
    apply::Apply,
    contents::FileSum,
    encoding::{DecodeError, take_u8, take_u32, take_u64},
    group::Group,
    roll::{put_text, take_text},
    snapshot::SnapshotDir,
};

/// Bytes of one piece.
const PIECE_BYTES: u64 = 256 << 10;
/// Snapshots that are lent at once; the oldest is taken back for a new one.
const MAX_LENT: usize = 8;
/// How long a piece may take.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);

type Files = Vec<(String, File, u64)>;

/// What a node lends.
#[derive(Default)]
pub(super) struct Lender {
    lent: Mutex<(u64, BTreeMap<u64, Arc<Files>>)>,
}

impl Lender {
    /// Lends the newest snapshot of a shard. Where it does not reach `at_least`, a new one is taken, and the answer is: not yet.
    pub(super) async fn lend<A: Apply>(
        &self,
        group: &Group<A>,
        at_least: u64,
        out: &mut BytesMut,
    ) -> Result<(), String> {
        let reaches = group.status().snapshot_index;
        let Some(taken) = group.home().newest_snapshot().filter(|_| reaches >= at_least) else {
            if group.status().applied_index >= at_least {
                group.trigger_snapshot().await.map_err(|error| error.to_string())?;
            }
            out.put_u8(0);
            return Ok(());
        };
        let files = open_all(&taken).map_err(|error| error.to_string())?;
        let mut lent = self.lent.lock();
        let (last, table) = &mut *lent;
        *last += 1;
        out.put_u8(1);
        out.put_u64(*last);
        out.put_u32(files.len() as u32);
        for (name, _, length) in &files {
            put_text(out, name);
            out.put_u64(*length);
        }
        table.insert(*last, Arc::new(files));
        while table.len() > MAX_LENT {
            table.pop_first();
        }
        Ok(())
    }

    /// A piece of a file that was lent.
    pub(super) fn read(&self, mut body: Bytes) -> io::Result<Bytes> {
        let wrong = |_: DecodeError| io::Error::other("not a question about a lent snapshot");
        let (loan, file) = (take_u64(&mut body).map_err(wrong)?, take_u32(&mut body).map_err(wrong)?);
        let offset = take_u64(&mut body).map_err(wrong)?;
        let files = self.lent.lock().1.get(&loan).cloned();
        let files = files.ok_or_else(|| io::Error::other("this snapshot is not lent any more"))?;
        let (_, file, length) = files.get(file as usize).ok_or_else(|| io::Error::other("no such file"))?;
        let mut piece = vec![0; PIECE_BYTES.min(length.saturating_sub(offset)) as usize];
        file.read_exact_at(&mut piece, offset)?;
        Ok(piece.into())
    }
}

/// All at once: a newer snapshot may remove the names, but not what is open.
fn open_all(snapshot: &SnapshotDir) -> io::Result<Files> {
    let open = |file: &FileSum| Ok((file.name.clone(), File::open(snapshot.path.join(&file.name))?, file.bytes));
    snapshot.contents.files.iter().map(open).collect()
}

/// Fetches a snapshot that reaches `at_least` into `dir`, which is new. False: the other node has none yet.
pub(crate) async fn borrow(there: &Connection, shard: u32, at_least: u64, dir: &Path) -> Result<bool, CallError> {
    let asked = there.call(kind::LEND, shard, PIECE_TIMEOUT, |out| out.put_u64(at_least)).await?;
    let Some((loan, files)) = take_offer(asked).map_err(|_| CallError::Garbled)? else { return Ok(false) };
    let failed = |error: io::Error| CallError::Failed(error.to_string());
    fs::create_dir_all(dir).map_err(failed)?;
    for (number, (name, length)) in files.iter().enumerate() {
        let mut file = File::create_new(dir.join(name)).map_err(failed)?;
        let mut offset = 0;
        while offset < *length {
            let put = |out: &mut BytesMut| {
                out.put_u64(loan);
                out.put_u32(number as u32);
                out.put_u64(offset);
            };
            let piece = there.call(kind::LEND_PIECE, shard, PIECE_TIMEOUT, put).await?;
            if piece.is_empty() || piece.len() as u64 > length - offset {
                return Err(CallError::Garbled);
            }
            file.write_all(&piece).map_err(failed)?;
            offset += piece.len() as u64;
        }
        file.sync_all().map_err(failed)?;
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    Ok(true)
}

type Offer = (u64, Vec<(String, u64)>);

fn take_offer(mut body: Bytes) -> Result<Option<Offer>, DecodeError> {
    if take_u8(&mut body)? == 0 {
        return Ok(None);
    }
    let loan = take_u64(&mut body)?;
    let mut files = Vec::new();
    for _ in 0..take_u32(&mut body)? {
        let name = take_text(&mut body)?;
        let plain = Path::new(&name).file_name().is_some_and(|last| last.to_str() == Some(&name));
        if !plain {
            return Err(DecodeError::Text);
        }
        files.push((name, take_u64(&mut body)?));
    }
    if body.has_remaining() { Err(DecodeError::Short) } else { Ok(Some((loan, files))) }
}
