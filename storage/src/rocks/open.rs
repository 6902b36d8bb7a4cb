//! Opening a directory, with errors that say what to do.

use std::path::Path;

use rocksdb::{Cache, ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, Options};

use super::{
    failure, files,
    options::{RocksOptions, SpaceOptions},
    tuning,
};
use crate::{Error, directory};

/// The file that names the current manifest. A directory without it holds no database yet.
pub(super) const CURRENT_FILE: &str = "CURRENT";

pub(super) fn open(path: &Path, options: &RocksOptions, spaces: &[SpaceOptions]) -> Result<DB, Error> {
    options.check(path)?;
    check_names(path, spaces)?;
    directory::create(path)?;
    files::verify(path, &mut |_| true)?;
    let database = tuning::database(options);
    if path.join(CURRENT_FILE).exists() {
        check_stored_families(path, &database, spaces)?;
    }
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    let families = spaces
        .iter()
        .map(|space| ColumnFamilyDescriptor::new(space.name, tuning::family(options, space, &cache)))
        .collect::<Vec<_>>();
    DB::open_cf_descriptors(&database, path, families).map_err(|error| failure::of_open(path, error))
}

fn check_names(path: &Path, spaces: &[SpaceOptions]) -> Result<(), Error> {
    if spaces.is_empty() || spaces.len() > 256 {
        return Err(directory::unusable(path, format!("{} spaces were given; give 1 to 256", spaces.len())));
    }
    for (position, space) in spaces.iter().enumerate() {
        if space.name.is_empty() || space.name.contains('\0') || space.name == DEFAULT_COLUMN_FAMILY_NAME {
            return Err(directory::unusable(path, format!("{:?} cannot name a space; choose another", space.name)));
        }
        if spaces[..position].iter().any(|earlier| earlier.name == space.name) {
            return Err(directory::unusable(path, format!("the space {:?} was given twice; remove one", space.name)));
        }
    }
    Ok(())
}

/// RocksDB refuses a directory with families that it is not told about. Says which they are.
fn check_stored_families(path: &Path, database: &Options, spaces: &[SpaceOptions]) -> Result<(), Error> {
    let stored = DB::list_cf(database, path).map_err(|error| failure::of_open(path, error))?;
    let is_known = |name: &str| name == DEFAULT_COLUMN_FAMILY_NAME || spaces.iter().any(|space| space.name == name);
    let unknown: Vec<_> = stored.into_iter().filter(|name| !is_known(name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "it holds data that this program does not know ({}); it was written by another or newer version, use that one or \
         choose another directory",
        unknown.join(", ")
    );
    Err(directory::unusable(path, reason))
}
