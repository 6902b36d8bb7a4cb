//! Snapshots that are lent to a node that lost its state: it asks for their files piece by piece, before it takes part in
//! anything. The other way round, a leader that sends one, needs a group on the other side.
//!
//! ```text
//! LEND           at least             -> loan, contents   or: not yet
//! LEND_PIECE     loan, place, offset  -> bytes            as fast as snapshots may leave the node
//! LEND_DAMAGED   loan, place          -> -                the lender looks at the file itself, or at all of them
//! ```

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use super::{
    connection::{CallError, Connection},
    frame::kind,
    snapshot::{Receiver, changed, judge_whole, report_damaged},
    wire::{self, SnapshotPiece},
};
use crate::{
    apply::Apply,
    clock,
    contents::{Contents, checksum_of},
    encoding::{DecodeError, take_u8, take_u32, take_u64},
    error::FatalSink,
    group::Group,
    metrics::PeerMetrics,
    snapshot::SnapshotDir,
    state_home::StateHome,
    throttle::Throttle,
    type_config::Vote,
};

/// Bytes of one piece.
const PIECE_BYTES: u64 = 256 << 10;
/// Snapshots that are lent at once; who asks for another one asks somebody else, or again. As many as there may be shards: a
/// node that lost all of them asks for one after the other.
const MAX_LENT: usize = 64;
/// In the place of a file: all of them.
pub(crate) const ALL_FILES: u32 = u32::MAX;
/// A loan that nobody asks about for so long is over: its files can be removed.
const LOAN_IDLE: Duration = Duration::from_secs(60);
/// How long a piece may take, which waits for its turn.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a file may take to be read again.
const FILE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a file is asked for that arrives with another checksum than it had.
const MAX_TRIES: u32 = 3;

/// What a node lends.
pub(crate) struct Lender {
    loans: Mutex<Loans>,
    throttle: Arc<Throttle>,
    metrics: PeerMetrics,
    fatal: FatalSink,
}

#[derive(Default)]
struct Loans {
    last: u64,
    by_number: BTreeMap<u64, Loan>,
}

struct Loan {
    snapshot: SnapshotDir,
    used: Instant,
}

impl Lender {
    pub(crate) fn new(throttle: Arc<Throttle>, metrics: PeerMetrics, fatal: FatalSink) -> Arc<Self> {
        Arc::new(Self { loans: Mutex::default(), throttle, metrics, fatal })
    }

    /// Lends the newest snapshot of a shard. Where it does not reach `at_least`, a new one is taken, and the answer is: not yet.
    pub(crate) async fn lend<A: Apply>(
        self: &Arc<Self>,
        group: &Group<A>,
        at_least: u64,
        out: &mut BytesMut,
    ) -> Result<(), String> {
        let newest = group.home().newest_snapshot().filter(|taken| taken.contents.index() >= at_least);
        let Some(snapshot) = newest else {
            if group.status().applied_index >= at_least {
                group.trigger_snapshot().await.map_err(|error| error.to_string())?;
            }
            out.put_u8(0);
            return Ok(());
        };
        self.offer(snapshot, out)
    }

    /// Lends a snapshot. All who ask for the same one share a loan.
    pub(crate) fn offer(self: &Arc<Self>, snapshot: SnapshotDir, out: &mut BytesMut) -> Result<(), String> {
        let mut loans = self.loans.lock();
        let mut lent = loans.by_number.iter_mut();
        if let Some((number, loan)) = lent.find(|(_, loan)| loan.snapshot.path == snapshot.path) {
            loan.used = clock::now();
            put_offer(out, *number, &snapshot.contents);
            return Ok(());
        }
        if loans.by_number.len() >= MAX_LENT {
            return Err(format!("{MAX_LENT} snapshots are lent already; ask again later"));
        }
        loans.last += 1;
        let number = loans.last;
        put_offer(out, number, &snapshot.contents);
        loans.by_number.insert(number, Loan { snapshot, used: clock::now() });
        self.end_when_idle(number);
        Ok(())
    }

