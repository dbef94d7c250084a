//! Every store under the conformance suite.

use std::{sync::Arc, time::Duration};

use avtomatika_orchestrator::store::{
    Store, conformance,
    journal::{JournaledStore, Pace},
    memory::MemoryStore,
    sqlite::SqliteStore,
};

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

#[test]
fn a_store_behind_a_journal_conforms_whatever_the_pace() {
    let never = Pace { age: Duration::MAX, bytes: usize::MAX };
    let at_once = Pace { age: Duration::ZERO, bytes: 0 };
    for pace in [never, at_once, Pace::default()] {
        for (name, case) in conformance::CASES {
            println!("{name}, {pace:?}");
            let dir = tempfile::tempdir().unwrap();
            case(&|| {
                let behind = SqliteStore::open(dir.path()).unwrap();
                Arc::new(JournaledStore::open(behind, dir.path(), pace).unwrap()) as Arc<dyn Store>
            });
        }
    }
}
