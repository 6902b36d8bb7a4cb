//! Where settings come from, and which of them wins.

use std::path::Path;

use super::{Config, ConfigError};

impl Config {
    /// Reads a TOML file. Keys that are not set keep their defaults.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::layered(Some(path), &[])
    }

    /// Defaults, under the file, under single settings such as `("limits.max_streams", "100")`, the later over the
    /// earlier. A value is read as TOML, and as text where that fails.
    pub fn layered(file: Option<&Path>, settings: &[(String, String)]) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new("")).to_owned();
        let fail = |reason: String| ConfigError::File { path: path.clone(), reason };
        let mut table = match file {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|error| fail(error.to_string()))?;
                // Once as it is, for errors that point into the file.
                toml::from_str::<Self>(&text).map_err(|error| fail(error.to_string()))?;
                text.parse::<toml::Table>().map_err(|error| fail(error.to_string()))?
            }
            None => toml::Table::new(),
        };
        for (key, value) in settings {
            set(&mut table, key, value);
            let reason = |error: toml::de::Error| ConfigError::Setting {
                key: key.clone(),
                value: value.clone(),
                reason: error.message().to_owned(),
            };
            table.clone().try_into::<Self>().map_err(reason)?;
        }
        table.try_into().map_err(|error: toml::de::Error| fail(error.to_string()))
    }

    /// The settings in the environment: `TANDEM_SET_LIMITS__MAX_STREAMS=100` is `limits.max_streams`.
    pub fn environment(variables: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
        let mut found: Vec<_> = variables
            .filter_map(|(name, value)| {
                let key = name.strip_prefix("TANDEM_SET_")?.to_ascii_lowercase().replace("__", ".");
                Some((key, value))
            })
            .collect();
        found.sort();
        found
    }
}

fn set(table: &mut toml::Table, key: &str, value: &str) {
    let parsed = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
    let value = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut place = table;
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().unwrap_or(key);
    for part in parts {
        let inner = place.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if !inner.is_table() {
            *inner = toml::Value::Table(toml::Table::new());
        }
        let toml::Value::Table(inner) = inner else { return };
        place = inner;
    }
    place.insert(last.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AuthConfig, Limits, LogFormat};

    fn layered(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let owned: Vec<_> = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Config::layered(None, &owned)
    }

    #[test]
    fn what_is_printed_can_be_read() {
        let printed = toml::to_string_pretty(&Config::default()).unwrap();
        assert_eq!(toml::from_str::<Config>(&printed).unwrap(), Config::default());
        let auth = AuthConfig { open: true, ..AuthConfig::default() };
        Config { auth, ..Config::default() }.validate().unwrap();
    }

    #[test]
    fn later_settings_win() {
        let config = layered(&[
            ("limits.max_streams", "7"),
            ("listen", "127.0.0.1:5"),
            ("log.format", "json"),
            ("limits.max_streams", "8"),
        ])
        .unwrap();
        assert_eq!((config.limits.max_streams, config.listen.port(), config.log.format), (8, 5, LogFormat::Json));
        assert_eq!(config.limits.max_batch_messages, Limits::default().max_batch_messages);
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_errors_that_name_them() {
        for (key, value) in
            [("limits.max_stream", "7"), ("nonsense", "1"), ("limits.max_streams", "many"), ("limits", "3")]
        {
            let text = layered(&[(key, value)]).unwrap_err().to_string();
            assert!(text.contains(key), "{text}");
        }
    }

    #[test]
    fn the_environment_names_nested_keys() {
        let variables = [("TANDEM_SET_LIMITS__MAX_STREAMS", "9"), ("PATH", "x"), ("TANDEM_LISTEN", "y")];
        let found = Config::environment(variables.map(|(name, value)| (name.into(), value.into())).into_iter());
        assert_eq!(found, [("limits.max_streams".to_owned(), "9".to_owned())]);
    }
}
