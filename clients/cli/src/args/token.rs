//! `tandem token`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use tandem_broker::auth::Role;

/// `tandem token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// What to do with tokens.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Sign a token with a key of the broker's settings; asks no broker, and is not listed
    Create(Box<CreateTokenArgs>),
    /// Have the broker make a token that can be renewed, and print it
    Issue(Box<IssueTokenArgs>),
    /// Have the broker make a later one of the token in --token-file, and print it
    Renew(RenewTokenArgs),
    /// List tokens that the broker has made, or that were revoked; until a day after their end
    #[command(visible_alias = "ls")]
    List,
    /// End a token for good, with all that it was renewed to; streams that were opened with it end within a second
    Revoke(RevokeTokenArgs),
}

/// `tandem token issue`.
#[derive(Debug, Args)]
#[command(after_help = "\
The broker needs a key to sign with, auth.signing_key. Example, for the sandbox that a container is:

  tandem token issue --subject build --role sandbox --bind-workspace default --bind-sandbox build > token
  tandem --token-file token token renew --keep")]
pub struct IssueTokenArgs {
    /// Whose token it is
    #[arg(long, value_name = "NAME")]
    pub subject: String,
    /// What he is there for; several are allowed
    #[arg(long = "role", value_name = "ROLE", required = true)]
    pub roles: Vec<Role>,
    /// Bind the token to this workspace; without it, it holds for all
    #[arg(long = "bind-workspace", value_name = "ID")]
    pub bind_workspace: Option<String>,
    /// Bind the token to this sandbox of the workspace
    #[arg(long = "bind-sandbox", value_name = "ID", requires = "bind_workspace")]
    pub bind_sandbox: Option<String>,
    /// How long it holds before it is to be renewed, 10s to 1day
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "15m")]
    pub lifetime: Duration,
    /// For how long it can be renewed, at most 366days
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "30days")]
    pub renewable_for: Duration,
}

/// `tandem token renew`.
#[derive(Debug, Args)]
pub struct RenewTokenArgs {
    /// Go on: write it to --token-file, and renew it again when two thirds of its time are over
    #[arg(long)]
    pub keep: bool,
}

/// `tandem token revoke`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["id", "token"]))]
pub struct RevokeTokenArgs {
    /// Its id, as `tandem token list` shows it, or what it says in `jti`
    #[arg(value_name = "TOKEN_ID")]
    pub id: Option<String>,
    /// File with the token itself
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,
    /// Who has signed it, `iss`, for one of auth.jwks_url
    #[arg(long, value_name = "NAME")]
    pub issuer: Option<String>,
    /// The id is of a token that this broker has not made: it is remembered for a year
    #[arg(long, conflicts_with = "token")]
    pub made_elsewhere: bool,
}

/// `tandem token create`.
#[derive(Debug, Args)]
#[command(after_help = "\
The key is the counterpart of one in the broker's auth.keys: the same secret for HS256, otherwise the
private key as PEM (PKCS#8). Example:

  head -c 32 /dev/urandom | base64 > secret
  tandem-broker --set 'auth.keys=[\"k1=HS256:secret\"]'
  tandem token create --key-file secret --key-id k1 --subject zoe --role developer > token
  tandem --token-file token info")]
pub struct CreateTokenArgs {
    /// The key that signs
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
    /// Its name in the settings of the broker
    #[arg(long, value_name = "NAME")]
    pub key_id: String,
    /// What it is for
    #[arg(long, value_enum, default_value_t = TokenAlgorithm::Hs256)]
    pub algorithm: TokenAlgorithm,
    /// Whose token it is
    #[arg(long, value_name = "NAME")]
    pub subject: String,
    /// What he is there for; several are allowed
    #[arg(long = "role", value_name = "ROLE", required = true)]
    pub roles: Vec<Role>,
    /// Bind the token to this workspace; without it, it holds for all
    #[arg(long = "bind-workspace", value_name = "ID")]
    pub bind_workspace: Option<String>,
    /// Bind the token to this sandbox of the workspace
    #[arg(long = "bind-sandbox", value_name = "ID", requires = "bind_workspace")]
    pub bind_sandbox: Option<String>,
    /// How long it holds
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub expires_in: Duration,
    /// Whom it is for: auth.audience of the broker
    #[arg(long, value_name = "NAME", default_value = "aintandem")]
    pub audience: String,
    /// Who has made it: auth.issuer of the broker
    #[arg(long, value_name = "NAME")]
    pub issuer: Option<String>,
}

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenAlgorithm {
    /// With a secret that the broker has, too
    #[value(name = "HS256")]
    Hs256,
    /// RSA
    #[value(name = "RS256")]
    Rs256,
    /// The elliptic curve P-256
    #[value(name = "ES256")]
    Es256,
    /// Ed25519
    #[value(name = "EdDSA")]
    EdDsa,
}
