//! From the arguments to the exit code.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser as _, error::ErrorKind};
use tandem_client::{Client, Settings, Token};

use crate::{
    args::{Cli, Command, Format},
    bench, commands,
    contexts::{self, Contexts, Named},
    exit::Failure,
    output::{CLEAR, Output},
    replay,
    settled::{Asks, Given, Origin, Settled},
};

/// The shortest pause between two looks.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// How often a command tries to publish one message.
const PUBLISH_ATTEMPTS: u32 = 6;

/// What a command gets besides its own arguments.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) server: String,
    /// Who says so.
    pub(crate) server_from: Origin,
    /// Where the control plane is.
    pub(crate) control_plane: String,
    /// Who says so.
    pub(crate) control_plane_from: Origin,
    /// Where the token is that the broker is shown.
    pub(crate) token_file: Option<PathBuf>,
    /// Where the one is that the control plane is shown.
    pub(crate) control_plane_token_file: Option<PathBuf>,
    /// Why the broker is not shown the token of the context; None: it is, or there is none.
    pub(crate) withheld_from_broker: Option<String>,
    /// The same of the control plane.
    pub(crate) withheld_from_control_plane: Option<String>,
    /// Who the caller is, and whom he trusts.
    pub(crate) settings: Settings,
    pub(crate) workspace: String,
    /// Between two runs of a command that is to be run again and again.
    pub(crate) watch: Option<Duration>,
    /// The context that is used.
    pub(crate) named: Option<String>,
    /// Why none is, though one is meant; for `tandem doctor`, who tells of it.
    pub(crate) unread: Option<Failure>,
    pub(crate) output: Output,
}

impl Context {
    /// Where another node is, spoken to in the same way.
    pub(crate) fn url(&self, address: &str) -> String {
        let scheme = self.server.split_once("://").map_or("http", |(scheme, _)| scheme);
        format!("{scheme}://{address}")
    }

