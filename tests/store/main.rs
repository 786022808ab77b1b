//! What every store does, written once and run on each backend.

#[path = "../common/behaviours.rs"]
mod behaviours;
mod fixture;
mod homes;
mod ledger;
mod model;
#[path = "../common/seed.rs"]
mod seed;

use std::future::Future;

use roost::store::{
    Store,
    embedded::{EmbeddedStore, Settings},
};
use tempfile::TempDir;

const CAP: usize = 20;

/// Where a store with timelines of [`CAP`] is, empty at first.
trait Backend {
    type Store: Store;

    /// Opens the store, each time the same one.
    fn open(&self) -> impl Future<Output = Self::Store>;
}

/// The backends that all behaviours run on, a line each.
macro_rules! on_every_backend {
    ($($behaviours:tt)*) => {
        crate::behaviours::behaviours!(embedded: $($behaviours)*);
    };
}
use on_every_backend;

struct Embedded {
    dir: TempDir,
}

impl Backend for Embedded {
    type Store = EmbeddedStore;

    async fn open(&self) -> EmbeddedStore {
        let settings = Settings { home_timeline_cap: CAP, ..Settings::default() };
        EmbeddedStore::open(self.dir.path(), settings).unwrap()
    }
}

fn embedded() -> Embedded {
    Embedded { dir: tempfile::tempdir().unwrap() }
}
