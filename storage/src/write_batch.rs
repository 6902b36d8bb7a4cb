//! A list of changes that become visible and durable together.

use bytes::Bytes;

use crate::Space;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Sets the value of a key.
    Put(Space, Bytes, Bytes),
    /// Removes a key; removing an absent key is no error.
    Delete(Space, Bytes),
    /// Removes all keys with `from <= key < to`. Meant for large ranges: under about a hundred keys, single deletes are
    /// cheaper to read past (oxia#644). An empty or inverted range removes nothing.
    DeleteRange(Space, Bytes, Bytes),
}

impl Operation {
    /// The space that it changes.
    pub fn space(&self) -> Space {
        match self {
            Self::Put(space, ..) | Self::Delete(space, _) | Self::DeleteRange(space, ..) => *space,
        }
    }
}

/// Changes in the order in which they take effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    operations: Vec<Operation>,
    bytes: usize,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value.
    pub fn put(&mut self, space: Space, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(Operation::Put(space, key.into(), value.into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, space: Space, key: impl Into<Bytes>) {
        self.push(Operation::Delete(space, key.into()));
    }

    /// Removes a range, `to` excluded.
    pub fn delete_range(&mut self, space: Space, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        self.push(Operation::DeleteRange(space, from.into(), to.into()));
    }

    /// Moves all operations of `other` behind the ones here.
    pub fn append(&mut self, other: &mut Self) {
        self.bytes += other.bytes;
        other.bytes = 0;
        self.operations.append(&mut other.operations);
    }

    /// The operations in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations in order, owned.
    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    /// Sum of the lengths of keys and values.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    pub(crate) fn push(&mut self, operation: Operation) {
        self.bytes += match &operation {
            Operation::Put(_, key, value) => key.len() + value.len(),
            Operation::Delete(_, key) => key.len(),
            Operation::DeleteRange(_, from, to) => from.len() + to.len(),
        };
        self.operations.push(operation);
    }
}
