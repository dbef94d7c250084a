//! What the engine answers.

use super::{Effect, Entropy, HistoryEntry, Job, Keys};
use crate::{blueprint::Blueprint, time::Timestamp};

/// What the engine may know beside the job and the event.
pub struct Context<'a> {
    /// The present time.
    pub now: Timestamp,
    /// The version of the blueprint that the job keeps.
    pub blueprint: &'a Blueprint,
    /// Where new task ids and jitter come from.
    pub entropy: &'a mut Entropy,
    /// The key of the first of as many job ids as are asked for, which nobody else gets.
    pub reserve: &'a mut dyn FnMut(u32) -> i64,
    /// Whether new jobs can follow a blueprint of this name.
    pub serves: &'a dyn Fn(&str) -> bool,
    /// How many jobs may be started beside this one, for which nobody waits.
    pub room: &'a dyn Fn() -> u32,
    /// Who knows which keys have room.
    pub keys: &'a dyn Keys,
}

/// What follows from an event: to be made durable as a whole, and only then performed.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The job as it is from now on.
    pub job: Job,
    /// What to add to its history.
    pub entries: Vec<HistoryEntry>,
    /// What to do after the commit.
    pub effects: Vec<Effect>,
}
