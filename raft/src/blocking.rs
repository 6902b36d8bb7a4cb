//! Work that waits for a disk, where it holds up nobody. On a runtime with one thread it is done on the spot: there is nobody
//! whom it would hold up, and a simulation needs it to be done at a certain moment.

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task,
};

fn has_workers() -> bool {
    Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread
}

/// Does the work on a thread for such work.
///
/// # Errors
/// When the work panicked, or the runtime ends.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, task::JoinError> {
    if has_workers() { task::spawn_blocking(work).await } else { Ok(work()) }
}

/// Does short work here, after handing this worker's other tasks to another one.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if has_workers() { task::block_in_place(work) } else { work() }
}

/// The same, for work that nobody waits for.
pub(crate) fn begin(work: impl FnOnce() + Send + 'static) {
    if has_workers() {
        drop(task::spawn_blocking(work));
    } else {
        work();
    }
}
