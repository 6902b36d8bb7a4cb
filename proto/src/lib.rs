//! The wire contract: what clients and nodes say to each other.
//!
//! Owns the `.proto` files beside it and the Rust code generated from them. It deliberately knows no rule: which values are
//! valid, who may send what and how anything is stored is decided elsewhere.
//!
//! Read first: [`messaging::v1::Message`], [`messaging::v1::SubscribeRequest`], [`registry::v1::Sandbox`].
//!
//! Two views of one contract: the packages as written, for clients, and [`raw`], in which the messages inside a publish and
//! a delivery stay encoded, for the broker, which stores and forwards them without taking them apart.
//!
//! Invariant: both views encode to the same bytes; a test below holds them together. `buf lint` and `buf breaking` watch
//! over the files.

#![allow(missing_docs, clippy::all, reason = "generated code; the documentation stands in the .proto files")]

/// Every file of the contract, encoded as a `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `google.rpc`, as far as the contract needs it.
pub mod google {
    pub mod rpc {
        include!(concat!(env!("OUT_DIR"), "/plain/google.rpc.rs"));
    }
}

// The nesting follows the package names, because the generated code refers to its neighbours by it.
mod aintandem {
    /// Publish, subscribe, history.
    pub mod messaging {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/plain/aintandem.messaging.v1.rs"));
        }
    }
    /// Decisions on messages that are held.
    pub mod approval {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/plain/aintandem.approval.v1.rs"));
        }
    }
    /// What was done, and by whom.
    pub mod audit {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/plain/aintandem.audit.v1.rs"));
        }
    }
    /// The nodes of a cluster.
    pub mod cluster {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/plain/aintandem.cluster.v1.rs"));
        }
    }
    /// Secrets that say who somebody is.
    pub mod key {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/plain/aintandem.key.v1.rs"));
        }
    }
    /// Who may say what to whom.
    pub mod policy {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/plain/aintandem.policy.v1.rs"));
        }
    }
    /// Sandboxes and their agents.
    pub mod registry {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/plain/aintandem.registry.v1.rs"));
        }
    }
    /// What a server is.
    pub mod server {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/plain/aintandem.server.v1.rs"));
        }
    }
    /// Tokens that the broker signs.
    pub mod token {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/plain/aintandem.token.v1.rs"));
        }
    }
    /// Tenants.
    pub mod workspace {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/plain/aintandem.workspace.v1.rs"));
        }
    }
}

pub use aintandem::{approval, audit, cluster, key, messaging, policy, registry, server, token, workspace};

/// The messaging package as the broker reads it: messages inside requests and deliveries stay encoded.
pub mod raw {
    pub mod messaging {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/raw/aintandem.messaging.v1.rs"));
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use crate::{messaging::v1 as plain, raw::messaging::v1 as raw};

    #[test]
    fn both_views_are_one_contract() {
        let message = plain::Message { from_sandbox_id: "a".into(), content: "x".into(), ..Default::default() };
        let publish = plain::PublishStreamRequest {
            workspace_id: "w".into(),
            request_id: 7,
            messages: vec![message.clone(), message.clone()],
            producer: None,
        };
        let seen = raw::PublishStreamRequest::decode(publish.encode_to_vec().as_slice()).expect("same bytes");
        assert_eq!(seen.messages[1].as_ref(), message.encode_to_vec());

        let delivery = raw::Delivery { delivery_id: 3, attempt: 1, message: message.encode_to_vec().into() };
        let seen = plain::Delivery::decode(delivery.encode_to_vec().as_slice()).expect("same bytes");
        assert_eq!(seen.message, Some(message));
    }

    #[test]
    fn every_service_is_in_the_descriptor_set() {
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).expect("a descriptor set");
        let mut names: Vec<_> = set.file.iter().flat_map(|f| &f.service).map(|s| s.name().to_owned()).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "ApprovalService",
                "AuditService",
                "ClusterService",
                "DeadLetterService",
                "EventService",
                "HistoryService",
                "KeyService",
                "PolicyService",
                "PublishService",
                "RegistryService",
                "RequestService",
                "ServerService",
                "SubscribeService",
                "TokenService",
                "TopicService",
                "WorkspaceService"
            ]
        );
    }
}
