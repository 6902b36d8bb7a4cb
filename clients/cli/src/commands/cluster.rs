//! `tandem cluster`.

mod change;
mod status;

use crate::{args::ClusterArgs, exit::Failure, run::Context};

pub(crate) async fn run(context: &Context, args: ClusterArgs) -> Result<(), Failure> {
    change::run(context, args.command).await
}
