//! Whether anybody still reads standard output.

use std::future;

/// Returns once who reads standard output has gone, as in `tandem sub bob | head -1`: a command that waits for more would
/// else learn it only when it has something to print. Never returns where that cannot be seen, as for a file.
#[cfg(unix)]
pub(crate) async fn output_closed() {
    let (gone, told) = tokio::sync::oneshot::channel();
    // A thread of its own, because it may wait for ever: nobody waits for it, and it ends with the process.
    let watch = move || {
        if watch::output() {
            gone.send(()).ok();
        }
    };
    let watches = std::thread::Builder::new().name("output".to_owned()).spawn(watch).is_ok();
    if !watches || told.await.is_err() {
        future::pending().await
    }
}

#[cfg(unix)]
mod watch {
    use rustix::{
        event::{PollFd, PollFlags, poll},
        io::Errno,
    };

    /// Waits until the other end of standard output has gone; false when that cannot be seen.
    pub(super) fn output() -> bool {
        let output = std::io::stdout();
        // Errors and the end are reported whatever is asked for.
        let mut watched = [PollFd::new(&output, PollFlags::empty())];
        loop {
            match poll(&mut watched, None) {
                Ok(_) => return watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// See the one for Unix.
#[cfg(not(unix))]
pub(crate) async fn output_closed() {
    future::pending().await
}
