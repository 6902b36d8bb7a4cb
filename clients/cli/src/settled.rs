//! What counts of the command line, the environment and a context, and to whom a context's token is shown.

use std::path::PathBuf;

use clap::{ArgMatches, parser::ValueSource};
use hyper::Uri;

use crate::{args::Global, contexts::Named};

/// What is built in.
const SERVER: &str = "http://127.0.0.1:8001";
const CONTROL_PLANE: &str = "http://127.0.0.1:8000";
const WORKSPACE: &str = "default";

/// Where a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    CommandLine,
    Environment,
    Context,
    BuiltIn,
}

/// A setting that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) from: Origin,
}

/// Whom a command speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asks {
    pub(crate) broker: bool,
    pub(crate) control_plane: bool,
}

/// What the user says, by where he says it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    command_line: Named,
    environment: Named,
    /// The context that is asked for.
    context: Option<String>,
    /// It is asked for on the command line.
    is_context_flag: bool,
}

/// What counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) server: Found<String>,
    pub(crate) control_plane: Found<String>,
    pub(crate) workspace: Found<String>,
    pub(crate) token_file: Option<Found<PathBuf>>,
    pub(crate) ca_file: Option<Found<PathBuf>>,
    pub(crate) cert_file: Option<Found<PathBuf>>,
    pub(crate) cert_key_file: Option<Found<PathBuf>>,
    /// Why the broker is not shown what the context keeps of who the user is; None: it is.
    not_to_broker: Option<String>,
    /// The same of the control plane.
    not_to_control_plane: Option<String>,
}

impl Given {
    /// Of what clap has read.
    pub(crate) fn new(global: &Global, matches: &ArgMatches) -> Self {
        let is_flag = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        Self {
            command_line: global.named(is_flag),
            environment: global.named(|id| !is_flag(id)),
            context: global.context.clone(),
            is_context_flag: is_flag("context"),
        }
    }

    /// The name of the context that is asked for.
    pub(crate) fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// Whether the command line and the environment say where everybody is whom a command speaks to.
    pub(crate) fn says_where(&self, asks: Asks) -> bool {
        let says = |of: fn(&Named) -> bool| of(&self.command_line) || of(&self.environment);
        (!asks.broker || says(|named| named.server.is_some()))
            && (!asks.control_plane || says(|named| named.control_plane.is_some()))
    }

    /// With what the context keeps that is used; one without anything where none is.
    pub(crate) fn settle(&self, kept: &Named) -> Settled {
        let line = (Origin::CommandLine, &self.command_line);
        let environment = (Origin::Environment, &self.environment);
        let context = (Origin::Context, kept);
        // Who names a context in a command means it, whatever the shell has exported.
        let layers = if self.is_context_flag { [line, context, environment] } else { [line, environment, context] };
        let text = |found: Option<Found<String>>, built_in: &str| {
            found.unwrap_or_else(|| Found { value: built_in.to_owned(), from: Origin::BuiltIn })
        };
        let server = text(first(layers, |named| &named.server), SERVER);
        let control_plane = text(first(layers, |named| &named.control_plane), CONTROL_PLANE);
        let cert_file = first(layers, |named| &named.cert_file);
        // A key is of use with its own certificate only.
        let is_kept = cert_file.as_ref().is_some_and(|found| found.from == Origin::Context);
        let beside = layers.into_iter().filter(|(from, _)| (*from == Origin::Context) == is_kept);
        Settled {
            not_to_broker: withheld(&server, kept.server.as_deref()),
            not_to_control_plane: withheld(&control_plane, kept.control_plane.as_deref()),
            server,
            control_plane,
            workspace: text(first(layers, |named| &named.workspace), WORKSPACE),
            token_file: first(layers, |named| &named.token_file),
            ca_file: first(layers, |named| &named.ca_file),
            cert_file,
            cert_key_file: first(beside, |named| &named.cert_key_file),
        }
    }
}

impl Settled {
    /// The token that the broker is shown.
    pub(crate) fn broker_token(&self) -> Option<PathBuf> {
        shown(self.token_file.as_ref(), self.not_to_broker.as_deref())
    }

    /// The token that the control plane is shown.
    pub(crate) fn control_plane_token(&self) -> Option<PathBuf> {
        shown(self.token_file.as_ref(), self.not_to_control_plane.as_deref())
    }

