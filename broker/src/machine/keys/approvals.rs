//! Keys of what waits for approval, and of what did.

use bytes::Bytes;

use super::{message, named, tag, tagged_range};

fn numbered(tag: u8, workspace: u32, number: u64) -> Bytes {
    named(&[tag], "").into_iter().chain(message(workspace, number)).collect()
}

/// An approval by its number.
pub(crate) fn approval(workspace: u32, number: u64) -> Bytes {
    numbered(tag::APPROVAL, workspace, number)
}

/// Approvals of a workspace from a number down: from, to.
pub(crate) fn approvals_through(workspace: u32, number: u64) -> (Bytes, Bytes) {
    (approval(workspace, 0), super::behind(&approval(workspace, number)))
}

/// The message that an approval is about.
pub(crate) fn approval_message(workspace: u32, number: u64) -> Bytes {
    numbered(tag::APPROVAL_MESSAGE, workspace, number)
}

/// An approval that waits.
pub(crate) fn approval_waiting(workspace: u32, number: u64) -> Bytes {
    numbered(tag::APPROVAL_WAITING, workspace, number)
}

/// Approvals of a workspace that wait, from a number down: from, to.
pub(crate) fn approvals_waiting_through(workspace: u32, number: u64) -> (Bytes, Bytes) {
    (approval_waiting(workspace, 0), super::behind(&approval_waiting(workspace, number)))
}

/// The number of an approval by the order in which they ended.
pub(crate) fn approval_ended(workspace: u32, place: u64) -> Bytes {
    numbered(tag::APPROVAL_ENDED, workspace, place)
}

/// What a workspace holds of approvals.
pub(crate) fn approvals(workspace: u32) -> Bytes {
    tagged_range(tag::APPROVALS, workspace).0
}

/// What a sandbox has sent that waits for approval.
pub(crate) fn approvals_of(workspace: u32, from: &str) -> Bytes {
    let [a, b, c, d] = workspace.to_be_bytes();
    named(&[tag::APPROVALS_OF, a, b, c, d], from)
}
