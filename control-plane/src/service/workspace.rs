//! What a workspace is, outside and in the database.

use serde::{Deserialize, Serialize};
use tandem_client::{Quotas as BrokerQuotas, Rate as BrokerRate, WorkspaceSettings as BrokerSettings, wire_duration};
use utoipa::ToSchema;

use super::{networks::NetworkSettings, workspaces::KIND};
use crate::{error::Failure, store::Resource};

const MAX_ID_BYTES: usize = 128;
pub(super) const MAX_NAME_CHARS: usize = 100;
const MAX_DESCRIPTION_CHARS: usize = 2_000;
/// Of what the broker counts in 64 bits and JSON in 53.
const MAX_NUMBER: u64 = (1 << 53) - 1;

/// What a workspace does, and may take. What is unset is as the broker has it for everybody.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WorkspaceSettings {
    /// Sandboxes that there may be at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub(crate) max_sandboxes: Option<u32>,
    /// The name of a provider of the workspace that agents use when they name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub(crate) default_llm_provider: Option<String>,
    /// How long messages wait that say nothing about it, in seconds: 1 to 366 days. Unset: they do not expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_622_400)]
    pub(crate) default_ttl_seconds: Option<u64>,
    /// Hops that a conversation may have. Unset: 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 255)]
    pub(crate) max_hops: Option<u32>,
    /// How long the history is kept.
    pub(crate) retention: Retention,
    /// What the workspace may take.
    pub(crate) quotas: Quotas,
    /// Whom its sandboxes reach.
    pub(crate) network: NetworkSettings,
}

/// How long the history of a workspace is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retention {
    /// In seconds, at least a minute. Unset: 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 60, maximum = 9_007_199_254_740_991_i64)]
    pub(crate) age_seconds: Option<u64>,
    /// In bytes, at least 1 MiB. Unset: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1_048_576, maximum = 9_007_199_254_740_991_i64)]
    pub(crate) bytes: Option<u64>,
}

/// What a workspace may take. Unset: as much as everybody.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Quotas {
    /// Of the whole workspace.
    pub(crate) workspace: Rate,
    /// Of each sandbox that sends.
    pub(crate) sandbox: Rate,
    /// Of each token or API key.
    pub(crate) caller: Rate,
    /// Bytes of history.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(crate) max_stored_bytes: Option<u64>,
    /// Bytes of one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(crate) max_message_bytes: Option<u64>,
    /// Streams that are open at once, on each node of the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub(crate) max_streams: Option<u32>,
    /// Connections at once, on each node of the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub(crate) max_connections: Option<u32>,
}

/// How much may be sent in a second. Unset: any number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rate {
    /// Messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(crate) messages_per_second: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(crate) bytes_per_second: Option<u64>,
}

impl Rate {
    fn of_broker(rate: Option<BrokerRate>) -> Self {
        let rate = rate.unwrap_or_default();
        Self { messages_per_second: limit(rate.messages_per_second), bytes_per_second: limit(rate.bytes_per_second) }
    }

    fn for_broker(&self) -> Option<BrokerRate> {
        (*self != Self::default()).then(|| BrokerRate {
            messages_per_second: self.messages_per_second.unwrap_or(0),
            bytes_per_second: self.bytes_per_second.unwrap_or(0),
        })
    }
}

impl WorkspaceSettings {
    /// What of them is the broker's.
    pub(crate) fn for_broker(&self) -> (BrokerSettings, BrokerQuotas) {
        let seconds = |seconds| wire_duration(std::time::Duration::from_secs(seconds));
        let settings = BrokerSettings {
            default_ttl: self.default_ttl_seconds.map(seconds),
            retention_age: self.retention.age_seconds.map(seconds),
            retention_bytes: self.retention.bytes.unwrap_or(0),
            max_hops: self.max_hops.unwrap_or(0),
        };
        let quotas = BrokerQuotas {
            workspace: self.quotas.workspace.for_broker(),
            sandbox: self.quotas.sandbox.for_broker(),
            caller: self.quotas.caller.for_broker(),
            max_stored_bytes: self.quotas.max_stored_bytes.unwrap_or(0),
            max_message_bytes: self.quotas.max_message_bytes.unwrap_or(0),
            max_sandboxes: self.max_sandboxes.unwrap_or(0),
            max_streams: self.quotas.max_streams.unwrap_or(0),
            max_connections: self.quotas.max_connections.unwrap_or(0),
        };
        (settings, quotas)
    }

