//! The model of the disk: a journal, and how much of it is durable.

use crate::{Error, Operation, WriteBatch, record};

/// How much of what was never synced survives a crash. A prefix, because the journal is written in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// Nothing.
    All,
    /// This many bytes behind the durable mark, or all there are. Ends inside a record unless the number is chosen well.
    Keep(usize),
}

/// What a disk holds. A clone is a copy of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    journal: Vec<u8>,
    /// The durable mark; always at the end of a record.
    synced: usize,
    /// The length that the journal cannot exceed.
    limit: Option<usize>,
    space_count: usize,
}

impl Disk {
    pub(super) fn new(space_count: usize) -> Self {
        Self { journal: Vec::new(), synced: 0, limit: None, space_count }
    }

    /// Bytes in the journal, durable or not.
    pub fn journal_bytes(&self) -> usize {
        self.journal.len()
    }

    /// Bytes in the journal that a crash cannot take.
    pub fn synced_bytes(&self) -> usize {
        self.synced
    }

    /// Inverts one byte of the journal. False when the journal is shorter.
    pub fn flip_byte(&mut self, offset: usize) -> bool {
        let byte = self.journal.get_mut(offset);
        byte.map(|byte| *byte = !*byte).is_some()
    }

    /// Takes the limit of [`FaultHandle::fill_disk`](super::FaultHandle::fill_disk) away.
    pub fn free(&mut self) {
        self.limit = None;
    }

    pub(super) fn limit_room(&mut self, after_bytes: usize) {
        self.limit = Some(self.journal.len().saturating_add(after_bytes));
    }

    pub(super) fn space_count(&self) -> usize {
        self.space_count
    }

    pub(super) fn check_spaces(&self, operations: &[Operation]) -> Result<(), Error> {
        let known = self.space_count;
        let unknown = operations.iter().map(Operation::space).find(|space| usize::from(space.0) >= known);
        unknown.map_or(Ok(()), |space| Err(Error::unknown_space("(fault)", space, known)))
    }

    /// Appends one record, or nothing when it does not fit.
    pub(super) fn append(&mut self, operations: &[Operation]) -> Result<(), Error> {
        let before = self.journal.len();
        record::encode(operations, &mut self.journal);
        if self.limit.is_some_and(|limit| self.journal.len() > limit) {
            self.journal.truncate(before);
            return Err(Error::Full { doing: "appending to the journal" });
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) {
        self.synced = self.journal.len();
    }

    pub(super) fn lose_unsynced(&mut self, tear: Tear) {
        let kept = match tear {
            Tear::All => 0,
            Tear::Keep(bytes) => bytes,
        };
        self.journal.truncate(self.synced.saturating_add(kept));
    }

    /// The batches in order. A bad record that begins at or behind the durable mark is what a crash tore: it is dropped, and
    /// what follows with it. Below the mark it is damage, because the mark only ever stood behind whole records.
    pub(super) fn replay(&mut self) -> Result<Vec<WriteBatch>, Error> {
        let mut batches = Vec::new();
        let mut at = 0;
        while at < self.journal.len() {
            match record::decode(&self.journal, at) {
                Ok((batch, next)) => {
                    batches.push(batch);
                    at = next;
                }
                Err(_) if at >= self.synced => break,
                Err(detail) => return Err(corrupt(format!("offset {at} of {} synced: {detail}", self.synced))),
            }
        }
        if at < self.synced {
            return Err(corrupt(format!("the journal ends at {at}, but {} bytes were synced", self.synced)));
        }
        self.journal.truncate(at);
        self.sync();
        Ok(batches)
    }
}

fn corrupt(detail: String) -> Error {
    Error::Corrupt { doing: "replaying the journal", detail }
}