    /// With the reason why somebody was shown no token, where there is one to be shown.
    pub(crate) fn explained(&self, failure: Failure) -> Failure {
        let withheld = match &failure {
            Failure::Broker(_) => self.withheld_from_broker.as_ref(),
            Failure::Problem(_) => self.withheld_from_control_plane.as_ref(),
            _ => None,
        };
        match withheld.filter(|_| failure.code() == "TOKEN_MISSING") {
            Some(why) => failure.advised(format!(
                "the context's token is withheld: {why} (tandem context show); to show one there: --token-file FILE"
            )),
            None => failure,
        }
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

fn settings(settled: &Settled) -> Settings {
    Settings {
        token: settled.broker_token().map(Token::from_file),
        tls_ca_file: settled.ca_file.as_ref().map(|found| found.value.clone()),
        tls_identity_files: settled.identity(),
        ..Settings::for_endpoint(settled.server.value.as_str())
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let (cli, given) = match Cli::given() {
        Ok(given) => given,
        Err(error) => return refuse_arguments(&error),
    };
    let json = cli.global.json || cli.global.output == Some(Format::Json);
    let output = Output { json, quiet: cli.global.quiet };
    match prepared(cli, &given, output) {
        Ok(code) => code,
        Err(failure) => output.fail(&failure),
    }
}

fn prepared(cli: Cli, given: &Given, output: Output) -> Result<ExitCode, Failure> {
    let command = match cli.command {
        Command::Context(args) => {
            return commands::context::run(args, &cli.global, given, output).map(|()| ExitCode::SUCCESS);
        }
        Command::Man(args) => return commands::man::run(args, output).map(|()| ExitCode::SUCCESS),
        command => command,
    };
    let context = Context { watch: cli.global.watch, ..context(given, &command, output)? };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed("START_FAILED", format!("no runtime: {error}")))?;
    let done = match context.watch {
        Some(pause) => runtime.block_on(Box::pin(watch(&context, command, pause))),
        None => runtime.block_on(Box::pin(run(&context, command))),
    };
    done.map(|()| ExitCode::SUCCESS).map_err(|failure| context.explained(failure))
}

/// What the command line, the environment and a context say.
fn context(given: &Given, command: &Command, output: Output) -> Result<Context, Failure> {
    let tells = matches!(command, Command::Doctor);
    let (picked, unread) = match picked(given, command.asks(), tells, output) {
        Ok(picked) => (picked, None),
        Err(failure) if tells => (None, Some(failure)),
        Err(failure) => return Err(failure),
    };
    let (named, values) = picked.map_or((None, Named::default()), |(name, named)| (Some(name), named));
    let settled = given.settle(&values);
    Ok(Context {
        settings: settings(&settled),
        token_file: settled.broker_token(),
        control_plane_token_file: settled.control_plane_token(),
        withheld_from_broker: settled.withheld_from_broker(),
        withheld_from_control_plane: settled.withheld_from_control_plane(),
        server_from: settled.server.from,
        server: settled.server.value,
        control_plane_from: settled.control_plane.from,
        control_plane: settled.control_plane.value,
        workspace: settled.workspace.value,
        watch: None,
        named,
        unread,
        output,
    })
}

/// The context that is used, with its name. A file that cannot be read is in the way of whoever may need what stands there: what is
/// built in is not what he means. It is always in the way of who tells of it.
fn picked(given: &Given, asks: Asks, tells: bool, output: Output) -> Result<Option<(String, Named)>, Failure> {
    let kept = match contexts::file().and_then(|file| Contexts::read(&file)) {
        Err(failure)
            if given.context().is_none()
                && (failure.code() == "NO_CONTEXTS_FILE" || (!tells && given.says_where(asks))) =>
        {
            output.note(&format!("no context is used: {failure}"));
            Contexts::default()
        }
        read => read?,
    };
    Ok(kept.pick(given.context())?.map(|(name, named)| (name.to_owned(), named.clone())))
}

/// Whether there is enough time between two looks, as an option says.
pub(crate) fn check_pause(option: &str, pause: Duration) -> Result<(), Failure> {
    if pause < MIN_PAUSE {
        return Err(Failure::usage(format!("{option} is at least {}", humantime::format_duration(MIN_PAUSE))));
    }
    Ok(())
}

/// Runs a command again and again, each time as it was given.
async fn watch(context: &Context, mut command: Command, pause: Duration) -> Result<(), Failure> {
    if !command.only_looks() {
        return Err(Failure::usage(
            "--watch is for commands that only look, such as: tandem sandbox list, tandem dlq list",
        ));
    }
    check_pause("--watch", pause)?;
    let is_live = std::io::stdout().is_terminal() && !context.output.json;
    let mut is_first = true;
    loop {
        if is_live {
            context.output.line(CLEAR.trim_end())?;
        }
        match run(context, command).await.map_err(|failure| context.explained(failure)) {
            Ok(()) => {}
            // Whoever watches wants to see it come back.
            Err(failure) if failure.may_pass() => drop(context.output.fail(&failure)),
            // Somebody may be renewing it.
            Err(failure) if !is_first && failure.code() == "FILE_UNREADABLE" => drop(context.output.fail(&failure)),
            Err(failure) => return Err(failure),
        }
        is_first = false;
        tokio::time::sleep(pause).await;
        command = match Cli::try_parse() {
            Ok(again) => again.command,
            Err(error) => return Err(Failure::usage(error.to_string())),
        };
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
        Command::Doctor => commands::doctor::run(context).await,
        Command::Top(args) => commands::top::run(context, args).await,
        // They need no context.
        Command::Context(_) | Command::Man(_) => Ok(()),
    }
}

/// Help and version are no failures; everything else is a wrong use, told as JSON to a program that asked for it.
fn refuse_arguments(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked || !wants_json() {
        // Standard output may be closed already, as in `tandem --help | head`.
        error.print().ok();
        return if asked { ExitCode::SUCCESS } else { ExitCode::from(2) };
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim();
    Output { json: true, quiet: false }.fail(&Failure::usage(text))
}

/// Whether JSON was asked for, by arguments that are otherwise wrong.
fn wants_json() -> bool {
    let arguments: Vec<_> = std::env::args_os().take_while(|argument| argument != "--").collect();
    arguments.iter().any(|argument| argument == "--json" || argument == "--output=json")
        || arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json")
}

#[cfg(test)]
mod tests {
    use tandem_client::{Code, Error, Refusal};

    use super::*;

    #[test]
    fn who_is_shown_no_token_hears_why() {
        let context = Context {
            server: "http://c:1".to_owned(),
            server_from: Origin::CommandLine,
            control_plane: "http://p:1".to_owned(),
            control_plane_from: Origin::Context,
            token_file: None,
            control_plane_token_file: None,
            withheld_from_broker: Some("the context keeps http://b:1".to_owned()),
            withheld_from_control_plane: None,
            settings: Settings::default(),
            workspace: "default".to_owned(),
            watch: None,
            named: None,
            unread: None,
            output: Output { json: true, quiet: true },
        };
        let refused = |reason: &str| {
            Failure::Broker(Error::Refused(Box::new(Refusal {
                code: Code::Unauthenticated,
                reason: reason.to_owned(),
                text: "text".to_owned(),
                field_violations: Vec::new(),
                retry_delay: None,
            })))
        };
        let next = |context: &Context, reason: &str| context.explained(refused(reason)).next().unwrap();
        let said = next(&context, "TOKEN_MISSING");
        assert!(said.contains("http://b:1") && said.contains("tandem context show"), "{said}");
        assert!(!next(&context, "TOKEN_EXPIRED").contains("withheld"));
        let shown = Context { withheld_from_broker: None, ..context };
        assert!(!next(&shown, "TOKEN_MISSING").contains("withheld"));
    }
}
