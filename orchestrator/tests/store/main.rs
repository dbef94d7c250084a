//! What the stores promise, put to the test: the conformance suite, random histories against a model,
//! crashes, damage, and a disk without room.

// What a test did not expect ends it.
#![allow(clippy::unwrap_used)]

mod conforms;
mod crash;
mod damage;
mod full;
mod journaled;
mod model;
mod pruning;
mod refusals;
mod script;