    /// The certificate that the broker is shown, and its key. The control plane asks for none.
    pub(crate) fn identity(&self) -> Option<(PathBuf, PathBuf)> {
        let of = |file: Option<&Found<PathBuf>>| shown(file, self.not_to_broker.as_deref());
        of(self.cert_file.as_ref()).zip(of(self.cert_key_file.as_ref()))
    }

    /// Why the broker is not shown the token of the context; None: it is, or the token is not of the context.
    pub(crate) fn withheld_from_broker(&self) -> Option<String> {
        self.not_to_broker.clone().filter(|_| self.is_token_kept())
    }

    /// The same of the control plane.
    pub(crate) fn withheld_from_control_plane(&self) -> Option<String> {
        self.not_to_control_plane.clone().filter(|_| self.is_token_kept())
    }

    fn is_token_kept(&self) -> bool {
        self.token_file.as_ref().is_some_and(|found| found.from == Origin::Context)
    }

    /// Who is not shown the token of the context, and why.
    pub(crate) fn token_withheld(&self) -> Option<String> {
        let whom = [("broker", &self.not_to_broker), ("control plane", &self.not_to_control_plane)];
        told(self.token_file.as_ref(), &whom)
    }

    /// The same of its certificate and key.
    pub(crate) fn certificate_withheld(&self) -> Option<String> {
        told(self.cert_file.as_ref(), &[("broker", &self.not_to_broker)])
    }
}

/// The first that says something.
fn first<'a, T: Clone>(
    layers: impl IntoIterator<Item = (Origin, &'a Named)>,
    of: impl Fn(&Named) -> &Option<T>,
) -> Option<Found<T>> {
    layers.into_iter().find_map(|(from, named)| Some(Found { value: of(named).clone()?, from }))
}

/// Why what a context keeps is not shown there; None: it keeps that very address.
fn withheld(going: &Found<String>, kept: Option<&str>) -> Option<String> {
    match kept {
        Some(kept) if going.from == Origin::Context || is_same(kept, &going.value) => None,
        Some(kept) => Some(format!("the context keeps {kept}, and this is {}", going.value)),
        None => Some("the context keeps no address of one".to_owned()),
    }
}

fn shown(file: Option<&Found<PathBuf>>, withheld: Option<&str>) -> Option<PathBuf> {
    file.filter(|found| found.from != Origin::Context || withheld.is_none()).map(|found| found.value.clone())
}

fn told(file: Option<&Found<PathBuf>>, whom: &[(&str, &Option<String>)]) -> Option<String> {
    file.filter(|found| found.from == Origin::Context)?;
    let told = whom.iter().filter_map(|(who, why)| Some(format!("not shown to the {who}: {}", (*why).as_ref()?)));
    let told = told.collect::<Vec<_>>().join("; ");
    (!told.is_empty()).then_some(told)
}

