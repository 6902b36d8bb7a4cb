//! From the arguments to the exit code.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser as _, error::ErrorKind};
use tandem_client::{Client, Settings, Token};

use crate::{
    args::{Cli, Command, Global},
    bench, commands,
    exit::Failure,
    output::Output,
    replay,
};

/// How often a command tries to publish one message.
const PUBLISH_ATTEMPTS: u32 = 6;

/// What a command gets besides its own arguments.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) server: String,
    /// Where the control plane is.
    pub(crate) control_plane: String,
    /// Where the caller's token is.
    pub(crate) token_file: Option<PathBuf>,
    /// Who the caller is, and whom he trusts.
    pub(crate) settings: Settings,
    pub(crate) workspace: String,
    pub(crate) output: Output,
}

impl Context {
    /// Where another node is, spoken to in the same way.
    pub(crate) fn url(&self, address: &str) -> String {
        let scheme = self.server.split_once("://").map_or("http", |(scheme, _)| scheme);
        format!("{scheme}://{address}")
    }

    /// A connection of its own; it connects when it is first used.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.readable()?;
        // Who sits in front of it hears soon that no broker runs; the waits in between are long enough for a handover.
        Ok(Client::with_settings(Settings { attempts: PUBLISH_ATTEMPTS, ..self.settings.clone() })?)
    }

    /// What the arguments name must be there when a broker is first spoken to; later it may be missing for a moment, while somebody
    /// renews it. Where none is spoken to it is not needed, and may be what the command writes.
    pub(crate) fn readable(&self) -> Result<(), Failure> {
        let Settings { tls_ca_file, tls_identity_files, .. } = &self.settings;
        let (certificate, key) = tls_identity_files.as_ref().map(|(certificate, key)| (certificate, key)).unzip();
        for file in [self.token_file.as_ref(), tls_ca_file.as_ref(), certificate, key].into_iter().flatten() {
            let text = std::fs::read_to_string(file).map_err(|error| Failure::file(file, &error))?;
            if text.trim().is_empty() {
                let empty = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it is empty");
                return Err(Failure::file(file, &empty));
            }
        }
        Ok(())
    }
}

fn settings(global: &Global) -> Settings {
    Settings {
        token: global.token_file.as_ref().map(Token::from_file),
        tls_ca_file: global.ca_file.clone(),
        tls_identity_files: global.cert_file.clone().zip(global.cert_key_file.clone()),
        ..Settings::for_endpoint(global.server.as_str())
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&error),
    };
    let output = Output { json: cli.global.json, quiet: cli.global.quiet };
    let context = Context {
        settings: settings(&cli.global),
        token_file: cli.global.token_file,
        server: cli.global.server,
        control_plane: cli.global.control_plane,
        workspace: cli.global.workspace,
        output,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.fail(&Failure::failed("START_FAILED", format!("no runtime: {error}"))),
    };
    match runtime.block_on(Box::pin(run(&context, cli.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.fail(&failure),
    }
}

async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev(args) => commands::dev::run(context, args).await,
        Command::Workspace(args) => commands::workspace::run(context, args).await,
        Command::Sandbox(args) => commands::sandbox::run(context, args).await,
        Command::Up(args) => commands::team::up(context, args).await,
        Command::Down(args) => commands::team::down(context, args).await,
        Command::Agents(args) => commands::agents::run(context, args).await,
        Command::Pub(args) => commands::publish::run(context, args).await,
        Command::Sub(args) => commands::subscribe::run(context, args).await,
        Command::Nack(args) => commands::nack::run(context, args).await,
        Command::Request(args) => commands::request::run(context, args).await,
        Command::Topic(args) => commands::topic::run(context, args).await,
        Command::Dlq(args) => commands::dlq::run(context, args).await,
        Command::Get(args) => commands::history::get(context, args).await,
        Command::History(args) => commands::history::list(context, args).await,
        Command::ReplayRange(args) => commands::replay_range::run(context, args).await,
        Command::Events(args) => commands::events::run(context, args).await,
        Command::Cluster(args) => commands::cluster::run(context, args).await,
        Command::Token(args) => commands::token::run(context, &args).await,
        Command::Key(args) => commands::key::run(context, args).await,
        Command::Policy(args) => commands::policy::run(context, args).await,
        Command::Approval(args) => commands::approval::run(context, args).await,
        Command::Audit(args) => commands::audit::run(context, args).await,
        Command::Certs(args) => commands::certs::run(context, &args),
        Command::Roles => commands::roles::run(context),
        Command::Info => commands::info::run(context).await,
        Command::Replay(args) => replay::run(context, args).await,
        Command::Bench(args) => bench::run(context, args).await,
        Command::Completions(args) => commands::completions::run(args),
    }
}

/// Help and version are no failures; everything else is a wrong use, told as JSON to a program that asked for it.
fn refuse_arguments(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let wants_json = std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json");
    if asked || !wants_json {
        // Standard output may be closed already, as in `tandem --help | head`.
        error.print().ok();
        return if asked { ExitCode::SUCCESS } else { ExitCode::from(2) };
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim();
    Output { json: true, quiet: false }.fail(&Failure::usage(text))
}
