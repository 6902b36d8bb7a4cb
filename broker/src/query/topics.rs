//! Reads topics and follows.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::Direction;

use super::{QueryError, StateReader};
use crate::{
    encoding::Field as _,
    machine::{
        keys::{self, RECORDS, behind},
        topic::Topic,
    },
    rejection::Rejection,
};

impl StateReader {
    /// A topic by name, or the refusal that says it is not there.
    pub(crate) fn topic(&self, workspace: u32, name: &str) -> Result<Topic, QueryError> {
        match self.engine().get(RECORDS, &keys::topic(workspace, name))? {
            Some(record) => Ok(Topic::from_bytes(record, "topic")?),
            None => Err(Rejection::unknown_topic(name).into()),
        }
    }

    /// Up to `limit` topics of a workspace behind the one with this name, by name, and whether there are more.
    pub(crate) fn topics_after(
        &self,
        workspace: u32,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<(String, Topic)>, bool), QueryError> {
        let (first, to) = keys::topics(workspace);
        let from = if after.is_empty() { first } else { behind(&keys::topic(workspace, after)) };
        let (mut found, mut more) = (Vec::new(), false);
        self.engine().scan(RECORDS, &from, &to, Direction::Forward, &mut |key, value| {
            if found.len() >= limit {
                more = true;
                return ControlFlow::Break(());
            }
            // The names of topics and of sandboxes stand at the same place of their keys.
            found.push((keys::sandbox_name(key), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })?;
        let decode = |(name, record)| Ok((name, Topic::from_bytes(record, "topic")?));
        Ok((found.into_iter().map(decode).collect::<Result<_, QueryError>>()?, more))
    }

    /// What a sandbox follows, by pattern, each with the first sequence that counts.
    pub(crate) fn follows(&self, workspace: u32, sandbox: u32) -> Result<Vec<(String, u64)>, QueryError> {
        let (from, to) = keys::follows(workspace, sandbox);
        let read = |key: &[u8], value: &[u8]| {
            Ok((keys::follow_pattern(key), u64::from_bytes(Bytes::copy_from_slice(value), "follow")?))
        };
        Ok(self.collect(&from, &to, read)?)
    }
}
