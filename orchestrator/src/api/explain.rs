//! Why a job is where it is, in words: one precise sentence, and what a human can do.
//!
//! The judgement was made by the conductor and dispatch. Here is nothing but language, the same for every surface.

#[cfg(test)]
mod samples;
mod steps;
mod words;

pub(super) use steps::{NextStep, next_steps};
pub(super) use words::summary;
