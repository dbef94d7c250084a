//! How answers look: tables and lines for people, JSON for programs, one line that lives while a job runs.
//!
//! Text from outside passes [`text::clean`] on its way to a terminal; nothing here knows where the answer came from.

pub mod explanation;
pub mod job;
pub mod json;
pub mod progress;
pub mod table;
pub mod text;
pub mod time;
pub mod timeline;
pub mod webhook;
