//! The record of a workspace, and its creation.

use bytes::{BufMut, Bytes, BytesMut};

use super::state::{State, StateError};
use crate::{
    command::CreateWorkspace,
    encoding::{DecodeError, Reader},
    rejection::{Reason, Rejection},
};

const VERSION: u8 = 1;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workspace {
    /// Names it in keys; never given twice on a shard.
    pub(crate) number: u32,
    pub(crate) create_time_ms: u64,
    /// The newest sequence; 0 before the first message.
    pub(crate) last_sequence: u64,
    pub(crate) next_sandbox: u32,
    pub(crate) sandboxes: u32,
    /// Broadcasts so far, and the sequence of the newest by priority.
    pub(crate) broadcasts: u64,
    pub(crate) newest_broadcast: [u64; 10],
}

impl Workspace {
    fn new(number: u32, create_time_ms: u64) -> Self {
        Self {
            number,
            create_time_ms,
            last_sequence: 0,
            next_sandbox: 1,
            sandboxes: 0,
            broadcasts: 0,
            newest_broadcast: [0; 10],
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(VERSION);
        out.put_u32(self.number);
        out.put_u64(self.create_time_ms);
        out.put_u64(self.last_sequence);
        out.put_u32(self.next_sandbox);
        out.put_u32(self.sandboxes);
        out.put_u64(self.broadcasts);
        self.newest_broadcast.iter().for_each(|sequence| out.put_u64(*sequence));
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, "workspace");
        match reader.u8()? {
            VERSION => {}
            value => return Err(DecodeError::Unknown { what: "workspace version", value }),
        }
        let mut workspace = Self::new(reader.u32()?, reader.u64()?);
        workspace.last_sequence = reader.u64()?;
        workspace.next_sandbox = reader.u32()?;
        workspace.sandboxes = reader.u32()?;
        workspace.broadcasts = reader.u64()?;
        for sequence in &mut workspace.newest_broadcast {
            *sequence = reader.u64()?;
        }
        reader.end()?;
        Ok(workspace)
    }
}

pub(super) fn create(
    state: &mut State,
    verb: &CreateWorkspace,
    time_ms: u64,
) -> Result<Result<(), Rejection>, StateError> {
    if state.workspace(&verb.workspace)?.is_some() {
        let text = format!("workspace {:?} exists already; choose another id", verb.workspace);
        return Ok(Err(Rejection::new(Reason::WorkspaceExists, text)));
    }
    if state.shard()?.workspaces >= verb.max_workspaces {
        let text = format!("this shard has {} workspaces, as many as it may; delete one", verb.max_workspaces);
        return Ok(Err(Rejection::new(Reason::TooManyWorkspaces, text)));
    }
    let number = state.take_workspace_number()?;
    state.put_workspace(&verb.workspace, Workspace::new(number, time_ms));
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_comes_back_as_it_was() {
        let mut workspace = Workspace::new(3, 1000);
        workspace.last_sequence = 77;
        workspace.newest_broadcast[5] = 70;
        let bytes = workspace.encode();
        assert_eq!(bytes[..13], [1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 3, 232]);
        assert_eq!(Workspace::decode(bytes).unwrap(), workspace);
    }
}
