//! Values that are more than a word.

use std::str::FromStr;

use tandem_client::Agent;

/// `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Before the first `=`.
    pub key: String,
    /// After it; may be empty.
    pub value: String,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            _ => Err("write it like key=value".to_owned()),
        }
    }
}

/// `name:role:capability,capability`, of which only the name is needed.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSpec(pub Agent);

impl FromStr for AgentSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().unwrap_or_default().trim().to_owned();
        let (name, role, capabilities) = (part(), part(), part());
        if name.is_empty() {
            return Err("the name is missing; write it like planner:lead:plan,review".to_owned());
        }
        let capabilities = capabilities.split(',').map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned);
        Ok(Self(Agent { name, role, capabilities: capabilities.collect() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents() {
        let agent = |text: &str| text.parse::<AgentSpec>().map(|spec| (spec.0.name, spec.0.role, spec.0.capabilities));
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(agent("ann"), Ok(("ann".into(), String::new(), Vec::new())));
        assert_eq!(agent("ann::review"), Ok(("ann".into(), String::new(), words(&["review"]))));
        assert_eq!(agent("ann:lead:plan, a:b,"), Ok(("ann".into(), "lead".into(), words(&["plan", "a:b"]))));
        assert!(agent(":lead").is_err());
    }

    #[test]
    fn pairs() {
        let pair = |text: &str| text.parse::<Pair>().map(|pair| (pair.key, pair.value));
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}
