//! Tokens that the broker signs.

use std::time::Duration;

use futures_util::Stream;
use prost_types::Timestamp;
use tandem_proto::token::v1::{
    CreateTokenRequest, ListTokensRequest, RenewTokenRequest, RevokeTokenRequest,
    token_service_client::TokenServiceClient,
};

use crate::{Client, Error, KnownToken, again::Calls, pages, wire_duration};

/// The tokens that the broker signs, and those of others that were revoked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokens {
    client: Client,
}

/// What a new token is to be.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// Whose it is, up to 128 bytes.
    pub subject: String,
    /// As `tandem roles` has them.
    pub roles: Vec<String>,
    /// The only workspace that exists for it; None for all.
    pub workspace_id: Option<String>,
    /// The only sandbox that it acts as; None for all. Needs a workspace.
    pub sandbox_id: Option<String>,
    /// How long it holds before it is to be renewed, 10 s to a day. Default: 15 minutes.
    pub lifetime: Option<Duration>,
    /// For how long it can be renewed, at most a year. Default: 30 days.
    pub renewable_for: Option<Duration>,
}

/// A token as it is sent. It is not printed.
#[derive(Clone)]
pub struct Renewed {
    /// Give it to [`crate::Token::from_text`], or write it where [`crate::Token::from_file`] reads.
    pub signed: String,
    /// When it ends.
    pub expire_time: Option<Timestamp>,
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewed").field("expire_time", &self.expire_time).finish_non_exhaustive()
    }
}

impl Tokens {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn service(&self) -> TokenServiceClient<Calls> {
        TokenServiceClient::new(self.client.calls())
            .max_decoding_message_size(self.client.settings().max_response_bytes)
    }

    /// Makes a token that can be renewed.
    ///
    /// # Errors
    /// [`Error::Refused`] when a field is wrong, the caller cannot give such a token, or the broker signs none
    /// (`NO_SIGNING_KEY`).
    pub async fn create(&self, token: NewToken) -> Result<(KnownToken, Renewed), Error> {
        let request = CreateTokenRequest {
            subject: token.subject,
            roles: token.roles,
            workspace_id: token.workspace_id.unwrap_or_default(),
            sandbox_id: token.sandbox_id.unwrap_or_default(),
            lifetime: token.lifetime.map(wire_duration),
            renewable_for: token.renewable_for.map(wire_duration),
        };
        let answer = self.service().create_token(self.client.request(request)).await;
        let answer = answer.map_err(|status| self.client.error(&status))?.into_inner();
        Ok((required(answer.token)?, Renewed { signed: answer.signed, expire_time: answer.expire_time }))
    }

    /// A later one of the token that this client shows.
    ///
    /// # Errors
    /// [`Error::Refused`] with `TOKEN_NOT_RENEWABLE` when the broker has not made it, and `TOKEN_EXPIRED` when it cannot be renewed
    /// any more.
    pub async fn renew(&self) -> Result<Renewed, Error> {
        let answer = self.service().renew_token(self.client.request(RenewTokenRequest {})).await;
        let answer = answer.map_err(|status| self.client.error(&status))?.into_inner();
        Ok(Renewed { signed: answer.signed, expire_time: answer.expire_time })
    }

    /// All tokens that are known, page by page as the stream is read; until a day after their end.
    pub fn list(&self) -> impl Stream<Item = Result<KnownToken, Error>> + Send + use<> {
        let tokens = self.clone();
        pages::items(move |page_token| {
            let tokens = tokens.clone();
            async move {
                let request = ListTokensRequest { page_size: 1000, page_token };
                let answer = tokens.service().list_tokens(tokens.client.request(request)).await;
                let answer = answer.map_err(|status| tokens.client.error(&status))?.into_inner();
                Ok((answer.tokens, answer.next_page_token))
            }
        })
    }

    /// Ends a token for good, with all that it was renewed to; streams that were opened with it end within a second. For one that
    /// another issuer has signed say which, or when it ends: so long it is remembered, a year without.
    ///
    /// # Errors
    /// [`Error::Refused`] with `UNKNOWN_TOKEN` when there is none that the caller may revoke.
    pub async fn revoke(
        &self,
        token_id: impl Into<String>,
        issuer: impl Into<String>,
        end_time: Option<Timestamp>,
    ) -> Result<KnownToken, Error> {
        let request = RevokeTokenRequest { token_id: token_id.into(), issuer: issuer.into(), end_time };
        let answer = self.service().revoke_token(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().token)
    }
}

fn required(token: Option<KnownToken>) -> Result<KnownToken, Error> {
    token.ok_or_else(|| Error::Contract("an answer about a token holds no token".to_owned()))
}
