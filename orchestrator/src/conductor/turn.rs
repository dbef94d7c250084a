//! One turn of the conductor: something has happened, and everything that follows from it is done in the one right order.
//!
//! It promises that answers and effects leave only when what they rest on is durable, and that they leave in the order of the
//! decisions. It refuses to know where happenings come from: from threads and a mailbox ([`start`](super::start)), or from
//! whoever plays both ([`stepped`](super::stepped)).

use std::ops::ControlFlow;

use super::{
    BATCH_MAX,
    batch::{self, Afterwards},
    core::Core,
    loader::{Loaded, Wanted},
    mailbox::Request,
};
use crate::{
    museum::{Mistake, plants},
    store::{Batch, StoreError},
};

/// What the conductor can wake up for.
pub(super) enum Happening<'a> {
    /// The batch that was with the store is durable, or could not be stored.
    Committed(Result<(), StoreError>),
    /// Resting jobs are back from the store.
    Loaded(Vec<Loaded>),
    /// Somebody wants something.
    Requests(&'a mut Vec<Request>),
    /// Time passes.
    TimePassed,
}

/// Those who wait for the disk, so that a turn need not.
pub(super) trait Helpers {
    /// Makes the batch durable, and says so with [`Happening::Committed`]. One batch at a time is asked for.
    fn commit(&mut self, batch: Batch);

    /// Reads these jobs, and brings them with [`Happening::Loaded`]. One reading at a time is asked for.
    fn load(&mut self, wanted: Vec<Wanted>) -> Result<(), StoreError>;
}

/// The conductor, and what it will do when the batch that is with the store is durable.
pub(super) struct House {
    pub core: Core,
    committing: Option<Vec<Afterwards>>,
}

impl House {
    pub fn of(core: Core) -> Self {
        Self { core, committing: None }
    }

    /// Whether a batch is with the store.
    pub fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// Requests that may be decided now.
    pub fn room(&self) -> usize {
        BATCH_MAX.saturating_sub(self.core.batch.afterwards.len())
    }

    /// The rule of the house, on one screen. Breaks off when the conductor was asked to stop and everything is durable.
    pub fn turn(
        &mut self,
        happening: Happening<'_>,
        helpers: &mut impl Helpers,
    ) -> Result<ControlFlow<()>, StoreError> {
        self.core.follow_terms();
        let mut committed = Vec::new();
        match happening {
            // Reply and perform, or undo.
            Happening::Committed(Ok(())) => committed = self.committing.take().unwrap_or_default(),
            Happening::Committed(Err(StoreError::Full { .. })) => {
                let undone = self.committing.take().unwrap_or_default();
                self.core.undo(undone);
            }
            Happening::Committed(Err(error)) => return Err(error),
            Happening::Loaded(loaded) => self.core.loaded(loaded),
            // Events: load and decide. What is decided waits in the batch.
            Happening::Requests(requests) => {
                requests.drain(..).for_each(|request| self.core.handle(request));
            }
            Happening::TimePassed => {}
        }
        // What is due is an event too, and does not wait for a pause in the others.
        if self.core.until_due().is_zero() {
            self.core.tick();
        }
        self.core.perform(committed);
        // One transaction at a time is with the store; whatever was decided meanwhile is the next.
        while self.committing.is_none() && !self.core.batch.is_empty() {
            self.hand_over(helpers);
            // Answers that rest on nothing undecided need no commit.
            if self.committing.is_none() {
                let answers = std::mem::take(&mut self.core.batch).afterwards;
                self.core.perform(answers);
            }
        }
        // Tasks whose turn comes soon are read ahead of it.
        if let Some(wanted) = self.core.take_wanted() {
            helpers.load(wanted)?;
        }
        if self.committing.is_none() && self.core.is_drained() {
            self.core.say_goodbye();
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Gives the store, which has nothing to do, what was decided, if that is more than answers.
    fn hand_over(&mut self, helpers: &mut impl Helpers) {
        if self.core.batch.writes.writes.is_empty() {
            return;
        }
        let now = self.core.clock.now();
        self.core.store_buckets(now);
        self.core.write_usage();
        // The next one is likely to be as large.
        let next = batch::Batch::with_room_of(&self.core.batch);
        let mut batch = std::mem::replace(&mut self.core.batch, next);
        helpers.commit(batch.writes);
        if plants(Mistake::AckBeforeSync) {
            self.core.perform(std::mem::take(&mut batch.afterwards));
        }
        self.committing = Some(batch.afterwards);
    }
}
