//! Compiles the contract twice: as it is written, and as the broker reads it (`raw`).

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use tonic_prost_build::FileDescriptorSet;

/// Fields that the broker passes on as encoded bytes. An embedded message and a `bytes` field look the same on the wire,
/// so the two views are one contract.
const RAW_FIELDS: [(&str, &str); 10] = [
    ("PublishRequest", "message"),
    ("PublishStreamRequest", "messages"),
    ("SubscribeResponse", "delivery_batch"),
    ("Delivery", "message"),
    ("GetMessageResponse", "message"),
    ("ListMessagesResponse", "messages"),
    ("StreamMessagesResponse", "messages"),
    ("RequestRequest", "message"),
    ("RequestResponse", "message"),
    ("DeadLetter", "message"),
];

const FILES: [&str; 18] = [
    "google/rpc/error_details.proto",
    "aintandem/messaging/v1/message.proto",
    "aintandem/messaging/v1/publish_service.proto",
    "aintandem/messaging/v1/subscribe_service.proto",
    "aintandem/messaging/v1/history_service.proto",
    "aintandem/messaging/v1/request_service.proto",
    "aintandem/messaging/v1/dead_letter_service.proto",
    "aintandem/messaging/v1/topic_service.proto",
    "aintandem/messaging/v1/event_service.proto",
    "aintandem/approval/v1/approval_service.proto",
    "aintandem/audit/v1/audit_service.proto",
    "aintandem/cluster/v1/cluster_service.proto",
    "aintandem/key/v1/key_service.proto",
    "aintandem/policy/v1/policy_service.proto",
    "aintandem/registry/v1/registry_service.proto",
    "aintandem/server/v1/server_service.proto",
    "aintandem/token/v1/token_service.proto",
    "aintandem/workspace/v1/workspace_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-changed=google/rpc/status.proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let plain = protox::compile(FILES, ["."])?;
    fs::write(out.join("descriptors.bin"), plain.encode_to_vec())?;

    let plain_dir = out.join("plain");
    fs::create_dir_all(&plain_dir)?;
    let raw_dir = out.join("raw");
    fs::create_dir_all(&raw_dir)?;
    let raw = with_raw_fields(plain.clone())?;
    tonic_prost_build::configure().out_dir(&plain_dir).bytes(".").compile_fds(plain)?;
    tonic_prost_build::configure()
        .out_dir(&raw_dir)
        .bytes(".")
        .extern_path(".google.rpc", "crate::google::rpc")
        .compile_fds(raw)?;
    Ok(())
}

/// Keeps only the messaging package and turns `RAW_FIELDS` into `bytes`.
fn with_raw_fields(mut set: FileDescriptorSet) -> Result<FileDescriptorSet, Box<dyn Error>> {
    use prost_types::field_descriptor_proto::Type;
    set.file.retain(|file| file.package() != "aintandem.registry.v1");
    let mut turned = 0;
    for file in set.file.iter_mut().filter(|file| file.package() == "aintandem.messaging.v1") {
        for message in &mut file.message_type {
            let name = message.name().to_owned();
            for field in &mut message.field {
                if RAW_FIELDS.contains(&(name.as_str(), field.name())) {
                    field.set_type(Type::Bytes);
                    field.type_name = None;
                    turned += 1;
                }
            }
        }
    }
    if turned != RAW_FIELDS.len() {
        return Err(format!("{turned} of {} raw fields exist in the contract", RAW_FIELDS.len()).into());
    }
    Ok(set)
}
