//! `tandem audit`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    pin::pin,
    time::SystemTime,
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use serde::Serialize;
use serde_json::{Value, json};
use tandem_broker::audit::{
    Hash, Kind, Line, Record, Start,
    anchor::{AnchorPublicKey, Anchors},
    hex, verify,
};
use tandem_client::{Audit, AuditChain, AuditKind, AuditQuery, AuditRecord};

use crate::{
    args::{AuditArgs, AuditCommand, AuditListArgs, VerifyAuditArgs},
    exit::Failure,
    output::{MORE, output_closed, time},
    run::Context,
};

/// Records of an export that are asked for at once, and between two reports of how far it is.
const PAGE: u32 = 1_000;
const REPORT_EVERY: u64 = 100_000;

pub(crate) async fn run(context: &Context, args: AuditArgs) -> Result<(), Failure> {
    let chain = match args.shard {
        Some(shard) => AuditChain::Shard(shard),
        None => AuditChain::Workspace(context.workspace.clone()),
    };
    let name = match &chain {
        AuditChain::Workspace(name) => name.clone(),
        AuditChain::Shard(shard) => format!("shard {shard}"),
    };
    let audit = || Ok::<_, Failure>(context.client()?.audit(chain));
    match args.command {
        AuditCommand::List(args) => list(context, &audit()?, *args).await,
        AuditCommand::Head => head(context, &audit()?).await,
        AuditCommand::Export { from_record } => export(context, &audit()?, name, from_record).await,
        AuditCommand::Verify(args) => check(context, &args),
    }
}

async fn list(context: &Context, audit: &Audit, args: AuditListArgs) -> Result<(), Failure> {
    let kinds: Result<Vec<_>, _> = args.kinds.iter().map(|name| kind(name)).collect();
    let query = AuditQuery {
        from_record: args.from_record,
        kinds: kinds?,
        by: args.by,
        about: args.about,
        start_time: args.since,
        end_time: args.until,
    };
    let mut records = pin!(audit.list(query));
    let mut unread = Box::pin(output_closed());
    let mut printed = 0;
    loop {
        let record = tokio::select! {
            record = records.try_next() => record?,
            () = &mut unread => return Err(Failure::OutputClosed),
        };
        let Some(record) = record else { break };
        if args.limit > 0 && printed == args.limit {
            context.output.note(MORE);
            break;
        }
        context.output.result(|| json(&record), || text(&record))?;
        printed += 1;
    }
    if printed == 0 {
        context.output.note("nothing found");
    }
    Ok(())
}

async fn head(context: &Context, audit: &Audit) -> Result<(), Failure> {
    let head = audit.head().await?;
    let hash = hex(&head.hash);
    context.output.result(
        || {
            json!({
                "number": head.number, "hash": hash, "first_record": head.first_record,
                "batches_since": head.batches_since,
            })
        },
        || format!("{} {hash}", head.number),
    )
}

async fn export(context: &Context, audit: &Audit, chain: String, from_record: u64) -> Result<(), Failure> {
    let mut query = AuditQuery { from_record, ..AuditQuery::default() };
    let mut written = 0_u64;
    loop {
        let page = audit.page(&query, PAGE).await?;
        if written > 0 && page.first_record != query.from_record {
            let text = "records were trimmed while they were exported; export again, and more often";
            return Err(Failure::failed("AUDIT_TRIMMED", text));
        }
        if written == 0 {
            let (first, previous) = (page.first_record, hex(&page.previous_hash));
            line(context, &Start { audit: 1, chain: chain.clone(), first, previous })?;
        }
        for record in &page.records {
            line(context, &whole(record)?)?;
            written += 1;
            if written.is_multiple_of(REPORT_EVERY) {
                context.output.note(&format!("{written} records"));
            }
        }
        // An empty page still says where the export begins.
        written = written.max(1);
        match page.next_record {
            0 => return Ok(()),
            next => query.from_record = next,
        }
    }
}

/// Prints a document of an export.
fn line(context: &Context, document: &impl Serialize) -> Result<(), Failure> {
    context.output.line(&serde_json::to_string(document).unwrap_or_default())
}

fn check(context: &Context, args: &VerifyAuditArgs) -> Result<(), Failure> {
    let head = match &args.head {
        Some(text) => Some(Hash::parse(text).ok_or_else(|| Failure::usage("--head is 64 hexadecimal digits"))?),
        None => None,
    };
    let anchors = anchors(context, args)?;
    let mut unreadable = None;
    let lines = read(&args.file)?.lines().map_while(|line| line.map_err(|error| unreadable = Some(error)).ok());
    let verified = verify(lines, head, &anchors);
    if let Some(error) = unreadable {
        return Err(Failure::file(&args.file, &error));
    }
    let verified = verified.map_err(|fault| Failure::failed("AUDIT_BROKEN", fault.to_string()))?;
    let count = verified.last + 1 - verified.first;
    if head.is_none() && anchors.is_empty() {
        context.output.note("without --head or --anchors, records that are missing at the end are not found");
    }
    let beyond = verified.known.map(|known| verified.last - known);
    context.output.result(
        || {
            json!({
                "chain": verified.chain, "first": verified.first, "last": verified.last, "records": count,
                "head": verified.head.to_string(), "beyond_head": beyond, "anchors": verified.anchored.0,
                "last_anchor": verified.anchored.1,
            })
        },
        || {
            let beyond = match beyond {
                None | Some(0) => String::new(),
                Some(beyond) => format!("; {beyond} of them are newer than the head that was given"),
            };
            let anchored = match verified.anchored {
                (_, None) => String::new(),
                (count, Some(last)) => format!("; {count} anchors hold, the last one of record {last}"),
            };
            format!("{count} records of {} are sound{beyond}{anchored}\nhead {}", verified.chain, verified.head)
        },
    )
}