    /// As the broker has them.
    pub(crate) fn of_broker(settings: Option<BrokerSettings>, quotas: BrokerQuotas) -> Self {
        let settings = settings.unwrap_or_default();
        let seconds = |duration: Option<_>| {
            duration
                .and_then(|duration| std::time::Duration::try_from(duration).ok())
                .map(|duration| duration.as_secs())
        };
        Self {
            max_sandboxes: limit(quotas.max_sandboxes),
            default_llm_provider: None,
            default_ttl_seconds: seconds(settings.default_ttl),
            max_hops: limit(settings.max_hops),
            retention: Retention {
                age_seconds: seconds(settings.retention_age),
                bytes: limit(settings.retention_bytes),
            },
            quotas: Quotas {
                workspace: Rate::of_broker(quotas.workspace),
                sandbox: Rate::of_broker(quotas.sandbox),
                caller: Rate::of_broker(quotas.caller),
                max_stored_bytes: limit(quotas.max_stored_bytes),
                max_message_bytes: limit(quotas.max_message_bytes),
                max_streams: limit(quotas.max_streams),
                max_connections: limit(quotas.max_connections),
            },
            network: NetworkSettings::default(),
        }
    }

    /// What the broker would take as unset, or JSON cannot hold, is no value.
    fn check(&self) -> Result<(), Failure> {
        let Self { quotas, retention, .. } = self;
        let rates = [("workspace", &quotas.workspace), ("sandbox", &quotas.sandbox), ("caller", &quotas.caller)];
        let mut numbers = vec![
            ("max_sandboxes".to_owned(), self.max_sandboxes.map(u64::from), 1, u64::from(u32::MAX)),
            ("default_ttl_seconds".to_owned(), self.default_ttl_seconds, 1, 366 * 86_400),
            ("max_hops".to_owned(), self.max_hops.map(u64::from), 1, 255),
            ("retention.age_seconds".to_owned(), retention.age_seconds, 60, MAX_NUMBER),
            ("retention.bytes".to_owned(), retention.bytes, 1 << 20, MAX_NUMBER),
            ("quotas.max_stored_bytes".to_owned(), quotas.max_stored_bytes, 1, MAX_NUMBER),
            ("quotas.max_message_bytes".to_owned(), quotas.max_message_bytes, 1, MAX_NUMBER),
            ("quotas.max_streams".to_owned(), quotas.max_streams.map(u64::from), 1, u64::from(u32::MAX)),
            ("quotas.max_connections".to_owned(), quotas.max_connections.map(u64::from), 1, u64::from(u32::MAX)),
        ];
        for (of, rate) in rates {
            numbers.push((format!("quotas.{of}.messages_per_second"), rate.messages_per_second, 1, MAX_NUMBER));
            numbers.push((format!("quotas.{of}.bytes_per_second"), rate.bytes_per_second, 1, MAX_NUMBER));
        }
        for (field, number, least, most) in numbers {
            if let Some(number) = number.filter(|number| !(least..=most).contains(number)) {
                return Err(Failure::field(
                    &format!("settings.{field}"),
                    format!("{number} is not {least} to {most}; leave it out for no limit"),
                ));
            }
        }
        self.network.check()?;
        match &self.default_llm_provider {
            Some(name) => text("settings.default_llm_provider", name, 1, MAX_NAME_CHARS),
            None => Ok(()),
        }
    }
}

/// What the broker means by 0.
fn limit<N: Default + PartialEq>(number: N) -> Option<N> {
    Some(number).filter(|number| *number != N::default())
}

/// What there is to say about a workspace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) description: String,
    pub(crate) settings: WorkspaceSettings,
    /// When it is to be deleted, in milliseconds since 1970; 0: it is not.
    pub(crate) delete_ms: i64,
    /// Whether its end has begun, and cannot be taken back.
    pub(crate) is_ending: bool,
    /// Of one that is to be deleted: its state before.
    pub(crate) before: String,
    /// Why it is not as it should be; empty: it is.
    pub(crate) error: String,
}

impl Document {
    /// As it is in the database.
    pub(crate) fn of(row: &Resource) -> Result<Self, Failure> {
        serde_json::from_str(&row.document).map_err(|error| {
            Failure::internal(format!("the record of {} {:?} cannot be read: {error}", row.kind, row.id))
        })
    }

    pub(crate) fn encode(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| Failure::internal(format!("a record cannot be written: {error}")))
    }

    /// Whether a name and this can be those of a workspace.
    pub(crate) fn check(&self, name: &str) -> Result<(), Failure> {
        self.check_change(name, "", &Self::default())
    }

    /// The same of what is another one than before: what the broker has made need not be what would be accepted here.
    pub(crate) fn check_change(&self, name: &str, name_before: &str, before: &Self) -> Result<(), Failure> {
        if name != name_before || name.is_empty() {
            text("name", name, 1, MAX_NAME_CHARS)?;
        }
        text("description", &self.description, 0, MAX_DESCRIPTION_CHARS)?;
        if self.settings == before.settings { Ok(()) } else { self.settings.check() }
    }
}

