//! What a page of a listing is asked with.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    error::{Failure, Reason},
    store::{Order, SortBy},
};

const DEFAULT_PAGE: u32 = 50;
const MAX_PAGE: u32 = 500;
/// Bytes of what listings may be narrowed with.
const MAX_FILTER_BYTES: usize = 256;

/// Which part of a listing is wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listing {
    /// How many at most: 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 50)]
    pub(crate) limit: Option<u32>,
    /// `next_cursor` of the page before, whose other parameters must be the same.
    #[param(max_length = 2048)]
    pub(crate) cursor: Option<String>,
    /// `name`, `create_time` or `update_time`; behind `-` the other way round.
    #[param(pattern = "^-?(name|create_time|update_time)$", default = "create_time")]
    pub(crate) sort: Option<String>,
    /// Those alone that are in this state.
    #[param(max_length = 256)]
    pub(crate) state: Option<String>,
    /// Those alone whose name begins so.
    #[param(max_length = 256)]
    pub(crate) name_prefix: Option<String>,
}

/// Which part of what a workspace has is wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListingWithin {
    /// The workspace. Unset: all that the caller may see.
    #[param(max_length = 128)]
    pub(crate) workspace_id: Option<String>,
    /// How many at most: 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 50)]
    pub(crate) limit: Option<u32>,
    /// `next_cursor` of the page before, whose other parameters must be the same.
    #[param(max_length = 2048)]
    pub(crate) cursor: Option<String>,
    /// `name`, `create_time` or `update_time`; behind `-` the other way round.
    #[param(pattern = "^-?(name|create_time|update_time)$", default = "create_time")]
    pub(crate) sort: Option<String>,
    /// Those alone whose name begins so.
    #[param(max_length = 256)]
    pub(crate) name_prefix: Option<String>,
}

impl ListingWithin {
    /// The workspace, and what was asked for there.
    pub(crate) fn read(self) -> Result<(Option<String>, Wanted), Failure> {
        let Self { workspace_id, limit, cursor, sort, name_prefix } = self;
        let wanted = Listing { limit, cursor, sort, state: None, name_prefix }.read_within(workspace_id.as_deref())?;
        Ok((workspace_id, wanted))
    }
}

/// The same, checked.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The workspace; empty: all.
    scope: String,
    pub(crate) most: u32,
    pub(crate) order: Order,
    pub(crate) state: String,
    pub(crate) name_prefix: String,
    /// Where the page before ended.
    pub(crate) after: Option<(String, String)>,
}

impl Listing {
    /// Checks what was asked for.
    pub(crate) fn read(self) -> Result<Wanted, Failure> {
        self.read_within(None)
    }

    /// The same of one workspace; None: of all.
    pub(crate) fn read_within(self, workspace: Option<&str>) -> Result<Wanted, Failure> {
        let scope = workspace.unwrap_or_default();
        if scope.len() > MAX_FILTER_BYTES || scope.contains('\0') {
            return Err(Failure::field("workspace_id", "it is no id of a workspace"));
        }
        let most = self.limit.unwrap_or(DEFAULT_PAGE);
        if !(1..=MAX_PAGE).contains(&most) {
            return Err(Failure::field("limit", format!("{most} is not 1 to {MAX_PAGE}")));
        }
        let sort = self.sort.as_deref().unwrap_or("create_time");
        let (name, descending) = sort.strip_prefix('-').map_or((sort, false), |name| (name, true));
        let by = match name {
            "name" => SortBy::Name,
            "create_time" => SortBy::CreateTime,
            "update_time" => SortBy::UpdateTime,
            _ => return Err(Failure::field("sort", format!("{sort:?} is not name, create_time or update_time"))),
        };
        for (field, text) in [("state", &self.state), ("name_prefix", &self.name_prefix)] {
            let text = text.as_deref().unwrap_or_default();
            if text.len() > MAX_FILTER_BYTES || text.contains('\0') {
                return Err(Failure::field(
                    field,
                    format!("it has {} bytes, or a NUL; at most {MAX_FILTER_BYTES}", text.len()),
                ));
            }
        }
        let mut wanted = Wanted {
            scope: scope.to_owned(),
            most,
            order: Order { by, descending },
            state: self.state.unwrap_or_default(),
            name_prefix: self.name_prefix.unwrap_or_default(),
            after: None,
        };
        wanted.after = self.cursor.as_deref().map(|cursor| wanted.place(cursor)).transpose()?;
        Ok(wanted)
    }
}

impl Wanted {
    /// What ties a cursor to its listing.
    fn kind(&self) -> String {
        let Self { scope, order, state, name_prefix, .. } = self;
        format!("{:?}{}|{scope}|{state}|{name_prefix}", order.by, order.descending)
    }

    /// The place that a cursor of this listing stands for.
    fn place(&self, cursor: &str) -> Result<(String, String), Failure> {
        let wrong = || {
            let text = "this cursor was not given out for this listing; begin without one";
            Failure::new(Reason::InvalidCursor, text)
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
        let (kind, by, id): (String, String, String) = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        let is_number = self.order.by == SortBy::Name || by.parse::<i64>().is_ok();
        let plain = !by.contains('\0') && !id.contains('\0');
        if kind == self.kind() && is_number && plain { Ok((by, id)) } else { Err(wrong()) }
    }

    /// The cursor that stands for a place.
    pub(crate) fn cursor(&self, (by, id): &(String, String)) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::json!([self.kind(), by, id]).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_its_listing() {
        let by_name = Listing { sort: Some("-name".to_owned()), ..Listing::default() };
        let wanted = by_name.clone().read().unwrap();
        assert!(wanted.order.descending && wanted.most == DEFAULT_PAGE);
        let place = ("a \"name\"".to_owned(), "id".to_owned());
        let cursor = Some(wanted.cursor(&place));
        assert_eq!(Listing { cursor: cursor.clone(), ..by_name.clone() }.read().unwrap().after, Some(place));
        for other in [
            Listing { cursor: cursor.clone(), ..Listing::default() },
            Listing { cursor: cursor.clone(), state: Some("active".to_owned()), ..by_name.clone() },
            Listing { cursor: Some("no cursor".to_owned()), ..by_name.clone() },
            Listing { cursor: Some(URL_SAFE_NO_PAD.encode("[1]")), ..by_name },
        ] {
            assert_eq!(other.read().unwrap_err().code(), "INVALID_CURSOR");
        }
    }

    #[test]
    fn what_cannot_be_listed_is_refused() {
        let of = |limit, sort: &str| Listing { limit: Some(limit), sort: Some(sort.to_owned()), ..Listing::default() };
        for (listing, field) in
            [(of(0, "name"), "limit"), (of(501, "name"), "limit"), (of(1, "size"), "sort"), (of(1, "--name"), "sort")]
        {
            assert!(listing.read().unwrap_err().to_string().starts_with(field));
        }
    }
}