/// The anchors of the chain that an export is of.
fn anchors(context: &Context, args: &VerifyAuditArgs) -> Result<Anchors, Failure> {
    let Some(file) = &args.anchors else { return Ok(Anchors::default()) };
    if args.file == Path::new("-") {
        return Err(Failure::usage("--anchors needs the export in a file, because it is read twice"));
    }
    let mut first = String::new();
    read(&args.file)?.read_line(&mut first).map_err(|error| Failure::file(&args.file, &error))?;
    let start: Result<Start, _> = serde_json::from_str(&first);
    // What is wrong with it is told by the check itself.
    let Ok(start) = start else { return Ok(Anchors::default()) };
    let key = match &args.anchor_key {
        Some(file) => Some(
            AnchorPublicKey::read(file)
                .map_err(|error| Failure::failed("KEY_UNUSABLE", format!("{}: {error}", file.display())))?,
        ),
        None => None,
    };
    let lines: Result<Vec<_>, _> = read(file)?.lines().collect();
    let lines = lines.map_err(|error| Failure::file(file, &error))?;
    let read = Anchors::read(lines, &start.chain, key.as_ref());
    let read = read.map_err(|fault| Failure::failed("ANCHORS_BROKEN", format!("{}: {fault}", file.display())))?;
    for (count, what) in [
        (read.of_earlier, "anchors are of an earlier chain of this name: its workspace was deleted and created again"),
        (read.unreadable, "lines are no anchors, and are left out"),
    ] {
        if count > 0 {
            context.output.note(&format!("{count} {what}"));
        }
    }
    if read.is_empty() {
        return Err(Failure::failed("ANCHORS_BROKEN", format!("{}: no anchor is of {}", file.display(), start.chain)));
    }
    Ok(read)
}

fn read(file: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened = File::open(file).map_err(|error| Failure::file(file, &error))?;
    Ok(Box::new(BufReader::new(opened)))
}

fn kind(name: &str) -> Result<AuditKind, Failure> {
    let known = Kind::ALL.iter().find(|kind| kind.name() == name);
    known.and_then(|kind| AuditKind::try_from(*kind as i32).ok()).ok_or_else(|| {
        let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        Failure::usage(format!("--kind {name} is none of {}", names.join(", ")))
    })
}

/// A record as it is hashed.
fn whole(record: &AuditRecord) -> Result<Line, Failure> {
    let strange = || {
        Failure::failed(
            "AUDIT_BROKEN",
            format!("record {} is of a kind that this command does not know", record.number),
        )
    };
    let kind = Kind::ALL.iter().copied().find(|kind| *kind as i32 == record.kind).ok_or_else(strange)?;
    let since = record.time.and_then(|time| SystemTime::try_from(time).ok());
    let since = since.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let hash = <[u8; 32]>::try_from(record.hash.as_ref()).map_err(|_| strange())?;
    let AuditRecord { number, by, address, request_id, about, first, last, count, digest, text, .. } = record.clone();
    let time_ms = since.map_or(0, |since| since.as_millis() as u64);
    let text = Bytes::from(text);
    let record = Record { time_ms, kind, by, address, request_id, about, first, last, count, digest, text };
    Ok(Line::new(number, &record, &Hash(hash)))
}

fn name(record: &AuditRecord) -> &'static str {
    Kind::ALL.iter().find(|kind| **kind as i32 == record.kind).map_or("unknown", |kind| kind.name())
}

fn json(record: &AuditRecord) -> Value {
    json!({
        "number": record.number, "time": time(record.time), "kind": name(record), "by": record.by,
        "address": record.address, "request_id": record.request_id, "about": record.about, "first": record.first,
        "last": record.last, "count": record.count, "digest": hex(&record.digest), "text": record.text,
        "hash": hex(&record.hash),
    })
}

fn text(record: &AuditRecord) -> String {
    let mut line = format!("{} {} {}", record.number, time(record.time), name(record));
    if !record.about.is_empty() {
        line += &format!(" {}", record.about);
    }
    match (record.first, record.last) {
        (0, 0) => {}
        (first, last) if first == last => line += &format!(" #{first}"),
        (first, last) => line += &format!(" #{first}-{last}"),
    }
    if record.count > 1 {
        line += &format!(" ({} times)", record.count);
    }
    if !record.by.is_empty() {
        line += &format!(" by {}", record.by);
    }
    if !record.address.is_empty() {
        line += &format!(" from {}", record.address);
    }
    if !record.text.is_empty() {
        line += &format!(": {}", record.text);
    }
    line
}
