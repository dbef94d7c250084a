//! What holds for which client, for everybody who decides by it: the terms by name.
//!
//! Jobs outlive the entries of their clients, so there is an answer for every name. It refuses to know tokens.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use super::Terms;
use crate::{hash::FastMap, live::Live};

/// The terms of every client that has some.
#[derive(Debug, Default)]
pub struct Tenants(FastMap<Arc<str>, Arc<Terms>>);

static NO_TERMS: LazyLock<Terms> = LazyLock::new(Terms::default);

impl Tenants {
    /// These.
    pub fn new(terms: impl IntoIterator<Item = (Arc<str>, Arc<Terms>)>) -> Self {
        Self(terms.into_iter().collect())
    }

    /// What holds for this client. One that is not known has no limits of its own, and the weight of anybody.
    pub fn of(&self, client: &str) -> &Terms {
        self.0.get(client).map_or(&NO_TERMS, |terms| terms)
    }

    /// The shares of those who have another than anybody: 1.
    pub fn weights(&self) -> HashMap<Arc<str>, u32> {
        let unlike = self.0.iter().filter(|(_, terms)| terms.weight != NO_TERMS.weight);
        unlike.map(|(client, terms)| (client.clone(), terms.weight)).collect()
    }
}

/// The terms in force.
pub type Tenancy = Live<Tenants>;
