//! Values by name, such as headers and variables, of which some are secrets: taken in, kept sealed, shown without, and opened.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::Failure,
    secrets::{Place, Secret, Secrets},
};

/// Values of a resource.
const MAX_VALUES: usize = 64;
const MAX_NAME_BYTES: usize = 128;
const MAX_VALUE_BYTES: usize = 16 << 10;
/// Secrets as long as this show how they end, so that people can tell them apart.
const SHOWN_FROM_CHARS: usize = 20;
const SHOWN_CHARS: usize = 4;

/// A secret as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    sealed: String,
    /// How a long one ends; empty: it is short.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) last_four: String,
}

impl Sealed {
    /// Seals a secret of a field.
    pub(crate) fn new(secrets: &Secrets, place: Place<'_>, secret: &Secret) -> Result<Self, Failure> {
        let chars = secret.expose().chars().count();
        let shown = if chars >= SHOWN_FROM_CHARS { SHOWN_CHARS } else { 0 };
        let last_four = secret.expose().chars().skip(chars - shown).collect();
        Ok(Self { sealed: secrets.seal(place, secret)?, last_four })
    }

    pub(crate) fn open(&self, secrets: &Secrets, place: Place<'_>) -> Result<Secret, Failure> {
        secrets.open(place, &self.sealed)
    }
}

/// A value as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Kept {
    Plain(String),
    Sealed(Sealed),
}

/// A value as somebody gives it: a text, or `{"secret": "…"}`, which is kept sealed and never shown. `{"has_secret": true}` is what is
/// shown instead: given back, it stays what it is.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "it is neither a text nor {\"secret\": a text}")]
pub(crate) enum GivenValue {
    Plain(String),
    Secret(GivenSecret),
}

/// See [`GivenValue`].
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GivenSecret {
    /// Never shown.
    #[schema(value_type = Option<String>, write_only)]
    secret: Option<Secret>,
    /// Without a secret: the one that is there stays.
    #[serde(default)]
    has_secret: bool,
    /// As it is shown; not read.
    #[serde(default, rename = "last_four")]
    #[schema(rename = "last_four")]
    _last_four: Option<String>,
}

/// A value as it is shown: a text, or that there is a secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ShownValue {
    Plain(String),
    Secret(ShownSecret),
}

/// See [`ShownValue`].
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownSecret {
    /// Always true.
    has_secret: bool,
    /// How it ends, where it has 20 characters or more.
    #[serde(skip_serializing_if = "String::is_empty")]
    last_four: String,
}

impl From<Kept> for ShownValue {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Plain(text) => Self::Plain(text),
            Kept::Sealed(sealed) => Self::Secret(ShownSecret { has_secret: true, last_four: sealed.last_four }),
        }
    }
}

/// Values by their names, as they are kept.
pub(crate) type Values = BTreeMap<String, Kept>;
/// Values by their names, as they are given; None: it is taken away.
pub(crate) type GivenValues = BTreeMap<String, Option<GivenValue>>;

/// What names of values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Of HTTP.
    Headers,
    /// Of an environment.
    Variables,
}

impl Names {
    fn check(self, field: &str, name: &str) -> Result<(), Failure> {
        let fits = |byte: u8| match self {
            Self::Headers => byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte),
            Self::Variables => byte.is_ascii_alphanumeric() || byte == b'_',
        };
        let begins = self == Self::Headers || !name.starts_with(|first: char| first.is_ascii_digit());
        if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(fits) && begins {
            return Ok(());
        }
        let what = match self {
            Self::Headers => "a header has a name of 1 to 128 letters, digits and - _ .",
            Self::Variables => "a variable has a name of 1 to 128 letters, digits and _, and begins with no digit",
        };
        Err(Failure::field(field, format!("{:?} is no name: {what}", name.chars().take(40).collect::<String>())))
    }
}

/// Whether a text can be sent as a value. What it is stands in no error: it may be a secret.
pub(crate) fn check_value(field: &str, text: &str) -> Result<(), Failure> {
    if text.is_empty() || text.len() > MAX_VALUE_BYTES {
        let text = format!("it has {} bytes; 1 to {MAX_VALUE_BYTES} are allowed", text.len());
        return Err(Failure::field(field, text));
    }
    if text.chars().any(char::is_control) {
        return Err(Failure::field(field, "it has a line break or another control character"));
    }
    Ok(())
}

