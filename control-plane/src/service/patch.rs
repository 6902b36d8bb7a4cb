//! What a JSON Merge Patch (RFC 7396) says about one field.

use serde::{Deserialize, Deserializer};

/// What is to become of a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Patch<T> {
    /// It is not there: it stays.
    #[default]
    Keep,
    /// It is null: back to its default.
    Clear,
    Set(T),
}

impl<T> Patch<T> {
    /// The field behind the patch.
    pub(crate) fn apply(self, before: T) -> T
    where
        T: Default,
    {
        match self {
            Self::Keep => before,
            Self::Clear => T::default(),
            Self::Set(after) => after,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Changes {
        name: Patch<String>,
    }

    #[test]
    fn what_is_not_there_is_not_null() {
        let of = |text| serde_json::from_str::<Changes>(text).unwrap().name.apply("before".to_owned());
        assert_eq!((of("{}"), of(r#"{"name":null}"#), of(r#"{"name":"x"}"#)), ("before".into(), "".into(), "x".into()));
        assert!(serde_json::from_str::<Changes>(r#"{"name":1}"#).is_err());
    }
}
