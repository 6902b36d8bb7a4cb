//! How messages reach their recipients.

mod broadcast;
mod credit;
mod ending;
mod gaps;
mod order;
mod sharing;
mod unread;