/// Values with what is given: new ones are added or replaced, others stay. `place`: of the whole field.
pub(crate) fn changed(
    before: Values,
    given: GivenValues,
    names: Names,
    (secrets, place): (&Secrets, Place<'_>),
) -> Result<Values, Failure> {
    let mut after = before;
    for (name, given) in given {
        names.check(place.field, &name)?;
        let field = format!("{}.{name}", place.field);
        match given {
            None => drop(after.remove(&name)),
            Some(GivenValue::Plain(text)) => {
                check_value(&field, &text)?;
                after.insert(name, Kept::Plain(text));
            }
            Some(GivenValue::Secret(GivenSecret { secret: Some(secret), .. })) => {
                check_value(&field, secret.expose())?;
                let sealed = Sealed::new(secrets, Place { field: &field, ..place }, &secret)?;
                after.insert(name, Kept::Sealed(sealed));
            }
            Some(GivenValue::Secret(GivenSecret { has_secret, .. })) => {
                if !has_secret || !matches!(after.get(&name), Some(Kept::Sealed(_))) {
                    return Err(Failure::field(&field, "it has no secret yet; give it as {\"secret\": …}"));
                }
            }
        }
    }
    if after.len() > MAX_VALUES {
        return Err(Failure::field(place.field, format!("it has {} values; at most {MAX_VALUES}", after.len())));
    }
    Ok(after)
}

/// Values as they are shown.
pub(crate) fn shown(values: Values) -> BTreeMap<String, ShownValue> {
    values.into_iter().map(|(name, kept)| (name, kept.into())).collect()
}

/// Values with their secrets opened. `place`: of the whole field.
pub(crate) fn opened(
    values: &Values,
    secrets: &Secrets,
    place: Place<'_>,
) -> Result<BTreeMap<String, Secret>, Failure> {
    let open = |(name, kept): (&String, &Kept)| {
        let value = match kept {
            Kept::Plain(text) => Secret::new(text.clone()),
            Kept::Sealed(sealed) => {
                let field = format!("{}.{name}", place.field);
                sealed.open(secrets, Place { field: &field, ..place })?
            }
        };
        Ok((name.clone(), value))
    };
    values.iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { kind: "mcp_server", workspace: "w", id: "m1", field: "env" };

    fn given(text: &str) -> GivenValues {
        serde_json::from_str(text).unwrap()
    }

    fn change(before: Values, text: &str) -> Result<Values, Failure> {
        changed(before, given(text), Names::Variables, (&Secrets::for_tests(), PLACE))
    }

    #[test]
    fn secrets_are_kept_sealed_shown_without_and_opened() {
        let values = change(
            Values::new(),
            r#"{"MODE":"fast","TOKEN":{"secret":"abcdefghijklmnopqrstuvwxyz"},"PIN":{"secret":"1234"}}"#,
        );
        let values = values.unwrap();
        let stored = serde_json::to_string(&values).unwrap();
        assert!(!stored.contains("abcdef") && !stored.contains("1234"), "{stored}");
        let shown = serde_json::to_value(shown(serde_json::from_str(&stored).unwrap())).unwrap();
        let expected = serde_json::json!({"MODE": "fast", "PIN": {"has_secret": true},
            "TOKEN": {"has_secret": true, "last_four": "wxyz"}});
        assert_eq!(shown, expected);
        // What was shown can be given back, beside a change.
        let back =
            change(values, r#"{"PIN":{"has_secret":true},"TOKEN":{"has_secret":true,"last_four":"wxyz"},"MODE":null}"#);
        let opened = opened(&back.unwrap(), &Secrets::for_tests(), PLACE).unwrap();
        assert_eq!(opened.len(), 2);
        assert_eq!((opened["PIN"].expose(), opened["TOKEN"].expose()), ("1234", "abcdefghijklmnopqrstuvwxyz"));
        assert!(!format!("{opened:?}").contains("1234"));
    }

    #[test]
    fn what_is_no_value_is_named_and_not_shown() {
        let long = format!(r#"{{"A":{{"secret":"{}"}}}}"#, "x".repeat(MAX_VALUE_BYTES + 1));
        for (wrong, field) in [
            (r#"{"1A":"x"}"#, "env: "),
            (r#"{"A B":"x"}"#, "env: "),
            (r#"{"":"x"}"#, "env: "),
            (r#"{"A":""}"#, "env.A: "),
            (r#"{"A":{"secret":"very\nsecret"}}"#, "env.A: "),
            (r#"{"A":{"has_secret":true}}"#, "env.A: "),
            (r#"{"A":{}}"#, "env.A: "),
            (&long, "env.A: "),
        ] {
            let why = change(Values::new(), wrong).unwrap_err().to_string();
            assert!(why.starts_with(field) && !why.contains("very"), "{why}");
        }
        let many: serde_json::Map<_, _> = (0..65).map(|number| (format!("N{number}"), "x".into())).collect();
        let many = serde_json::Value::Object(many).to_string();
        assert!(change(Values::new(), &many).unwrap_err().to_string().contains("at most 64"));
        let why = serde_json::from_str::<GivenValues>(r#"{"A":123456}"#).unwrap_err().to_string();
        assert!(!why.contains("123456"), "{why}");
        let none =
            changed(Values::new(), given(r#"{"A":{"secret":"x"}}"#), Names::Variables, (&Secrets::none(), PLACE));
        assert_eq!(none.unwrap_err().code(), "SECRETS_NOT_CONFIGURED");
    }
}
