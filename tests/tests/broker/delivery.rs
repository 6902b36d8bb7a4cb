//! How messages reach their recipients.

mod broadcast;
mod credit;
mod ending;
mod order;
mod sharing;
