//! `tandem certs`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `tandem certs`.
#[derive(Debug, Args)]
pub struct CertsArgs {
    /// What to do with certificates.
    #[command(subcommand)]
    pub command: CertsCommand,
}

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make a certificate, and an authority that signs it where there is none yet
    Create(CreateCertsArgs),
}

/// `tandem certs create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Writes ca.pem and ca-key.pem, unless they are there, and NAME.pem and NAME-key.pem. For development: who
has ca-key.pem can be anybody. Example:

  tandem certs create --dir certs --name broker --host localhost --host 127.0.0.1
  tandem-broker --set tls.cert_file=certs/broker.pem --set tls.key_file=certs/broker-key.pem …
  tandem --server https://localhost:8001 --ca-file certs/ca.pem info")]
pub struct CreateCertsArgs {
    /// Where the files go; made when absent
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// What the files are called
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// A name, an address or a URI (spiffe://…) that the certificate is valid for; several are allowed
    #[arg(long = "host", value_name = "HOST", required = true)]
    pub hosts: Vec<String>,
    /// Days that it holds
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub days: u32,
}
