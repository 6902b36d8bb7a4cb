//! Lists that come in pages, read as one stream.

use std::collections::VecDeque;

use futures_util::{Stream, stream};

use crate::Error;

/// One page and the token of the next; an empty token ends the list.
pub(crate) type Page<T> = (Vec<T>, String);

/// Yields the items of all pages. `fetch` gets the token of the page to read, empty for the first. A page is asked for when
/// the one before is used up; the stream ends after the first error.
pub(crate) fn items<T, F, Fut>(fetch: F) -> impl Stream<Item = Result<T, Error>> + Send
where
    T: Send,
    F: FnMut(String) -> Fut + Send,
    Fut: Future<Output = Result<Page<T>, Error>> + Send,
{
    struct Cursor<T, F> {
        fetch: F,
        ready: VecDeque<T>,
        /// None after the last page.
        next_page: Option<String>,
    }
    let cursor = Cursor { fetch, ready: VecDeque::new(), next_page: Some(String::new()) };
    stream::try_unfold(cursor, async |mut cursor: Cursor<T, F>| {
        loop {
            if let Some(item) = cursor.ready.pop_front() {
                return Ok(Some((item, cursor)));
            }
            let Some(token) = cursor.next_page.take() else { return Ok(None) };
            let (items, next) = (cursor.fetch)(token).await?;
            cursor.ready = items.into();
            cursor.next_page = (!next.is_empty()).then_some(next);
        }
    })
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn empty_pages_do_not_end_the_list() {
        let list = items(|token| async move {
            Ok(match token.as_str() {
                "" => (vec![1, 2], "a".to_owned()),
                "a" => (Vec::new(), "b".to_owned()),
                _ => (vec![3], String::new()),
            })
        });
        let all: Vec<i32> = list.try_collect().await.expect("no error");
        assert_eq!(all, [1, 2, 3]);
    }

    #[tokio::test]
    async fn an_error_ends_the_list() {
        let list = items(|token| async move {
            if token.is_empty() { Ok((vec![1], "a".to_owned())) } else { Err(Error::Closed { stream: "test" }) }
        });
        let seen: Result<Vec<i32>, _> = list.try_collect().await;
        assert!(seen.is_err());
    }
}
