//! What happens to messages, line by line as it is promised to users; each test is named after its line.

mod acknowledge;
mod capability;
mod dead_letters;
mod ordering;
mod priority;
mod redrive;
mod retry;
mod scene;
mod time;
mod topics;
