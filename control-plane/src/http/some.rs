//! Lists that hold what is asked for, and say whether there is more.

use std::pin::pin;

use futures_util::{Stream, TryStreamExt as _};
use tandem_client::Error;

use crate::error::Failure;

/// How many may be asked for.
pub(super) fn most(asked: Option<usize>, unless: usize, at_most: usize) -> Result<usize, Failure> {
    let most = asked.unwrap_or(unless);
    if (1..=at_most).contains(&most) {
        return Ok(most);
    }
    Err(Failure::field("limit", format!("{most} is not 1 to {at_most}")))
}

/// So many of what the broker has, as they are shown; and the one behind them, if there is one.
pub(super) async fn first<T, U>(
    most: usize,
    found: impl Stream<Item = Result<T, Error>>,
) -> Result<(Vec<U>, Option<T>), Failure>
where
    U: From<T>,
{
    let (mut found, mut shown) = (pin!(found), Vec::new());
    while let Some(one) = found.try_next().await.map_err(Failure::of_question)? {
        if shown.len() == most {
            return Ok((shown, Some(one)));
        }
        shown.push(U::from(one));
    }
    Ok((shown, None))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn no_more_are_read_than_are_shown_and_one() {
        let of = |numbers: std::ops::Range<u32>| stream::iter(numbers.map(Ok));
        let (shown, next) = first::<u32, u64>(3, of(0..9)).await.unwrap();
        assert_eq!((shown, next), (vec![0, 1, 2], Some(3)));
        let (shown, next) = first::<u32, u64>(3, of(0..3)).await.unwrap();
        assert_eq!((shown.len(), next), (3, None));
        assert!(first::<u32, u64>(1, stream::iter([Err(Error::Contract("x".to_owned()))])).await.is_err());
        assert_eq!((most(None, 5, 9).unwrap(), most(Some(9), 5, 9).unwrap()), (5, 9));
        assert!(most(Some(0), 5, 9).is_err() && most(Some(10), 5, 9).is_err());
    }
}