/// Whether two addresses are one: scheme, host, port and path, without a slash at its end.
fn is_same(one: &str, other: &str) -> bool {
    let parts = |text: &str| {
        let uri: Uri = text.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = if scheme == "https" { 443 } else { 80 };
        let host = uri.host()?.to_ascii_lowercase();
        Some((scheme, host, uri.port_u16().unwrap_or(usual), uri.path().trim_end_matches('/').to_owned()))
    };
    parts(one).is_some_and(|one| parts(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(server: Option<&str>, control_plane: Option<&str>, token_file: Option<&str>) -> Named {
        Named {
            server: server.map(str::to_owned),
            control_plane: control_plane.map(str::to_owned),
            token_file: token_file.map(PathBuf::from),
            ..Named::default()
        }
    }

    #[test]
    fn a_kept_token_goes_where_its_context_says_and_nowhere_else() {
        let (broker, plane) = (Some("https://b:8001"), Some("https://p:8000"));
        // What the context keeps, what is given, and who is shown the token: the broker, the control plane.
        let cases = [
            ((broker, plane), (None, None), (true, true)),
            ((broker, None), (None, None), (true, false)),
            ((None, plane), (None, None), (false, true)),
            ((None, None), (None, None), (false, false)),
            ((broker, None), (None, plane), (true, false)),
            ((broker, None), (None, broker), (true, false)),
            ((broker, plane), (Some("https://c:8001"), None), (false, true)),
            ((broker, plane), (None, Some("https://q:8000")), (true, false)),
            ((broker, plane), (Some("https://B:8001/"), Some("HTTPS://p:8000//")), (true, true)),
            ((broker, plane), (Some("http://b:8001"), Some("https://p")), (false, false)),
            ((broker, plane), (Some("https://b:8001@evil:8001"), Some("https://p:8000/other")), (false, false)),
            ((Some("https://b"), Some("http://p")), (Some("https://b:443"), Some("http://p:80/")), (true, true)),
            ((Some("no address"), plane), (None, None), (true, true)),
            ((Some("no address"), plane), (Some("no address"), None), (false, true)),
        ];
        for (kept, going, expected) in cases {
            for is_flag in [true, false] {
                let going = named(going.0, going.1, None);
                let (command_line, environment) =
                    if is_flag { (going, Named::default()) } else { (Named::default(), going) };
                let given = Given { command_line, environment, ..Given::default() };
                let settled = given.settle(&named(kept.0, kept.1, Some("token")));
                let found = (settled.broker_token().is_some(), settled.control_plane_token().is_some());
                assert_eq!(found, expected, "{kept:?} {given:?}");
                assert_eq!(settled.token_withheld().is_some(), expected != (true, true), "{settled:?}");
                let withheld = [settled.withheld_from_broker(), settled.withheld_from_control_plane()];
                assert_eq!(withheld.map(|why| why.is_none()), [expected.0, expected.1], "{settled:?}");
            }
        }
    }

    #[test]
    fn a_token_that_is_given_goes_wherever_the_user_goes() {
        let given = Given { environment: named(Some("http://c:1"), None, Some("mine")), ..Given::default() };
        let settled = given.settle(&named(Some("https://b:8001"), None, Some("token")));
        assert_eq!(settled.broker_token(), Some(PathBuf::from("mine")));
        assert_eq!(settled.control_plane_token(), Some(PathBuf::from("mine")));
        assert_eq!((settled.token_withheld(), settled.withheld_from_broker()), (None, None));
    }

    #[test]
    fn a_context_of_the_command_line_comes_before_the_environment() {
        let kept = named(Some("https://b:8001"), None, Some("token"));
        let environment = named(Some("http://e:1"), Some("http://e:2"), Some("exported"));
        let mut given = Given { environment, context: Some("prod".to_owned()), ..Given::default() };
        let found = |settled: Settled| (settled.server.clone(), settled.control_plane.from, settled.broker_token());
        let token = |name: &str| Some(PathBuf::from(name));
        let exported = Found { value: "http://e:1".to_owned(), from: Origin::Environment };
        assert_eq!(found(given.settle(&kept)), (exported, Origin::Environment, token("exported")));
        given.is_context_flag = true;
        let of_context = Found { value: "https://b:8001".to_owned(), from: Origin::Context };
        assert_eq!(found(given.settle(&kept)), (of_context, Origin::Environment, token("token")));
        given.command_line = named(Some("http://l:1"), None, None);
        let of_line = Found { value: "http://l:1".to_owned(), from: Origin::CommandLine };
        assert_eq!(found(given.settle(&kept)), (of_line, Origin::Environment, None));
    }

    #[test]
    fn a_key_stays_with_its_certificate() {
        let pair = |certificate: Option<&str>, key: &str| Named {
            server: Some("https://b:8001".to_owned()),
            cert_file: certificate.map(PathBuf::from),
            cert_key_file: Some(PathBuf::from(key)),
            ..Named::default()
        };
        let given = Given { environment: pair(None, "exported"), is_context_flag: true, ..Given::default() };
        let expected = |one: &str, other: &str| Some((PathBuf::from(one), PathBuf::from(other)));
        assert_eq!(given.settle(&pair(Some("cert"), "key")).identity(), expected("cert", "key"));
        let given = Given { command_line: pair(Some("mine"), "own"), ..given };
        assert_eq!(given.settle(&pair(Some("cert"), "key")).identity(), expected("mine", "own"));
    }

    #[test]
    fn what_is_said_is_said_of_whom_a_command_speaks_to() {
        let given = Given { environment: named(Some("http://e:1"), None, None), ..Given::default() };
        let asks = |broker, control_plane| given.says_where(Asks { broker, control_plane });
        assert!(asks(true, false) && asks(false, false));
        assert!(!asks(true, true) && !asks(false, true));
    }
}
