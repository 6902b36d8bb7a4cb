//! The comparison can fail: each planted fault is found.
