//! Tells what waits in the lanes of a sandbox.

use super::{QueryError, StateReader};
use crate::{
    batch::{Kind, MessageRef},
    command::{Lane, Source},
    machine::{
        StateError,
        inbox::Inbox,
        keys::{self, RUNS},
        publish::decode_run,
        topic,
        workspace::Workspace,
    },
    rejection::Rejection,
};

/// The lanes of one sandbox, as they were when this was read.
pub(crate) struct Lanes<'a> {
    reader: &'a StateReader,
    workspace: u32,
    sandbox: u32,
    name: String,
    inbox: Inbox,
    patterns: Vec<String>,
}

impl StateReader {
    /// The lanes of a sandbox of this name, or the refusal that says it is not there.
    pub(crate) fn lanes(&self, workspace: &Workspace, name: &str) -> Result<Lanes<'_>, QueryError> {
        let sandbox = self.sandbox(workspace.number, name)?.number;
        let inbox = self.inbox(workspace.number, sandbox)?.ok_or_else(|| Rejection::unknown_sandbox(name))?;
        let patterns = self.follow_patterns(workspace.number, sandbox)?;
        Ok(Lanes { reader: self, workspace: workspace.number, sandbox, name: name.to_owned(), inbox, patterns })
    }
}

impl Lanes<'_> {
    /// Whether a message waits in one of the lanes, leased or not.
    pub(crate) fn hold(&self, message: &MessageRef) -> Result<bool, StateError> {
        let (record, sequence) = (message.record(), message.sequence());
        let lane = |source: Source| Lane { source, priority: record.priority };
        let waits = |source: Source| self.inbox.cursor(lane(source)).is_some_and(|cursor| !cursor.contains(sequence));
        match record.kind {
            Kind::Direct if record.to == self.name => Ok(waits(Source::Direct) && self.is_in_run(message)?),
            Kind::Several if record.recipients().any(|number| number == self.sandbox) => {
                Ok(waits(Source::Direct) && self.is_in_run(message)?)
            }
            Kind::Broadcast => Ok(record.from != self.name && waits(Source::Broadcast)),
            Kind::Topic
                if record.from != self.name
                    && self.patterns.iter().any(|pattern| topic::matches(pattern, record.to)) =>
            {
                let topic = match self.reader.topic(self.workspace, record.to) {
                    Ok(topic) => topic,
                    Err(QueryError::State(error)) => return Err(error),
                    Err(QueryError::Rejected(_)) => return Ok(false),
                };
                let cursors = self.reader.topic_cursors(self.workspace, topic.number, self.sandbox)?;
                let waits = !cursors.cursor(record.priority).contains(sequence);
                // An earlier topic of this name may have had it.
                Ok(waits && self.run_has(topic.number, message)?)
            }
            // What waits for a capability, or came by it, waits on its own.
            Kind::Direct | Kind::Several | Kind::Topic | Kind::Wanted | Kind::Void => Ok(false),
        }
    }

    /// A message that was delayed, taken by a waiting request or buried never was in the lane.
    fn is_in_run(&self, message: &MessageRef) -> Result<bool, StateError> {
        self.run_has(self.sandbox, message)
    }

    fn run_has(&self, source: u32, message: &MessageRef) -> Result<bool, StateError> {
        let key = keys::run(self.workspace, source, message.record().priority, message.batch.first_sequence);
        let run = self.reader.engine().get(RUNS, &key)?;
        Ok(run.is_some_and(|run| decode_run(&run).contains(&message.index)))
    }
}
