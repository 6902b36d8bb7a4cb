//! What the log must be as a whole: every record can be read, and none is missing between two others.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use openraft::entry::RaftEntry;
use tandem_storage::Space;

use super::{ENTRIES, META, kind};
use crate::encoding::{decode_entry, decode_log_id, decode_vote};

/// Looks at all records of a log, in their order.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    /// Of each shard the entries that follow each other without a hole up to the newest: the first and the last index.
    runs: BTreeMap<u32, (u64, u64)>,
    /// Up to where each shard is purged.
    purged: BTreeMap<u32, u64>,
}

impl Whole {
    /// Takes in the next record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn see(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), String> {
        let unknown = || format!("a record with the key {key:02x?}, which nothing writes");
        let mut rest = key;
        let shard = rest.try_get_u32().map_err(|_| unknown())?;
        let record = rest.try_get_u8().map_err(|_| unknown())?;
        let value = Bytes::copy_from_slice(value);
        match (space, record, rest.len()) {
            (ENTRIES, kind::ENTRY, 8) => self.entry(shard, rest.get_u64(), &value),
            (META, kind::VOTE, 0) => {
                decode_vote(&value).map(drop).map_err(|error| format!("shard {shard}, vote: {error}"))
            }
            (META, kind::PURGED, 0) => {
                let purged = decode_log_id(&value);
                let purged = purged.map_err(|error| format!("shard {shard}, purge position: {error}"))?;
                self.purged.insert(shard, purged.index);
                Ok(())
            }
            _ => Err(unknown()),
        }
    }

    fn entry(&mut self, shard: u32, index: u64, record: &Bytes) -> Result<(), String> {
        let entry = decode_entry(record).map_err(|error| format!("shard {shard}, log entry {index}: {error}"))?;
        if entry.index() != index {
            return Err(format!("shard {shard}, log entry {index}: entry {} stands in its place", entry.index()));
        }
        let (_, last) = self.runs.entry(shard).or_insert((index, index));
        if *last + 1 < index {
            self.runs.insert(shard, (index, index));
        } else {
            *last = index;
        }
        Ok(())
    }

    /// Once all records were seen.
    ///
    /// # Errors
    /// Where entries are missing. What is missing before the purge position was purged: a scan may see both in between.
    pub(crate) fn end(self) -> Result<(), String> {
        for (shard, (first, last)) in self.runs {
            // A log begins at 0 or 1, or right behind what is purged.
            let begins = self.purged.get(&shard).copied().unwrap_or(0) + 1;
            if first > begins {
                return Err(format!(
                    "shard {shard}: entries before {first} are missing, although the log begins at {begins} and ends at {last}"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::{super::entry_key, *};
    use crate::{
        encoding::{encode_entry, encode_log_id},
        log_store::meta_key,
        type_config::{Entry, Leader, LogId},
    };

    fn id(index: u64) -> LogId {
        LogId { leader_id: Leader { term: 1, node_id: 1 }, index }
    }

    fn judged(purged: Option<u64>, indexes: impl IntoIterator<Item = u64>) -> Result<(), String> {
        let mut whole = Whole::default();
        for index in indexes {
            let entry = Entry { log_id: id(index), payload: EntryPayload::Blank };
            whole.see(ENTRIES, &entry_key(3, index), &encode_entry(&entry))?;
        }
        if let Some(purged) = purged {
            whole.see(META, &meta_key(3, kind::PURGED), &encode_log_id(&id(purged)))?;
        }
        whole.end()
    }

    #[test]
    fn a_log_has_no_holes_and_begins_where_it_should() {
        judged(None, []).unwrap();
        judged(None, 0..9).unwrap();
        judged(None, 1..9).unwrap();
        judged(Some(4), []).unwrap();
        judged(Some(4), 5..9).unwrap();
        judged(Some(4), (1..3).chain(5..9)).unwrap();
        let text = judged(None, 2..9).unwrap_err();
        assert!(text.contains("shard 3: entries before 2 are missing") && text.contains("ends at 8"), "{text}");
        judged(Some(4), 6..9).unwrap_err();
        judged(None, (1..4).chain(5..9)).unwrap_err();
        judged(Some(4), (5..7).chain(8..9)).unwrap_err();
    }

    #[test]
    fn every_record_must_be_readable_and_in_its_place() {
        let entry = encode_entry(&Entry { log_id: id(7), payload: EntryPayload::Blank });
        let text = Whole::default().see(ENTRIES, &entry_key(0, 8), &entry).unwrap_err();
        assert!(text.contains("entry 7 stands in its place"), "{text}");
        let text = Whole::default().see(META, &meta_key(2, kind::VOTE), b"rubbish").unwrap_err();
        assert!(text.contains("shard 2, vote"), "{text}");
        Whole::default().see(META, &meta_key(2, kind::PURGED), b"rubbish").unwrap_err();
        let text = Whole::default().see(META, &entry_key(0, 7), &entry).unwrap_err();
        assert!(text.contains("nothing writes"), "{text}");
        Whole::default().see(ENTRIES, b"abc", &entry).unwrap_err();
    }
}
