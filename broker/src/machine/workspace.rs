//! The record of a workspace, and its creation.

use bytes::{Bytes, BytesMut};

use super::{
    keys::{self, RECORDS},
    recent_ids::LotMarks,
    state::{State, StateError},
};
use crate::{
    command::{CreateWorkspace, SetQuotas, UpdateWorkspace, create_workspace::Settings},
    encoding::{DecodeError, Field, Reader, encoded},
    rejection::{Reason, Rejection},
};

encoded! {
    /// A tenant.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Workspace {
        version: Version,
        /// Names it in keys; never given twice on a shard.
        pub(crate) number: u32,
        pub(crate) create_time_ms: u64,
        /// The oldest sequence that is kept.
        pub(crate) first_sequence: u64,
        /// The newest sequence; 0 before the first message.
        pub(crate) last_sequence: u64,
        /// Bytes of all batches that were ever committed, and of those that were trimmed.
        pub(crate) committed_bytes: u64,
        pub(crate) trimmed_bytes: u64,
        pub(crate) next_sandbox: u32,
        pub(crate) sandboxes: u32,
        pub(crate) next_topic: u32,
        pub(crate) topics: u32,
        /// The newest event; 0 before the first.
        pub(crate) last_event: u64,
        /// For how long ids, producers and conversations are remembered, at least, in milliseconds. Fixed at creation.
        pub(crate) window_ms: u64,
        /// The newest window in which something was published; what is older than the one before is forgotten.
        pub(crate) newest_window: u32,
        pub(crate) settings: Settings,
        /// Broadcasts so far, and the sequence of the newest by priority.
        pub(crate) broadcasts: u64,
        pub(crate) newest_broadcast: ByPriority,
        /// Where the recent ids are in its log.
        pub(super) lots: LotMarks,
    }
}

/// The version of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version;

const VERSION: u8 = 3;

impl Field for Version {
    fn put(&self, out: &mut BytesMut) {
        VERSION.put(out);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8()? {
            VERSION => Ok(Self),
            value => Err(DecodeError::Unknown { what: "workspace version", value }),
        }
    }
}

/// One number for each priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ByPriority(pub(crate) [u64; 10]);

impl Field for ByPriority {
    fn put(&self, out: &mut BytesMut) {
        self.0.iter().for_each(|number| number.put(out));
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut numbers = Self::default();
        for number in &mut numbers.0 {
            *number = reader.u64()?;
        }
        Ok(numbers)
    }
}

impl Workspace {
    pub(crate) fn new(number: u32, create_time_ms: u64, window_ms: u64, settings: Settings) -> Self {
        Self {
            version: Version,
            number,
            create_time_ms,
            first_sequence: 1,
            last_sequence: 0,
            committed_bytes: 0,
            trimmed_bytes: 0,
            next_sandbox: 1,
            sandboxes: 0,
            next_topic: 1,
            topics: 0,
            last_event: 0,
            window_ms: window_ms.max(1),
            newest_window: 0,
            settings,
            broadcasts: 0,
            newest_broadcast: ByPriority::default(),
            lots: LotMarks::default(),
        }
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        Self::from_bytes(bytes, "workspace")
    }

    /// The number of the window that a time falls into.
    pub(crate) fn window(&self, time_ms: u64) -> u32 {
        (time_ms / self.window_ms).min(u64::from(u32::MAX)) as u32
    }
}

pub(super) fn create(state: &mut State, verb: &CreateWorkspace) -> Result<Result<(), Rejection>, StateError> {
    if state.workspace(&verb.workspace)?.is_some() {
        let text = format!("workspace {:?} exists already; choose another id", verb.workspace);
        return Ok(Err(Rejection::new(Reason::WorkspaceExists, text)));
    }
    let mut shard = state.shard()?;
    if shard.workspaces >= verb.max_workspaces {
        let text = format!("this shard has {} workspaces, as many as it may; delete one", verb.max_workspaces);
        return Ok(Err(Rejection::new(Reason::TooManyWorkspaces, text)));
    }
    let number = shard.next_workspace;
    shard.next_workspace += 1;
    shard.workspaces += 1;
    state.put_shard(shard);
    let window_ms = state.header().dedupe_window_ms;
    state.put(RECORDS, keys::workspace_name(number), verb.workspace.to_bytes());
    state.put_workspace(&verb.workspace, Workspace::new(number, state.now_ms(), window_ms, verb.settings));
    Ok(Ok(()))
}

pub(super) fn update(state: &mut State, verb: &UpdateWorkspace) -> Result<Result<(), Rejection>, StateError> {
    let Some(mut workspace) = state.workspace(&verb.workspace)?.cloned() else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    workspace.settings = verb.settings;
    state.put_workspace(&verb.workspace, workspace);
    Ok(Ok(()))
}

pub(super) fn set_quotas(state: &mut State, verb: &SetQuotas) -> Result<Result<(), Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    state.put(RECORDS, keys::quotas(workspace), verb.quotas.to_bytes());
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_comes_back_as_it_was() {
        let mut workspace = Workspace::new(3, 1000, 7, Settings { max_hops: 9, ..Settings::default() });
        workspace.last_sequence = 77;
        workspace.newest_broadcast.0[5] = 70;
        let bytes = workspace.to_bytes();
        assert_eq!(bytes[..13], [3, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 3, 232]);
        assert_eq!(Workspace::decode(bytes).unwrap(), workspace);
        assert_eq!((workspace.window(13), workspace.window(14), workspace.window(u64::MAX)), (1, 2, u32::MAX));
    }
}
