//! What an evaluation may cost: steps, and bytes of text made on the way.

use std::cell::Cell;

use avtomatika_proto::limits::PAYLOAD_BYTES_MAX;

/// Steps of one evaluation or of one rendered template: some tens of milliseconds at worst.
const STEPS_MAX: u64 = 500_000;

/// Steps of all that one decision evaluates: a job may stand in a thousand states before it waits for anything, and everybody waits
/// for it meanwhile.
const TURN_STEPS_MAX: u64 = 4 * STEPS_MAX;

/// Bytes of text scanned or made that count as one step.
const BYTES_PER_STEP: usize = 64;

/// What an evaluation may still cost.
#[derive(Debug, Default)]
pub struct Budget<'t> {
    steps: Cell<u64>,
    made_bytes: Cell<usize>,
    /// Steps of the whole decision so far.
    turn: Option<&'t Cell<u64>>,
}

impl<'t> Budget<'t> {
    /// Nothing is spent, but for what the same decision has spent elsewhere.
    pub fn of(turn: Option<&'t Cell<u64>>) -> Self {
        Self { turn, ..Self::default() }
    }

    /// Steps that were paid for since it was new.
    pub fn spent(&self) -> u64 {
        self.steps.get()
    }

    /// Pays for one step.
    pub fn step(&self) -> Result<(), String> {
        self.pay(1)
    }

    /// Pays for looking through text.
    pub fn scan(&self, bytes: usize) -> Result<(), String> {
        self.pay(bytes / BYTES_PER_STEP)
    }

    /// Pays for several steps.
    pub fn pay(&self, steps: usize) -> Result<(), String> {
        let spent = self.steps.get().saturating_add(steps as u64);
        self.steps.set(spent);
        if spent > STEPS_MAX {
            return Err(format!("it takes more than {STEPS_MAX} steps; leave such work to a worker"));
        }
        if let Some(turn) = self.turn {
            turn.set(turn.get().saturating_add(steps as u64));
            if turn.get() > TURN_STEPS_MAX {
                return Err(format!(
                    "with the expressions before it, it takes more than {TURN_STEPS_MAX} steps at a time; leave such work to a worker"
                ));
            }
        }
        Ok(())
    }

    /// Pays for text that is made on the way.
    pub fn make(&self, bytes: usize) -> Result<(), String> {
        let made = self.made_bytes.get().saturating_add(bytes);
        self.made_bytes.set(made);
        if made > PAYLOAD_BYTES_MAX {
            return Err(format!("it makes more than {PAYLOAD_BYTES_MAX} bytes of text"));
        }
        self.scan(bytes)
    }
}
