//! A disk of its own for each seat, which can be filled; and a clock of its own, which can be shifted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Room on it. The image takes only what is written.
const BYTES: u64 = 4 << 30;

/// A file system in a file, where that may be mounted; otherwise a folder, which cannot be filled.
pub(crate) struct Disk {
    path: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes one in this folder.
    pub(super) fn make(folder: &Path, may_mount: bool) -> Self {
        let path = folder.join("disk");
        fs::create_dir(&path).unwrap();
        let image = folder.join("disk.image");
        let mounted = may_mount && mount(&image, &path);
        Self { path, mounted }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether [`fill`](Self::fill) can do anything.
    pub(crate) fn can_be_filled(&self) -> bool {
        self.mounted
    }

    /// Takes all room that is left.
    pub(crate) fn fill(&self) {
        // fallocate takes no time; what it leaves, in ever smaller pieces, is taken too. What the node gives back meanwhile may
        // stay: taking that piece by piece would have no end.
        let script = r#"i=0; for size in 1G 256M 64M 16M 4M 1M 256K 64K 16K 4K; do for turn in 1 2 3 4; do
            i=$((i+1)); fallocate -l $size "$0/ballast.$i" 2>&- || { rm -f "$0/ballast.$i"; break; }; done; done"#;
        run(Command::new("sh").args(["-c", script]).arg(&self.path));
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        run(Command::new("sh").args(["-c", r#"rm -f "$0"/ballast.*"#]).arg(&self.path));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a process that is just being killed may still hold a file.
            run(Command::new("umount").arg("--lazy").arg(&self.path));
        }
    }
}

fn mount(image: &Path, path: &Path) -> bool {
    let file = fs::File::create(image).unwrap();
    file.set_len(BYTES).unwrap();
    let script =
        r#"exec 2>&1; mkfs.ext4 -q -F -m 0 -O ^has_journal -E lazy_itable_init=1 "$0" && mount -o loop "$0" "$1""#;
    run(Command::new("sh").args(["-c", script]).arg(image).arg(path))
}

/// Whether it went well; what it writes is of no interest.
pub(super) fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Where Debian puts libfaketime.
fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    libraries.chain([PathBuf::from("/usr/lib/faketime/libfaketimeMT.so.1")]).find(|library| library.exists())
}

/// Whether clocks can be shifted on this machine.
pub(crate) fn clocks_can_be_shifted() -> bool {
    faketime().is_some()
}

/// Has a command read the time of day through libfaketime, which adds what stands in this file, and looks there every second.
/// Clocks that only measure time are left alone, as when an operator sets the date.
pub(super) fn shift_clock(command: &mut Command, clock: &Path) {
    let Some(library) = faketime() else { return };
    if !clock.exists() {
        fs::write(clock, "+0s\n").unwrap();
    }
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
    command.env("FAKETIME_DONT_RESET", "1");
}