/// Whether a text is one for people, and not too long.
pub(super) fn text(field: &str, value: &str, least: usize, most: usize) -> Result<(), Failure> {
    let chars = value.chars().count();
    if !(least..=most).contains(&chars) {
        return Err(Failure::field(field, format!("it has {chars} characters; {least} to {most} are allowed")));
    }
    let bad = |c: &char| c.is_control() && (field != "description" || !matches!(c, '\n' | '\t'));
    if let Some(bad) = value.chars().find(bad) {
        return Err(Failure::field(field, format!("it has the control character {bad:?}")));
    }
    if value.trim().len() != value.len() && field != "description" {
        return Err(Failure::field(field, "it begins or ends with a space".to_owned()));
    }
    Ok(())
}

/// Whether a text is an id, as the broker has them.
pub(crate) fn check_id(id: &str) -> Result<(), Failure> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@/-".contains(&byte);
    let fits = (1..=MAX_ID_BYTES).contains(&id.len())
        && id.bytes().all(allowed)
        && id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !id.split('/').any(|part| [".", ".."].contains(&part));
    if fits {
        return Ok(());
    }
    let text = "an id has 1 to 128 bytes of A-Z a-z 0-9 . _ : @ / -, and begins with a letter or a digit";
    Err(Failure::field("id", text))
}

/// A row of a workspace that is new.
pub(crate) fn row(id: &str, name: &str, document: &Document, now_ms: i64) -> Result<Resource, Failure> {
    Ok(Resource {
        kind: KIND.to_owned(),
        id: id.to_owned(),
        scope: String::new(),
        name: name.to_owned(),
        state: String::new(),
        // One that is made again under the same id has none that the one before had.
        revision: now_ms,
        document: document.encode()?,
        create_ms: now_ms,
        update_ms: now_ms,
        due_ms: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(settings: &str) -> Document {
        let settings = serde_json::from_str(settings).unwrap();
        Document { settings, ..Document::default() }
    }

    #[test]
    fn settings_go_to_the_broker_as_they_are_meant() {
        let given = r#"{"max_sandboxes":3,"max_hops":9,"default_ttl_seconds":60,"retention":{"bytes":2097152},
            "quotas":{"sandbox":{"messages_per_second":7},"max_streams":4}}"#;
        let document = document(given);
        document.check("a team").unwrap();
        let (settings, quotas) = document.settings.for_broker();
        assert_eq!((settings.max_hops, settings.retention_bytes), (9, 2_097_152));
        assert_eq!(settings.default_ttl.unwrap().seconds, 60);
        assert!(settings.retention_age.is_none() && quotas.workspace.is_none());
        assert_eq!((quotas.max_sandboxes, quotas.max_streams), (3, 4));
        assert_eq!(quotas.sandbox.unwrap().messages_per_second, 7);
        assert_eq!(WorkspaceSettings::of_broker(Some(settings), quotas), document.settings);
        let back: Document = serde_json::from_str(&document.encode().unwrap()).unwrap();
        assert_eq!(back, document);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (settings, field) in [
            (r#"{"max_sandboxes":0}"#, "settings.max_sandboxes"),
            (r#"{"max_hops":256}"#, "settings.max_hops"),
            (r#"{"retention":{"age_seconds":59}}"#, "settings.retention.age_seconds"),
            (r#"{"quotas":{"caller":{"bytes_per_second":0}}}"#, "settings.quotas.caller.bytes_per_second"),
            (r#"{"quotas":{"max_stored_bytes":9007199254740992}}"#, "settings.quotas.max_stored_bytes"),
            (r#"{"default_llm_provider":""}"#, "settings.default_llm_provider"),
        ] {
            let error = document(settings).check("a").unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
        for name in ["", " a", "a\n", "\0", &"x".repeat(101)] {
            assert!(document("{}").check(name).unwrap_err().to_string().starts_with("name"), "{name:?}");
        }
        document("{}").check("Größe ✓").unwrap();
    }

    #[test]
    fn ids_are_those_of_the_broker() {
        for id in ["a", "team-1", "a/b:c@d", &"x".repeat(128)] {
            check_id(id).unwrap();
        }
        for id in ["", "-a", "a b", "a/../b", "a/.", "ä", "a\0", &"x".repeat(129)] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
    }
}
