//! One blueprint over the wire, without a file: checked as a file is, durable before it is in force, all or nothing.
//!
//! It promises that neither takes away what the other has: a put and a reload wait for each other, and none of them is given the
//! endpoint of a blueprint that stays. It refuses to know who asks.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode};

use super::{Reload, to_its_end};
use crate::blueprint::{Change, Finding, Registry, Severity, load};

/// A blueprint that somebody puts.
#[derive(Debug)]
pub struct Put {
    /// Under which name; that of the blueprint itself when nobody says.
    pub name: Option<String>,
    /// What findings call the text.
    pub file: String,
    /// The text of a blueprint file.
    pub text: String,
    /// Only say what would change.
    pub dry_run: bool,
}

/// What became of it.
#[derive(Debug)]
pub enum PutOutcome {
    /// It is in force, or would be.
    Applied {
        /// The version that new jobs take, and the one before; the same when this is what was served already.
        change: Change,
        /// What the loader wants looked at.
        warnings: Vec<Finding>,
    },
    /// Nothing has changed, because of these. Warnings may be among them, and at least one error is.
    Refused(Vec<Finding>),
}

impl Reload {
    /// Serves this blueprint to new jobs, in place of the one of its name if there is one.
    ///
    /// # Errors
    /// `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`. Nothing has changed then.
    pub async fn put(&self, put: Put) -> Result<PutOutcome, ApiError> {
        let reload = self.clone();
        to_its_end(async move { reload.put_whole(put).await }).await
    }

    async fn put_whole(&self, put: Put) -> Result<PutOutcome, ApiError> {
        let Put { name, file, text, dry_run } = put;
        let loaded = tokio::task::spawn_blocking(move || load(&file, &text)).await;
        let loaded = loaded
            .map_err(|_| ApiError::new(ErrorCode::Internal, "The blueprint could not be read to the end"))?;
        let mut loaded = match loaded {
            Ok(loaded) => loaded,
            Err(findings) => return Ok(PutOutcome::Refused(findings)),
        };
        let own = loaded.definition.name().clone();
        let _turn = self.one_at_a_time.lock().await;
        let served = self.conductor.blueprints();
        let mut findings = loaded.check_put(name.as_deref().unwrap_or(&own), &served);
        findings.append(&mut loaded.warnings);
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Ok(PutOutcome::Refused(findings));
        }
        let version = |registry: &Registry| registry.newest(&own).map(|blueprint| blueprint.version);
        let registry = match dry_run {
            true => Arc::new(served.put(loaded.definition).registry),
            false => {
                self.conductor.put_blueprint(loaded.definition).await?;
                self.conductor.blueprints()
            }
        };
        findings.extend(self.functions.missing(&registry));
        let change = Change { before: version(&served), after: version(&registry), name: own.clone() };
        if !dry_run {
            tracing::info!("A blueprint was put: {change}");
        }
        Ok(PutOutcome::Applied { change, warnings: findings })
    }
}
