//! What is between the orchestrator and everybody else: messages take their time, connections are cut, and whoever is at an end
//! notices in their own time.
//!
//! Messages of one connection keep their order, as those of a stream do; between connections there is no order. What a worker
//! says may be lost or come twice even so, because the orchestrator promises to stand it.

use avtomatika_orchestrator::{
    conductor::FromWorker,
    dispatch::{Outbox, ToWorker},
};
use avtomatika_proto::SessionId;
use tokio::sync::mpsc;

use crate::{
    faults::{MS, SECOND},
    worker::Move,
    world::{Happening, World},
};

/// The orchestrator's end of a worker's stream.
pub struct Stream {
    pub number: usize,
    pub link: u32,
    pub session_id: SessionId,
    /// Its number, as the conductor gave it.
    pub stream: u64,
    /// What the conductor has to say; `None` when nobody reads it any more.
    pub receiver: Option<mpsc::Receiver<ToWorker>>,
    /// Nothing passes in either direction.
    pub is_cut: bool,
    /// The conductor has been told of its end, or will be as soon as it looks at what has arrived.
    pub is_over: bool,
    /// When the last message down and up will have arrived: the next one is later.
    down_until: i64,
    up_until: i64,
}

impl Stream {
    pub fn new(
        number: usize,
        link: u32,
        session_id: SessionId,
        stream: u64,
        receiver: mpsc::Receiver<ToWorker>,
    ) -> Self {
        let receiver = Some(receiver);
        let (is_cut, is_over) = (false, false);
        Self { number, link, session_id, stream, receiver, is_cut, is_over, down_until: 0, up_until: 0 }
    }

    pub fn outbox() -> (Outbox, mpsc::Receiver<ToWorker>) {
        Outbox::new()
    }
}

impl World {
    /// How long a message is under way.
    pub fn way(&mut self) -> i64 {
        let max = self.faults.delay_max;
        if self.random.chance(20) { self.random.between(1, 20 * max) } else { self.random.between(1, max) }
    }

    /// A worker says something on the stream that it has.
    pub fn send_up(&mut self, number: usize, message: FromWorker) {
        let link = self.workers[number].link;
        let (lost, cut) = (self.faults.lost, self.faults.cut);
        if self.random.chance(cut) {
            self.cut(number, link);
        }
        let is_result = matches!(message, FromWorker::Results(_));
        if is_result && self.random.chance(lost) {
            return;
        }
        let way = self.way();
        let arrives = self.now + way;
        let Some(stream) = self.process.stream_mut(number, link).filter(|stream| !stream.is_cut) else {
            return;
        };
        stream.up_until = arrives.max(stream.up_until + 1);
        let (session_id, stream, after) = (stream.session_id, stream.stream, stream.up_until - self.now);
        let life = self.model.life;
        if let FromWorker::Results(results) = &message
            && self.random.chance(self.faults.twice)
        {
            let message = FromWorker::Results(results.clone());
            self.after(after, Happening::Up { life, session_id, stream, message: Box::new(message) });
        }
        self.after(after, Happening::Up { life, session_id, stream, message: Box::new(message) });
    }

    /// The conductor has said something on this stream.
    pub fn send_down(&mut self, stream: &mut Stream, message: ToWorker) {
        if stream.is_cut {
            return;
        }
        let way = self.way();
        stream.down_until = (self.now + way).max(stream.down_until + 1);
        let (number, link) = (stream.number, stream.link);
        self.after(stream.down_until - self.now, Happening::Down { number, link, message });
    }

    /// The connection breaks. Both ends notice, some time.
    pub fn cut(&mut self, number: usize, link: u32) {
        let Some(stream) = self.process.stream_mut(number, link).filter(|stream| !stream.is_cut) else {
            return;
        };
        stream.is_cut = true;
        let unread = self.random.chance(100);
        if unread && let Some(stream) = self.process.stream_mut(number, link) {
            // Not even the end is noticed: the conductor has to find out that nobody reads.
            stream.receiver = None;
            let session_id = stream.session_id;
            self.model.is_unread(session_id);
        } else {
            let pause = self.random.between(MS, 3 * SECOND);
            self.server_notices(number, link, pause);
        }
        let pause = self.random.between(MS, 3 * SECOND);
        self.worker_will(number, pause, Move::NoticeLoss(link));
    }

    /// The worker closes its connection.
    pub fn hang_up(&mut self, number: usize) {
        let link = self.workers[number].link;
        if let Some(stream) = self.process.stream_mut(number, link) {
            stream.is_cut = true;
        }
        let pause = self.random.between(1, 50 * MS);
        self.server_notices(number, link, pause);
        self.connection_is_gone(number);
    }

    /// The orchestrator will notice that a stream is over.
    pub fn server_notices(&mut self, number: usize, link: u32, pause: i64) {
        let life = self.model.life;
        let Some(stream) = self.process.stream_mut(number, link) else { return };
        let (session_id, stream) = (stream.session_id, stream.stream);
        self.after(pause, Happening::Up { life, session_id, stream, message: Box::new(FromWorker::Ended) });
    }
}
