//! `tandem roles`.

use serde_json::json;
use tandem_broker::auth::roles::{Role, Roles, TABLE};

use crate::{exit::Failure, output::table, run::Context};

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    context.output.result(
        || {
            let rpcs = TABLE.iter().map(
                |rule| json!({ "rpc": rule.path, "roles": rule.roles.iter().map(Role::name).collect::<Vec<_>>() }),
            );
            json!({ "rpcs": rpcs.collect::<Vec<_>>() })
        },
        || {
            let headings: Vec<_> = std::iter::once("RPC").chain(Role::ALL.map(Role::name)).collect();
            let rows = TABLE.iter().map(|rule| {
                let name = rule.path.rsplit_once('.').map_or(rule.path, |(_, name)| name);
                let may = Role::ALL.map(|role| if rule.roles.meets(Roles::of(role)) { "yes" } else { "" }.to_owned());
                std::iter::once(name.to_owned()).chain(may).collect()
            });
            table(&headings, rows)
        },
    )
}
