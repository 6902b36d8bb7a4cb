//! API keys.

use std::time::Duration;

use futures_util::Stream;
use tandem_proto::key::v1::{
    CreateKeyRequest, ListKeysRequest, RevokeKeyRequest, key_service_client::KeyServiceClient,
};

use crate::{Client, Error, Key, again::Calls, pages, wire_duration};

/// The API keys of the broker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keys {
    client: Client,
}

/// What a new key is to be.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// Whose it is, up to 128 bytes.
    pub subject: String,
    /// As `tandem roles` has them.
    pub roles: Vec<String>,
    /// The only workspace that exists for it; None for all.
    pub workspace_id: Option<String>,
    /// The only sandbox that it acts as; None for all. Needs a workspace.
    pub sandbox_id: Option<String>,
    /// How long it holds; None until it is revoked.
    pub expires_in: Option<Duration>,
}

impl Keys {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn service(&self) -> KeyServiceClient<Calls> {
        KeyServiceClient::new(self.client.calls()).max_decoding_message_size(self.client.settings().max_response_bytes)
    }

    /// Makes a key. Returns it with its secret, which is told this once: give it to [`crate::Token::from_text`].
    ///
    /// # Errors
    /// [`Error::Refused`] when a field is wrong, or the caller cannot give such a key.
    pub async fn create(&self, key: NewKey) -> Result<(Key, String), Error> {
        let request = CreateKeyRequest {
            subject: key.subject,
            roles: key.roles,
            workspace_id: key.workspace_id.unwrap_or_default(),
            sandbox_id: key.sandbox_id.unwrap_or_default(),
            expires_in: key.expires_in.map(wire_duration),
        };
        let answer = self.service().create_key(self.client.request(request)).await;
        let answer = answer.map_err(|status| self.client.error(&status))?.into_inner();
        Ok((required(answer.key)?, answer.secret))
    }

    /// All keys by id, page by page as the stream is read; those that ended too, for 30 days.
    pub fn list(&self) -> impl Stream<Item = Result<Key, Error>> + Send + use<> {
        let keys = self.clone();
        pages::items(move |page_token| {
            let keys = keys.clone();
            async move {
                let request = ListKeysRequest { page_size: 1000, page_token };
                let answer = keys.service().list_keys(keys.client.request(request)).await;
                let answer = answer.map_err(|status| keys.client.error(&status))?.into_inner();
                Ok((answer.keys, answer.next_page_token))
            }
        })
    }

    /// Ends a key for good; streams that were opened with it end within a second.
    ///
    /// # Errors
    /// [`Error::Refused`] with `UNKNOWN_KEY` when there is none.
    pub async fn revoke(&self, key_id: impl Into<String>) -> Result<Key, Error> {
        let request = RevokeKeyRequest { key_id: key_id.into() };
        let answer = self.service().revoke_key(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().key)
    }
}

fn required(key: Option<Key>) -> Result<Key, Error> {
    key.ok_or_else(|| Error::Contract("an answer about a key holds no key".to_owned()))
}
