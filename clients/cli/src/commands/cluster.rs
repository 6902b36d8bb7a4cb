//! `tandem cluster`.

mod change;
mod status;
mod verify;

use crate::{args::ClusterArgs, exit::Failure, run::Context};

pub(crate) async fn run(context: &Context, args: ClusterArgs) -> Result<(), Failure> {
    change::run(context, args.command).await
}
