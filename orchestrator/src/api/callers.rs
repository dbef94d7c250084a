//! What is noted about calls, and how somebody is answered who was not let in. One place for REST and gRPC, so that neither
//! forgets what the other notes.

use std::{net::IpAddr, sync::Arc};

use avtomatika_proto::{ApiError, ErrorCode};

use super::{
    Auth,
    auth::{Caller, WorkerPass},
    strangers::Acquaintance,
};
use crate::{
    audit::{Audit, Note},
    trust::{Role, Standing},
};

/// Those of whom nothing is known, together. No client is called so.
pub(super) const STRANGERS: &str = "";

/// Somebody who was let in.
#[derive(Debug, Clone)]
pub(super) enum Visitor {
    /// Anybody, where nothing is asked for.
    Anybody,
    /// A client, for a call that asks for this role.
    Client(Caller, Role),
    /// A worker.
    Worker(WorkerPass),
}

impl Visitor {
    /// Who calls, as far as it is known.
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Anybody => STRANGERS.into(),
            Self::Client(caller, _) => caller.actor.clone(),
            Self::Worker(pass) => pass.names().into(),
        }
    }

    /// Whether the token is still good that was shown.
    pub fn standing(&self) -> Option<&Standing> {
        match self {
            Self::Anybody => None,
            Self::Client(caller, _) => Some(&caller.standing),
            Self::Worker(pass) => Some(&pass.standing),
        }
    }
}

/// Somebody who was not let in.
#[derive(Debug)]
pub(super) struct Unwelcome {
    /// Who, if the token says so.
    pub who: Option<Arc<str>>,
    /// Why.
    pub error: ApiError,
}

impl From<ApiError> for Unwelcome {
    fn from(error: ApiError) -> Self {
        Self { who: None, error }
    }
}

/// The client that this call belongs to, once it is found to have the role.
pub(super) fn admit<B>(
    auth: &Auth,
    request: &http::Request<B>,
    role: impl FnOnce() -> Role,
) -> Result<Caller, Unwelcome> {
    let headers = request.headers();
    let owner = auth.owner(headers)?;
    Acquaintance::made(request.extensions());
    let who = owner.actor.clone();
    // From here on it is known who calls, whatever becomes of the call.
    let unwelcome = |error| Unwelcome { who: Some(who.clone()), error };
    let caller = owner.calling_for(headers).map_err(unwelcome)?;
    auth.take(&caller).map_err(unwelcome)?;
    caller.require(role()).map_err(unwelcome)?;
    Ok(caller)
}

/// The address that a request of gRPC comes from, in its extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct CameFrom(pub IpAddr);

/// Where a call comes from, and what it calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub from: IpAddr,
    /// The method, where the path does not say enough.
    pub method: &'a str,
    pub path: &'a str,
}

impl Call<'_> {
    fn what(&self) -> String {
        let space = if self.method.is_empty() { "" } else { " " };
        format!("{}{space}{}", self.method, self.path)
    }

    /// Notes that somebody was turned away, and says what they are told.
    pub fn turned_away(&self, audit: &Audit, auth: &Auth, unwelcome: Unwelcome) -> ApiError {
        let Unwelcome { who, error } = unwelcome;
        let event = match error.code {
            ErrorCode::MissingToken | ErrorCode::InvalidToken => "token_refused",
            ErrorCode::PermissionDenied => "role_refused",
            _ => return error,
        };
        let advice = auth.refused(self.from);
        if let Some(left_out) = advice.note {
            let (who, outcome) = (who.as_deref().unwrap_or_default(), error.code.as_str());
            audit.note(Note {
                event,
                who,
                from: Some(self.from),
                what: &self.what(),
                outcome,
                left_out,
                ..Note::default()
            });
        }
        match advice.wait.filter(|_| error.code == ErrorCode::InvalidToken) {
            None => error,
            Some(wait) => {
                ApiError::new(ErrorCode::RateLimited, "Too many wrong tokens come from this address")
                    .with_hint("Use a token that this orchestrator knows; with one, nobody has to wait.")
                    .with_retry_after(wait)
            }
        }
    }

    /// Notes what an operator did, and what somebody who was let in was refused all the same.
    pub fn answered(&self, audit: &Audit, auth: &Auth, visitor: &Visitor, error: Option<&str>) {
        let (who, client, is_operators) = match visitor {
            Visitor::Anybody => return,
            Visitor::Client(caller, role) => {
                let client = if caller.client == caller.actor { "" } else { &*caller.client };
                (&*caller.actor, client, *role > Role::Client || !client.is_empty())
            }
            Visitor::Worker(pass) => (pass.names(), "", false),
        };
        let event = match error {
            _ if is_operators => "operator_call",
            Some(code) => match refusal(code) {
                Some(event) => event,
                None => return,
            },
            None => return,
        };
        // What operators do is noted always, what others are refused as far as it is news.
        let left_out = match is_operators {
            true => Some(0),
            false => auth.refused(self.from).note,
        };
        if let Some(left_out) = left_out {
            let outcome = error.unwrap_or("ok");
            let from = Some(self.from);
            audit.note(Note { event, who, client, from, what: &self.what(), outcome, left_out });
        }
    }

    /// Notes what somebody was refused in one message of a stream that goes on.
    pub fn refused(&self, audit: &Audit, auth: &Auth, caller: &Caller, code: ErrorCode) {
        if refusal(code.as_str()).is_some() {
            self.answered(audit, auth, &Visitor::Client(caller.clone(), Role::Client), Some(code.as_str()));
        }
    }
}

/// What it is called when somebody who was let in is refused with this code, if it is noted.
fn refusal(code: &str) -> Option<&'static str> {
    match ErrorCode::from_name(code)? {
        ErrorCode::PermissionDenied => Some("role_refused"),
        ErrorCode::QuotaExceeded | ErrorCode::OpenJobsLimitReached => Some("quota_refused"),
        _ => None,
    }
}
