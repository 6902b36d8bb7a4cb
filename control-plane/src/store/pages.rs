//! Resources page by page.

use sqlx::AssertSqlSafe;

use super::{Resource, Store, StoreError};

/// What to sort by. Those that are alike are sorted by their id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SortBy {
    Name,
    CreateTime,
    UpdateTime,
}

impl SortBy {
    fn column(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::CreateTime => "create_ms",
            Self::UpdateTime => "update_ms",
        }
    }

    /// What a resource is sorted by, and its id.
    fn place(self, of: &Resource) -> (String, String) {
        let by = match self {
            Self::Name => of.name.clone(),
            Self::CreateTime => of.create_ms.to_string(),
            Self::UpdateTime => of.update_ms.to_string(),
        };
        (by, of.id.clone())
    }
}

/// How a listing is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) by: SortBy,
    pub(crate) descending: bool,
}

/// Which resources are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Query<'a> {
    pub(crate) kind: &'a str,
    /// Those of one workspace; None: of all.
    pub(crate) scope: Option<&'a str>,
    /// One alone; None: all.
    pub(crate) id: Option<&'a str>,
    /// Those whose name begins so.
    pub(crate) name_prefix: &'a str,
    /// Those in this state; empty: in any.
    pub(crate) state: &'a str,
    pub(crate) order: Order,
    /// Where the page before ended: what it was sorted by, and the id.
    pub(crate) after: Option<(&'a str, &'a str)>,
    /// At least 1.
    pub(crate) most: u32,
}

/// Some resources.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) resources: Vec<Resource>,
    /// Where the next page begins; None: this is the last.
    pub(crate) next: Option<(String, String)>,
}

/// A value beside a statement.
enum Value<'a> {
    Text(&'a str),
    Number(i64),
}

/// A statement that grows, and what is bound to it.
struct Statement<'a> {
    sql: String,
    values: Vec<Value<'a>>,
}

impl<'a> Statement<'a> {
    /// Appends SQL, and a place for a value behind it. Whatever is not written here is bound, and never a part of the SQL.
    fn push(&mut self, sql: &str, value: Value<'a>) {
        self.values.push(value);
        self.sql.push_str(sql);
        self.sql.push_str(&format!("${}", self.values.len()));
    }
}

impl Store {
    /// A page of resources.
    pub(crate) async fn list(&self, query: &Query<'_>) -> Result<Page, StoreError> {
        let mut statement = Statement { sql: "SELECT * FROM resources".to_owned(), values: Vec::new() };
        statement.push(" WHERE kind = ", Value::Text(query.kind));
        for (column, wanted) in [("scope", query.scope), ("id", query.id)] {
            if let Some(wanted) = wanted {
                statement.push(&format!(" AND {column} = "), Value::Text(wanted));
            }
        }
        if !query.state.is_empty() {
            statement.push(" AND state = ", Value::Text(query.state));
        }
        if !query.name_prefix.is_empty() {
            // No LIKE: what stands for itself need not be escaped, and both databases mind the case.
            statement.push(" AND substr(name, 1, CAST(", Value::Number(query.name_prefix.chars().count() as i64));
            statement.push(" AS INTEGER)) = ", Value::Text(query.name_prefix));
        }
        let (column, descending) = (query.order.by.column(), query.order.descending);
        if let Some((by, id)) = query.after {
            let than = if descending { "<" } else { ">" };
            let by = match query.order.by {
                SortBy::Name => Value::Text(by),
                SortBy::CreateTime | SortBy::UpdateTime => Value::Number(by.parse().unwrap_or(0)),
            };
            statement.push(&format!(" AND ({column}, id) {than} ("), by);
            statement.push(", ", Value::Text(id));
            statement.sql.push(')');
        }
        let direction = if descending { "DESC" } else { "ASC" };
        // One more tells whether there are any behind.
        let most = Value::Number(i64::from(query.most) + 1);
        statement.push(&format!(" ORDER BY {column} {direction}, id {direction} LIMIT "), most);
        let mut asking = sqlx::query(AssertSqlSafe(statement.sql));
        for value in statement.values {
            asking = match value {
                Value::Text(text) => asking.bind(text.to_owned()),
                Value::Number(number) => asking.bind(number),
            };
        }
        let rows = asking.fetch_all(&self.pool).await?;
        let mut resources = rows.iter().map(Resource::read).collect::<Result<Vec<_>, _>>()?;
        let more = resources.len() > query.most as usize;
        resources.truncate(query.most as usize);
        let next = resources.last().filter(|_| more).map(|last| query.order.by.place(last));
        Ok(Page { resources, next })
    }
}
