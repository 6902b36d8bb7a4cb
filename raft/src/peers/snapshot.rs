//! A snapshot on its way to a follower that is too far behind for the log: its files, piece by piece, on the connection that
//! everything else uses. One piece is under way at a time, so that heartbeats and appends get through in between.
//!
//! ```text
//! SNAPSHOT_BEGIN   vote, contents          -> transfer u64           what will come; the receiver keeps of what it has
//! SNAPSHOT_FILE    transfer, place         -> where to go on u64     what is there of it; all of it: it is not sent
//! SNAPSHOT_PIECE   transfer, place, bytes  -> where to go on u64     0 after the last one: the checksum is wrong
//! SNAPSHOT_END     transfer, hurried       -> what came of it        all is there; asked again as long as it goes on
//! ```

mod intake;
mod receive;
mod send;

pub(crate) use self::intake::Intake;
pub(super) use self::{
    receive::Receiver,
    send::{Sending, changed, judge_whole, report_damaged},
};