    fn end_when_idle(self: &Arc<Self>, number: u64) {
        let lender = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut wait = LOAN_IDLE;
            loop {
                tokio::time::sleep(wait).await;
                let Some(lender) = lender.upgrade() else { return };
                let mut loans = lender.loans.lock();
                let Some(loan) = loans.by_number.get(&number) else { return };
                wait = LOAN_IDLE.saturating_sub(clock::now().saturating_duration_since(loan.used));
                if wait.is_zero() {
                    loans.by_number.remove(&number);
                    return;
                }
            }
        });
    }

    fn loan(&self, number: u64) -> io::Result<SnapshotDir> {
        let mut loans = self.loans.lock();
        let loan = loans.by_number.get_mut(&number);
        let loan = loan.ok_or_else(|| io::Error::other("this snapshot is not lent any more"))?;
        loan.used = clock::now();
        Ok(loan.snapshot.clone())
    }

    /// A piece of a file that was lent, once it may leave.
    pub(crate) async fn piece(&self, mut body: Bytes) -> io::Result<Bytes> {
        let wrong = |_: DecodeError| io::Error::other("not a question about a lent snapshot");
        let (number, place) = (take_u64(&mut body).map_err(wrong)?, take_u32(&mut body).map_err(wrong)?);
        let offset = take_u64(&mut body).map_err(wrong)?;
        let snapshot = self.loan(number)?;
        let reading = crate::blocking::run(move || {
            let file = snapshot.contents.files.get(place as usize);
            let file = file.ok_or_else(|| io::Error::other("the snapshot has no such file"))?;
            let mut piece = vec![0; PIECE_BYTES.min(file.bytes.saturating_sub(offset)) as usize];
            // One after the other: a snapshot may have more files than a process may have open.
            File::open(snapshot.path.join(&file.name))?.read_exact_at(&mut piece, offset)?;
            Ok::<_, io::Error>(piece)
        });
        let piece = reading.await.map_err(io::Error::other)??;
        self.throttle.pass(piece.len()).await;
        self.metrics.snapshot_sent(piece.len());
        Ok(piece.into())
    }

    /// A file arrived with another checksum than was announced, again and again; or all of them arrived as they were announced,
    /// and cannot be read. If it is this disk, this node ends.
    pub(crate) async fn judge(&self, number: u64, place: u32, home: &StateHome) -> io::Result<()> {
        let snapshot = self.loan(number)?;
        if place == ALL_FILES {
            judge_whole(home, &self.fatal, &snapshot.path).await.map_err(io::Error::other)?;
            tracing::warn!("a snapshot that was lent is damaged there and sound here; look at the disk there");
            return Ok(());
        }
        let sum = snapshot.contents.files.get(place as usize).cloned();
        let sum = sum.ok_or_else(|| io::Error::other("the snapshot has no such file"))?;
        let path = snapshot.path.join(&sum.name);
        let reading = {
            let path = path.clone();
            crate::blocking::run(move || checksum_of(&mut File::open(path)?))
        };
        let (bytes, checksum) = reading.await.map_err(io::Error::other)??;
        if (bytes, checksum) == (sum.bytes, sum.checksum) {
            tracing::warn!(
                name = sum.name,
                "a file that was lent arrived damaged and is sound here; look at the disk there"
            );
            return Ok(());
        }
        Err(io::Error::other(report_damaged(home, &self.fatal, &path, &changed(checksum, &sum))))
    }
}

/// Why nothing was borrowed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BorrowError {
    /// The other node.
    #[error(transparent)]
    There(#[from] CallError),
    /// What it has, or the way.
    #[error("the file {0} of its snapshot arrived damaged {MAX_TRIES} times")]
    Damaged(String),
    /// This disk.
    #[error("it cannot be stored: {0}")]
    Here(#[from] io::Error),
}

/// Fetches a snapshot that reaches `at_least`, and goes on with what came of one before. None: the other node has none yet.
pub(crate) async fn borrow(
    there: &Connection,
    shard: u32,
    at_least: u64,
    home: &StateHome,
) -> Result<Option<Borrowed>, BorrowError> {
    let asked = there.call(kind::LEND, shard, PIECE_TIMEOUT, |out| out.put_u64(at_least)).await?;
    let Some((loan, contents)) = take_offer(asked).map_err(|_| CallError::Garbled)? else { return Ok(None) };
    if contents.index() < at_least {
        return Err(CallError::Failed(format!("it reaches {}, not {at_least}", contents.index())).into());
    }
    // The same that takes in what a leader sends.
    let (receiver, files) = (Receiver::default(), contents.files.clone());
    crate::blocking::in_place(|| receiver.begin(loan, Vote::new(0, 0), contents, home.incoming()))?;
    for (place, file) in (0_u32..).zip(&files) {
        let mut offset = crate::blocking::in_place(|| receiver.file(loan, place))?;
        let mut tries = 0;
        while offset < file.bytes {
            let put = |out: &mut BytesMut| {
                wire::put_file(out, loan, place);
                out.put_u64(offset);
            };
            let bytes = there.call(kind::LEND_PIECE, shard, PIECE_TIMEOUT, put).await?;
            if bytes.is_empty() || bytes.len() as u64 > file.bytes - offset {
                return Err(CallError::Garbled.into());
            }
            let next = offset + bytes.len() as u64;
            let piece = SnapshotPiece { transfer: loan, place, offset, bytes };
            offset = crate::blocking::in_place(|| receiver.piece(&piece))?;
            if offset != next {
                tries += 1;
            }
            if tries == MAX_TRIES {
                there.call(kind::LEND_DAMAGED, shard, FILE_TIMEOUT, |out| wire::put_file(out, loan, place)).await?;
                return Err(BorrowError::Damaged(file.name.clone()));
            }
        }
    }
    let (_, snapshot) = crate::blocking::in_place(|| {
        home.remove_received()?;
        receiver.end(loan, &home.received())
    })?;
    Ok(Some(Borrowed { snapshot: snapshot.snapshot, loan, shard }))
}

/// A snapshot that was borrowed.
pub(crate) struct Borrowed {
    pub(crate) snapshot: SnapshotDir,
    loan: u64,
    shard: u32,
}

impl Borrowed {
    /// Tells the lender that it is damaged although it came as it was announced. What it finds is its own affair.
    pub(crate) async fn complain(&self, there: &Connection) {
        let put = |out: &mut BytesMut| wire::put_file(out, self.loan, ALL_FILES);
        if let Err(error) = there.call(kind::LEND_DAMAGED, self.shard, FILE_TIMEOUT, put).await {
            tracing::debug!(shard = self.shard, %error, "what the lender of a snapshot says to damage in it");
        }
    }
}

fn put_offer(out: &mut BytesMut, loan: u64, contents: &Contents) {
    out.put_u8(1);
    out.put_u64(loan);
    out.put_slice(&contents.encode());
}

fn take_offer(mut body: Bytes) -> Result<Option<(u64, Contents)>, DecodeError> {
    if take_u8(&mut body)? == 0 {
        return Ok(None);
    }
    let loan = take_u64(&mut body)?;
    Ok(Some((loan, Contents::decode(&body)?)))
}
