//! Every store under the conformance suite.

use std::sync::Arc;

use avtomatika_orchestrator::store::{Store, conformance, memory::MemoryStore, sqlite::SqliteStore};

#[test]
fn the_memory_store_conforms() {
    for (name, case) in conformance::CASES {
        println!("{name}");
        let store = Arc::new(MemoryStore::new());
        case(&|| store.clone());
    }
}

#[test]
fn the_sqlite_store_conforms() {
    for (name, case) in conformance::CASES {
        println!("{name}");
        let dir = tempfile::tempdir().unwrap();
        case(&|| Arc::new(SqliteStore::open(dir.path()).unwrap()) as Arc<dyn Store>);
    }
}
