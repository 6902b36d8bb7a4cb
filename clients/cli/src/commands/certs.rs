//! `tandem certs`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::json;

use crate::{
    args::{CertsArgs, CertsCommand, CreateCertsArgs},
    clock,
    exit::Failure,
    run::Context,
};

/// How long an authority holds.
const AUTHORITY_DAYS: u32 = 3_650;
const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn run(context: &Context, args: &CertsArgs) -> Result<(), Failure> {
    let CertsCommand::Create(args) = &args.command;
    let failed = |text: String| Failure::failed("CERTIFICATE_NOT_MADE", text);
    // It becomes the name of a file.
    if args.name == "ca" || args.name.is_empty() || args.name.contains(['/', '\\', '\0']) {
        return Err(Failure::usage("--name must be the name of a file, and not ca"));
    }
    if let Some(host) = args.hosts.iter().find(|host| host.is_empty() || host.contains(char::is_whitespace)) {
        return Err(Failure::usage(format!("--host {host:?} is no name of a host, address or URI")));
    }
    fs::create_dir_all(&args.dir).map_err(|error| failed(format!("{}: {error}", args.dir.display())))?;
    create(args).map_err(|error| failed(error.to_string()))?;
    let file = |suffix: &str| args.dir.join(format!("{}{suffix}", args.name));
    let (certificate, key, authority) = (file(".pem"), file("-key.pem"), args.dir.join("ca.pem"));
    context.output.result(
        || json!({ "certificate": certificate, "key": key, "authority": authority, "hosts": args.hosts }),
        || {
            format!(
                "certificate  {}\nkey          {}\nauthority    {}\n",
                certificate.display(),
                key.display(),
                authority.display()
            )
        },
    )
}

fn create(args: &CreateCertsArgs) -> Result<(), Box<dyn std::error::Error>> {
    let issuer = authority(&args.dir)?;
    let key = KeyPair::generate()?;
    let (uris, hosts): (Vec<_>, Vec<_>) = args.hosts.iter().cloned().partition(|host| host.contains("://"));
    let mut params = valid(CertificateParams::new(hosts)?, args.days);
    for uri in uris {
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    }
    params.distinguished_name.push(DnType::CommonName, args.name.as_str());
    // Nodes show the same one where they are clients of each other.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer)?;
    write_secret(&args.dir.join(format!("{}-key.pem", args.name)), &key.serialize_pem())?;
    fs::write(args.dir.join(format!("{}.pem", args.name)), certificate.pem())?;
    Ok(())
}

/// The authority of a directory; made where there is none.
fn authority(dir: &Path) -> Result<Issuer<'static, KeyPair>, Box<dyn std::error::Error>> {
    let (certificate, key) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
    let mut params = valid(CertificateParams::new(Vec::new())?, AUTHORITY_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "AInTandem development");
    if certificate.exists() && key.exists() {
        // What is signed names the authority and its key; both are the same each time.
        let key = KeyPair::from_pem(&fs::read_to_string(&key)?)?;
        return Ok(Issuer::new(params, key));
    }
    let pair = KeyPair::generate()?;
    write_secret(&key, &pair.serialize_pem())?;
    fs::write(&certificate, params.self_signed(&pair)?.pem())?;
    Ok(Issuer::new(params, pair))
}

fn valid(mut params: CertificateParams, days: u32) -> CertificateParams {
    let now = clock::now();
    // Clocks of others may be behind.
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * days).into();
    params
}

/// Readable for its owner only, from the beginning.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}
