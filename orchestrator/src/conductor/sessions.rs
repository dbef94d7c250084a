//! What a worker's stream may ask of the conductor: the narrow door for workers. They can register, open their stream and
//! speak on it; they cannot submit, list or cancel.

use std::sync::Arc;

use avtomatika_proto::{ApiError, SessionId, TaskId};

use super::{
    Conductor,
    admission::{Admission, Admissions},
    mailbox::{FromWorker, Mailbox, Registered, Request},
};
use crate::{dispatch::Outbox, store::WorkerRecord, trust::WorkerTerms};

/// The way into the conductor for everything that serves workers. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    mailbox: Mailbox,
    admissions: Admissions,
}

/// An open stream: only its owner may speak in the session's name.
pub struct OpenStream {
    mailbox: Mailbox,
    admissions: Admissions,
    session_id: SessionId,
    stream: u64,
}

impl Conductor {
    /// The door for workers.
    pub fn sessions(&self) -> Sessions {
        Sessions { mailbox: self.mailbox.clone(), admissions: self.admissions.clone() }
    }
}

impl Sessions {
    /// Opens a session, durably.
    ///
    /// # Errors
    /// `TOO_MANY_WORKERS`, `STORAGE_FULL`, `SHUTTING_DOWN`.
    pub async fn register(&self, worker: WorkerRecord, credential: [u8; 32]) -> Result<Registered, ApiError> {
        self.mailbox.ask(|reply| Request::Register { worker, credential, reply }).await?
    }

    /// Opens the session's stream; its messages will come through `outbox`, the welcome first.
    ///
    /// # Errors
    /// `SESSION_UNKNOWN` when there is no such session, or it was registered with another credential.
    pub async fn open(
        &self,
        session_id: SessionId,
        credential: [u8; 32],
        held: Vec<TaskId>,
        outbox: Outbox,
    ) -> Result<OpenStream, ApiError> {
        self.open_on(None, session_id, credential, held, outbox).await
    }

    /// [`Sessions::open`], if these terms allow what was registered. A credential may outlive a change of its terms, and with it the
    /// session.
    ///
    /// # Errors
    /// Those of [`Sessions::open`]; `SESSION_UNKNOWN` also when the session's name or one of its task types is not allowed.
    pub async fn open_on(
        &self,
        terms: Option<Arc<WorkerTerms>>,
        session_id: SessionId,
        credential: [u8; 32],
        held: Vec<TaskId>,
        outbox: Outbox,
    ) -> Result<OpenStream, ApiError> {
        let open = |reply| Request::Open { session_id, credential, terms, held, outbox, reply };
        let stream = self.mailbox.ask(open).await??;
        let (mailbox, admissions) = (self.mailbox.clone(), self.admissions.clone());
        Ok(OpenStream { mailbox, admissions, session_id, stream })
    }
}

impl OpenStream {
    /// Waits until results with so many bytes of data may come in: see [`Conductor::admit`].
    pub async fn admit(&self, payload_bytes: usize) -> Admission {
        self.admissions.admit_results(payload_bytes).await
    }

    /// Passes on what the worker said. Waits while the mailbox is full: a worker is read no faster than it is served.
    /// Returns whether the conductor still listens.
    pub async fn tell(&self, message: FromWorker) -> bool {
        self.tell_admitted(message, Admission::default()).await
    }

    /// [`OpenStream::tell`] of what has been let in.
    pub async fn tell_admitted(&self, message: FromWorker, admission: Admission) -> bool {
        let (session_id, stream) = (self.session_id, self.stream);
        let request = Request::FromWorker { session_id, stream, message, admission };
        self.mailbox.tell(request).await
    }
}
